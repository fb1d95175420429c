import { connect, type Socket } from "node:net"
import { FetchHttpClient, HttpClient } from "@effect/platform"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Queue, Scope, Stream } from "effect"
import * as HealthApi from "../../src/http/HealthApi.js"
import * as Events from "../../src/http/internal/events.js"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
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

  it.scoped("ends with its server, which waits for no client that listens, or does not even read", () =>
    Effect.gen(function* () {
      const { serving } = yield* api.world
      const scope = yield* Scope.make()
      const context = yield* Scope.extend(Layer.build(serving()), scope)
      const origin = yield* Effect.provide(api.origin, context)
      const queue = yield* listening(origin)
      yield* Queue.take(queue)
      const socket = yield* deaf(origin)
      const ended = yield* Deferred.make<void>()
      socket.on("close", () => Deferred.unsafeDone(ended, Effect.void))
      yield* TestPg.eventually(subscribers(origin), (count) => count === 2)
      const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
      // The reader's queue is shut down where its stream ends.
      yield* Queue.awaitShutdown(queue)
      socket.resume()
      yield* Deferred.await(ended)
      yield* Effect.log(`the server had gone after ${took}`)
    })
  )
})
