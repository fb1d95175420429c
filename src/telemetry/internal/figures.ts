/**
 * What the metrics of Metrics.ts say of each pool, read back from Effect's registry: for whoever shows or judges them.
 * Counters are those since the program began; levels are of this moment.
 */
import type * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import type * as PgError from "../../error/tags.js"
import { metrics } from "../Metrics.js"
import { CONNECTION_STATE, ERROR_TYPE, OPERATION_NAME, POOL_NAME } from "../names.js"

/** Seconds. `buckets`: upper bound, and how many were at most that. The last bound is `Infinity`. */
export interface Histogram {
  readonly count: number
  readonly sum: number
  readonly buckets: ReadonlyArray<readonly [bound: number, cumulative: number]>
}

/** Attempts of one name: how many, how long altogether, and how many took over a second. */
export interface Named {
  readonly count: number
  readonly sum: number
  readonly slow: number
}

export interface Figures {
  readonly idle: number
  readonly used: number
  readonly max: number
  /** Fibers that wait for a connection. */
  readonly pending: number
  /** The breaker's state; undefined where nothing was told of it. */
  readonly breaker: string | undefined
  /** The score that a monitor has given last. */
  readonly score: number | undefined

  /** Attempts that were answered or lost. */
  readonly operations: Histogram
  /** The same by the name of the operation, or else by the statement's command. */
  readonly byName: ReadonlyMap<string, Named>
  /** Those that failed with any tag; an interrupted one is neither success nor failure. */
  readonly failed: number
  /** The same by tag. */
  readonly errors: ReadonlyMap<string, number>
  /** Those whose failure speaks of the database rather than of the program. */
  readonly troubled: number
  /** Statements that were given up, and that nothing was heard of any more; not among `operations`. */
  readonly silent: number
  readonly interrupted: number
  readonly waits: Histogram
  /**
   * Waits for a connection, statements and operations that ran out of time, each once: an attempt that an operation's
   * deadline cut off is `interrupted`.
   */
  readonly timeouts: number
  /** Connections opened. */
  readonly opened: number
  readonly retries: number
  readonly leaks: number
}

export const noHistogram: Histogram = { count: 0, sum: 0, buckets: [] }

export const none: Figures = {
  idle: 0,
  used: 0,
  max: 0,
  pending: 0,
  breaker: undefined,
  score: undefined,
  operations: noHistogram,
  byName: new Map(),
  failed: 0,
  errors: new Map(),
  troubled: 0,
  silent: 0,
  interrupted: 0,
  waits: noHistogram,
  timeouts: 0,
  opened: 0,
  retries: 0,
  leaks: 0
}

/** Whether a failure speaks of the database's health. A constraint violation is an answer. */
const troubling: { readonly [Tag in PgError.Tag]: boolean } = {
  ConnectionError: true,
  AuthenticationError: true,
  AuthorizationError: false,
  SqlSyntaxError: false,
  UniqueViolation: false,
  ConstraintError: false,
  DeadlockError: true,
  SerializationError: false,
  LockTimeoutError: true,
  StatementTimeoutError: true,
  UnknownError: true,
  PoolTimeoutError: true,
  TooManyConnectionsError: true,
  ServerUnavailableError: true,
  ReadOnlyError: true,
  ResourceError: true,
  QueryTimeoutError: true,
  CircuitOpenError: false,
  OutcomeUnknownError: true,
  TransactionAbortedError: false,
  PoolClosedError: false,
  IdempotencyKeyReusedError: false,
  InvalidOptionsError: false
}

/** An attempt that takes longer is slow. A boundary of the histogram. */
export const slowSeconds = 1

const timeouts = new Set<string>(["QueryTimeoutError", "StatementTimeoutError"] satisfies ReadonlyArray<PgError.Tag>)

/** The sum of two; where the boundaries differ, only those that both have can be told. */
export const addHistograms = (a: Histogram, b: Histogram): Histogram => {
  if (a.count === 0) return b
  if (b.count === 0) return a
  const other = new Map(b.buckets)
  return {
    count: a.count + b.count,
    sum: a.sum + b.sum,
    buckets: a.buckets.flatMap(([bound, count]) => {
      const more = other.get(bound)
      return more === undefined ? [] : [[bound, count + more] as const]
    })
  }
}

/** How many were above a bound; all above the next lower one where there is no such bound. */
export const above = ({ buckets, count }: Histogram, bound: number): number =>
  count - (buckets.findLast(([upTo]) => upTo <= bound)?.[1] ?? 0)

/** The maps of the figures that are being read are filled in place. */
interface Reading extends Figures {
  readonly byName: Map<string, Named>
  readonly errors: Map<string, number>
}

const added = (
  figures: Reading,
  name: string,
  labels: ReadonlyMap<string, string>,
  pair: MetricPair.MetricPair.Untyped
): Reading => {
  const { metricState } = pair
  if (MetricState.isHistogramState(metricState)) {
    const { buckets, count, sum } = metricState
    const histogram = { buckets, count, sum }
    switch (name) {
      case metrics.operationDuration.name: {
        const error = labels.get(ERROR_TYPE)
        const interrupted = error === "Interrupted"
        const failed = error !== undefined && !interrupted
        const operation = labels.get(OPERATION_NAME) ?? "unnamed"
        const { byName, errors } = figures
        const before = byName.get(operation) ?? { count: 0, sum: 0, slow: 0 }
        byName.set(operation, {
          count: before.count + count,
          sum: before.sum + sum,
          slow: before.slow + above(histogram, slowSeconds)
        })
        if (failed) errors.set(error, (errors.get(error) ?? 0) + count)
        return {
          ...figures,
          operations: addHistograms(figures.operations, histogram),
          failed: figures.failed + (failed ? count : 0),
          // A tag that is not known here is one more reason to look.
          troubled: figures.troubled + (failed && (troubling[error as PgError.Tag] ?? true) ? count : 0),
          timeouts: figures.timeouts + (failed && timeouts.has(error) ? count : 0),
          interrupted: figures.interrupted + (interrupted ? count : 0)
        }
      }
      case metrics.waitTime.name:
        return { ...figures, waits: addHistograms(figures.waits, histogram) }
      case metrics.createTime.name:
        return { ...figures, opened: figures.opened + count }
    }
    return figures
  }
  if (MetricState.isGaugeState(metricState)) {
    return name === metrics.healthScore.name ? { ...figures, score: Number(metricState.value) } : figures
  }
  if (!MetricState.isCounterState(metricState)) return figures
  const value = Number(metricState.count)
  switch (name) {
    case metrics.connectionCount.name:
      return labels.get(CONNECTION_STATE) === "idle"
        ? { ...figures, idle: figures.idle + value }
        : { ...figures, used: figures.used + value }
    case metrics.connectionMax.name:
      return { ...figures, max: figures.max + value }
    case metrics.pendingRequests.name:
      return { ...figures, pending: figures.pending + value }
    case metrics.timeouts.name:
    case metrics.operationTimeouts.name:
      return { ...figures, timeouts: figures.timeouts + value }
    case metrics.breakerState.name:
      return value > 0 ? { ...figures, breaker: labels.get("state") } : figures
    case metrics.retryAttempts.name:
      return { ...figures, retries: figures.retries + value }
    case metrics.leaks.name:
      return { ...figures, leaks: figures.leaks + value }
    case metrics.cancels.name:
      return labels.get("result") === "Silent" ? { ...figures, silent: figures.silent + value } : figures
  }
  return figures
}

/** By the pool's name. */
export const perPool = (pairs: Iterable<MetricPair.MetricPair.Untyped>): ReadonlyMap<string, Figures> => {
  const pools = new Map<string, Reading>()
  for (const pair of pairs) {
    const labels = new Map(pair.metricKey.tags.map(({ key, value }) => [key, value]))
    const pool = labels.get(POOL_NAME)
    if (pool === undefined) continue
    const figures = pools.get(pool) ?? { ...none, byName: new Map(), errors: new Map() }
    pools.set(pool, added(figures, pair.metricKey.name, labels, pair))
  }
  return pools
}
