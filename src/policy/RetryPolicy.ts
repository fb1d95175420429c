/**
 * Which failures are tried again, how often, and after which delays.
 *
 * A policy is a record from error tag to `Schedule`; a tag without a schedule is not retried. Each tag keeps a state of
 * its own within one operation: a deadlock after two lost connections is a first deadlock, with the first deadlock's
 * delay. `maxRetries` bounds the sum over all tags.
 *
 * Every schedule of this module uses full jitter: the delay is drawn uniformly, in whole milliseconds, from nothing to
 * the delay named, so that clients which failed together do not return together. Source: Marc Brooker, "Exponential
 * Backoff and Jitter", AWS Architecture Blog, 2015. Delays come from `Random` and times from `Clock`.
 *
 * A policy says nothing about safety: whether work with an unknown outcome may be repeated at all is decided before a
 * policy is asked, and what may not be is an `OutcomeUnknownError`, which no preset retries.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Decision from "effect/ScheduleDecision"
import * as Interval from "effect/ScheduleInterval"
import * as Intervals from "effect/ScheduleIntervals"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"

/** The error that a tag names. */
export type ErrorOf<Tag extends PgError.Tag> = Extract<PgError.PgError, { readonly _tag: Tag }>

/** A schedule for every tag that is retried. */
export interface RetryPolicy extends Readonly<Schedules> {
  /** Retries of one operation, whatever their tags; immediate ones count apart. 0 or more, `"infinity"`, default 20. */
  readonly maxRetries?: number | "infinity" | undefined
}

type Schedules = { [Tag in PgError.Tag]?: Schedule.Schedule<unknown, ErrorOf<Tag>> | undefined }

export const defaults = {
  /** No operation is retried more often than this, unless its policy says otherwise. */
  maxRetries: 20,
  /** How often an operation that met a dead connection, with nothing sent, goes on at once and for nothing. */
  immediateRetries: 3,
  /** The numbers of `unavailable`; times in milliseconds. */
  unavailable: { retries: 5, first: 500, factor: 1.5, cap: 30_000 }
} as const

/** The numbers of one schedule. */
export interface Backoff {
  /** Retries after the first attempt: 0 or more, or `"infinity"`. */
  readonly retries: number | "infinity"
  /** The longest delay before the first retry: 1 ms or more. */
  readonly first: Duration.DurationInput
  /** What the longest delay is multiplied with from one retry to the next: 1 or more. Default 2. */
  readonly factor?: number | undefined
  /** No delay is longer than this: `first` or more, 24 days at most. */
  readonly cap: Duration.DurationInput
}

const backoffRule = validate.struct(
  {
    retries: validate.integer({ infinity: true }),
    first: validate.duration({ max: validate.maxMillis }),
    factor: validate.defaulted(validate.number({ min: 1 }), 2),
    cap: validate.duration({ max: validate.maxMillis })
  },
  {
    relation: ({ cap, first }) =>
      cap !== undefined && first !== undefined && cap < first
        ? [validate.fault("cap", cap, `${first} ms, which is \`first\`, or more`)]
        : []
  }
)

const orThrow = <A>(self: Either.Either<A, PgError.InvalidOptionsError>): A =>
  Either.getOrThrowWith(self, (error) => error)

/**
 * `first`, growing by `factor` up to `cap`, then full jitter, at most `retries` times, only while the error is
 * transient. Throws `InvalidOptionsError` with every number that is out of range.
 */
export const backoff = (options: Backoff): Schedule.Schedule<number, PgError.PgError> => {
  const { cap, factor, first, retries } = orThrow(validate.decode(backoffRule, "backoff")(options))
  return Schedule.recurs(retries).pipe(
    Schedule.addDelayEffect((retry) =>
      Random.nextIntBetween(0, Math.floor(Math.min(cap, first * factor ** retry)) + 1)
    ),
    Schedule.whileInput((error: PgError.PgError) => error.transient)
  )
}

/** At most 5 retries: up to 500 ms, growing by half each time, capped at 30 s. For a server that is away or restarting. */
export const unavailable = backoff(defaults.unavailable)

/** At most 10 retries: up to 2 s, doubling, capped at 60 s. For a slot that somebody else has to give back. */
export const exhausted = backoff({ retries: 10, first: "2 seconds", factor: 2, cap: "60 seconds" })

/** At most 3 retries: up to 1 s, doubling, capped at 10 s. For a lock that somebody else holds. */
export const locked = backoff({ retries: 3, first: "1 second", factor: 2, cap: "10 seconds" })

/** At most 5 retries: up to 10 ms, doubling, capped at 1 s. For transactions that met, and need only miss each other. */
export const contention = backoff({ retries: 5, first: "10 millis", factor: 2, cap: "1 second" })

/**
 * SQLSTATEs of a prepared statement that a change of tables, or a pooler, made useless: in a transaction, which can only be
 * run again as a whole, and then without it. Source: PostgreSQL manual, Appendix A.
 */
const stale = new Set(["0A000", "26000", "42P05"])

/** SQLSTATE disk_full: time alone frees no disk. Source: PostgreSQL manual, Appendix A. */
const diskFull = "53100"

/** One schedule for all tags of a server that is away, restarting, demoted or short of something but not of disk. */
export const whileUnavailable = (schedule: Schedule.Schedule<unknown, PgError.PgError>): RetryPolicy => ({
  ConnectionError: schedule,
  ServerUnavailableError: schedule,
  ReadOnlyError: schedule,
  ResourceError: Schedule.whileInput(schedule, (error: PgError.ResourceError) => error.sqlState !== diskFull)
})

/** Nothing is retried. */
export const none: RetryPolicy = {}

/**
 * The default: `unavailable`, `exhausted` (server slots only), `locked` and `contention`, each for its tags; the last also
 * for a prepared statement that is stale.
 */
export const standard: RetryPolicy = {
  ...whileUnavailable(unavailable),
  TooManyConnectionsError: exhausted,
  LockTimeoutError: locked,
  DeadlockError: contention,
  SerializationError: contention,
  UnknownError: Schedule.whileInput(contention, (error: PgError.UnknownError) => stale.has(error.sqlState ?? ""))
}

const policyRule = validate.struct({ maxRetries: validate.optional(validate.integer({ infinity: true })) })

/**
 * `base`, with what `overrides` names in place of its own; a tag that is there as `undefined` is not retried. Throws
 * `InvalidOptionsError` when `maxRetries` is out of range.
 *
 * @example
 * // one more try for a unique violation, no retries for locks, six retries altogether
 * RetryPolicy.make({ UniqueViolation: Schedule.recurs(1), LockTimeoutError: undefined, maxRetries: 6 })
 */
export const make = (overrides: RetryPolicy, base: RetryPolicy = standard): RetryPolicy => {
  orThrow(validate.decode(policyRule, "retry")(overrides))
  return { ...base, ...overrides }
}

const brief = backoff({ retries: 3, first: "100 millis", factor: 2, cap: "5 seconds" })

/** For answers somebody waits for: 3 retries from 100 ms, doubling, capped at 5 s; `contention` as in `standard`. */
export const web: RetryPolicy = make({
  ...whileUnavailable(brief),
  TooManyConnectionsError: brief,
  LockTimeoutError: brief
})

/** For background work: `standard`, and a full pool is waited for like a full server (`exhausted`). */
export const patient: RetryPolicy = make({ PoolTimeoutError: exhausted })

const booting = backoff({ retries: "infinity", first: "250 millis", factor: 1.5, cap: "5 seconds" })

/**
 * For a program that starts together with its database: 60 retries from 250 ms, growing by half, capped at 5 s, which
 * is a little over two minutes, and at most four and a half. The circuit breaker is waited for too, until the time it names;
 * with `whenOpen: "wait"` already until the server is back. Fails at once on what no waiting mends.
 */
export const startup: RetryPolicy = make({
  ...whileUnavailable(booting),
  TooManyConnectionsError: booting,
  PoolTimeoutError: booting,
  CircuitOpenError: booting,
  maxRetries: 60
})

/** How far each tag of an operation has come. Immutable. */
export interface State {
  readonly retries: number
  readonly byTag: { readonly [Tag in PgError.Tag]?: unknown }
}

/** Of an operation that has not failed yet. */
export const initial: State = { retries: 0, byTag: {} }

/**
 * One step: the delay before the next attempt, or `None` when `error` ends the operation, and the state after it. A
 * delay is never shorter than the error's `retryAfter`. Nothing is slept. `now`: milliseconds, of any fixed origin.
 */
export const step = (
  policy: RetryPolicy,
  state: State,
  error: PgError.PgError,
  now: number
): Effect.Effect<readonly [Option.Option<Duration.Duration>, State]> => {
  const schedule = policy[error._tag] as Schedule.Schedule<unknown, PgError.PgError> | undefined
  const { maxRetries = defaults.maxRetries } = policy
  if (schedule === undefined || (maxRetries !== "infinity" && !(state.retries < maxRetries))) {
    return Effect.succeed([Option.none(), state])
  }
  const reached = error._tag in state.byTag ? state.byTag[error._tag] : schedule.initial
  return Effect.map(schedule.step(now, error, reached), ([next, _, decision]) => {
    const byTag = { ...state.byTag, [error._tag]: next }
    if (Decision.isDone(decision)) return [Option.none(), { ...state, byTag }]
    const delay = Duration.millis(Math.max(0, Intervals.start(decision.intervals) - now))
    return [
      Option.some(error.retryAfter === undefined ? delay : Duration.max(delay, error.retryAfter)),
      { retries: state.retries + 1, byTag }
    ]
  })
}

/** The whole policy as one schedule, for `Effect.retry`. Its output is the delay. */
export const toSchedule = (policy: RetryPolicy): Schedule.Schedule<Duration.Duration, PgError.PgError> =>
  Schedule.makeWithState(initial, (now, error: PgError.PgError, state) =>
    Effect.map(step(policy, state, error, now), ([delay, next]) =>
      Option.match(delay, {
        onNone: () => [next, Duration.zero, Decision.done],
        onSome: (delay) => [next, delay, Decision.continueWith(Interval.after(now + Duration.toMillis(delay)))]
      })
    )
  )

/** The retries of one operation, for whoever has to see a delay before it is slept. Not shared between operations. */
export interface Driver {
  /** The delay before the next attempt, or `None` when `error` ends the operation. `now` as for `step`. */
  readonly next: (error: PgError.PgError, now: number) => Effect.Effect<Option.Option<Duration.Duration>>
  /**
   * Takes one of the free retries, for a connection that turned out dead before anything was sent: no delay, no permit
   * of the budget, no count of any tag. `false` once `defaults.immediateRetries` are used, and then `next` decides.
   */
  readonly unsafeImmediate: () => boolean
}

/** A driver at its start. Made on the first failure, so that what succeeds pays nothing. */
export const driver = (policy: RetryPolicy): Effect.Effect<Driver> =>
  Effect.sync(() => {
    let state = initial
    let immediate = 0
    return {
      next: (error, now) =>
        Effect.map(step(policy, state, error, now), ([delay, next]) => {
          state = next
          return delay
        }),
      unsafeImmediate: () => immediate++ < defaults.immediateRetries
    }
  })
