/**
 * A TCP proxy that fails as networks fail, in front of any server: refused, reset, half-closed and silently lost
 * connections, slow and narrow ones, and connections that end at exactly the byte or message that a test chooses.
 *
 * Messages are PostgreSQL's. On an encrypted session, and before any other kind of server, everything works except what
 * looks at messages. What a mode changes, `heal` undoes. The proxy keeps real time, whatever `Clock` the calling fiber has.
 *
 * @example
 * ```ts
 * import { FaultProxy } from "effect-pg-resilience/testing"
 *
 * const program = Effect.gen(function* () {
 *   const proxy = yield* FaultProxy.make({ upstream: { host: "127.0.0.1", port: 5432 } })
 *   // The server applies the next COMMIT; the client never hears of it.
 *   const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/i) })
 *   // …run a transaction through `proxy.url(url)`…
 *   yield* lost.happened()
 * })
 * ```
 */

import type * as Net from "node:net"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { EmbeddedPostgres } from "./EmbeddedPostgres.js"
import type { Kind } from "./internal/frontendMessages.js"
import * as Port from "./internal/port.js"
import * as Proxied from "./internal/proxied.js"
import * as Rules from "./internal/rules.js"
import * as Sockets from "./internal/sockets.js"

export type { FrontendMessage, Kind } from "./internal/frontendMessages.js"

export interface Options {
  readonly upstream: { readonly host: string; readonly port: number }
  /** Default: a free one from 20000 to 31999, below the range the system uses for outgoing connections. */
  readonly port?: number | undefined
}

/** The proxy could not listen on its port. */
export class FaultProxyError extends Data.TaggedError("FaultProxyError")<{
  readonly message: string
  readonly cause?: unknown
}> {}

/** From the client to the server, or back. */
export type Direction = Rules.Direction

/** How the client sees the end: `reset` is RST (ECONNRESET), `close` is FIN. The server sees FIN after what was forwarded. */
export type Ending = Rules.Ending

/** Chooses messages of clients. */
export type Match = Rules.Match

/**
 * Commands by their SQL: a simple Query, or the Parse of an extended one, or the Bind of a statement parsed earlier. So
 * each execution matches once.
 */
export const query =
  (pattern: RegExp): Match =>
  ({ text }) =>
    text !== "" && text.search(pattern) !== -1

/** Messages of this kind. */
export const kind =
  (kind: Kind): Match =>
  (message) =>
    message.kind === kind

/** A rule for chosen messages or bytes; it ends by itself after `times`. */
export interface Rule {
  /** Waits until it has been applied that often in all. Default once. */
  readonly happened: (times?: number) => Effect.Effect<void>
  /** How often it has been applied. */
  readonly count: Effect.Effect<number>
  /** Applies no more. */
  readonly cancel: Effect.Effect<void>
}

/** A message held: `happened` waits until it is. */
export interface Hold extends Rule {
  /** Lets go of what is held, and holds no more. */
  readonly release: Effect.Effect<void>
}

export interface MessageOptions {
  readonly on: Match
  /** To how many messages it applies. Default 1; `Infinity` for all. */
  readonly times?: number | undefined
}

export interface CutOptions extends MessageOptions {
  /**
   * `before`: nothing of the message reaches the server. `after`: it does, and so does the rest of its command, up to Sync
   * for the extended protocol; whether the client gets any of the answer is open.
   */
  readonly when: "before" | "after"
  /** Default `reset`. */
  readonly ending?: Ending | undefined
}

export interface SwallowOptions extends MessageOptions {
  /** What the client gets in place of the answer. Default `reset`. After `blackHole`, `heal` resets the connection. */
  readonly ending?: Ending | "blackHole" | undefined
}

export interface DropOptions {
  readonly bytes: number
  readonly direction: Direction
  /** How many connections it ends. Default 1. */
  readonly times?: number | undefined
  /** Default `reset`. */
  readonly ending?: Ending | undefined
}

export interface LatencyOptions {
  /** Added to everything that is read from now on. */
  readonly delay: Duration.DurationInput
  /** Spread: from `delay - jitter` to `delay + jitter`, evenly, never below zero. Default none. Order is kept. */
  readonly jitter?: Duration.DurationInput | undefined
  /** The same seed gives each connection, by its number, the same jitter again. Default 0. */
  readonly seed?: string | number | undefined
  /** Default both. */
  readonly direction?: Direction | undefined
}

export interface Stats {
  /** Connections that are open now. */
  readonly open: number
  /** Connections that are over. */
  readonly closed: number
  /** Connections accepted from clients. Those refused never reach the proxy and cannot be counted. */
  readonly attempted: number
  /** Connections made to the server. */
  readonly total: number
  readonly cancelRequests: number
  readonly bytesToServer: number
  readonly bytesToClient: number
}

export class FaultProxy extends Context.Tag("effect-pg-resilience/testing/FaultProxy")<
  FaultProxy,
  {
    readonly host: string
    readonly port: number
    /** A connection URL with the proxy's host and port in place of its own. */
    readonly url: (url: Redacted.Redacted) => Redacted.Redacted
    readonly stats: Effect.Effect<Stats>
    /** Stops listening: new connections fail with ECONNREFUSED. Those that exist go on. */
    readonly refuse: Effect.Effect<void>
    /** Listens again, on the same port. */
    readonly accept: Effect.Effect<void, FaultProxyError>
    /** RST to both sides of every connection. */
    readonly reset: Effect.Effect<void>
    /** FIN to one side of every connection; the other direction stays open. Default: to the client. */
    readonly halfClose: (side?: "client" | "server") => Effect.Effect<void>
    /**
     * Connections on which nothing is read, written or answered, not even FIN and RST. `existing`: those there are now;
     * `new`: those accepted from now on. What is left out stays as it is; false, or `heal`, lets everything go on.
     */
    readonly blackHole: (options: {
      readonly existing?: boolean | undefined
      readonly new?: boolean | undefined
    }) => Effect.Effect<void>
    /** Adds time on the way, on every connection. A delay of zero takes it off. */
    readonly latency: (options: LatencyOptions) => Effect.Effect<void>
    /** Limits each connection to so many bytes per second, 1 or more, in each direction, or in one. `Infinity` lifts it. */
    readonly bandwidth: (bytesPerSecond: number, direction?: Direction) => Effect.Effect<void>
    /** Ends a connection after exactly so many more bytes, 0 or more, have passed on it in a direction. */
    readonly dropAfterBytes: (options: DropOptions) => Effect.Effect<Rule>
    /** Ends a connection before or after a chosen message. */
    readonly cut: (options: CutOptions) => Effect.Effect<Rule>
    /**
     * Forwards a chosen message and the rest of its command, and nothing of the server's answer. When the server has
     * answered in full, the connection ends: what was asked is done, and the client cannot know.
     */
    readonly swallowReply: (options: SwallowOptions) => Effect.Effect<Rule>
    /** Holds a chosen message, and all that follows it on its connection, until it is released. */
    readonly hold: (options: MessageOptions) => Effect.Effect<Hold>
    /** Back to a plain proxy: listens, carries everything, no rule is left. */
    readonly heal: Effect.Effect<void, FaultProxyError>
  }
>() {}

const host = "127.0.0.1"

const live = Effect.withClock(Clock.make())

/** Listens at once. A chosen port may be taken in the same moment, so it is chosen again; a given one is waited for. */
const listenFirst = (port: number | undefined, accept: (socket: Net.Socket) => void) =>
  Effect.flatMap(port === undefined ? Port.choose(host) : Effect.succeed(port), (port) =>
    Effect.map(Sockets.listen({ host, port }, accept), (listener) => ({ listener, port }))
  ).pipe(
    Effect.retry({ times: 20, while: ({ code }) => code === "EADDRINUSE" && port === undefined }),
    Effect.mapError((cause) => new FaultProxyError({ message: `cannot listen: ${cause.message}`, cause }))
  )

/** A proxy that listens until the scope closes; then every socket is destroyed and the port is free. */
export const make = (options: Options): Effect.Effect<Context.Tag.Service<FaultProxy>, FaultProxyError, Scope.Scope> =>
  live(
    Effect.gen(function* () {
      const settings: Proxied.Settings = {
        messageRules: [],
        byteRules: [],
        latency: { toServer: undefined, toClient: undefined },
        bandwidth: { toServer: Infinity, toClient: Infinity },
        bytes: { toServer: 0, toClient: 0 },
        cancelRequests: 0
      }
      const connections = new Set<Proxied.Proxied>()
      const sockets = new Set<Net.Socket>()
      let holeForNew = false
      let attempted = 0
      let total = 0

      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
        })
      )
      const fork = yield* Effect.interruptible(FiberSet.makeRuntime<never>())

      const own = (socket: Net.Socket) => {
        sockets.add(socket)
        socket.once("close", () => sockets.delete(socket))
      }
      const carry = (connection: Proxied.Proxied) =>
        Effect.gen(function* () {
          yield* connection.flow.await
          const server = Sockets.connect(options.upstream)
          connection.server = server
          own(server)
          yield* Sockets.connected(server)
          total++
          yield* Proxied.run(connection, server, settings)
        }).pipe(
          // A server that refuses cannot be shown to a client that has been accepted; RST comes nearest.
          Effect.catchAll(() => Proxied.reset(connection)),
          Effect.raceFirst(Deferred.await(connection.severed)),
          Effect.ensuring(Effect.sync(() => connections.delete(connection))),
          live
        )
      const accepted = (client: Net.Socket) => {
        own(client)
        const connection: Proxied.Proxied = {
          id: ++attempted,
          client,
          server: undefined,
          flow: Effect.unsafeMakeLatch(!holeForNew),
          severed: Deferred.unsafeMake(FiberId.none),
          doomed: false
        }
        connections.add(connection)
        fork(carry(connection))
      }

      const { listener: first, port } = yield* listenFirst(options.port, accepted)
      let listener: Net.Server | undefined = first
      const refuse = Effect.sync(() => {
        listener?.close()
        listener = undefined
      })
      yield* Effect.addFinalizer(() => refuse)

      const accept = Effect.suspend(() =>
        listener
          ? Effect.void
          : Effect.map(Sockets.listen({ host, port }, accepted), (again) => {
              listener = again
            })
      ).pipe(
        Effect.uninterruptible,
        Effect.retry({ times: 50, schedule: Schedule.spaced("100 millis") }),
        Effect.mapError((cause) => new FaultProxyError({ message: `port ${port} was taken: ${cause.message}`, cause })),
        live
      )

      const each = (apply: (connection: Proxied.Proxied) => Effect.Effect<unknown>) =>
        Effect.suspend(() => Effect.forEach([...connections], apply, { discard: true }))

      const blackHole = (options: { readonly existing?: boolean | undefined; readonly new?: boolean | undefined }) =>
        Effect.suspend(() => {
          holeForNew = options.new ?? holeForNew
          if (options.existing === undefined) return Effect.void
          return each((connection) => {
            if (options.existing) return connection.flow.close
            return connection.doomed ? Proxied.reset(connection) : connection.flow.open
          })
        })

      const rule = (counter: Rules.Counter, cancel: () => void): Rule => ({
        happened: (times = 1) => counter.reaches(times),
        count: counter.get,
        cancel: Effect.sync(cancel)
      })
      const messageRule = ({ on, times = 1 }: MessageOptions, action: Rules.Action) =>
        Effect.map(Rules.counter, (done) => {
          const added: Rules.MessageRule = { match: on, action, done, left: times }
          settings.messageRules = [...settings.messageRules, added]
          return rule(done, () => {
            added.left = 0
          })
        })

      const latency = ({ delay, direction, jitter = 0, seed = 0 }: LatencyOptions) =>
        Effect.sync(() => {
          const value = { delay: Duration.toMillis(delay), jitter: Duration.toMillis(jitter), seed }
          for (const way of direction ? [direction] : (["toServer", "toClient"] as const)) {
            settings.latency[way] = value.delay + value.jitter > 0 ? value : undefined
          }
        })
      const bandwidth = (bytesPerSecond: number, direction?: Direction) =>
        Effect.sync(() => {
          if (!(bytesPerSecond >= 1)) throw new RangeError(`bandwidth of ${bytesPerSecond} bytes per second: 1 or more`)
          for (const way of direction ? [direction] : (["toServer", "toClient"] as const)) {
            settings.bandwidth[way] = bytesPerSecond
          }
        })

      return FaultProxy.of({
        host,
        port,
        url: (url) => {
          const through = new URL(Redacted.value(url))
          through.hostname = host
          through.port = String(port)
          return Redacted.make(through.href)
        },
        stats: Effect.sync(() => ({
          open: connections.size,
          closed: attempted - connections.size,
          attempted,
          total,
          cancelRequests: settings.cancelRequests,
          bytesToServer: settings.bytes.toServer,
          bytesToClient: settings.bytes.toClient
        })),
        refuse,
        accept,
        reset: each(Proxied.reset),
        halfClose: (side = "client") =>
          each((connection) => Effect.sync(() => (side === "client" ? connection.client : connection.server)?.end())),
        blackHole,
        latency,
        bandwidth,
        dropAfterBytes: ({ bytes, direction, ending = "reset", times = 1 }) =>
          Effect.map(Rules.counter, (done) => {
            const added: Rules.ByteRule = { direction, bytes, ending, done, passed: new WeakMap(), left: times }
            settings.byteRules = [...settings.byteRules, added]
            return rule(done, () => {
              added.left = 0
            })
          }),
        cut: ({ ending = "reset", when, ...options }) => messageRule(options, Rules.Action.Cut({ when, ending })),
        swallowReply: ({ ending = "reset", ...options }) => messageRule(options, Rules.Action.Swallow({ ending })),
        hold: (options) =>
          Effect.flatMap(Effect.makeLatch(false), (gate) =>
            Effect.map(messageRule(options, Rules.Action.Hold({ gate })), (held) => ({
              ...held,
              release: Effect.zipRight(held.cancel, gate.open)
            }))
          ),
        heal: Effect.gen(function* () {
          const gates = settings.messageRules.flatMap(({ action }) => (action._tag === "Hold" ? [action.gate] : []))
          settings.messageRules = []
          settings.byteRules = []
          yield* latency({ delay: 0 })
          yield* bandwidth(Infinity)
          yield* Effect.forEach(gates, (gate) => gate.open, { discard: true })
          yield* blackHole({ existing: false, new: false })
          yield* accept
        })
      })
    })
  )

/** `make` as a layer. */
export const layer = (options: Options): Layer.Layer<FaultProxy, FaultProxyError> =>
  Layer.scoped(FaultProxy, make(options))

/** A proxy in front of the embedded server. */
export const layerEmbedded: Layer.Layer<FaultProxy, FaultProxyError, EmbeddedPostgres> = Layer.scoped(
  FaultProxy,
  Effect.flatMap(EmbeddedPostgres, ({ config }) => make({ upstream: config }))
)
