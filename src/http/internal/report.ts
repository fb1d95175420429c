/** A summary of how a database is doing, as data and as text for people. Pure. */
import * as Duration from "effect/Duration"
import * as Alerts from "../../health/Alerts.js"
import type * as HealthMonitor from "../../health/HealthMonitor.js"
import type { Summary } from "./answers.js"

const toldEvents = 20

export const summarize = (of: {
  readonly at: number
  readonly name: string
  readonly history: ReadonlyArray<HealthMonitor.Report>
  readonly events: ReadonlyArray<HealthMonitor.Event>
  readonly alerts: ReadonlyArray<Alerts.Alert>
}): Summary => {
  const { alerts, at, events, history, name } = of
  return {
    at,
    name,
    report: history.at(-1),
    alerts,
    events: events.slice(-toldEvents),
    checks: {
      count: history.length,
      failed: history.filter(({ probe }) => !probe.ok).length,
      since: history[0]?.at,
      lowestScore: history.length === 0 ? undefined : Math.min(...history.map(({ score }) => score))
    }
  }
}

const moment = (at: number) => new Date(at).toISOString()
const millis = (n: number) => `${n >= 10 ? Math.round(n) : Math.round(n * 10) / 10} ms`
const percent = (share: number) => `${Math.round(share * 1000) / 10} %`
const count = (n: number, thing: string) => `${n} ${thing}${n === 1 ? "" : "s"}`

/** Names that the program gives may hold anything; a line stays a line. */
const line = (text: string) => text.replace(/\p{C}+/gu, " ")

const section = (title: string, lines: ReadonlyArray<string>, none: string) => [
  "",
  title,
  ...(lines.length === 0 ? [none] : lines).map((text) => `  ${line(text)}`)
]

const eventLine = (event: Summary["events"][number]): string => {
  switch (event._tag) {
    case "StatusChange":
      return `${event.from} → ${event.to}, score ${event.score}`
    case "BreakerChange": {
      const cause = event.cause.length === 0 ? "" : `: ${event.cause.join(", ")}`
      return `circuit breaker ${event.from} → ${event.to} (${event.reason}${cause})`
    }
    case "ProbeFailed":
      return `health check failed: ${event.error}`
    case "ProbeRecovered":
      return `health check succeeds again, after ${Duration.format(Duration.millis(Math.round(event.downMs)))}`
  }
}

const reportLines = (report: NonNullable<Summary["report"]>): ReadonlyArray<string> => {
  const { breaker, deductions, pool, probe, signals, trends, window } = report
  const answer = probe.ok
    ? `answers in ${millis(probe.pingMs)}`
    : `does not answer${probe.tag === undefined ? "" : ` (${probe.tag})`}: ${probe.error}`
  return [
    `Status    ${report.status}, score ${report.score} of 100, checked ${moment(report.at)}`,
    `Database  ${line(answer)}`,
    `Pool      ${pool.used} used, ${pool.idle} idle, of ${pool.max} (${percent(signals.utilization)}); ${pool.waiting} waiting`,
    `Breaker   ${breaker.state} since ${moment(breaker.since)}, opened ${count(breaker.trips, "time")}`,
    `Window    ${Math.round(window.seconds)} s: ${count(window.operations, "operation")}, ${percent(window.errorRate)} errors, ` +
      `average ${millis(window.averageQueryMs)}, p95 ${millis(window.p95Ms)}, p99 ${millis(window.p99Ms)}`,
    `          ${count(window.retries, "retry").replace("retrys", "retries")}, ${count(window.timeouts, "timeout")}, ` +
      `wait ${millis(window.waitMs)}, ${count(window.leaks, "leak")}`,
    ...(trends.poolExhaustedIn === undefined
      ? []
      : [`Trend     the pool is exhausted in ${Math.round(trends.poolExhaustedIn)} s if it goes on like this`]),
    ...(trends.storm ? ["Trend     connections come and go at a high rate"] : []),
    ...section(
      "What cost points",
      deductions.map(({ points, why }) => `${String(points).padStart(3)}  ${why}`),
      "nothing"
    ),
    ...section(
      "Errors",
      Object.entries(window.errors).map(([tag, n]) => `${String(n).padStart(6)}  ${tag}`),
      "none"
    ),
    ...section(
      "Slow operations",
      window.slowest.map(
        ({ averageMs, count, operation }) => `${String(count).padStart(6)}  ${operation}, average ${millis(averageMs)}`
      ),
      "none"
    )
  ]
}

export const text = ({ alerts, at, checks, events, name, report }: Summary): string =>
  [
    line(`PostgreSQL of ${name}, ${moment(at)}`),
    "",
    ...(report === undefined ? ["No health check has ended yet."] : reportLines(report)),
    ...section(
      "Alerts",
      alerts.map((alert) => `${alert.severity}: ${Alerts.headline(alert)}, since ${moment(alert.raisedAt)}`),
      "none"
    ),
    ...section(
      "Events",
      events.map((event) => `${moment(event.at)}  ${eventLine(event)}`),
      "none"
    ),
    "",
    checks.since === undefined
      ? "No checks are remembered."
      : `${count(checks.count, "check")} since ${moment(checks.since)}: ${checks.failed} failed, lowest score ${checks.lowestScore}.`,
    ""
  ].join("\n")
