/**
 * Alerts to a webhook: Slack's incoming webhooks, or any receiver of JSON.
 *
 * A request that fails on the way, or is answered with 408, 429 or 5xx, is repeated by a `Schedule`; what is refused, or
 * still fails, is given up and logged without the URL, which is a secret. All of it happens in the sink's background.
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as Alerts from "./Alerts.js"

export interface Options {
  /** An http or https URL. Kept out of errors, logs and spans. */
  readonly url: string | Redacted.Redacted
  /** What is sent: `json` is `bodies.json`, `slack` is what Slack takes. Default `json`. */
  readonly format?: "json" | "slack" | undefined
  /** Sent along, such as an API key. */
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
  /** For one request. Default 5 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** When to try again, and for how long. Default `retry`. */
  readonly retry?: Schedule.Schedule<unknown, unknown> | undefined
}

/** At most 4 retries: after 1, 2, 4 and 8 seconds, each give or take 20 %. */
export const retry = Schedule.exponential("1 second").pipe(Schedule.jittered, Schedule.intersect(Schedule.recurs(4)))

export const defaults = { format: "json", headers: {}, timeout: "5 seconds" } as const satisfies Omit<Options, "url">

/** `status` is undefined where no answer came. */
class Undelivered extends Data.TaggedError("Undelivered")<{ readonly status: number | undefined }> {}

const colors = { info: "#439fe0", warning: "#daa038", critical: "#a30200" } as const

/** Slack's three control characters. Source: Slack's "Formatting text for app surfaces". */
const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** The body of a request. Times are ISO 8601. */
export const bodies = {
  json: (notice: Alerts.Notice) => ({
    event: notice._tag === "Raised" ? "raised" : "resolved",
    at: new Date(notice.at).toISOString(),
    id: notice.alert.id,
    rule: notice.alert.rule,
    severity: notice.alert.severity,
    message: Alerts.describe(notice),
    value: notice.alert.value,
    threshold: notice.alert.threshold,
    raisedAt: new Date(notice.alert.raisedAt).toISOString()
  }),
  slack: (notice: Alerts.Notice) => ({
    text: escaped(Alerts.describe(notice)),
    attachments: [
      {
        color: notice._tag === "Resolved" ? "#2eb886" : colors[notice.alert.severity],
        fields: [
          { title: "Rule", value: escaped(notice.alert.rule), short: true },
          { title: "Severity", value: notice.alert.severity, short: true }
        ],
        ts: Math.floor(notice.at / 1000)
      }
    ]
  })
}

const revealed = (value: string | Redacted.Redacted) => (Redacted.isRedacted(value) ? Redacted.value(value) : value)

const isUrl = (value: unknown): value is string | Redacted.Redacted => {
  const url = Redacted.isRedacted(value) ? Redacted.value(value) : value
  return Predicate.isString(url) && /^https?:\/\//.test(url) && URL.canParse(url)
}

const isHeaders = (value: unknown): value is NonNullable<Options["headers"]> =>
  Predicate.isRecord(value) && Object.values(value).every((_) => Predicate.isString(_) || Redacted.isRedacted(_))

const rule = validate.struct(
  {
    url: validate.secret(validate.refined("an http or https URL", isUrl)),
    format: validate.defaulted(validate.literal("json", "slack"), defaults.format),
    headers: validate.defaulted(
      validate.secret(validate.refined("a record of strings, or of redacted strings", isHeaders)),
      defaults.headers
    ),
    timeout: validate.defaulted(validate.duration({ max: validate.maxMillis }), defaults.timeout),
    retry: validate.defaulted(validate.refined("a schedule", Schedule.isSchedule), retry)
  },
  { exact: true }
)

/** Whether the same request may be answered otherwise later. */
const isPassing = ({ status }: Undelivered) => status === undefined || status === 408 || status === 429 || status >= 500

/** Fails with the options that cannot be accepted. */
export const layer = (
  options: Options
): Layer.Layer<never, PgError.InvalidOptionsError, Alerts.Alerts | HttpClient.HttpClient> =>
  Layer.unwrapEffect(
    Effect.gen(function* () {
      const { format, headers, retry, timeout, url } = yield* validate.decode(rule, "webhook")(options)
      // A span would hold the URL.
      const client = HttpClient.withTracerDisabledWhen(yield* HttpClient.HttpClient, () => true)
      const request = HttpClientRequest.post(revealed(url)).pipe(
        HttpClientRequest.setHeaders(Object.fromEntries(Object.entries(headers).map(([k, v]) => [k, revealed(v)])))
      )
      const post = (notice: Alerts.Notice) =>
        client.execute(HttpClientRequest.bodyUnsafeJson(request, bodies[format](notice))).pipe(
          // Read to its end, or its connection would never serve again.
          Effect.flatMap((response) => Effect.as(response.arrayBuffer, response.status)),
          Effect.mapError(() => new Undelivered({ status: undefined })),
          Effect.timeoutFail({ duration: timeout, onTimeout: () => new Undelivered({ status: undefined }) }),
          Effect.filterOrFail(
            (status) => status >= 200 && status < 300,
            (status) => new Undelivered({ status })
          ),
          Effect.retry({ schedule: retry as Schedule.Schedule<unknown, unknown>, while: isPassing }),
          Effect.asVoid
        )
      return Alerts.layerSink("webhook", post)
    })
  )
