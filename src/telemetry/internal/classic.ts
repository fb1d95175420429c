/** The names that dashboards for database clients have always had, computed from our metrics. Pure. */

import { probeEnd } from "../names.js"
import { type Family, type Labels, labelText, type Sample, type Type } from "./exposition.js"
import { above, type Figures } from "./figures.js"

/** What the registry does not hold. Counts. */
export interface Live {
  /** Counted failures in the circuit breaker's window. */
  readonly breakerFailures?: number | undefined
  /** Operations in flight. Default: connections in use and fibers that wait for one. */
  readonly operationsActive?: number | undefined
}

/** States of `CircuitBreaker`, each always told, so that none is missed in a query. */
const states = ["Closed", "HalfOpen", "Open", "ForcedOpen", "ForcedClosed"]

const snake = (state: string) => state.replace(/(?<=[a-z])([A-Z])/g, "_$1").toLowerCase()

type Value = number | undefined | ReadonlyArray<readonly [labels: Labels, value: number]>

interface Definition {
  readonly name: string
  readonly type: Type
  readonly help: string
  readonly value: (figures: Figures, live: Live) => Value
}

/** Each with the label `pool`. One whose value is undefined is left out. */
export const definitions: ReadonlyArray<Definition> = [
  // Not a counter, in spite of its name: hence untyped.
  { name: "db_connections_total", type: "untyped", help: "Connections of the pool.", value: (_) => _.idle + _.used },
  { name: "db_connections_active", type: "gauge", help: "Connections in use.", value: (_) => _.used },
  { name: "db_connections_idle", type: "gauge", help: "Connections that are idle.", value: (_) => _.idle },
  {
    name: "db_pool_utilization_percent",
    type: "gauge",
    help: "Connections in use, of those that the pool may open.",
    value: ({ max, used }) => (max > 0 ? (100 * used) / max : 0)
  },
  {
    name: "db_query_duration_avg_ms",
    type: "gauge",
    help: "Average duration of an attempt since the program began, in milliseconds.",
    value: ({ operations }) => (operations.count > 0 ? (1000 * operations.sum) / operations.count : 0)
  },
  {
    name: "db_queries_slow_total",
    type: "counter",
    help: "Attempts that took over a second.",
    value: ({ operations }) => above(operations, 1)
  },
  {
    name: "db_queries_successful_total",
    type: "counter",
    help: "Attempts that succeeded.",
    value: ({ failed, interrupted, operations }) => Math.max(0, operations.count - failed - interrupted)
  },
  {
    name: "db_queries_failed_total",
    type: "counter",
    help: "Attempts that failed, those that there was no connection for included.",
    value: ({ failed, unserved }) => failed + unserved
  },
  {
    name: "db_health_score",
    type: "gauge",
    help: "How well the database is doing, from 0 to 100.",
    value: (_) => _.score
  },
  {
    name: "db_circuit_breaker_state",
    type: "gauge",
    help: "1 for the state that the circuit breaker is in.",
    value: ({ breaker }) =>
      breaker === undefined
        ? undefined
        : states.map((state) => [[["value", snake(state)]], state === breaker ? 1 : 0] as const)
  },
  {
    name: "db_circuit_breaker_failures",
    type: "gauge",
    help: "Failures that the circuit breaker counts at the moment.",
    value: (_, { breakerFailures }) => breakerFailures
  },
  {
    name: "db_operations_active",
    type: "gauge",
    help: "Operations in flight.",
    value: ({ pending, used }, { operationsActive }) => operationsActive ?? used + pending
  },
  {
    name: "db_timeouts_total",
    type: "counter",
    help: "Waits for a connection, statements and operations that ran out of time.",
    value: (_) => _.timeouts
  }
]

/** Whether it belongs to the health checks of another pool: no part of the program's own work. */
const isProbe = (pool: string, pools: ReadonlyMap<string, Figures>) =>
  pool.endsWith(probeEnd) && pools.has(pool.slice(0, -probeEnd.length))

/** The families, with a sample for every pool that is not a health check's. */
export const families = (pools: ReadonlyMap<string, Figures>, live: (pool: string) => Live): ReadonlyArray<Family> => {
  const told = Array.from(pools).filter(([pool]) => !isProbe(pool, pools))
  return definitions.flatMap(({ help, name, type, value }) => {
    const samples = told.flatMap(([pool, figures]): ReadonlyArray<Sample> => {
      const found = value(figures, live(pool))
      if (found === undefined) return []
      const values = typeof found === "number" ? [[[], found] as const] : found
      return values.map(([labels, value]) => ({ suffix: "", labels: labelText([["pool", pool], ...labels]), value }))
    })
    return samples.length === 0 ? [] : [{ name, type, help, samples }]
  })
}
