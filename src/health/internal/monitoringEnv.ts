/** The environment variables of `Monitoring`: what each name means, and its reading as options. */
import * as Config from "effect/Config"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as env from "../../config/internal/env.js"
import * as validate from "../../config/internal/validate.js"
import type { Threshold } from "../Alerts.js"
import type { Options } from "../Monitoring.js"

const millis = validate.duration({ max: validate.maxMillis })

/** 80 for a share of 0.8. */
const percent = validate.map(validate.number({ max: 100 }), (value) => value / 100)

const url = validate.secret(
  validate.refined(
    "an http or https URL",
    (value): value is Redacted.Redacted =>
      Redacted.isRedacted(value) &&
      Predicate.isString(Redacted.value(value)) &&
      /^https?:\/\//.test(Redacted.value(value) as string) &&
      URL.canParse(Redacted.value(value) as string)
  )
)

/** By the measure of the rules that they move. */
const thresholds = {
  score: env.setting({
    doc: "Health score, 0 to 100, below which an alert is raised.",
    rule: validate.integer({ max: 100 }),
    names: { DB_ALERT_SCORE_THRESHOLD: { unit: "count" } }
  }),
  errorRate: env.setting({
    doc: "Attempts that failed, of all, above which an alert is raised.",
    rule: percent,
    names: { DB_ALERT_ERROR_RATE_THRESHOLD: { unit: "percent" } }
  }),
  utilization: env.setting({
    doc: "Connections in use, of all, above which an alert is raised.",
    rule: percent,
    names: { DB_ALERT_UTILIZATION_THRESHOLD: { unit: "percent" } }
  }),
  waitMs: env.setting({
    doc: "Average wait for a connection above which an alert is raised.",
    rule: millis,
    names: { DB_ALERT_WAIT_THRESHOLD: { unit: "milliseconds" } }
  }),
  averageQueryMs: env.setting({
    doc: "Average duration of a query above which an alert is raised.",
    rule: millis,
    names: { DB_ALERT_QUERY_THRESHOLD: { unit: "milliseconds" } }
  }),
  pingMs: env.setting({
    doc: "Round trip above which an alert is raised; at twice as much a critical one.",
    rule: millis,
    names: { DB_ALERT_PING_THRESHOLD: { unit: "milliseconds" } }
  }),
  breakerOpenMs: env.setting({
    doc: "How long the circuit may be open before an alert is raised.",
    rule: millis,
    names: { DB_ALERT_OPEN_THRESHOLD: { unit: "milliseconds" } }
  }),
  poolExhaustedInMs: env.setting({
    doc: "Time until all connections are in use, if it goes on like this, below which an alert is raised.",
    rule: millis,
    names: { DB_ALERT_EXHAUSTION_THRESHOLD: { unit: "milliseconds" } }
  }),
  leaks: env.setting({
    doc: "Connections held for too long, within a minute, above which an alert is raised.",
    rule: validate.integer(),
    names: { DB_ALERT_LEAK_THRESHOLD: { unit: "count" } }
  })
} satisfies { readonly [M in Threshold]: env.Setting<number> }

const settings = {
  enabled: env.setting({
    doc: "Whether the database is checked at an interval, and alerts are raised. Off, checks are made when they are asked for.",
    rule: validate.boolean,
    names: { DB_MONITORING: { unit: "switch" } }
  }),
  "health.interval": env.setting({
    doc: "Between two checks, 100 ms or more. Default with `NODE_ENV` development or test: 10 seconds.",
    rule: validate.duration({ min: 100, max: validate.maxMillis, infinity: true }),
    names: { DB_HEALTH_CHECK_INTERVAL: { unit: "duration" } }
  }),
  "webhook.url": env.setting({
    doc: "Where alerts are posted to. A secret.",
    rule: url,
    names: { DB_ALERT_WEBHOOK_URL: { unit: "url" } }
  }),
  "webhook.format": env.setting({
    doc: "What is posted: `slack` or `json`. Default: `slack` to hooks.slack.com, `json` to others.",
    rule: validate.literal("slack", "json"),
    names: { DB_ALERT_WEBHOOK_FORMAT: { unit: "name" } }
  })
} as const

/** Read by `ResilienceConfig.fromEnv`, too, and in its table. */
const shared = {
  environment: env.setting({ doc: "", rule: env.environment, names: { NODE_ENV: { unit: "environment" } } })
}

const thresholdPaths = Object.fromEntries(
  Object.entries(thresholds).map(([measure, self]) => [`thresholds.${measure}`, self])
)

/** `defaults` by the options' paths, thresholds in the unit of their variable. */
export const variables = (defaults: object): ReadonlyArray<env.Variable> =>
  env.variablesOf({ ...settings, ...thresholdPaths }, defaults)

/** The variable that moves the rules of a measure. */
export const variableOf: { readonly [M in Threshold]: string } = Object.fromEntries(
  Object.entries(thresholds).map(([measure, { names }]) => [measure, Object.keys(names)[0]!])
) as any

const isSlack = (url: Redacted.Redacted) => new URL(Redacted.value(url)).hostname === "hooks.slack.com"

const valueOf = <A>(given: Option.Option<env.Given<A>>): A | undefined => Option.getOrUndefined(given)?.value

/** The options that are set; the error names every variable that is malformed. */
export const options: Config.Config<Options> = Config.map(
  Config.all({ given: env.all(settings), moved: env.all(thresholds), shared: env.all(shared) }),
  ({ given, moved, shared }): Options => {
    const url = valueOf(given["webhook.url"])
    const interval = valueOf(given["health.interval"])
    const environment = valueOf(shared.environment)
    const set = Object.entries(moved).flatMap(([measure, one]) =>
      Option.isSome(one) ? [[measure, one.value.value]] : []
    )
    return {
      ...(valueOf(given.enabled) === false ? { enabled: false } : {}),
      health: {
        ...(environment === "development" ? { environment } : {}),
        ...(interval === undefined ? {} : { interval })
      },
      ...(set.length === 0 ? {} : { thresholds: Object.fromEntries(set) }),
      ...(url === undefined
        ? {}
        : { webhook: { url, format: valueOf(given["webhook.format"]) ?? (isSlack(url) ? "slack" : "json") } })
    }
  }
)
