/**
 * How the service comes and goes. It listens at once, and takes requests when its tables are there. Told to stop, it first
 * says so to whoever asks whether it is ready, then takes no new connections, answers what it has been asked, and leaves.
 */
import * as Http from "node:http"
import { type HttpApp, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Config, Context, Duration, Effect, Layer, Option, Schedule } from "effect"

/** `PORT` (0: any free one), `HOST`; how long it goes on serving once it is to stop, and how long requests may then take. */
export const settings = Config.all({
  port: Config.integer("PORT").pipe(
    Config.validate({ message: "Expected a port, from 0 to 65535", validation: (port) => port >= 0 && port <= 65535 }),
    Config.withDefault(3000)
  ),
  host: Config.withDefault(Config.string("HOST"), "127.0.0.1"),
  shutdownDelay: Config.withDefault(Config.duration("SHUTDOWN_DELAY"), Duration.zero),
  shutdownGrace: Config.withDefault(Config.duration("SHUTDOWN_GRACE"), Duration.seconds(10))
})

type Settings = Config.Config.Success<typeof settings>

export class Lifecycle extends Context.Tag("examples/service/Lifecycle")<
  Lifecycle,
  {
    readonly phase: Effect.Effect<"starting" | "serving" | "stopping">
    /** From now on the shop takes requests. */
    readonly open: Effect.Effect<void>
    /** Returns when everything but streams of events has been answered, or when the time for that is over. */
    readonly drain: Effect.Effect<void>
  }
>() {}

/** For what is left when the handlers are gone: streams of events that are ending. */
const farewell = Duration.seconds(1)

/** A stream of events has no end of its own: it is ended by those who serve it, when they go. */
const isEndless = ({ url }: Http.IncomingMessage) => /^\/resilience\/events(\?|$)/.test(url ?? "")

const make = (server: Http.Server, { shutdownDelay, shutdownGrace }: Settings) =>
  Effect.gen(function* () {
    let phase: "starting" | "serving" | "stopping" = "starting"
    let last = false
    const unanswered = new Map<Http.ServerResponse, Http.IncomingMessage>()
    // Told so, a client does not send its next request on a connection that is about to close.
    const leave = (response: Http.ServerResponse) => {
      if (!response.headersSent) response.setHeader("connection", "close")
    }
    server.on("request", (request, response) => {
      unanswered.set(response, request)
      response.once("close", () => unanswered.delete(response))
      if (last) leave(response)
    })
    const until = (done: () => boolean, limit: Duration.Duration) =>
      Effect.sync(done).pipe(
        Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("10 millis") }),
        Effect.interruptible,
        Effect.timeoutOption(limit)
      )
    yield* Effect.addFinalizer(() =>
      Effect.zipRight(
        until(() => unanswered.size === 0, farewell),
        Effect.sync(() => server.closeAllConnections())
      )
    )
    return Lifecycle.of({
      phase: Effect.sync(() => phase),
      open: Effect.sync(() => {
        phase = "serving"
      }),
      drain: Effect.gen(function* () {
        phase = "stopping"
        yield* Effect.sleep(shutdownDelay)
        last = true
        server.close()
        for (const response of unanswered.keys()) leave(response)
        yield* until(() => [...unanswered.values()].every(isEndless), shutdownGrace)
      })
    })
  })

/** A server that listens, and its lifecycle. */
export const layer = Layer.unwrapEffect(
  Effect.map(settings, (settings) => {
    const server = Http.createServer()
    return Layer.merge(
      Layer.scoped(Lifecycle, make(server, settings)),
      NodeHttpServer.layer(() => server, { port: settings.port, host: settings.host })
    )
  })
)

const unavailable = (status: string) =>
  HttpServerResponse.unsafeJson(
    { status },
    { status: 503, headers: { "retry-after": "1", "cache-control": "no-store" } }
  )

/** Bytes. An order of fifty articles has a tenth of that. */
const largestBody = 64 * 1024

const watched = /^\/(health|resilience)(\/|\?|$)/

/**
 * Before everything else: not ready while it is to stop; and until the tables are there, only health and dashboard. What is
 * asked of the shop while it is to stop is answered: it may have been sent before. No body may be larger than 64 KiB.
 */
export const gate = <E, R>(app: HttpApp.Default<E, R>): HttpApp.Default<E, R | Lifecycle> =>
  Effect.gen(function* () {
    const { headers, url } = yield* HttpServerRequest.HttpServerRequest
    const phase = yield* Effect.flatMap(Lifecycle, (_) => _.phase)
    const asksWhetherReady = /^\/health\/ready(\?|$)/.test(url)
    if (phase === "stopping" && asksWhetherReady) return unavailable("stopping")
    if (phase === "starting" && (asksWhetherReady || !watched.test(url))) return unavailable("starting")
    if (Number(headers["content-length"]) > largestBody) return HttpServerResponse.empty({ status: 413 })
    // One that does not say how large it is is cut off.
    return yield* HttpServerRequest.withMaxBodySize(app, Option.some(largestBody))
  })
