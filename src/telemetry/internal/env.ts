/** OpenTelemetry's own environment variables, as far as they say something about OTLP over HTTP. */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Either from "effect/Either"
import * as Number from "effect/Number"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Redacted from "effect/Redacted"
import * as validate from "../../config/internal/validate.js"

/** To OpenTelemetry an empty variable is one that is not set. `expected` completes the phrase "expected …". */
const variable = <A>(name: string, expected: string, parse: (text: string) => Option.Option<A>) =>
  Config.nonEmptyString(name).pipe(
    Config.mapOrFail((text) =>
      Either.fromOption(parse(text.trim()), () => ConfigError.InvalidData([], `expected ${expected}`))
    ),
    Config.option,
    Config.map(Option.getOrUndefined)
  )

const isProtocol = (text: string) => text === "http/json" || text === "http/protobuf"

const text = (name: string) => variable(name, "a text", Option.some)

const millis = (name: string) =>
  variable(name, "a number of milliseconds above 0", (text) =>
    Option.filter(Number.parse(text), (millis) => millis > 0 && millis <= validate.maxMillis)
  )

const decoded = (text: string) => Option.liftThrowable(decodeURIComponent)(text.trim())

/** `key=value,key=value`, percent-encoded. What is malformed is refused without being shown: it may be a secret. */
const pairs = (name: string) =>
  variable(name, "key=value,key=value, percent-encoded", (list) =>
    Option.map(
      Option.all(
        list
          .split(",")
          .filter((pair) => pair.trim() !== "")
          .map((pair) => {
            const at = pair.indexOf("=")
            return at < 1 ? Option.none() : Option.all([decoded(pair.slice(0, at)), decoded(pair.slice(at + 1))])
          })
      ),
      Record.fromEntries
    )
  )

export const options = Config.all({
  endpoint: text("OTEL_EXPORTER_OTLP_ENDPOINT"),
  headers: Config.map(
    pairs("OTEL_EXPORTER_OTLP_HEADERS"),
    (headers) => headers && Record.map(headers, (value) => Redacted.make(value))
  ),
  serviceName: text("OTEL_SERVICE_NAME"),
  attributes: pairs("OTEL_RESOURCE_ATTRIBUTES"),
  protocol: variable("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json or http/protobuf", Option.liftPredicate(isProtocol)),
  metricsInterval: millis("OTEL_METRIC_EXPORT_INTERVAL"),
  tracesInterval: millis("OTEL_BSP_SCHEDULE_DELAY"),
  timeout: millis("OTEL_EXPORTER_OTLP_TIMEOUT"),
  enabled: Config.map(text("OTEL_SDK_DISABLED"), (disabled) => disabled?.toLowerCase() !== "true")
})
