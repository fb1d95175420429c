/**
 * Watches one database: asks it at an interval whether it is there, reads what the pool, the breaker and the metrics say,
 * and judges (HealthScore.ts).
 *
 * The figures are those of a window that ends with the check, a minute long by default. The status has hysteresis: it gets
 * worse below one score, and better from a higher one on. What is kept is bounded. All times are the `Clock`'s of whoever
 * builds the layer. A check that succeeds tells a circuit breaker that is not closed.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as MetricKey from "effect/MetricKey"
import * as PubSub from "effect/PubSub"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as CircuitBreaker from "../policy/CircuitBreaker.js"
import * as ResilientPg from "../ResilientPg.js"
import * as figures from "../telemetry/internal/figures.js"
import * as Metrics from "../telemetry/Metrics.js"
import { POOL_NAME } from "../telemetry/names.js"
import * as HealthProbe from "./HealthProbe.js"
import * as asking from "./internal/asking.js"
import type * as hysteresis from "./internal/hysteresis.js"
import * as internal from "./internal/monitorOptions.js"
import * as reports from "./internal/report.js"
import * as windows from "./internal/window.js"

export type Status = hysteresis.Status
export type ProbeResult = reports.ProbeResult
export type Trends = reports.Trends
/** What one check has found. */
export type Report = reports.Report
/** What happened in a report's window. */
export type Window = windows.Window

/** The status is another than in the report before. `at`: milliseconds since the epoch. */
export interface StatusChange {
  readonly _tag: "StatusChange"
  readonly at: number
  readonly from: Status
  readonly to: Status
  readonly score: number
  /** What cost points, the dearest first. */
  readonly why: ReadonlyArray<string>
}

/** What is worth remembering. `at`: milliseconds since the epoch. */
export type Event =
  | StatusChange
  | ({ readonly _tag: "BreakerChange" } & CircuitBreaker.Change)
  | { readonly _tag: "ProbeFailed"; readonly at: number; readonly error: string }
  | { readonly _tag: "ProbeRecovered"; readonly at: number; readonly downMs: number }

export interface Options {
  /** Sets the interval: 30 seconds, 10 and 5. Default `production`. */
  readonly environment?: keyof typeof internal.intervals | undefined
  /** Between two checks: 100 ms or more; `"infinity"` checks only when asked to. Default: as `environment` says. */
  readonly interval?: Duration.DurationInput | "infinity" | undefined
  /** For one check. Default 3 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** What rates and averages are taken over: 1 second or more. Default 1 minute. */
  readonly window?: Duration.DurationInput | undefined
  /** Reports kept: 1 to 100,000. Default 720, six hours in production. */
  readonly historySize?: number | undefined
  /** Events kept: 1 to 100,000. Default 500. */
  readonly eventsSize?: number | undefined
  /** Whose metrics to read. Default: the pool of the client in the environment; of `make`, none. */
  readonly poolName?: string | undefined
  /**
   * How to ask: on a connection beside the pool, which never waits for the workload's (`dedicated`), on one of the pool's
   * (`pool`), for those who have none to spare, or in one's own way. Default `dedicated`.
   */
  readonly probe?: "dedicated" | "pool" | HealthProbe.HealthProbe | undefined
}

/** Of `make`, which knows no client to make a connection of. Default probe: `HealthProbe.fromPool`. */
export interface MakeOptions extends Omit<Options, "probe"> {
  readonly probe?: HealthProbe.HealthProbe | undefined
}

/** Between two checks, by what is at stake. */
export const intervals = internal.intervals

export const defaults = internal.defaults

export class HealthMonitor extends Context.Tag("effect-pg-resilience/HealthMonitor")<
  HealthMonitor,
  {
    /** Checks now, or joins the check that is under way. */
    readonly check: Effect.Effect<Report>
    /** Undefined until the first check has ended. */
    readonly latest: Effect.Effect<Report | undefined>
    /** The latest reports, oldest first. */
    readonly history: Effect.Effect<ReadonlyArray<Report>>
    /** The latest events, oldest first. */
    readonly events: Effect.Effect<ReadonlyArray<Event>>
    /** Changes of the status, every report and every event, from the moment of subscription on. The slow miss some. */
    readonly changes: Stream.Stream<StatusChange>
    readonly reports: Stream.Stream<Report>
    readonly news: Stream.Stream<Event>
    /**
     * The rows of one statement that only reads, on the connection of the checks, within their `timeout`. Fails with
     * `QueryTimeoutError` beyond that, and with `InvalidOptionsError` where the probe has no `ask`.
     */
    readonly ask: HealthProbe.Ask
    /** Between two checks, milliseconds; undefined where checks are made only when asked for. */
    readonly intervalMs: number | undefined
  }
>() {}

/** Of the limit of a check, what `HealthProbe.fromPool` may take before it says what is wrong. */
const poolShare = 0.9

/** Of a stream, not yet taken: a subscriber that stands still holds no more than this. */
const unread = 256

const appended = <A>(items: ReadonlyArray<A>, item: A, size: number): ReadonlyArray<A> => [
  ...items.slice(Math.max(0, items.length - size + 1)),
  item
]

/** None for a pool that has told nothing yet, or has no name. */
const readFigures = (poolName: string | undefined) =>
  (poolName === undefined ? undefined : figures.perPool(Metric.unsafeSnapshot(), poolName).get(poolName)) ??
  figures.none

/** Checks at once, and then at the interval, until the scope closes. Fails with the options that are out of range. */
export const make = Effect.fnUntraced(function* (given: MakeOptions = {}) {
  const options = yield* validate.decode(internal.makeRule, "health")(given)
  const { eventsSize, historySize, poolName, timeout, window } = options
  const interval = options.interval ?? Duration.toMillis(intervals[options.environment])
  const pg = yield* ResilientPg.ResilientPg
  const breaker = yield* CircuitBreaker.CircuitBreaker
  const probe = options.probe ?? HealthProbe.fromPool(pg, timeout * poolShare)
  const runFork = yield* Effect.interruptible(FiberSet.makeRuntime<never>())

  let history: ReadonlyArray<Report> = []
  let events: ReadonlyArray<Event> = []
  let readings: ReadonlyArray<windows.Reading> = [
    { at: yield* Clock.currentTimeMillis, figures: readFigures(poolName) }
  ]
  let breakerChanges = 0
  let downSince: number | undefined
  const changed = yield* PubSub.sliding<StatusChange>(unread)
  const reported = yield* PubSub.sliding<Report>(unread)
  const told = yield* PubSub.sliding<Event>(unread)

  const gauge = Metric.fromMetricKey(MetricKey.tagged(Metrics.metrics.healthScore, POOL_NAME, poolName ?? "unnamed"))
  const tell = (event: Event) => {
    events = appended(events, event, eventsSize)
    told.unsafeOffer(event)
  }

  const tellOfProbe = ({ at, probe }: Report) => {
    if (!probe.ok) {
      if (downSince === undefined) tell({ _tag: "ProbeFailed", at, error: probe.error })
      downSince ??= at
    } else if (downSince !== undefined) {
      tell({ _tag: "ProbeRecovered", at, downMs: at - downSince })
      downSince = undefined
    }
  }

  const settle = (report: Report) => {
    const from = history.at(-1)?.status
    history = appended(history, report, historySize)
    breakerChanges = 0
    gauge.unsafeUpdate(report.score, [])
    tellOfProbe(report)
    if (from !== undefined && from !== report.status) {
      const { at, deductions, score, status: to } = report
      const change: StatusChange = { _tag: "StatusChange", at, from, to, score, why: deductions.map(({ why }) => why) }
      tell(change)
      changed.unsafeOffer(change)
    }
    reported.unsafeOffer(report)
    return report
  }

  const once = Effect.gen(function* () {
    const result = yield* asking.ask(probe, timeout)
    // A closed one has nothing to recover from, and would forget failures that this connection was spared.
    if (result.ok && (yield* breaker.state) !== "Closed") yield* breaker.recovered
    const at = yield* Clock.currentTimeMillis
    readings = windows.remember(readings, { at, figures: readFigures(poolName) }, window)
    const pool = yield* pg.pool
    const snapshot = yield* breaker.snapshot
    return settle(reports.make({ at, probe: result, readings, pool, breaker: snapshot, breakerChanges, history }))
  })

  let underWay: Fiber.RuntimeFiber<Report> | undefined
  const check = Effect.suspend(() => {
    if (underWay !== undefined) return Fiber.join(underWay)
    const fiber = runFork(once)
    underWay = fiber
    fiber.addObserver(() => {
      underWay = undefined
    })
    return Fiber.join(fiber)
  })
  /** Whatever a probe does, there is a next one. */
  const tended = Effect.catchAllCause(check, (cause) => Effect.logError("The health check died", cause))

  const follow = Stream.runForEach(breaker.changes, (change) =>
    Effect.sync(() => {
      breakerChanges += 1
      tell({ _tag: "BreakerChange", ...change })
    })
  )
  yield* Effect.forkScoped(Effect.interruptible(follow))
  if (interval !== Number.POSITIVE_INFINITY)
    yield* Effect.forkScoped(Effect.interruptible(Effect.repeat(tended, Schedule.fixed(interval))))

  return HealthMonitor.of({
    check,
    latest: Effect.sync(() => history.at(-1)),
    history: Effect.sync(() => history),
    events: Effect.sync(() => events),
    changes: Stream.fromPubSub(changed),
    reports: Stream.fromPubSub(reported),
    news: Stream.fromPubSub(told),
    ask: asking.bounded(probe, timeout),
    intervalMs: Number.isFinite(interval) ? interval : undefined
  })
})

type Needs = PgClient.PgClient | ResilientPg.ResilientPg | CircuitBreaker.CircuitBreaker

const made = (given: Options): Effect.Effect<HealthMonitor["Type"], PgError.PgError, Needs | Scope.Scope> =>
  Effect.gen(function* () {
    const options = yield* validate.decode(internal.rule, "health")(given)
    const client = yield* PgClient.PgClient
    const pool = HealthProbe.fromPool(yield* ResilientPg.ResilientPg, options.timeout * poolShare, client)
    const clients = ResilientPg.optionsOf(client)
    const probe =
      options.probe === "pool"
        ? pool
        : options.probe === "dedicated"
          ? yield* HealthProbe.dedicated(clients, options.timeout * poolShare)
          : { ...options.probe, ask: options.probe.ask ?? pool.ask }
    return yield* make({ ...given, probe, poolName: options.poolName ?? clients.poolName })
  })

export const layer = (options: Options = {}): Layer.Layer<HealthMonitor, PgError.PgError, Needs> =>
  Layer.scoped(HealthMonitor, made(options))

export const layerConfig = (
  config: Config.Config.Wrap<Omit<Options, "probe"> & { readonly probe?: "dedicated" | "pool" | undefined }>
): Layer.Layer<HealthMonitor, PgError.PgError | ConfigError.ConfigError, Needs> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))
