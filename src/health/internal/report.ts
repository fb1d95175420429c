/** What one check of a `HealthMonitor` has found, judged. Pure. */
import type * as Pool from "../../client/Pool.js"
import type * as PgError from "../../error/PgError.js"
import type * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import * as HealthScore from "../HealthScore.js"
import * as hysteresis from "./hysteresis.js"
import * as trend from "./trend.js"
import * as windows from "./window.js"

/** How the probe ended. Times in milliseconds. */
export type ProbeResult =
  | { readonly ok: true; readonly pingMs: number; readonly queryMs: number | undefined }
  | {
      readonly ok: false
      /** One line without a secret. */
      readonly error: string
      /** Undefined for a defect. */
      readonly tag: PgError.Tag | undefined
      readonly afterMs: number
    }

/** Where things are heading, by the reports of the recent past. */
export interface Trends {
  /** Seconds until all connections are in use, if it goes on like this: 0 where they are; undefined where it does not. */
  readonly poolExhaustedIn: number | undefined
  /** How many times its earlier value the round trip is now; undefined while there are too few checks to say. */
  readonly pingDrift: number | undefined
  /** Connections come and go faster than twice a minute each. */
  readonly storm: boolean
}

export interface Report {
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly status: hysteresis.Status
  readonly score: number
  readonly deductions: ReadonlyArray<HealthScore.Deduction>
  readonly signals: HealthScore.Signals
  readonly probe: ProbeResult
  readonly window: windows.Window
  readonly pool: Pool.Snapshot
  readonly breaker: CircuitBreaker.Snapshot
  /** Changes of the breaker's state since the report before. */
  readonly breakerChanges: number
  readonly trends: Trends
}

export interface Findings {
  readonly at: number
  readonly probe: ProbeResult
  readonly readings: ReadonlyArray<windows.Reading>
  readonly pool: Pool.Snapshot
  readonly breaker: CircuitBreaker.Snapshot
  /** That were told of. */
  readonly breakerChanges: number
  /** Oldest first. */
  readonly history: ReadonlyArray<Report>
}

/** Reports that a trend looks back on. */
const trendLength = 20

/** A round trip below this is fast, however much it has drifted. Milliseconds. */
const fastPing = 5

export const make = (findings: Findings): Report => {
  const { at, breaker, history, pool, probe } = findings
  const last = history.at(-1)
  const window = windows.over(findings.readings)
  const active = pool.total - pool.idle
  const utilization = pool.max > 0 ? active / pool.max : 0
  const signals: HealthScore.Signals = {
    probeOk: probe.ok,
    pingMs: probe.ok ? probe.pingMs : undefined,
    queryMs: probe.ok ? probe.queryMs : undefined,
    total: pool.total,
    active,
    idle: pool.idle,
    waiting: pool.waiting,
    utilization,
    waitMs: window.waitMs,
    breaker: breaker.state,
    errorRate: window.errorRate,
    averageQueryMs: window.averageQueryMs,
    slowQueries: window.slowQueries,
    slowShare: window.slowShare,
    timeoutsPerMinute: window.timeoutsPerMinute,
    retryShare: window.retryShare,
    // Each is reported once, and may be held for hours.
    leaks: Math.max(window.leaks, pool.leaked)
  }
  const judged = HealthScore.score(signals)
  const series = (value: (signals: HealthScore.Signals) => number | undefined) =>
    [...history.slice(1 - trendLength), { at, signals }].flatMap(({ at, signals }) => {
      const known = value(signals)
      return known === undefined ? [] : [{ at, value: known }]
    })
  return {
    at,
    status: hysteresis.next(last?.status, judged.score),
    ...judged,
    signals,
    probe,
    window,
    pool,
    breaker,
    // A change that was not heard of shows in what it left behind.
    breakerChanges: Math.max(
      findings.breakerChanges,
      last === undefined ? 0 : breaker.trips - last.breaker.trips,
      last === undefined || last.breaker.state === breaker.state ? 0 : 1
    ),
    trends: {
      poolExhaustedIn: trend.secondsUntil(
        series((_) => _.utilization),
        1
      ),
      pingDrift: trend.drift(
        series((_) => _.pingMs),
        fastPing
      ),
      storm: trend.isStorm(window.openedPerMinute, pool.max)
    }
  }
}
