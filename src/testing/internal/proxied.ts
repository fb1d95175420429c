/**
 * One connection through the proxy. Each direction has a fiber that reads and stamps what it read with the time it is due,
 * and a fiber that waits for that time and for the flow, looks at the messages and writes.
 */

import { Buffer } from "node:buffer"
import type * as Net from "node:net"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Backend from "./backendMessages.js"
import * as Frontend from "./frontendMessages.js"
import * as Rules from "./rules.js"
import * as Sockets from "./sockets.js"

/** Time added on the way, in milliseconds. */
export interface Latency {
  readonly delay: number
  readonly jitter: number
  readonly seed: string | number
}

/** What holds for all connections of a proxy; the proxy changes it while they run. */
export interface Settings {
  messageRules: ReadonlyArray<Rules.MessageRule>
  byteRules: ReadonlyArray<Rules.ByteRule>
  readonly latency: { [direction in Rules.Direction]: Latency | undefined }
  /** Bytes per second. */
  readonly bandwidth: { [direction in Rules.Direction]: number }
  readonly bytes: { [direction in Rules.Direction]: number }
  cancelRequests: number
}

export interface Proxied {
  /** Rises with each accepted connection. */
  readonly id: number
  readonly client: Net.Socket
  /** Undefined while the flow keeps it from being connected. */
  server: Net.Socket | undefined
  /** Closed: nothing is read on, written or answered in either direction. */
  readonly flow: Effect.Latch
  /** Done when the connection is cut or reset. */
  readonly severed: Deferred.Deferred<void>
  /** Part of its bytes was swallowed, so that it cannot go on when the flow does. */
  doomed: boolean
}

/** RST to both sides, at once. */
export const reset = (connection: Proxied): Effect.Effect<void> =>
  Effect.suspend(() => {
    connection.client.resetAndDestroy()
    connection.server?.resetAndDestroy()
    return Deferred.succeed(connection.severed, undefined)
  })

/** The client sees the ending, the server FIN after all that was forwarded to it. */
export const sever = (connection: Proxied, ending: Rules.Ending): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (ending === "reset") connection.client.resetAndDestroy()
    else Sockets.finish(connection.client)
    if (connection.server) Sockets.finish(connection.server)
    return Deferred.succeed(connection.severed, undefined)
  })

/** `sever` for a rule, which learns of it. Whatever the fiber would do next to the connection, it does not. */
const cut = (connection: Proxied, rule: Pick<Rules.MessageRule, "done">, ending: Rules.Ending) =>
  sever(connection, ending).pipe(
    Effect.zipRight(rule.done.increment),
    Effect.uninterruptible, // ends the race that this fiber is in
    Effect.zipRight(Effect.never)
  )

/** What a direction carries; FIN and RST keep their place behind the bytes. */
type Item = Data.TaggedEnum<{
  Bytes: { readonly due: number; readonly bytes: Buffer }
  Fin: { readonly due: number }
  Rst: { readonly due: number }
}>
const { Bytes, Fin, Rst } = Data.taggedEnum<Item>()

/** Chunks read ahead, of at most 64 KB each: enough for latency to delay without slowing, and bounded. */
const readAhead = 64
/** Slow connections write in slices that take this many milliseconds. */
const sliceMillis = 20

/** The times that a connection's chunks take, one after the other: the same for the same latency and key. */
export const delays = ({ delay, jitter, seed }: Latency, key: string): Effect.Effect<number> => {
  const random = Random.make(`${seed} ${key}`)
  return Effect.map(random.next, (spread) => Math.max(0, delay + jitter * (2 * spread - 1)))
}

/** Reads until the source ends. What is due earlier than something before it in the queue waits for that. */
const readInto = (
  connection: Proxied,
  direction: Rules.Direction,
  settings: Settings,
  source: Net.Socket,
  queue: Queue.Enqueue<Item>
) =>
  Effect.gen(function* () {
    const read = Sockets.reader(source)
    let latency: Latency | undefined
    let delay: Effect.Effect<number> = Effect.succeed(0)
    for (;;) {
      yield* connection.flow.await
      const bytes = yield* Effect.option(read)
      if (latency !== settings.latency[direction]) {
        latency = settings.latency[direction]
        delay = latency ? delays(latency, `${connection.id} ${direction}`) : Effect.succeed(0)
      }
      const due = latency ? (yield* Clock.currentTimeMillis) + (yield* delay) : 0
      if (bytes._tag === "None") return yield* Queue.offer(queue, Rst({ due }))
      if (bytes.value === undefined) return yield* Queue.offer(queue, Fin({ due }))
      yield* Queue.offer(queue, Bytes({ due, bytes: bytes.value }))
    }
  })

/** Writes to one side within the bandwidth, up to where a rule ends the connection. A peer that is gone hears nothing. */
const writer = (connection: Proxied, direction: Rules.Direction, settings: Settings, sink: Net.Socket) => {
  let free = 0
  const paced = (bytes: Buffer): Effect.Effect<void> =>
    Effect.gen(function* () {
      for (let offset = 0; offset < bytes.length; ) {
        const rate = settings.bandwidth[direction]
        const size = Number.isFinite(rate) ? Math.max(1, Math.floor((rate * sliceMillis) / 1000)) : bytes.length
        const slice = bytes.subarray(offset, offset + size)
        yield* connection.flow.await
        if (!sink.writableEnded && !sink.destroyed) {
          settings.bytes[direction] += slice.length
          yield* Effect.ignore(Sockets.write(sink, slice))
        }
        offset += slice.length
        if (Number.isFinite(rate)) {
          const now = yield* Clock.currentTimeMillis
          free = Math.max(free, now) + (slice.length * 1000) / rate
          yield* Effect.sleep(Duration.millis(free - now))
        }
      }
    })
  return (bytes: Buffer): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (bytes.length === 0) return Effect.void
      const [length, rule] = Rules.admit(settings.byteRules, connection, direction, bytes.length)
      if (rule === undefined) return paced(bytes)
      return Effect.zipRight(paced(bytes.subarray(0, length)), cut(connection, rule, rule.ending))
    })
}

/** Hands the items on when they are due and the connection flows; ends with the source. */
const deliver = (
  connection: Proxied,
  queue: Queue.Dequeue<Item>,
  sink: Net.Socket,
  forward: (bytes: Buffer) => Effect.Effect<void>,
  rest: Effect.Effect<void>
) =>
  Effect.gen(function* () {
    for (;;) {
      const item = yield* Queue.take(queue)
      const wait = item.due - (yield* Clock.currentTimeMillis)
      if (item.due > 0 && wait > 0) yield* Effect.sleep(Duration.millis(wait))
      yield* connection.flow.await
      if (item._tag === "Bytes") {
        yield* forward(item.bytes)
      } else {
        yield* rest
        yield* Effect.sync(() => (item._tag === "Fin" ? sink.end() : sink.resetAndDestroy()))
        return
      }
    }
  })

/** The answer that is to be swallowed: that which ends with the ReadyForQuery of this number. */
interface Swallowing {
  readonly rule: Rules.MessageRule
  readonly ready: number
  readonly ending: Rules.Ending | "blackHole"
}

/** What the server answers with one ReadyForQuery. */
const isAsking = ({ kind }: Frontend.FrontendMessage) =>
  kind === "Query" || kind === "Sync" || kind === "FunctionCall" || kind === "StartupMessage"

/** Part of a command that goes on until Sync or Flush. */
const isPart = ({ kind }: Frontend.FrontendMessage) =>
  kind === "Parse" || kind === "Bind" || kind === "Describe" || kind === "Execute" || kind === "Close"

/** Carries the connection until both sides have ended; a connection that is severed the caller interrupts. */
export const run = (connection: Proxied, server: Net.Socket, settings: Settings): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { client } = connection
    const toServer = yield* Queue.bounded<Item>(readAhead)
    const toClient = yield* Queue.bounded<Item>(readAhead)
    const writeServer = writer(connection, "toServer", settings, server)
    const writeClient = writer(connection, "toClient", settings, client)

    let frontend = Frontend.initial
    let backend = Backend.initial
    /** Answers asked for and answers seen, each of which ends with ReadyForQuery. */
    let asked = 0
    let ready = 0
    let swallowing: Swallowing | undefined
    /** A cut that waits for the end of the command it chose. */
    let pending: { readonly rule: Rules.MessageRule; readonly ending: Rules.Ending } | undefined

    const forwardServer = (bytes: Buffer) =>
      Effect.gen(function* () {
        const [messages, next] = Frontend.push(frontend, bytes)
        frontend = next
        let batch: Array<Buffer> = []
        const flush = Effect.suspend(() => {
          const bytes = Buffer.concat(batch)
          batch = []
          return writeServer(bytes)
        })
        for (const message of messages) {
          if (message.kind === "CancelRequest") settings.cancelRequests++
          const rule = Rules.claim(settings.messageRules, message)
          if (rule) {
            const { action } = rule
            yield* flush
            if (action._tag === "Hold") {
              yield* rule.done.increment
              yield* action.gate.await
              yield* connection.flow.await
            } else if (action._tag === "Swallow") {
              swallowing = { rule, ready: isPart(message) ? asked + 1 : asked + Number(isAsking(message)), ...action }
            } else if (action.when === "before") {
              yield* cut(connection, rule, action.ending)
            } else {
              pending = { rule, ending: action.ending }
            }
          }
          if (isAsking(message)) asked++
          batch.push(message.bytes)
          if (pending && !isPart(message)) {
            yield* flush
            yield* cut(connection, pending.rule, pending.ending)
          }
        }
        if (batch.length > 0) yield* flush
      })

    const answered = ({ ending, rule }: Swallowing) => {
      if (ending !== "blackHole") return cut(connection, rule, ending)
      connection.doomed = true
      return connection.flow.close.pipe(Effect.zipRight(rule.done.increment), Effect.zipRight(Effect.never))
    }

    const forwardClient = (bytes: Buffer) =>
      Effect.gen(function* () {
        if (frontend.phase !== "typed") return yield* writeClient(bytes)
        const [messages, next] = Backend.push(backend, bytes)
        backend = next
        const through: Array<Buffer> = []
        for (const message of messages) {
          const swallowed = swallowing !== undefined && ready >= swallowing.ready - 1
          if (message.type === "Z") ready++
          if (!swallowed) through.push(message.bytes)
          else if (swallowing && ready >= swallowing.ready) {
            yield* writeClient(Buffer.concat(through))
            yield* answered(swallowing)
          }
        }
        yield* writeClient(Buffer.concat(through))
      })

    /** What was kept as the beginning of a message, when its end will not come. */
    const restToServer = Effect.suspend(() => writeServer(Buffer.concat(frontend.parts)))
    const restToClient = Effect.suspend(() =>
      swallowing === undefined
        ? writeClient(Buffer.concat(backend.parts))
        : Effect.zipRight(sever(connection, swallowing.ending === "close" ? "close" : "reset"), Effect.never)
    )

    yield* Effect.all(
      [
        readInto(connection, "toServer", settings, client, toServer),
        deliver(connection, toServer, server, forwardServer, restToServer),
        readInto(connection, "toClient", settings, server, toClient),
        deliver(connection, toClient, client, forwardClient, restToClient)
      ],
      { concurrency: "unbounded", discard: true }
    )
  })
