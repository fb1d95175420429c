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
  /** Attempts that there was no connection for; not among `operations`, nor among `failed`. */
  readonly unserved: number
  /** Both by tag. */
  readonly errors: ReadonlyMap<string, number>
  /** Of both, those whose failure speaks of the database rather than of the program. */
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
  unserved: 0,
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
  if (a.buckets.length === b.buckets.length && a.buckets.every(([bound], i) => b.buckets[i]![0] === bound)) {
    const buckets = a.buckets.map(([bound, count], i) => [bound, count + b.buckets[i]![1]] as const)
    return { count: a.count + b.count, sum: a.sum + b.sum, buckets }
  }
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

/** Figures that are being read are filled in place: a registry holds hundreds of metrics, and is read every few seconds. */
type Reading = { -readonly [K in keyof Figures]: Figures[K] } & {
  readonly byName: Map<string, Named>
  readonly errors: Map<string, number>
}

/** There are a handful of labels at most. */
const labelOf = ({ tags }: MetricPair.MetricPair.Untyped["metricKey"], name: string): string | undefined =>
  tags.find(({ key }) => key === name)?.value

const addError = (figures: Reading, error: string, count: number) => {
  figures.errors.set(error, (figures.errors.get(error) ?? 0) + count)
  // A tag that is not known here is one more reason to look.
  if (troubling[error as PgError.Tag] ?? true) figures.troubled += count
}

const addOperation = (
  figures: Reading,
  histogram: Histogram,
  operation: string | undefined = "unnamed",
  error: string | undefined
) => {
  const { byName } = figures
  const { count, sum } = histogram
  const before = byName.get(operation)
  byName.set(operation, {
    count: (before?.count ?? 0) + count,
    sum: (before?.sum ?? 0) + sum,
    slow: (before?.slow ?? 0) + above(histogram, slowSeconds)
  })
  figures.operations = addHistograms(figures.operations, histogram)
  if (error === undefined) return
  if (error === "Interrupted") {
    figures.interrupted += count
    return
  }
  figures.failed += count
  addError(figures, error, count)
  if (timeouts.has(error)) figures.timeouts += count
}

const add = (figures: Reading, { metricKey, metricState }: MetricPair.MetricPair.Untyped): void => {
  const { name } = metricKey
  if (MetricState.isHistogramState(metricState)) {
    const { buckets, count, sum } = metricState
    const histogram = { buckets, count, sum }
    switch (name) {
      case metrics.operationDuration.name:
        addOperation(figures, histogram, labelOf(metricKey, OPERATION_NAME), labelOf(metricKey, ERROR_TYPE))
        break
      case metrics.waitTime.name:
        figures.waits = addHistograms(figures.waits, histogram)
        break
      case metrics.createTime.name:
        figures.opened += count
        break
    }
  } else if (MetricState.isGaugeState(metricState)) {
    if (name === metrics.healthScore.name) figures.score = Number(metricState.value)
  } else if (MetricState.isCounterState(metricState)) {
    const value = Number(metricState.count)
    switch (name) {
      case metrics.connectionCount.name:
        figures[labelOf(metricKey, CONNECTION_STATE) === "idle" ? "idle" : "used"] += value
        break
      case metrics.connectionMax.name:
        figures.max += value
        break
      case metrics.pendingRequests.name:
        figures.pending += value
        break
      case metrics.timeouts.name:
      case metrics.operationTimeouts.name:
        figures.timeouts += value
        break
      case metrics.unserved.name:
        figures.unserved += value
        addError(figures, labelOf(metricKey, ERROR_TYPE) ?? "unnamed", value)
        break
      case metrics.breakerState.name:
        if (value > 0) figures.breaker = labelOf(metricKey, "state")
        break
      case metrics.retryAttempts.name:
        figures.retries += value
        break
      case metrics.leaks.name:
        figures.leaks += value
        break
      case metrics.cancels.name:
        if (labelOf(metricKey, "result") === "Silent") figures.silent += value
        break
    }
  }
}

/** By the pool's name; of one pool alone where `only` says which. */
export const perPool = (
  pairs: Iterable<MetricPair.MetricPair.Untyped>,
  only?: string | undefined
): ReadonlyMap<string, Figures> => {
  const pools = new Map<string, Reading>()
  for (const pair of pairs) {
    const pool = labelOf(pair.metricKey, POOL_NAME)
    if (pool === undefined || (only !== undefined && pool !== only)) continue
    let figures = pools.get(pool)
    if (figures === undefined) {
      figures = { ...none, byName: new Map(), errors: new Map() }
      pools.set(pool, figures)
    }
    add(figures, pair)
  }
  return pools
}
