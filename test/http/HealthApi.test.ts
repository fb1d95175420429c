import {
  FetchHttpClient,
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApp,
  HttpLayerRouter,
  HttpRouter,
  HttpServer,
  HttpServerResponse
} from "@effect/platform"
import { assert, layer } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Option, Redacted, Schema, Stream } from "effect"
import * as PgError from "../../src/error/PgError.js"
import * as HealthApi from "../../src/http/HealthApi.js"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import * as TestPg from "../support/TestPg.js"
import * as api from "./api.js"

/** As the API's document has them. */
const readable = [
  "/health",
  "/health/live",
  "/health/metrics",
  "/health/ready",
  "/resilience/connection-test",
  "/resilience/dashboard",
  "/resilience/events",
  "/resilience/health",
  "/resilience/metrics",
  "/resilience/openapi.json",
  "/resilience/pool-config",
  "/resilience/report"
]

const clientOf = (url: string) => Effect.provide(HealthApi.client({ url }), FetchHttpClient.layer)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("HealthApi", (it) => {
  it.scoped("answers at every path of its document, as its typed client reads it", () =>
    Effect.gen(function* () {
      const { serving } = yield* api.world
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const { health, resilience } = yield* clientOf(origin)
        assert.deepStrictEqual(yield* health.live({}), { status: "live" })
        assert.strictEqual((yield* health.ready({})).status, "ready")
        const { report } = yield* resilience.health({})
        assert.deepStrictEqual(yield* health.health({}), {
          status: report!.status,
          score: report!.score,
          at: report!.at,
          reasons: report!.deductions.map(({ why }) => why)
        })
        assert.include(yield* health.metrics({}), "db_circuit_breaker_failures")
        assert.strictEqual((yield* resilience.metrics({})).pool.max, 10)
        assert.deepInclude((yield* resilience.report({})).checks, { count: 1, failed: 0, lowestScore: report!.score })
        const connection = yield* resilience.connectionTest({})
        const [server] = yield* TestPg.control(
          "SELECT current_setting('server_version') AS version, current_setting('max_connections')::int AS max"
        )
        assert.deepInclude(connection, { version: server.version, maxConnections: server.max, reserved: 3 })
        assert.deepInclude(connection, { tls: false, inRecovery: false, readOnly: false })
        assert.isAtLeast(connection.connections, 1)
        assert.isAbove(connection.latencyMs, 0)

        const document: any = yield* resilience.openapi({})
        assert.strictEqual(document.openapi, "3.1.0")
        assert.sameMembers(Object.keys(document.paths), readable)
        for (const path of Object.keys(document.paths)) {
          const { get } = document.paths[path]
          assert.isNotEmpty(get.summary, path)
          assert.isNotEmpty(get.description, path)
          if (path.endsWith("/events")) continue
          const { headers, status } = yield* api.ask(`${origin}${path}`)
          assert.strictEqual(status, 200, path)
          assert.strictEqual(headers.get("x-content-type-options"), "nosniff", path)
          assert.strictEqual(headers.get("cache-control"), "no-store", path)
          assert.include(headers.get("content-security-policy"), "default-src 'none'", path)
        }
      }).pipe(Effect.provide(serving()))
    })
  )

  it.scoped("answers unknown paths and methods in JSON, and HEAD without a body", () =>
    Effect.gen(function* () {
      const { serving } = yield* api.world
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        for (const path of ["/", "/nothing", "/health/..%2f", "/resilience", "/resilience/breaker/open"]) {
          const { headers, status, text } = yield* api.ask(`${origin}${path}`)
          assert.strictEqual(status, 404, path)
          assert.strictEqual(headers.get("cache-control"), "no-store")
          assert.deepStrictEqual(JSON.parse(text), {
            error: "NotFound",
            message: "There is nothing at this path",
            status: 404
          })
        }
        for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
          const { headers, status, text } = yield* api.ask(`${origin}/health/live?a=1`, { method })
          assert.strictEqual(status, 405, method)
          assert.strictEqual(headers.get("allow"), "GET, HEAD")
          assert.strictEqual(JSON.parse(text).error, "MethodNotAllowed")
        }
        for (const path of readable) {
          const { status, text } = yield* api.ask(`${origin}${path}`, { method: "HEAD" })
          assert.deepStrictEqual({ path, status, text }, { path, status: 200, text: "" })
        }
        const { resilience } = yield* clientOf(origin)
        assert.strictEqual((yield* resilience.metrics({})).subscribers, 0)
      }).pipe(Effect.provide(serving()))
    })
  )

  it.scoped("is mounted among an HttpLayerRouter's routes, which keep what is theirs", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* api.world
      const mine = HttpLayerRouter.use((router) => router.add("GET", "/mine", HttpServerResponse.text("mine")))
      const routes = Layer.merge(mine, HealthApi.layer({ prefix: "/ops" })).pipe(
        Layer.provide(api.watched({ url: proxy.url(url) }))
      )
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const { health, resilience } = yield* clientOf(`${origin}/ops`)
        assert.strictEqual((yield* health.ready({})).status, "ready")
        assert.deepInclude(Object.keys(((yield* resilience.openapi({})) as any).paths), "/ops/health")
        assert.strictEqual((yield* api.ask(`${origin}/mine`)).text, "mine")
        assert.strictEqual((yield* api.ask(`${origin}/ops/health`, { method: "POST" })).status, 405)
        assert.strictEqual((yield* api.ask(`${origin}/health`)).status, 404)
        assert.strictEqual((yield* api.ask(`${origin}/ops/resilience/report`)).status, 200)
      }).pipe(
        Effect.provide(HttpLayerRouter.serve(routes, { disableLogger: true }).pipe(Layer.provideMerge(api.server)))
      )
    })
  )

  it.scoped("is mounted in an HttpRouter", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* api.world
      const served = Layer.unwrapScoped(
        Effect.map(HealthApi.httpApp(), (app) =>
          HttpRouter.empty.pipe(
            HttpRouter.get("/mine", HttpServerResponse.text("mine")),
            HttpRouter.mountApp("/ops", app),
            HttpServer.serve()
          )
        )
      ).pipe(Layer.provide(api.watched({ url: proxy.url(url) })), Layer.provideMerge(api.server))
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const { health } = yield* clientOf(`${origin}/ops`)
        assert.strictEqual((yield* health.ready({})).status, "ready")
        assert.strictEqual((yield* api.ask(`${origin}/mine`)).text, "mine")
        assert.strictEqual((yield* api.ask(`${origin}/ops/nothing`)).status, 404)
      }).pipe(Effect.provide(served))
    })
  )

  it.scoped("is mounted in the router of a program's own HttpApi", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* api.world
      const own = HttpApi.make("own").add(
        HttpApiGroup.make("things").add(HttpApiEndpoint.get("health", "/health").addSuccess(Schema.String))
      )
      const beside = HttpApiBuilder.Router.use((router) =>
        Effect.flatMap(HealthApi.httpApp(), (app) => router.mountApp("/ops", app))
      ).pipe(Layer.provide(api.watched({ url: proxy.url(url) })))
      const served = HttpApiBuilder.serve().pipe(
        Layer.provide(beside),
        Layer.provide(HttpApiBuilder.api(own)),
        Layer.provide(HttpApiBuilder.group(own, "things", (_) => _.handle("health", () => Effect.succeed("mine")))),
        Layer.provideMerge(api.server)
      )
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const { health } = yield* clientOf(`${origin}/ops`)
        assert.strictEqual((yield* health.ready({})).status, "ready")
        assert.strictEqual((yield* api.ask(`${origin}/health`)).text, '"mine"')
        assert.strictEqual((yield* api.ask(`${origin}/ops/resilience/report`)).status, 200)
        const typed = yield* Stream.runHead(
          Stream.provideLayer(HealthApi.messages({ url: `${origin}/ops` }), FetchHttpClient.layer)
        )
        assert.strictEqual(Option.getOrThrow(typed)._tag, "Hello")
      }).pipe(Effect.provide(served))
    })
  )

  it.scoped("is a web handler too, which closes the stream that its reader leaves", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* api.world
      const context = yield* Layer.build(api.watched({ url: proxy.url(url) }))
      const handler = HttpApp.toWebHandler(yield* Effect.provide(HealthApi.httpApp(), context))
      const get = (path: string) => Effect.promise(() => handler(new Request(`http://web${path}`)))
      assert.strictEqual((yield* get("/health/ready")).status, 200)
      const stream = yield* get("/resilience/events")
      const reader = stream.body!.getReader()
      const first = yield* Effect.promise(() => reader.read())
      assert.include(new TextDecoder().decode(first.value), "event: Hello")
      const subscribers = Effect.map(
        Effect.flatMap(get("/resilience/metrics"), (_) =>
          Effect.promise(() => _.json() as Promise<{ readonly subscribers: number }>)
        ),
        ({ subscribers }) => subscribers
      )
      assert.strictEqual(yield* subscribers, 1)
      yield* Effect.promise(() => reader.cancel())
      yield* TestPg.eventually(subscribers, (open) => open === 0)
    })
  )

  it.scoped("shows its dashboard, which may load nothing from elsewhere, and listens to the events beside it", () =>
    Effect.gen(function* () {
      const { serving } = yield* api.world
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const { headers, status, text } = yield* api.ask(`${origin}/ops/resilience/dashboard`)
        const moved = yield* Effect.promise(() => fetch(`${origin}/ops/resilience/dashboard/`))
        assert.strictEqual(moved.url, `${origin}/ops/resilience/dashboard`)
        assert.strictEqual(yield* Effect.promise(() => moved.text()), text)
        assert.strictEqual(status, 200)
        assert.strictEqual(headers.get("content-type"), "text/html; charset=utf-8")
        assert.match(headers.get("content-security-policy")!, /^default-src 'none'; .*script-src 'sha256-/)
        assert.match(text, /^<!doctype html>/i)
      }).pipe(Effect.provide(serving({}, {}, { prefix: "/ops" })))
    })
  )

  it.scoped("lets whoever has the token change something, and nobody where there is none", () =>
    Effect.gen(function* () {
      const { serving } = yield* api.world
      const token = Redacted.make("correct-horse-battery")
      const admin = ["/resilience/breaker/open", "/resilience/test/retry"]
      const breaker = Effect.flatMap(CircuitBreaker.CircuitBreaker, (_) => _.state)
      yield* Effect.gen(function* () {
        const origin = `${yield* api.origin}/ops`
        const owner = yield* Effect.provide(HealthApi.client({ url: origin, token }), FetchHttpClient.layer)
        assert.strictEqual((yield* owner.admin.open({})).state, "ForcedOpen")
        assert.strictEqual(yield* breaker, "ForcedOpen")
        assert.strictEqual((yield* owner.admin.reset({})).state, "Closed")
        assert.strictEqual((yield* Effect.flip((yield* clientOf(origin)).admin.open({})))._tag, "Unauthorized")
        for (const path of admin) {
          const { headers, status } = yield* api.ask(`${origin}${path}`, { method: "POST" })
          assert.strictEqual(status, 401, path)
          assert.match(headers.get("www-authenticate")!, /^Bearer/)
          assert.strictEqual((yield* api.ask(`${origin}${path}`)).headers.get("allow"), "POST")
        }
        assert.strictEqual(yield* breaker, "Closed")
        const document: any = yield* owner.resilience.openapi({})
        assert.isDefined(document.paths["/ops/resilience/breaker/open"].post.security[0].bearer)
      }).pipe(Effect.provide(serving({}, {}, { prefix: "/ops", admin: { token } })))
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const init = { method: "POST", headers: { authorization: `Bearer ${Redacted.value(token)}` } }
        for (const path of admin) assert.strictEqual((yield* api.ask(`${origin}${path}`, init)).status, 404, path)
        const document: any = yield* (yield* clientOf(origin)).resilience.openapi({})
        assert.notProperty(document.paths, "/resilience/breaker/open")
        assert.strictEqual(yield* breaker, "Closed")
      }).pipe(Effect.provide(serving()))
    })
  )

  it.effect("takes token, platform and concurrency from the environment, where they are", () =>
    Effect.gen(function* () {
      const read = (entries: ReadonlyArray<readonly [string, string]>) =>
        Effect.withConfigProvider(HealthApi.fromEnv, ConfigProvider.fromMap(new Map(entries)))
      assert.deepStrictEqual(yield* read([]), { sizing: {} })
      const { admin, sizing } = yield* read([
        ["DB_ADMIN_TOKEN", "correct-horse-battery"],
        ["PLATFORM", "Fly.io"],
        ["NODE_ENV", "Test"],
        ["EXPECTED_CONCURRENCY", "7"]
      ])
      assert.strictEqual(Redacted.value(admin!.token), "correct-horse-battery")
      assert.deepStrictEqual(sizing, { platform: "fly", environment: "development", expectedConcurrency: 7 })
      const error = yield* Effect.flip(
        read([
          ["DB_ADMIN_TOKEN", "too-short"],
          ["PLATFORM", "moon"],
          ["EXPECTED_CONCURRENCY", "many"]
        ])
      )
      for (const name of ["DB_ADMIN_TOKEN", "PLATFORM", "EXPECTED_CONCURRENCY"]) assert.include(String(error), name)
      assert.notInclude(String(error), "too-short")
    })
  )

  it.effect("refuses options that are none, without repeating a token", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const refused = (options: HealthApi.Options) =>
        Effect.flip(Effect.provide(Effect.scoped(HealthApi.httpApp(options)), api.watched({ url })))
      for (const prefix of ["ops", "/ops/", "//", "/a b", "/:id", "/*"]) {
        const error = yield* refused({ prefix: prefix as "/" })
        assert.instanceOf(error, PgError.InvalidOptionsError)
        assert.include(error.message, "health.prefix")
      }
      const error = yield* refused({ admin: { token: Redacted.make("too-short") } })
      assert.instanceOf(error, PgError.InvalidOptionsError)
      assert.notInclude(error.message, "too-short")
    }).pipe(Effect.scoped)
  )
})
