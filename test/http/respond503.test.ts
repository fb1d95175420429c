import { createServer } from "node:http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  type HttpApp,
  HttpRouter,
  HttpServer,
  HttpServerRespondable,
  HttpServerResponse
} from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { SqlClient, SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Data, Deferred, Duration, Effect, Fiber, FiberId, Layer, Schema, Stream } from "effect"
import * as PgError from "../../src/error/PgError.js"
import { defaults, respond503, Unavailable } from "../../src/http/respond503.js"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import { errorOf, tags } from "../policy/errors.js"

const answered = [
  "CircuitOpenError",
  "PoolTimeoutError",
  "TooManyConnectionsError",
  "ServerUnavailableError",
  "ConnectionError"
]
const secret = "db-7.internal refused SELECT card FROM customers"

const get = (url: string) =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { signal })
    return { status: response.status, headers: response.headers, text: await response.text() }
  })

/** Where a layer serves, with what it provides. */
const started = <A, E, R>(serving: Layer.Layer<A, E, R | HttpServer.HttpServer>) =>
  Effect.map(
    Layer.build(Layer.provideMerge(serving, NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))),
    (context) => {
      const { address } = Context.get(context, HttpServer.HttpServer)
      return { url: `http://127.0.0.1:${address._tag === "TcpAddress" ? address.port : 0}`, context }
    }
  )

/** What an app answers on a real server. */
const answerOf = (app: HttpApp.Default<unknown>) =>
  Effect.scoped(Effect.flatMap(started(HttpServer.serve(respond503(app) as HttpApp.Default)), ({ url }) => get(url)))

const failing = (error: unknown) => answerOf(Effect.fail(error))

describe("respond503", () => {
  it.live("answers 503 for each tag of a database that cannot be had, and no other", () =>
    Effect.gen(function* () {
      for (const tag of tags) {
        const { headers, status, text } = yield* failing(errorOf(tag, { message: secret }))
        if (answered.includes(tag)) {
          assert.strictEqual(status, 503, tag)
          const body = yield* Schema.decodeUnknown(Schema.parseJson(Unavailable))(text)
          assert.deepStrictEqual<unknown>([body.error, body.status, body.retryAfter], [tag, 503, 5])
          assert.strictEqual(headers.get("retry-after"), "5")
          assert.strictEqual(headers.get("cache-control"), "no-store")
        } else {
          assert.strictEqual(status, 500, tag)
          assert.isNull(headers.get("retry-after"))
        }
        assert.notInclude(text, "db-7")
      }
      assert.strictEqual(defaults.retryAfter, "5 seconds")
    })
  )

  it.live("finds the error in an SqlError, in a defect, and beside interruptions", () =>
    Effect.gen(function* () {
      const error = errorOf("PoolTimeoutError", { message: secret })
      const wrapped = PgError.toSqlError(error)
      for (const cause of [
        Cause.fail<unknown>(wrapped),
        Cause.fail(new SqlError.SqlError({ cause: wrapped, message: secret })),
        Cause.die(error),
        Cause.die(wrapped),
        Cause.parallel(Cause.interrupt(FiberId.none), Cause.fail(wrapped)),
        Cause.sequential(Cause.die(new TypeError("bug")), Cause.die(wrapped))
      ]) {
        const { status, text } = yield* answerOf(Effect.failCause(cause))
        assert.strictEqual(status, 503, Cause.pretty(cause))
        assert.notInclude(text, "customers")
      }
    })
  )

  it.live("says when to come back in whole seconds, at least one, and never early", () =>
    Effect.gen(function* () {
      for (const [retryAfter, seconds] of [
        [Duration.zero, "1"],
        [Duration.millis(1), "1"],
        [Duration.millis(1001), "2"],
        [Duration.minutes(5), "300"],
        [Duration.infinity, "5"],
        [undefined, "5"]
      ] as const) {
        const { headers, text } = yield* failing(errorOf("CircuitOpenError", { retryAfter }))
        assert.strictEqual(headers.get("retry-after"), seconds)
        assert.strictEqual(JSON.parse(text).retryAfter, Number(seconds))
      }
    })
  )

  it.live("invites nobody to repeat what may have been applied", () =>
    Effect.gen(function* () {
      for (const error of [
        errorOf("ConnectionError", { outcome: "Unknown" }),
        errorOf("ServerUnavailableError", { outcome: "Unknown" }),
        PgError.outcomeUnknown(errorOf("ConnectionError"))
      ]) {
        for (const cause of [
          Cause.fail<unknown>(error),
          Cause.die(PgError.toSqlError(error)),
          Cause.parallel(Cause.fail(errorOf("CircuitOpenError")), Cause.die(error))
        ]) {
          const { headers, status } = yield* answerOf(Effect.failCause(cause))
          assert.strictEqual(status, 500)
          assert.isNull(headers.get("retry-after"))
        }
      }
    })
  )

  it.live("leaves the program's own answers alone", () =>
    Effect.gen(function* () {
      class Teapot extends Data.TaggedError("Teapot") {
        [HttpServerRespondable.symbol]() {
          return HttpServerResponse.empty({ status: 418 })
        }
      }
      const late = Cause.die(errorOf("ConnectionError"))
      assert.strictEqual((yield* failing(new Teapot())).status, 418)
      const { status } = yield* answerOf(Effect.failCause(Cause.sequential(Cause.fail(new Teapot()), late)))
      assert.notStrictEqual(status, 503)
      // An SqlError of another client says nothing of what became of the statement.
      assert.strictEqual((yield* failing(new SqlError.SqlError({ cause: { code: "57P01" }, message: "" }))).status, 500)
      assert.strictEqual((yield* answerOf(HttpServerResponse.text("fine"))).text, "fine")
    })
  )

  it.live("passes an interruption on", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(respond503(Effect.interrupt) as Effect.Effect<unknown>)
      assert.isTrue(exit._tag === "Failure" && Cause.isInterruptedOnly(exit.cause))
    })
  )

  it.live("lets a client go that does not wait for its answer", () =>
    Effect.gen(function* () {
      const began = yield* Deferred.make<void>()
      const ended = yield* Deferred.make<Cause.Cause<unknown>>()
      const app = Effect.zipRight(
        Deferred.succeed(began, undefined),
        Effect.ensuring(Effect.interruptible(Effect.never), Effect.die(errorOf("ConnectionError")))
      )
      const { url } = yield* started(
        HttpServer.serve(
          Effect.tapErrorCause(respond503(app), (cause) => Deferred.succeed(ended, cause)) as HttpApp.Default
        )
      )
      const client = yield* Effect.fork(get(url))
      yield* Deferred.await(began)
      yield* Fiber.interrupt(client)
      assert.isTrue(Cause.isInterrupted(yield* Deferred.await(ended)))
    }).pipe(Effect.scoped)
  )

  it.live("leaves an answer alone that has begun", () =>
    Effect.gen(function* () {
      const body = Stream.concat(
        Stream.make(new TextEncoder().encode("begun")),
        Stream.die(errorOf("ConnectionError", { message: secret }))
      )
      const { url } = yield* started(
        HttpServer.serve(respond503(Effect.succeed(HttpServerResponse.stream(body))) as HttpApp.Default)
      )
      const { status, text } = yield* get(url)
      assert.deepStrictEqual([status, text], [200, "begun"])
      // As a middleware of the server itself it comes after the answer, and hides its cause from nobody.
      const passed = yield* Deferred.make<void>()
      const after = yield* started(
        HttpServer.serve(Effect.die(errorOf("ConnectionError")) as HttpApp.Default, (app) =>
          Effect.tapErrorCause(respond503(app), () => Deferred.succeed(passed, undefined))
        )
      )
      assert.strictEqual((yield* get(after.url)).status, 500)
      yield* Deferred.await(passed)
    }).pipe(Effect.scoped)
  )

  it.live("goes around the routes of a router, and around an HttpApi, with a real client behind", () =>
    Effect.gen(function* () {
      const database = ResilientPg.layer({
        host: "db-7.internal",
        username: "app",
        password: undefined,
        database: "shop"
      })
      const query = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT card FROM customers`)
      const forceOpen = Effect.flatMap(CircuitBreaker.CircuitBreaker, (breaker) => breaker.forceOpen)

      const router = HttpRouter.empty.pipe(
        HttpRouter.get("/", Effect.as(query, HttpServerResponse.empty())),
        HttpRouter.use(respond503),
        HttpServer.serve()
      )
      const api = HttpApi.make("shop").add(HttpApiGroup.make("cards").add(HttpApiEndpoint.get("all", "/")))
      const handlers = HttpApiBuilder.group(api, "cards", (handlers) =>
        handlers.handle("all", () => Effect.asVoid(Effect.orDie(query)))
      )
      const httpApi = HttpApiBuilder.serve().pipe(
        Layer.provide(HttpApiBuilder.middleware(respond503)),
        Layer.provide(HttpApiBuilder.api(api)),
        Layer.provide(handlers)
      )
      for (const serving of [router, httpApi]) {
        const { context, url } = yield* started(Layer.provideMerge(serving, database))
        yield* Effect.provide(forceOpen, context)
        const { headers, status, text } = yield* get(url)
        assert.strictEqual(status, 503)
        assert.strictEqual(headers.get("retry-after"), "5")
        assert.deepInclude(JSON.parse(text), { error: "CircuitOpenError", status: 503, retryAfter: 5 })
        assert.notMatch(text, /db-7|customers|app/)
      }
    }).pipe(Effect.scoped)
  )
})
