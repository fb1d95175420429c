/**
 * How well the database is doing, as a number from 0 to 100, and why it is not 100.
 *
 * Pure. The formula is `rules`: each looks at one signal and takes away up to its points. Between `from` and `to` of a rule
 * the points grow in a straight line. A signal that is not known (`undefined`, NaN) costs nothing; one below zero counts as
 * zero. No signal that gets worse ever raises the score.
 */
import type * as CircuitBreaker from "../policy/CircuitBreaker.js"

/** What the score is made of, and what goes with it. Times in milliseconds, shares from 0 to 1; windowed where not said. */
export interface Signals {
  /** Whether the last probe was answered in time. */
  readonly probeOk: boolean
  /** Round trip of the last probe. */
  readonly pingMs?: number | undefined
  /** A query of the last probe that the server has to read its catalog for. */
  readonly queryMs?: number | undefined
  /** Connections now: all, in use, idle. They cost nothing by themselves. */
  readonly total: number
  readonly active: number
  readonly idle: number
  /** Fibers that wait for a connection now. */
  readonly waiting: number
  /** Connections in use, as a share of those that the pool may open. */
  readonly utilization: number
  /** Average wait for a connection. */
  readonly waitMs: number
  readonly breaker: CircuitBreaker.State
  /** Attempts that failed for the database's sake, as a share of all. A constraint violation is an answer. */
  readonly errorRate: number
  readonly averageQueryMs: number
  /** Attempts that took over a second: how many, and as a share of all. */
  readonly slowQueries: number
  readonly slowShare: number
  /** Waits and statements that ran out of time, per minute. */
  readonly timeoutsPerMinute: number
  /** Retries, as a share of all attempts. */
  readonly retryShare: number
  /** Connections reported for being held too long, in the window, or now if that is more. */
  readonly leaks: number
}

/** The signals that are numbers. */
export type NumericSignal = {
  readonly [K in keyof Signals]-?: NonNullable<Signals[K]> extends number ? K : never
}[keyof Signals]

/** How a number is to be shown. */
export type Unit = "ms" | "share" | "count" | "perMinute"

/** One line of the formula. */
export type Rule =
  | {
      readonly signal: NumericSignal
      /** Nothing is taken away up to here. */
      readonly from: number
      /** All points are taken away from here on. */
      readonly to: number
      readonly points: number
      readonly unit: Unit
      /** Completes the phrase "points, because of …". */
      readonly what: string
    }
  | { readonly signal: "probeOk"; readonly points: number; readonly what: string }
  | {
      readonly signal: "breaker"
      readonly points: { readonly [State in CircuitBreaker.State]: number }
      readonly what: string
    }

/** The formula, in the order in which it is explained. */
export const rules: ReadonlyArray<Rule> = [
  { signal: "probeOk", points: 60, what: "a health check that failed" },
  {
    signal: "breaker",
    points: { Closed: 0, ForcedClosed: 0, HalfOpen: 15, Open: 40, ForcedOpen: 40 },
    what: "the circuit breaker"
  },
  { signal: "errorRate", from: 0.01, to: 0.25, points: 30, unit: "share", what: "attempts that failed" },
  { signal: "pingMs", from: 100, to: 1000, points: 15, unit: "ms", what: "the round trip to the server" },
  { signal: "queryMs", from: 250, to: 2500, points: 10, unit: "ms", what: "the health check's query" },
  { signal: "averageQueryMs", from: 250, to: 2500, points: 15, unit: "ms", what: "the average query" },
  { signal: "slowShare", from: 0, to: 0.2, points: 10, unit: "share", what: "queries of over a second" },
  { signal: "utilization", from: 0.8, to: 1, points: 10, unit: "share", what: "the pool's use" },
  { signal: "waiting", from: 0, to: 50, points: 10, unit: "count", what: "fibers that wait for a connection" },
  { signal: "waitMs", from: 50, to: 1000, points: 15, unit: "ms", what: "the wait for a connection" },
  { signal: "timeoutsPerMinute", from: 0, to: 10, points: 15, unit: "perMinute", what: "timeouts" },
  { signal: "retryShare", from: 0.05, to: 0.5, points: 10, unit: "share", what: "retries" },
  { signal: "leaks", from: 0, to: 3, points: 10, unit: "count", what: "connections held too long" }
]

/** What one signal cost. */
export interface Deduction {
  readonly signal: keyof Signals
  /** Whole points, 1 or more. */
  readonly points: number
  /** One line for people: what, how much, and from where on it counts. */
  readonly why: string
}

export interface HealthScore {
  /** Whole, 0 to 100: 100 less the points of all deductions. */
  readonly score: number
  /** The dearest first. */
  readonly deductions: ReadonlyArray<Deduction>
}

const rounded = (value: number) => (value >= 10 ? Math.round(value) : Math.round(value * 10) / 10)

/** A number as people read it. */
export const format = (value: number, unit: Unit): string => {
  switch (unit) {
    case "ms":
      return `${rounded(value)} ms`
    case "share":
      return `${rounded(value * 100)} %`
    case "perMinute":
      return `${rounded(value)} a minute`
    case "count":
      return String(rounded(value))
  }
}

/** From 0 at `from` to 1 at `to`. */
const ramp = (value: number | undefined, from: number, to: number): number =>
  value === undefined || Number.isNaN(value) || value <= from ? 0 : value >= to ? 1 : (value - from) / (to - from)

const apply = (rule: Rule, signals: Signals): Deduction | undefined => {
  switch (rule.signal) {
    case "probeOk":
      return signals.probeOk ? undefined : { signal: "probeOk", points: rule.points, why: rule.what }
    case "breaker": {
      const points = rule.points[signals.breaker]
      return points === 0 ? undefined : { signal: "breaker", points, why: `${rule.what}: ${signals.breaker}` }
    }
    default: {
      const value = signals[rule.signal]
      const points = Math.round(rule.points * ramp(value, rule.from, rule.to))
      if (value === undefined || points === 0) return undefined
      const limit = format(rule.from, rule.unit)
      return { signal: rule.signal, points, why: `${rule.what}: ${format(value, rule.unit)}, over ${limit}` }
    }
  }
}

/** Judges. Total: takes any numbers. */
export const score = (signals: Signals): HealthScore => {
  const deductions = rules.flatMap((rule) => apply(rule, signals) ?? []).sort((a, b) => b.points - a.points)
  const lost = deductions.reduce((sum, { points }) => sum + points, 0)
  return { score: Math.max(0, 100 - lost), deductions }
}

const atMost = (rule: Rule) => (rule.signal === "breaker" ? Math.max(...Object.values(rule.points)) : rule.points)

const costs = (rule: Rule): string => {
  switch (rule.signal) {
    case "probeOk":
      return "when it failed"
    case "breaker":
      return Object.entries(rule.points)
        .filter(([, points]) => points > 0)
        .map(([state, points]) => `${state}: ${points}`)
        .join(", ")
    default:
      return `from ${format(rule.from, rule.unit)}, all at ${format(rule.to, rule.unit)}`
  }
}

/** The formula for people, as a Markdown table: what the documentation shows. */
export const table: string = [
  "| signal | what it is | costs | at most |",
  "| --- | --- | --- | --- |",
  ...rules.map((rule) => `| \`${rule.signal}\` | ${rule.what} | ${costs(rule)} | ${atMost(rule)} |`)
].join("\n")
