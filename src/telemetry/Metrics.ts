/**
 * What the library measures: every metric with its unit, its labels and their values.
 *
 * Names, units and buckets under `db.client` are those of OpenTelemetry's semantic conventions for database client
 * metrics; `pgresilience` is ours. All are Effect `Metric`s, so whatever exports a program's metrics exports these. Times
 * are seconds. The labels' values come from closed sets, but for names that the program gives to its operations: of those
 * the first 200 of a pool are told apart and the rest is `_OTHER`.
 *
 * An up-down counter is a counter that also falls: pools that share a name add up, and `close` takes a pool out again.
 * Effect has no field for the unit of a metric; its exporters read it from a label named `unit`.
 */
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricKey from "effect/MetricKey"
import type * as MetricKeyType from "effect/MetricKeyType"
import * as MetricLabel from "effect/MetricLabel"
import type { TransactionOutcome } from "../client/internal/stages.js"
import type { EvictionReason } from "../client/Pool.js"
import type * as PgError from "../error/tags.js"
import type * as CircuitBreaker from "../policy/CircuitBreaker.js"
import {
  CONNECTION_STATE,
  ERROR_TYPE,
  NAMESPACE,
  OPERATION_NAME,
  POOL_NAME,
  SERVER_ADDRESS,
  SERVER_PORT,
  SYSTEM_NAME
} from "./names.js"

/** Seconds; the boundaries that the conventions advise for `db.client.operation.duration`. */
const seconds = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]
/** A connection that is free is had in far less than a millisecond. */
const waitingSeconds = [0.0001, 0.0005, ...seconds]

const unit = (unit: string) => MetricKey.tagged("unit", unit)
const counter = (name: string, per: string, description: string) =>
  unit(per)(MetricKey.counter(name, { description, incremental: true }))
const upDownCounter = (name: string, per: string, description: string) =>
  unit(per)(MetricKey.counter(name, { description, incremental: false }))
const histogram = (name: string, boundaries: ReadonlyArray<number>, description: string) =>
  unit("s")(MetricKey.histogram(name, MetricBoundaries.fromIterable(boundaries), description))

/** Every metric there is. All carry `db.client.connection.pool.name`; further labels are named here. */
export const metrics = {
  /** `db.client.connection.state`: `idle`, `used`. */
  connectionCount: upDownCounter(
    "db.client.connection.count",
    "{connection}",
    "Connections of the pool. Whatever is not idle is used."
  ),
  connectionIdleMin: upDownCounter(
    "db.client.connection.idle.min",
    "{connection}",
    "Connections that the pool keeps open without need."
  ),
  connectionIdleMax: upDownCounter(
    "db.client.connection.idle.max",
    "{connection}",
    "Connections that may be idle at once."
  ),
  connectionMax: upDownCounter("db.client.connection.max", "{connection}", "Connections that the pool may open."),
  pendingRequests: upDownCounter(
    "db.client.connection.pending_requests",
    "{request}",
    "Fibers that wait for a connection."
  ),
  timeouts: counter("db.client.connection.timeouts", "{timeout}", "Waits for a connection that ended without one."),
  createTime: histogram("db.client.connection.create_time", seconds, "Time to open a connection, ready for use."),
  waitTime: histogram(
    "db.client.connection.wait_time",
    waitingSeconds,
    "Time to get a connection from the pool, or to wait in vain."
  ),
  useTime: histogram("db.client.connection.use_time", seconds, "Time from getting a connection to giving it back."),
  /**
   * `db.system.name`, `db.namespace`, `server.address`, `server.port` unless 5432, `db.operation.name`, and
   * `error.type` where it failed.
   */
  operationDuration: histogram("db.client.operation.duration", seconds, "Duration of one attempt, failures included."),
  /** `error.type`. */
  unserved: counter(
    "pgresilience.operation.unserved",
    "{attempt}",
    "Attempts that there was no connection for: nothing was sent. The circuit breaker's refusals are not among them."
  ),
  /** `db.operation.name`. */
  operationTimeouts: counter(
    "pgresilience.operation.timeouts",
    "{operation}",
    "Operations and transactions whose deadline passed."
  ),
  /** `state`: 1 for the state that the circuit is in, 0 for each it has been in before. */
  breakerState: upDownCounter("pgresilience.breaker.state", "1", "Whether the circuit breaker is in this state."),
  /** `from`, `to`. */
  breakerTransitions: counter(
    "pgresilience.breaker.transitions",
    "{transition}",
    "Changes of the circuit breaker's state."
  ),
  /** `error.type`: what the attempt before failed with. */
  retryAttempts: counter("pgresilience.retry.attempts", "{retry}", "Attempts after the first."),
  /** `state`: `used`, `allowed`. */
  retryBudget: upDownCounter("pgresilience.retry.budget", "{retry}", "Retries under way, and how many may be."),
  /** `reason`. */
  connectionEvicted: counter("pgresilience.connection.evicted", "{connection}", "Connections taken out of the pool."),
  /** `error.type`: what led there. */
  outcomeUnknown: counter(
    "pgresilience.outcome.unknown",
    "{operation}",
    "Writes that may or may not have been applied."
  ),
  /** `outcome`. */
  transactions: counter("pgresilience.transactions", "{transaction}", "Transactions that have ended."),
  /** `outcome`. */
  settleTime: histogram(
    "pgresilience.transaction.settle_time",
    seconds,
    "Time from a lost answer to a COMMIT until its outcome was known."
  ),
  /** `result`. */
  cancels: counter("pgresilience.cancels", "{statement}", "Statements that were abandoned in flight, once settled."),
  leaks: counter("pgresilience.leaks", "{connection}", "Connections reported for being held too long."),
  /** Set by a `HealthMonitor`; there is none without one. */
  healthScore: unit("{point}")(
    MetricKey.gauge("pgresilience.health.score", { description: "How well the database is doing, from 0 to 100." })
  )
} as const

/** The labels of each metric beside the pool's name; `error.type` and `server.port` are left out where they do not apply. */
export const labels: { readonly [M in keyof typeof metrics]: ReadonlyArray<string> } = {
  connectionCount: [CONNECTION_STATE],
  connectionIdleMin: [],
  connectionIdleMax: [],
  connectionMax: [],
  pendingRequests: [],
  timeouts: [],
  createTime: [],
  waitTime: [],
  useTime: [],
  operationDuration: [SYSTEM_NAME, NAMESPACE, SERVER_ADDRESS, SERVER_PORT, OPERATION_NAME, ERROR_TYPE],
  unserved: [ERROR_TYPE],
  operationTimeouts: [OPERATION_NAME],
  breakerState: ["state"],
  breakerTransitions: ["from", "to"],
  retryAttempts: [ERROR_TYPE],
  retryBudget: ["state"],
  connectionEvicted: ["reason"],
  outcomeUnknown: [ERROR_TYPE],
  transactions: ["outcome"],
  settleTime: ["outcome"],
  cancels: ["result"],
  leaks: [],
  healthScore: []
}

/** `error.type` of an attempt: a tag of `PgError`, or `Interrupted` when its caller went away. */
export type ErrorType = PgError.Tag | "Interrupted"

export type { TransactionOutcome }

/** An abandoned statement ended by itself, was cancelled, or nothing was heard of it any more. */
export type CancelResult = "Ended" | "Cancelled" | "Silent"

/** The pool's figures: connections, and fibers that wait for one. */
export interface PoolFigures {
  readonly idle: number
  /** Those in use, being settled or being checked. */
  readonly used: number
  readonly pending: number
}

export interface Options {
  /** Default: `address:port/namespace`. */
  readonly poolName?: string | undefined
  /** The database. */
  readonly namespace: string
  readonly address: string
  readonly port: number
  readonly min: number
  readonly max: number
}

/**
 * Where one pool and the stages around it report. All methods are synchronous, cheap (a fraction of a microsecond) and
 * never throw.
 */
export interface PoolMetrics {
  /** One attempt has ended. `errorType` is undefined for success. */
  readonly operation: (name: string, seconds: number, errorType: ErrorType | undefined) => void
  /** There was no connection for an attempt. */
  readonly unserved: (error: PgError.Tag) => void
  /** The deadline of an operation has passed. */
  readonly operationTimeout: (name: string) => void
  readonly connected: (seconds: number) => void
  readonly waited: (seconds: number) => void
  readonly used: (seconds: number) => void
  readonly acquireTimeout: () => void
  readonly evicted: (reason: EvictionReason) => void
  /** To be told whenever a figure has changed. */
  readonly pool: (figures: PoolFigures) => void
  /** A retry was decided; `error` is what is retried. */
  readonly retry: (error: PgError.Tag) => void
  /** An `allowed` of `Infinity` is not reported: there is no budget. */
  readonly budget: (used: number, allowed: number) => void
  readonly breaker: (from: CircuitBreaker.State, to: CircuitBreaker.State) => void
  /** `reason` is the tag of what led there. */
  readonly outcomeUnknown: (reason: PgError.Tag) => void
  readonly transaction: (outcome: TransactionOutcome) => void
  readonly settled: (outcome: "settledCommitted" | "settledAborted", seconds: number) => void
  readonly cancel: (result: CancelResult) => void
  readonly leak: () => void
  /** The pool is gone: its share of every up-down counter goes back to 0, and stays there. */
  readonly close: () => void
}

/** Distinct operation names that a pool tells apart. */
export const maxOperationNames = 200

/** `db.operation.name` of all further operations. The same word as the conventions' catch-all for `error.type`. */
export const otherOperation = "_OTHER"

/** The name that the conventions give to a pool that has none. */
export const defaultPoolName = ({ address, namespace, port }: Pick<Options, "address" | "namespace" | "port">) =>
  `${address}:${port}/${namespace}`

/** The key of a metric that takes numbers: amounts to add, or values to sort into buckets. */
type Key = MetricKey.MetricKey<MetricKeyType.MetricKeyType<number, unknown>>

const noLabels: ReadonlyArray<MetricLabel.MetricLabel> = []

/** One function for every value of a label, made when that value first comes up. */
const perValue = <Value extends string, A>(make: (value: Value) => A): ((value: Value) => A) => {
  const made = new Map<Value, A>()
  return (value) => {
    let known = made.get(value)
    if (known === undefined) {
      known = make(value)
      made.set(value, known)
    }
    return known
  }
}

/** The metrics of one pool, labelled once and for all. `close` it with the pool. */
export const forPool = (options: Options): PoolMetrics => {
  const { address, max, min, namespace, poolName = defaultPoolName(options), port } = options

  /** A metric made from its whole key looks that up once; stacked `Metric.tagged` would do so at every update. */
  const updating = (key: Key, labels: Record<string, string> = {}): ((value: number) => void) => {
    const all = Object.entries({ [POOL_NAME]: poolName, ...labels })
    const metric = Metric.fromMetricKey(
      MetricKey.taggedWithLabels(
        key,
        all.map(([name, value]) => MetricLabel.make(name, value))
      )
    )
    return (value) => metric.unsafeUpdate(value, noLabels)
  }

  const counting = (key: Key, labels?: Record<string, string>) => {
    const add = updating(key, labels)
    return () => add(1)
  }

  /** Without labels to wait for, a counter starts at 0: "never" is an answer, absence is none. */
  const countingFromZero = (key: Key) => {
    const add = updating(key)
    add(0)
    return () => add(1)
  }

  let closed = false
  const levels: Array<(value: number) => void> = []
  const level = (key: Key, labels?: Record<string, string>): ((value: number) => void) => {
    const add = updating(key, labels)
    let last = 0
    const set = (value: number) => {
      if (value === last || closed) return
      add(value - last)
      last = value
    }
    add(0)
    levels.push(set)
    return set
  }

  level(metrics.connectionIdleMin)(min)
  level(metrics.connectionIdleMax)(max)
  level(metrics.connectionMax)(max)
  const idle = level(metrics.connectionCount, { [CONNECTION_STATE]: "idle" })
  const used = level(metrics.connectionCount, { [CONNECTION_STATE]: "used" })
  const pending = level(metrics.pendingRequests)

  const server = {
    [SYSTEM_NAME]: "postgresql",
    [NAMESPACE]: namespace,
    [SERVER_ADDRESS]: address,
    ...(port === 5432 ? {} : { [SERVER_PORT]: String(port) })
  }
  const operationNamed = perValue((name: string) => {
    const labels = { ...server, [OPERATION_NAME]: name }
    const succeeded = updating(metrics.operationDuration, labels)
    const failed = perValue((errorType: ErrorType) =>
      updating(metrics.operationDuration, { ...labels, [ERROR_TYPE]: errorType })
    )
    return (seconds: number, errorType: ErrorType | undefined) =>
      errorType === undefined ? succeeded(seconds) : failed(errorType)(seconds)
  })
  const names = new Set<string>()
  const bounded = (name: string) => {
    if (names.has(name)) return name
    if (names.size >= maxOperationNames) return otherOperation
    names.add(name)
    return name
  }

  const unserved = perValue((error: PgError.Tag) => counting(metrics.unserved, { [ERROR_TYPE]: error }))
  const operationTimeout = perValue((name: string) => counting(metrics.operationTimeouts, { [OPERATION_NAME]: name }))

  const breakerState = perValue((state: CircuitBreaker.State) => level(metrics.breakerState, { state }))
  breakerState("Closed")(1)
  const transitions = perValue((from: CircuitBreaker.State) =>
    perValue((to: CircuitBreaker.State) => counting(metrics.breakerTransitions, { from, to }))
  )

  const budgetUsed = level(metrics.retryBudget, { state: "used" })
  const budgetAllowed = level(metrics.retryBudget, { state: "allowed" })

  const retry = perValue((error: PgError.Tag) => counting(metrics.retryAttempts, { [ERROR_TYPE]: error }))
  const evicted = perValue((reason: EvictionReason) => counting(metrics.connectionEvicted, { reason }))
  const outcomeUnknown = perValue((reason: PgError.Tag) => counting(metrics.outcomeUnknown, { [ERROR_TYPE]: reason }))
  const transaction = perValue((outcome: TransactionOutcome) => counting(metrics.transactions, { outcome }))
  const settleTime = perValue((outcome: TransactionOutcome) => updating(metrics.settleTime, { outcome }))
  const cancel = perValue((result: CancelResult) => counting(metrics.cancels, { result }))

  return {
    operation: (name, seconds, errorType) => operationNamed(bounded(name))(seconds, errorType),
    unserved: (error) => unserved(error)(),
    operationTimeout: (name) => operationTimeout(bounded(name))(),
    connected: updating(metrics.createTime),
    waited: updating(metrics.waitTime),
    used: updating(metrics.useTime),
    acquireTimeout: countingFromZero(metrics.timeouts),
    evicted: (reason) => evicted(reason)(),
    pool: (figures) => {
      idle(figures.idle)
      used(figures.used)
      pending(figures.pending)
    },
    retry: (error) => retry(error)(),
    budget: (used, allowed) => {
      budgetUsed(used)
      if (Number.isFinite(allowed)) budgetAllowed(allowed)
    },
    breaker: (from, to) => {
      breakerState(from)(0)
      breakerState(to)(1)
      transitions(from)(to)()
    },
    outcomeUnknown: (reason) => outcomeUnknown(reason)(),
    transaction: (outcome) => transaction(outcome)(),
    settled: (outcome, seconds) => {
      transaction(outcome)()
      settleTime(outcome)(seconds)
    },
    cancel: (result) => cancel(result)(),
    leak: countingFromZero(metrics.leaks),
    close: () => {
      for (const set of levels) set(0)
      closed = true
    }
  }
}
