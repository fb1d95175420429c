/**
 * Tells whoever has to act that the database is in trouble, and that it is over.
 *
 * The rules are data (`rules`); internal/alerting.ts says when an alert is raised and when it is resolved. They are put to
 * every report of the `HealthMonitor`. Sinks are layers beside this one, each with a bounded queue and a fiber of its own:
 * one that is slow or dead hurts neither the others nor the database's path.
 *
 * ```ts
 * Layer.mergeAll(Alerts.layerLog, AlertWebhook.layer({ url })).pipe(Layer.provideMerge(Alerts.layer()))
 * ```
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Record from "effect/Record"
import * as Stream from "effect/Stream"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import { HealthMonitor, type Report } from "./HealthMonitor.js"
import * as alerting from "./internal/alerting.js"
import * as internal from "./internal/thresholds.js"

export type Severity = alerting.Severity
/** An alert that stands. */
export type Alert = alerting.Alert
/** An alert was raised, or it is over. Times in milliseconds since the epoch. */
export type Notice = alerting.Notice

/** What a rule may look at: times in milliseconds, shares from 0 to 1, counts; undefined where a report does not say. */
export const measures = {
  score: ({ score }) => score,
  probeFailed: ({ probe }) => (probe.ok ? 0 : 1),
  pingMs: ({ signals }) => signals.pingMs,
  utilization: ({ signals }) => signals.utilization,
  waitMs: ({ signals }) => signals.waitMs,
  averageQueryMs: ({ signals }) => signals.averageQueryMs,
  errorRate: ({ signals }) => signals.errorRate,
  /** Changes since the report before; 1 or more while the circuit is not closed. */
  breakerChanges: ({ breaker, breakerChanges }) => breakerChanges + (breaker.state === "Closed" ? 0 : 1),
  /** How long the circuit has been refusing calls: probes that fail, and all that is between them, included. */
  breakerOpenMs: ({ at, breaker: { openedAt } }) => (openedAt === undefined ? 0 : Math.max(0, at - openedAt)),
  storm: ({ trends }) => (trends.storm ? 1 : 0),
  leaks: ({ signals }) => signals.leaks,
  /** Until all connections are in use, if it goes on like this; `Infinity` where it does not. */
  poolExhaustedInMs: ({ trends }) =>
    trends.poolExhaustedIn === undefined ? Number.POSITIVE_INFINITY : trends.poolExhaustedIn * 1000
} satisfies Record<string, (report: Report) => number | undefined>

export type Measure = keyof typeof measures

/** What a measure is a number of: `score` is out of 100, `flag` is 0 or 1. */
export const units = {
  score: "score",
  probeFailed: "flag",
  pingMs: "ms",
  utilization: "share",
  waitMs: "ms",
  averageQueryMs: "ms",
  errorRate: "share",
  breakerChanges: "flag",
  breakerOpenMs: "ms",
  storm: "flag",
  leaks: "count",
  poolExhaustedInMs: "ms"
} as const satisfies { readonly [M in Measure]: internal.Unit }

/** Measures whose thresholds are numbers of one's own choice. */
export type Threshold = { readonly [M in Measure]: (typeof units)[M] extends "flag" ? never : M }[Measure]

/** In the unit of the measure. */
export type Thresholds = { readonly [M in Threshold]?: number | undefined }

/** One rule; times in milliseconds. */
export type Rule = alerting.Rule<Measure>

const rule = (
  name: string,
  severity: Severity,
  measure: Measure,
  [raise, clear]: readonly [raise: number, clear: number],
  title: string
): Rule => ({
  name,
  severity,
  measure,
  when: clear > raise ? "below" : "above",
  raise,
  clear,
  raiseAfter: 0,
  clearAfter: 60_000,
  cooldown: 900_000,
  title
})

/** The standard rules: raised beyond the first number, over at the second. */
export const rules: ReadonlyArray<Rule> = [
  rule("health-check-failed", "critical", "probeFailed", [0, 0], "The database does not answer health checks"),
  rule("health-score", "warning", "score", [70, 80], "The health score is low"),
  rule("breaker-change", "warning", "breakerChanges", [0, 0], "The circuit breaker is not steadily closed"),
  rule("breaker-open", "critical", "breakerOpenMs", [60_000, 0], "The circuit breaker stays open"),
  rule("error-rate", "critical", "errorRate", [0.05, 0.03], "Queries fail"),
  rule("pool-utilization", "warning", "utilization", [0.8, 0.7], "The connection pool is nearly exhausted"),
  rule("pool-wait", "warning", "waitMs", [500, 250], "Queries wait long for a connection"),
  rule("slow-queries", "warning", "averageQueryMs", [1000, 750], "Queries are slow on average"),
  rule("slow-ping", "warning", "pingMs", [500, 250], "The database answers slowly"),
  rule("very-slow-ping", "critical", "pingMs", [1000, 750], "The database answers very slowly"),
  rule("connection-storm", "warning", "storm", [0, 0], "Connections are opened and lost at a high rate"),
  rule("connection-leak", "warning", "leaks", [0, 0], "Connections are held for too long"),
  rule("pool-exhaustion", "info", "poolExhaustedInMs", [300_000, 600_000], "The pool will be exhausted in minutes")
]

export interface Options {
  /** In the place of the standard rules. */
  readonly rules?: ReadonlyArray<Rule> | undefined
  /**
   * Where the rules of a measure are raised instead, 0 or more. `clear` moves along in proportion (of a score: in proportion
   * to what is missing to 100); of two rules for one measure, as those for `pingMs`, the second does so, too.
   */
  readonly thresholds?: Thresholds | undefined
}

/** What the rules see of a report. */
export const observe = (report: Report): { readonly [M in Measure]?: number | undefined } =>
  Record.map(measures, (measure: (report: Report) => number | undefined) => measure(report))

export class Alerts extends Context.Tag("effect-pg-resilience/Alerts")<
  Alerts,
  {
    /** The alerts that stand. */
    readonly standing: Effect.Effect<ReadonlyArray<Alert>>
    /** The alerts that stand, as if they were raised just now, and then every notice. Who is over 256 behind misses some. */
    readonly notices: Stream.Stream<Notice>
  }
>() {}

const unread = 256

const isRule = (value: unknown): value is Rule =>
  Predicate.isRecord(value) &&
  Predicate.isString(value["name"]) &&
  Predicate.isString(value["measure"]) &&
  Object.hasOwn(measures, value["measure"]) &&
  [value["raise"], value["clear"]].every(Number.isFinite) &&
  [value["raiseAfter"], value["clearAfter"], value["cooldown"]].every((_) => Predicate.isNumber(_) && _ >= 0) &&
  (value["when"] === "above" ? Number(value["clear"]) <= Number(value["raise"]) : value["when"] === "below") &&
  (value["when"] === "above" || Number(value["clear"]) >= Number(value["raise"]))

const areRules = (value: unknown): value is ReadonlyArray<Rule> =>
  Array.isArray(value) && value.every(isRule) && new Set(value.map(({ name }) => name)).size === value.length

/** What is in no doubt needs no threshold. */
const never: validate.Rule<undefined> = validate.optional(
  validate.refined("no threshold: it is so or not", (_): _ is never => false)
)

const decoded = validate.struct(
  {
    rules: validate.defaulted(
      validate.refined("a list of rules, each with a name of its own, and clear on the far side of raise", areRules),
      rules
    ),
    thresholds: validate.defaulted(
      validate.struct(
        Record.map(units, (unit: internal.Unit) =>
          unit === "flag" ? never : validate.optional(validate.number({ max: unit === "score" ? 100 : undefined }))
        ),
        { exact: true }
      ),
      {}
    )
  },
  { exact: true }
)

/** Follows the monitor until the scope closes. */
export const make = Effect.fnUntraced(function* (given: Options = {}) {
  const options = yield* validate.decode(decoded, "alerts")(given)
  const monitor = yield* HealthMonitor
  const step = alerting.step(internal.withThresholds<Measure>(options.rules, options.thresholds, units))
  const hub = yield* PubSub.sliding<Notice>(unread)
  let state = alerting.initial

  const consider = (report: Report) => {
    const [next, notices] = step(state, observe(report), report.at)
    state = next
    for (const notice of notices) hub.unsafeOffer(notice)
  }

  /** Out of the history, so that a report that the stream did not tell of is not missed. */
  let last: Report | undefined
  const follow = Effect.map(monitor.history, (history) => {
    for (const report of history.slice(last === undefined ? 0 : history.lastIndexOf(last) + 1)) {
      if (last === undefined || report.at >= last.at) consider(report)
    }
    last = history.at(-1)
  })
  yield* follow
  yield* Effect.forkScoped(Effect.interruptible(Stream.runForEach(monitor.reports, () => follow)))

  /** Subscribed first, so that nothing is missed; nobody is told twice, nor of the end of what they do not know. */
  const notices = Stream.unwrapScoped(
    Effect.gen(function* () {
      const queue = yield* PubSub.subscribe(hub)
      const alerts = alerting.standing(state)
      /** By the rule: there is at most one alert of each. */
      const known = new Map(alerts.map(({ id, rule }) => [rule, id]))
      return Stream.concat(
        Stream.fromIterable(alerts.map((alert): Notice => ({ _tag: "Raised", at: alert.raisedAt, alert }))),
        Stream.filter(Stream.fromQueue(queue), ({ _tag, alert: { id, rule } }) => {
          const told = known.get(rule) === id
          if (_tag === "Raised") known.set(rule, id)
          else if (told) known.delete(rule)
          return told === (_tag === "Resolved")
        })
      )
    })
  )
  return Alerts.of({ standing: Effect.sync(() => alerting.standing(state)), notices })
})

/** Fails with the rules that cannot be accepted. */
export const layer = (options: Options = {}): Layer.Layer<Alerts, PgError.InvalidOptionsError, HealthMonitor> =>
  Layer.scoped(Alerts, make(options))

/** Notices that a sink has not dealt with yet; beyond that the oldest are dropped, and the log says so. */
export const queueSize = 100

/** Hands every notice to `send`, one after the other, in the background; a failure of `send` is a line in the log. */
export const layerSink = <E, R>(
  name: string,
  send: (notice: Notice) => Effect.Effect<void, E, R>
): Layer.Layer<never, never, Alerts | R> =>
  Layer.scopedDiscard(
    Effect.gen(function* () {
      const alerts = yield* Alerts
      const queue = yield* Queue.sliding<Notice>(queueSize)
      const offer = (notice: Notice) =>
        Effect.gen(function* () {
          if (yield* Queue.isFull(queue)) yield* Effect.logWarning("Alerts dropped: a sink does not keep up", name)
          yield* Queue.offer(queue, notice)
        })
      yield* Effect.forkScoped(Effect.interruptible(Stream.runForEach(alerts.notices, offer)))
      const deliver = Effect.flatMap(Queue.take(queue), (notice) =>
        Effect.catchAllCause(send(notice), () =>
          Effect.logWarning("An alert was not delivered", { sink: name, alert: notice.alert.id })
        )
      )
      yield* Effect.forkScoped(Effect.interruptible(Effect.forever(deliver)))
    })
  )

/** What a standard rule goes by; of a rule of one's own only its numbers are known. */
const unitOf = (name: string): internal.Unit => {
  const standard = rules.find((rule) => rule.name === name)
  return standard === undefined ? "count" : units[standard.measure]
}

/** Its title, and in its unit what the rule saw and what it goes by, where that is more than the title says. */
export const headline = ({ rule, threshold, title, value }: Alert): string => {
  const unit = unitOf(rule)
  return unit === "flag"
    ? title
    : `${title} (${internal.shown(value, unit)}, threshold ${internal.shown(threshold, unit)})`
}

/** One line for people. */
export const describe = ({ _tag, alert, at }: Notice): string =>
  _tag === "Raised"
    ? `[${alert.severity}] ${headline(alert)}`
    : `[resolved] ${alert.title} (after ${Duration.format(Duration.seconds(Math.round((at - alert.raisedAt) / 1000)))})`

/** To the log: what is critical as an error, other alerts as warnings, the rest as information. */
export const layerLog: Layer.Layer<never, never, Alerts> = layerSink("log", (notice) => {
  const annotations = { rule: notice.alert.rule, value: notice.alert.value, threshold: notice.alert.threshold }
  if (notice._tag === "Resolved" || notice.alert.severity === "info")
    return Effect.logInfo(describe(notice), annotations)
  return notice.alert.severity === "critical"
    ? Effect.logError(describe(notice), annotations)
    : Effect.logWarning(describe(notice), annotations)
})

/** To a function. What it throws is a line in the log. */
export const layerCallback = (onNotice: (notice: Notice) => void): Layer.Layer<never, never, Alerts> =>
  layerSink("callback", (notice) => Effect.sync(() => onNotice(notice)))
