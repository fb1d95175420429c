/**
 * Traces and metrics of a program, and its logs on request, sent to an OpenTelemetry collector over OTLP/HTTP.
 *
 * Effect's spans and metrics are process-wide: what goes out is everything that the program and its libraries record,
 * this library's metrics (Metrics.ts) and the spans of its statements among it.
 *
 * A receiver that is down, slow or silent costs the program nothing but what would have been exported: requests are bounded
 * in number and in time, retried three times, and after that nothing is sent, or kept, for a minute. Closing the scope
 * sends what is left, within `shutdownTimeout`. All of this keeps real time, whatever `Clock` the program has.
 *
 * Requests are made with Node's `fetch`; another one, with a proxy or client certificates, can be provided as
 * `FetchHttpClient.Fetch`.
 *
 * ```ts
 * program.pipe(
 *   Effect.provide(ResilientPg.layer({ url })),
 *   Effect.provide(Telemetry.layerOtlp({ serviceName: "shop" }))
 * )
 * ```
 */
import * as OtlpLogger from "@effect/opentelemetry/OtlpLogger"
import * as OtlpMetrics from "@effect/opentelemetry/OtlpMetrics"
import type { OtlpSerialization } from "@effect/opentelemetry/OtlpSerialization"
import * as OtlpTracer from "@effect/opentelemetry/OtlpTracer"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as ConfigProvider from "effect/ConfigProvider"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Predicate from "effect/Predicate"
import * as Record from "effect/Record"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as environment from "./internal/env.js"
import * as otlp from "./internal/otlp.js"

export interface Options {
  /** Where the collector listens; `/v1/traces`, `/v1/metrics` and `/v1/logs` are appended. Default `http://localhost:4318`. */
  readonly endpoint?: string | undefined
  /** Sent with every request, such as an API key. */
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
  /** `service.name`. Default: that of `attributes`, or else `unknown_service:node`. */
  readonly serviceName?: string | undefined
  /** Attributes of the program, such as `service.version` and `deployment.environment.name`. Default none. */
  readonly attributes?: Readonly<Record<string, string | number | boolean>> | undefined
  /** Default `http/json`, which every collector takes. `http/protobuf` is smaller. */
  readonly protocol?: "http/json" | "http/protobuf" | undefined
  /** Whether the program's log lines go out too, besides where they go already. Default false. */
  readonly logs?: boolean | undefined
  /** Time between two exports of all metrics: 10 ms or more. Default 10 seconds. */
  readonly metricsInterval?: Duration.DurationInput | undefined
  /** Time between two exports of the spans, and log lines, that have ended since: 10 ms or more. Default 5 seconds. */
  readonly tracesInterval?: Duration.DurationInput | undefined
  /** For one request. Default 10 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** For the last export, when the scope closes. Default 3 seconds. */
  readonly shutdownTimeout?: Duration.DurationInput | undefined
  /** False exports nothing at all. Default true. */
  readonly enabled?: boolean | undefined
}

export const defaults = {
  endpoint: "http://localhost:4318",
  headers: {},
  attributes: {},
  protocol: "http/json",
  logs: false,
  metricsInterval: "10 seconds",
  tracesInterval: "5 seconds",
  timeout: "10 seconds",
  shutdownTimeout: "3 seconds",
  enabled: true
} as const satisfies Options

type Headers = NonNullable<Options["headers"]>
type Attributes = NonNullable<Options["attributes"]>

const isUrl = (value: unknown): value is string =>
  Predicate.isString(value) && /^https?:\/\//.test(value) && URL.canParse(value)
const isHeaders = (value: unknown): value is Headers =>
  Predicate.isRecord(value) && Object.values(value).every((_) => Predicate.isString(_) || Redacted.isRedacted(_))
const isAttributes = (value: unknown): value is Attributes =>
  Predicate.isRecord(value) &&
  Object.values(value).every((_) => Predicate.isString(_) || Number.isFinite(_) || Predicate.isBoolean(_))

const interval = validate.duration({ min: 10 })

const rule = validate.struct(
  {
    endpoint: validate.defaulted(validate.refined("an http or https URL", isUrl), defaults.endpoint),
    headers: validate.defaulted(
      validate.refined("a record of strings, or of redacted strings", isHeaders),
      defaults.headers
    ),
    serviceName: validate.optional(validate.text),
    attributes: validate.defaulted(
      validate.refined("a record of strings, finite numbers and booleans", isAttributes),
      defaults.attributes
    ),
    protocol: validate.defaulted(validate.literal("http/json", "http/protobuf"), defaults.protocol),
    logs: validate.defaulted(validate.boolean, defaults.logs),
    metricsInterval: validate.defaulted(interval, defaults.metricsInterval),
    tracesInterval: validate.defaulted(interval, defaults.tracesInterval),
    timeout: validate.defaulted(validate.duration(), defaults.timeout),
    shutdownTimeout: validate.defaulted(validate.duration(), defaults.shutdownTimeout),
    enabled: validate.defaulted(validate.boolean, defaults.enabled)
  },
  { exact: true }
)

/** Real time from the first export to the last; and nothing from the environment that the options do not say. */
const exporter = <A>(make: Effect.Effect<A, never, HttpClient.HttpClient | OtlpSerialization | Scope.Scope>) =>
  Effect.gen(function* () {
    const live = Effect.withClock(Clock.make())
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => live(Scope.close(scope, exit)))
    return yield* Scope.extend(make, scope).pipe(live, Effect.withConfigProvider(ConfigProvider.fromMap(new Map())))
  })

const exporting = (options: validate.Decoded<typeof rule>): Layer.Layer<never> => {
  const { "service.name": named = "unknown_service:node", ...attributes } = options.attributes
  const of = (signal: string, exportInterval: number) => ({
    url: `${options.endpoint.replace(/\/+$/, "")}/v1/${signal}`,
    headers: Record.map(options.headers, (value) => (Redacted.isRedacted(value) ? Redacted.value(value) : value)),
    resource: { serviceName: options.serviceName ?? String(named), attributes },
    exportInterval,
    shutdownTimeout: options.shutdownTimeout
  })
  return Layer.mergeAll(
    Layer.scopedDiscard(exporter(OtlpMetrics.make(of("metrics", options.metricsInterval)))),
    Layer.unwrapScoped(Effect.map(exporter(OtlpTracer.make(of("traces", options.tracesInterval))), Layer.setTracer)),
    options.logs ? Logger.addScoped(exporter(OtlpLogger.make(of("logs", options.tracesInterval)))) : Layer.empty
  ).pipe(
    Layer.provide([
      Layer.provide(
        Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, otlp.bounded(options.timeout))),
        FetchHttpClient.layer
      ),
      otlp.layerSerialization(options.protocol)
    ])
  )
}

/** Exports until its scope closes. Fails with the options that cannot be accepted. */
export const layerOtlp = (options: Options = {}): Layer.Layer<never, PgError.InvalidOptionsError> =>
  Layer.unwrapEffect(
    Effect.map(validate.decode(rule, "telemetry")(options), (options) =>
      options.enabled ? exporting(options) : Layer.empty
    )
  )

export const layerOtlpConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<never, PgError.InvalidOptionsError | ConfigError.ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layerOtlp))

/**
 * OpenTelemetry's environment variables: `OTEL_EXPORTER_OTLP_ENDPOINT`, `_HEADERS`, `_PROTOCOL` (`grpc` is refused) and
 * `_TIMEOUT`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_BSP_SCHEDULE_DELAY`
 * and `OTEL_SDK_DISABLED`. Times are milliseconds. What is not set has the default of `Options`; what is malformed fails
 * with a `ConfigError` that names the variable. Source: OpenTelemetry specification, environment variables.
 */
export const env: Config.Config<Options> = environment.options

/** As the environment says. */
export const layerOtlpEnv: Layer.Layer<never, PgError.InvalidOptionsError | ConfigError.ConfigError> =
  layerOtlpConfig(env)
