/** What the API may tell a dashboard, for tests of what becomes of it. */
import type * as State from "../../src/http/dashboard/state.js"
import { idlePool } from "../health/support.js"

export const start = 1_700_000_000_000

export const breaker = (state: State.BreakerState = "Closed", since = start - 3_600_000): State.Breaker => ({
  ...{ state, since, reason: "created", generation: 0, failures: 0, successes: 0, probing: 0, waiting: 0, trips: 0 },
  cause: []
})

export const tick = (at: number, change: Partial<State.Tick> = {}): State.Tick => ({
  ...{
    at,
    pool: idlePool,
    breaker: breaker(),
    inFlight: 0,
    seconds: 1,
    operations: 10,
    perSecond: 10,
    errors: {},
    retries: 0
  },
  ...{ timeouts: 0, p50Ms: 1, p95Ms: 2, p99Ms: 3, waitMs: 0 },
  ...change
})

export const report = (at: number, change: Partial<State.Report> = {}): State.Report => ({
  ...{ at, status: "healthy", score: 100, deductions: [], pool: idlePool, breaker: breaker(), breakerChanges: 0 },
  probe: { ok: true, pingMs: 1 },
  trends: { storm: false },
  signals: {
    ...{ probeOk: true, total: 4, active: 1, idle: 3, waiting: 0, utilization: 0.1, waitMs: 0, breaker: "Closed" },
    ...{ errorRate: 0, averageQueryMs: 1, slowQueries: 0, slowShare: 0, timeoutsPerMinute: 0, retryShare: 0, leaks: 0 }
  },
  window: {
    ...{ seconds: 60, operations: 600, perSecond: 10, errorRate: 0, errors: {}, averageQueryMs: 1, p50Ms: 4, p95Ms: 5 },
    ...{
      p99Ms: 6,
      slowQueries: 0,
      slowShare: 0,
      slowest: [],
      waitMs: 0,
      timeouts: 0,
      timeoutsPerMinute: 0,
      retries: 0
    },
    ...{ retryShare: 0, leaks: 0, openedPerMinute: 0 }
  },
  ...change
})

export const hello = (change: Partial<State.Hello> = {}): State.Hello => ({
  ...{ _tag: "Hello", at: start, pool: "shop", monitoring: true, intervalMs: 30_000, tick: tick(start) },
  ...{ reports: [], events: [], alerts: [] },
  ...change
})

export const alert = (n: number): State.Alert => ({
  ...{ id: `slow-${n}`, rule: "slow", severity: "warning", title: `Slow ${n}`, value: n, threshold: 1 },
  raisedAt: start + n
})

export const change = (at: number, from: State.BreakerState, to: State.BreakerState): State.Event => ({
  ...{ _tag: "BreakerChange", at, from, to, reason: "failures", cause: [] }
})
