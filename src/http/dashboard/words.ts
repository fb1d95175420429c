/** What the page says of states, alerts and events. */
import * as format from "./format.js"
import type { Alert, Breaker, BreakerState, Event, Notice, State, Status } from "./state.js"

/** Each state has a symbol of its own shape in page.html, under the same name. */
export const breakers: { readonly [S in BreakerState]: { readonly icon: string; readonly word: string } } = {
  Closed: { icon: "closed", word: "Closed" },
  Open: { icon: "open", word: "Open" },
  HalfOpen: { icon: "half-open", word: "Half-open" },
  ForcedOpen: { icon: "open", word: "Forced open" },
  ForcedClosed: { icon: "closed", word: "Forced closed" }
}

const meanings: { readonly [S in BreakerState]: string } = {
  Closed: "Calls go through.",
  Open: "Calls are refused.",
  HalfOpen: "A few calls try whether the database is back.",
  ForcedOpen: "Calls are refused until somebody says otherwise.",
  ForcedClosed: "Calls go through, whatever fails."
}

export const breakerMeans = ({ nextProbeAt, state }: Breaker, now: number): string =>
  state === "Open" && nextProbeAt !== undefined
    ? `${meanings.Open} Next try ${nextProbeAt - now >= 500 ? `in ${format.duration(nextProbeAt - now)}` : "with the next call"}.`
    : meanings[state]

export const statuses: { readonly [S in Status]: string } = {
  healthy: "Healthy",
  degraded: "Degraded",
  unhealthy: "Unhealthy"
}

type Unit = "score" | "flag" | "ms" | "share" | "count"

/** What the standard rules of `Alerts` look at; of a rule of one's own the bare numbers are shown. */
export const alertUnits: { readonly [rule: string]: Unit | undefined } = {
  "health-check-failed": "flag",
  "health-score": "score",
  "breaker-change": "flag",
  "breaker-open": "ms",
  "error-rate": "share",
  "pool-utilization": "share",
  "pool-wait": "ms",
  "slow-queries": "ms",
  "slow-ping": "ms",
  "very-slow-ping": "ms",
  "connection-storm": "flag",
  "connection-leak": "count",
  "pool-exhaustion": "ms"
}

const figure = (value: number | null, unit: Unit | undefined): string => {
  if (value === null) return "∞"
  if (unit === "share") return format.percent(value)
  if (unit === "ms") return value < 60_000 ? format.ms(value) : format.duration(value)
  return format.number(value)
}

/** What the rule saw; nothing where it saw no more than its title says. */
export const alert = ({ rule, threshold, value }: Alert): string => {
  const unit = Object.hasOwn(alertUnits, rule) ? alertUnits[rule] : undefined
  return unit === "flag" ? "" : `${figure(value, unit)}, limit ${figure(threshold, unit)}`
}

/** `probesSucceeded`: "probes succeeded". */
export const reason = (name: string): string => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)

/** A symbol, what kind it is, and the rest of the line. */
export interface News {
  readonly icon: string
  readonly kind: string
  readonly text: string
}

const because = (causes: ReadonlyArray<string>) => (causes.length === 0 ? "" : `: ${causes.join(", ")}`)

export const news = (item: Event | Notice): News => {
  switch (item._tag) {
    case "StatusChange": {
      const change = `${statuses[item.from]} → ${statuses[item.to]}, score ${item.score}`
      return { icon: item.to, kind: "Status", text: `${change}${because(item.why)}` }
    }
    case "BreakerChange": {
      const change = `${breakers[item.from].word} → ${breakers[item.to].word}, ${reason(item.reason)}`
      return { icon: breakers[item.to].icon, kind: "Breaker", text: `${change}${because(item.cause)}` }
    }
    case "ProbeFailed":
      return { icon: "unhealthy", kind: "Health check failed", text: item.error }
    case "ProbeRecovered":
      return { icon: "healthy", kind: "Health check", text: `Answered again after ${format.duration(item.downMs)}` }
    case "Raised":
      return {
        icon: item.alert.severity,
        kind: "Alert raised",
        text: [item.alert.title, alert(item.alert)].filter((part) => part !== "").join(": ")
      }
    case "Resolved":
      return {
        icon: "healthy",
        kind: "Alert over",
        text: `${item.alert.title}, after ${format.duration(item.at - item.alert.raisedAt)}`
      }
  }
}

/** What has changed that somebody who does not look should hear of; undefined where nothing has. */
export const changes = (before: State | undefined, after: State): string | undefined => {
  const status = after.reports.at(-1)
  const breaker = after.ticks.at(-1)?.breaker.state
  const raised = after.alerts.filter(({ id }) => !before?.alerts.some((alert) => alert.id === id))
  const over = before?.alerts.filter(({ id }) => !after.alerts.some((alert) => alert.id === id)) ?? []
  const said = [
    ...(status !== undefined && status.status !== before?.reports.at(-1)?.status
      ? [`${statuses[status.status]}, score ${status.score}.`]
      : []),
    ...(breaker !== undefined && breaker !== (before?.ticks.at(-1)?.breaker.state ?? "Closed")
      ? [`Circuit breaker ${breakers[breaker].word.toLowerCase()}.`]
      : []),
    ...raised.map(({ severity, title }) => `Alert, ${severity}: ${title}.`),
    ...over.map(({ title }) => `Alert over: ${title}.`)
  ]
  return said.length === 0 ? undefined : said.join(" ")
}
