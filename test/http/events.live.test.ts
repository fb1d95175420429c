import { connect, type Socket } from "node:net"
import { FetchHttpClient, HttpClient, HttpLayerRouter } from "@effect/platform"
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Queue, Scope, Stream } from "effect"
import * as Alerts from "../../src/health/Alerts.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as HealthApi from "../../src/http/HealthApi.js"
import * as Events from "../../src/http/internal/events.js"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as TestPg from "../support/TestPg.js"
import * as api from "./api.js"
import * as sse from "./sse.js"

/** A client that keeps to HTTP, until its scope closes. */
const listening = (origin: string) =>
  HttpClient.get(`${origin}/resilience/events`).pipe(
    Effect.map((response) => response.stream),
    Stream.unwrap,
    Stream.provideLayer(FetchHttpClient.layer),
    sse.read
  )

/** A client that asks, and reads nothing of the answer beyond what the system takes for it. */
const deaf = (origin: string) =>
  Effect.acquireRelease(
    Effect.async<Socket>((resume) => {
      const { hostname, port } = new URL(origin)
      const socket = connect(Number(port), hostname)
      socket.on("error", () => {})
      socket.on("connect", () => {
        socket.pause()
        socket.write("GET /resilience/events HTTP/1.1\r\nHost: api\r\n\r\n", () => resume(Effect.succeed(socket)))
      })
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Always raised, and longer than what the system takes for a client that does not read. */
const lengthy: Alerts.Rule = {
  ...Alerts.rules.find(({ name }) => name === "health-score")!,
  ...{ raise: 101, clear: 102, title: "x".repeat(16 * 2 ** 20) }
}

const subscribers = (origin: string) =>
  Effect.map(api.ask(`${origin}/resilience/metrics`), ({ text }) => JSON.parse(text).subscribers as number)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("the stream of events over HTTP", (it) => {
  it.scoped("tells of the database what the program sees, and lets go of a client that leaves", () =>
    Effect.gen(function* () {
      const { serving } = yield* api.world
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const client = yield* Scope.make()
        const queue = yield* Scope.extend(listening(origin), client)
        const hello = yield* Queue.take(queue)
        const typed = yield* HealthApi.messages({ url: `${origin}/` }).pipe(
          Stream.take(2),
          Stream.runCollect,
          Effect.provide(FetchHttpClient.layer)
        )
        assert.deepStrictEqual(Array.from(typed, ({ _tag }) => _tag).slice(0, 1), ["Hello"])
        assert.strictEqual(typed.length, 2)
        yield* TestPg.eventually(subscribers(origin), (count) => count === 1)
        assert.isTrue(hello !== "heartbeat" && hello.message._tag === "Hello" && hello.message.monitoring)
        assert.strictEqual(yield* subscribers(origin), 1)

        yield* CircuitBreaker.CircuitBreaker.pipe(Effect.flatMap((breaker) => breaker.forceOpen))
        const until = (tag: string): Effect.Effect<sse.Frame> =>
          Effect.flatMap(Queue.take(queue), (frame) =>
            frame !== "heartbeat" && frame.message._tag === tag ? Effect.succeed(frame) : until(tag)
          )
        const event = yield* until("Event")
        assert.isTrue(
          event !== "heartbeat" && event.message._tag === "Event" && event.message.event._tag === "BreakerChange"
        )
        yield* until("Report")

        yield* Scope.close(client, Exit.void)
        yield* TestPg.eventually(subscribers(origin), (count) => count === 0)

        const socket = yield* deaf(origin)
        yield* TestPg.eventually(subscribers(origin), (count) => count === 1)
        socket.destroy()
        yield* TestPg.eventually(subscribers(origin), (count) => count === 0)
      }).pipe(Effect.provide(serving({}, { interval: "500 millis" })))
    })
  )

  it.scoped(
    `refuses the ${Events.maxSubscribers + 1}st with 503 and Retry-After, and answers the rest all the same`,
    () =>
      Effect.gen(function* () {
        const { serving } = yield* api.world
        yield* Effect.gen(function* () {
          const origin = yield* api.origin
          const sockets = yield* Effect.all(
            Array.from({ length: Events.maxSubscribers }, () => deaf(origin)),
            { concurrency: "unbounded" }
          )
          yield* TestPg.eventually(subscribers(origin), (count) => count === Events.maxSubscribers)
          const { headers, status, text } = yield* api.ask(`${origin}/resilience/events`)
          assert.strictEqual(status, 503)
          assert.strictEqual(headers.get("retry-after"), "5")
          assert.deepStrictEqual(JSON.parse(text), { _tag: "TooManySubscribers", retryAfter: 5 })
          assert.strictEqual((yield* api.ask(`${origin}/health/ready`)).status, 200)
          sockets[0]!.destroy()
          yield* TestPg.eventually(subscribers(origin), (count) => count < Events.maxSubscribers)
          assert.include((yield* Queue.take(yield* listening(origin))) as object, { retry: Events.retryMs })
        }).pipe(Effect.provide(serving()))
      })
  )

  it.scoped.each(["on a server of its own", "among other routes"] as const)(
    "ends with its server, %s, which waits for no client that listens, or has stopped to read",
    (where) =>
      Effect.gen(function* () {
        const { proxy, url } = yield* api.world
        const watched = Alerts.layer({ rules: [lengthy] }).pipe(
          Layer.provideMerge(HealthMonitor.layer({ interval: "infinity", timeout: "30 seconds" })),
          Layer.provideMerge(ResilientPg.layer({ url: proxy.url(url) }))
        )
        const served =
          where === "among other routes"
            ? HttpLayerRouter.serve(HealthApi.layer(), { disableLogger: true, disableListenLog: true })
            : HealthApi.serve()
        const scope = yield* Scope.make()
        const context = yield* Scope.extend(
          Layer.build(Layer.provideMerge(served, Layer.merge(watched, api.server))),
          scope
        )
        const origin = yield* Effect.provide(api.origin, context)
        yield* Effect.provide(
          Effect.flatMap(HealthMonitor.HealthMonitor, (_) => _.check),
          context
        )
        yield* Effect.provide(
          TestPg.eventually(
            Effect.flatMap(Alerts.Alerts, (_) => _.standing),
            ({ length }) => length === 1
          ),
          context
        )
        const reader = yield* Effect.fork(api.ask(`${origin}/resilience/events`))
        const socket = yield* deaf(origin)
        yield* TestPg.eventually(subscribers(origin), (count) => count === 2)
        const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
        // The one has heard its stream to the end, the other has never had all of its first message.
        assert.include((yield* Fiber.join(reader)).text, lengthy.title)
        assert.isBelow(socket.bytesRead, lengthy.title.length)
        yield* Effect.log(`${where}: the server had gone after ${Duration.format(took)}`)
      })
  )
})
