/**
 * How a program's PostgreSQL access is doing, over HTTP: for load balancers, orchestrators, Prometheus, and people.
 *
 * ```ts
 * // on a port of its own, given an HttpServer
 * HealthApi.serve().pipe(Layer.provide(NodeHttpServer.layer(createServer, { port: 9464 })))
 * // among the routes of the program's own server
 * HttpLayerRouter.serve(Layer.merge(MyRoutes, HealthApi.layer({ prefix: "/ops" })))
 * // in any other router: an app like any other
 * HttpRouter.mountApp("/ops", yield* HealthApi.httpApp())
 * ```
 *
 * Every answer is made from what the program has in memory, so that it comes while the pool is exhausted and while the
 * server is silent; but for a connection test and the first health check, which are bounded. `/health` and below tell nothing
 * of the inside. `/resilience` and below name operations, hosts and databases, no secrets: keep them inside your network.
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpApiClient from "@effect/platform/HttpApiClient"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as OpenApi from "@effect/platform/OpenApi"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { ParseError } from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Record from "effect/Record"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as String from "effect/String"
import * as env from "../config/internal/env.js"
import * as validate from "../config/internal/validate.js"
import type * as PoolSizing from "../config/PoolSizing.js"
import * as ResilienceConfig from "../config/ResilienceConfig.js"
import type * as PgError from "../error/PgError.js"
import { Alerts } from "../health/Alerts.js"
import { HealthMonitor } from "../health/HealthMonitor.js"
import { CircuitBreaker } from "../policy/CircuitBreaker.js"
import { RetryBudget } from "../policy/RetryBudget.js"
import * as ResilientPg from "../ResilientPg.js"
import * as adminGroup from "./internal/admin.js"
import * as endpoints from "./internal/endpoints.js"
import * as Events from "./internal/events.js"
import * as handlers from "./internal/handlers.js"
import * as received from "./internal/messages.js"
import * as shell from "./internal/shell.js"
import type * as Model from "./Model.js"

/** What a client may fail with: what the API answers besides 200. */
export type { ConnectionFailed, NotAcceptable, NotReady, TooManySubscribers, Unhealthy } from "./internal/answers.js"
export type {
  BadRequest,
  NoBreaker,
  PayloadTooLarge,
  RehearsalTimeout,
  RehearsalUnderWay,
  RequestTimeout,
  TooManyRequests,
  Unauthorized,
  UnsupportedMediaType
} from "./internal/refusals.js"
/** What the stream of events says. */
export type { Message } from "./Model.js"
/** Middleware for a program's own API: errors of a database that cannot be had become 503 with `Retry-After`. */
export { respond503 } from "./respond503.js"

export interface Options {
  /**
   * Who may force the circuit breaker and rehearse policies, by `POST`: whoever sends the `token`, 16 characters or more, as a
   * bearer token; `perMinute` requests in any minute (default 10). Default: nobody, and these paths are not there.
   */
  readonly admin?: adminGroup.Options | undefined
  /** Put before every path, such as `/ops`. Default: nothing. */
  readonly prefix?: `/${string}` | undefined
  /** What `pool-config` recommends for; the server itself is asked for its `max_connections`. Default: nothing is known. */
  readonly sizing?: PoolSizing.Input | undefined
}

/** All that is told is theirs. */
export type Needs = PgClient.PgClient | ResilientPg.ResilientPg | CircuitBreaker | RetryBudget | HealthMonitor | Alerts

const isPrefix = (value: unknown): value is `/${string}` => Predicate.isString(value) && /^(\/[\w.~-]+)+$/.test(value)

const rule = validate.struct(
  {
    admin: validate.optional(
      validate.refined("a token, or nothing", (value): value is adminGroup.Options =>
        Predicate.hasProperty(value, "token")
      )
    ),
    prefix: validate.optional(validate.refined("a path such as /ops, without a slash at its end", isPrefix)),
    sizing: validate.optional(
      validate.refined("what PoolSizing.recommend takes", (value): value is PoolSizing.Input =>
        Predicate.isRecord(value)
      )
    )
  },
  { exact: true }
)

/** What is said where, as an `HttpApi`: for a document or a client of one's own. */
export const api = endpoints.all

interface Routes {
  readonly groups: {
    readonly [name: string]: {
      readonly endpoints: { readonly [name: string]: { readonly method: string; readonly path: string } }
    }
  }
}

const pathsOf = (served: Routes): shell.Paths => {
  const paths = new Map<string, ReadonlyArray<string>>()
  for (const { endpoints } of Object.values(served.groups))
    for (const { method, path } of Object.values(endpoints))
      paths.set(path, [...(paths.get(path) ?? []), ...(method === "GET" ? ["GET", "HEAD"] : [method])])
  return paths
}

const make = (given: Options) =>
  Effect.gen(function* () {
    const { admin, prefix, sizing = {} } = yield* validate.decode(rule, "health")(given)
    const config = yield* ResilienceConfig.decode(ResilientPg.optionsOf(yield* PgClient.PgClient))
    const sources: Events.Sources = {
      poolName: config.poolName,
      pg: yield* ResilientPg.ResilientPg,
      breaker: yield* CircuitBreaker,
      budget: yield* RetryBudget,
      monitor: yield* HealthMonitor,
      alerts: yield* Alerts
    }
    const events = yield* Events.make(sources)
    const readable = prefix === undefined ? endpoints.readable : endpoints.readable.prefix(prefix)
    const all = prefix === undefined ? api : api.prefix(prefix)
    const served = admin === undefined ? readable : all
    const document = OpenApi.fromApi(served as typeof all)
    const read = handlers.layer(readable, { ...sources, config, sizing, events }, { openapi: () => document })
    const context = yield* (
      admin === undefined
        ? Layer.provide(HttpApiBuilder.api(readable), read)
        : Layer.provide(HttpApiBuilder.api(all), Layer.merge(read, adminGroup.layer(all, admin)))
    ).pipe(
      Layer.provideMerge(Layer.mergeAll(HttpApiBuilder.Router.Live, HttpApiBuilder.Middleware.layer)),
      Layer.provideMerge(HttpServer.layerContext),
      // In a memo map of its own: the router is not that of the program's own API.
      Layer.build
    )
    const app = yield* Effect.provide(HttpApiBuilder.httpApp, context)
    const paths = pathsOf(served)
    const contained = Effect.mapInputContext(
      app,
      (request: Context.Context<HttpServerRequest.HttpServerRequest | Scope.Scope>) => Context.merge(context, request)
    )
    return { app: shell.wrap(paths)(contained), paths }
  })

/**
 * The whole API as one app: for `HttpRouter.mountApp`, `HttpServer.serve`, or a web handler. Answers whatever it is asked.
 * Its streams end with the scope. Fails with the options that cannot be accepted.
 */
export const httpApp = (
  options: Options = {}
): Effect.Effect<HttpApp.Default, PgError.InvalidOptionsError, Needs | Scope.Scope> =>
  // Whatever serves an app gives each request a scope; not every router's type says so.
  Effect.map(make(options), ({ app }) => app as HttpApp.Default)

/**
 * The API's paths among the routes of an `HttpLayerRouter`; what is not of these paths is the router's. A `prefix` is given
 * here, not by `router.prefixed`.
 */
export const layer = (
  options: Options = {}
): Layer.Layer<never, PgError.InvalidOptionsError, HttpLayerRouter.HttpRouter | Needs> =>
  Layer.scopedDiscard(
    Effect.gen(function* () {
      const router = yield* HttpLayerRouter.HttpRouter
      const { app, paths } = yield* make(options)
      for (const path of paths.keys()) yield* router.add("*", path as `/${string}`, app)
    })
  )

/** The API on an `HttpServer` of its own. */
export const serve = (
  options: Options = {}
): Layer.Layer<never, PgError.InvalidOptionsError, HttpServer.HttpServer | Needs> =>
  Layer.unwrapScoped(Effect.map(httpApp(options), (app) => HttpServer.serve(app)))

const variable = <A>(name: string, rule: validate.Rule<A>, decode: (text: string) => unknown) =>
  Config.option(
    Config.mapOrFail(Config.string(name), (text) =>
      Either.mapLeft(rule(decode(text.trim()), name), (faults) =>
        env.invalid(name, `${name}: expected ${faults.map(({ expected }) => expected).join(", ")}`)
      )
    )
  )

/**
 * The options out of the environment: `DB_ADMIN_TOKEN`, where it is set, is the token of `admin`; `PLATFORM`, `NODE_ENV` and
 * `EXPECTED_CONCURRENCY`, as `ResilienceConfig.fromEnv` reads them, are what `sizing` knows.
 */
export const fromEnv: Config.Config<Options> = Config.map(
  Config.all({
    token: adminGroup.tokenConfig,
    platform: variable("PLATFORM", env.settings.platform.rule, identity),
    environment: variable("NODE_ENV", env.settings.environment.rule, String.toLowerCase),
    expectedConcurrency: variable("EXPECTED_CONCURRENCY", env.settings.expectedConcurrency.rule, Number)
  }),
  ({ token, ...sizing }) => ({
    ...Option.match(token, { onNone: () => ({}), onSome: (token) => ({ admin: { token } }) }),
    sizing: Record.getSomes<keyof typeof sizing, string | number>(sizing) as PoolSizing.Input
  })
)

/** `layer`, its options out of `Config`. */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<never, PgError.InvalidOptionsError | ConfigError.ConfigError, HttpLayerRouter.HttpRouter | Needs> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))

/** `serve`, its options out of `Config`. */
export const serveConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<never, PgError.InvalidOptionsError | ConfigError.ConfigError, HttpServer.HttpServer | Needs> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), serve))

export interface ClientOptions {
  /** Where the API is, its prefix included: `http://127.0.0.1:9464/ops`. */
  readonly url: URL | string
  /** For what only its owner may do. Default: none. */
  readonly token?: Redacted.Redacted | undefined
}

const asked = ({ token }: ClientOptions) =>
  HttpClient.mapRequest((request) =>
    HttpClientRequest.acceptJson(token === undefined ? request : HttpClientRequest.bearerToken(request, token))
  )

/** A typed client: what the API answers with 200 is success, every other answer of its own a tagged failure. */
export const client = (options: ClientOptions) =>
  Effect.map(
    HttpApiClient.make(api, { baseUrl: options.url, transformClient: asked(options) }),
    ({ admin, health, resilience: { events, ...resilience } }) => ({ admin, health, resilience })
  )

/** The stream of events: `Hello`, and then what happens, until the server or the way to it is gone. */
export const messages = (
  options: ClientOptions
): Stream.Stream<Model.Message, HttpClientError.HttpClientError | ParseError, HttpClient.HttpClient> =>
  HttpClient.HttpClient.pipe(
    Effect.map(HttpClient.filterStatusOk),
    Effect.flatMap((http) => http.get(`${options.url.toString().replace(/\/$/, "")}/resilience/events`)),
    Effect.map(({ stream }) => stream),
    Stream.unwrap,
    received.read
  )
