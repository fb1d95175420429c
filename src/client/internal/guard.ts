/**
 * The way of a query around one attempt: admission, then retries within the deadline and the budget.
 *
 * Nothing here runs on the happy path but one look at the breaker. What is not repeated is what could double a write: an
 * attempt of unknown outcome is, only if its work reads or may be applied twice.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as PgError from "../../error/PgError.js"
import * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import * as RetryPolicy from "../../policy/RetryPolicy.js"
import {
  ATTEMPT_DELAY,
  ATTEMPT_FAILED,
  ATTEMPT_NUMBER,
  ERROR_TYPE,
  RESPONSE_STATUS_CODE
} from "../../telemetry/names.js"
import { wasNeverSent } from "./attempt.js"
import type { Caller, Restore, Stages } from "./stages.js"

/** The breaker's permit of one attempt: settled once, by whoever knows first how it ended. */
export class Permit {
  private settled = false
  constructor(
    private readonly breaker: Stages["breaker"],
    private readonly clock: Caller["clock"],
    private readonly id: CircuitBreaker.Permit
  ) {}

  /** `undefined`: the server answered as it should. */
  settle(error: PgError.PgError | undefined, durationMs: number): void {
    this.end(
      error === undefined ? CircuitBreaker.success : CircuitBreaker.verdictOf(error, { answered: true }),
      durationMs
    )
  }

  /** The caller went away, or never came to send anything: neither success nor failure. */
  neutral(): void {
    this.end(CircuitBreaker.neutral, 0)
  }

  /** Found out later: counts although the permit was settled, if the state is still the same. */
  report(error: PgError.PgError): void {
    this.breaker.unsafeReport(this.id, error, this.clock)
  }

  private end(verdict: CircuitBreaker.Verdict, durationMs: number): void {
    if (this.settled) return
    this.settled = true
    this.breaker.unsafeSettle(this.id, verdict, this.clock, durationMs)
  }
}

/** One try, admitted. Its permit is settled at its end at the latest. */
export type Attempt<A> = (permit: Permit) => Effect.Effect<A, PgError.PgError>

/**
 * `wait`: for work that is under way already; with the circuit open it waits instead of failing. So does all work when the
 * server has been seen again, and the first statements are trying it.
 */
export const admitted = <A>(
  stages: Stages,
  caller: Caller,
  attempt: Attempt<A>,
  wait: boolean
): Effect.Effect<A, PgError.PgError> =>
  Effect.uninterruptibleMask((restore) => {
    const { breaker } = stages
    const run = (id: CircuitBreaker.Permit) => {
      const permit = new Permit(breaker, caller.clock, id)
      return Effect.onExit(restore(attempt(permit)), () => {
        permit.neutral()
        return Effect.void
      })
    }
    const first = breaker.unsafeAdmit(caller.clock, caller.operation?.name)
    if (Predicate.isNumber(first)) return run(first)
    // The wait ends with the operation's deadline, from outside; without one, like any wait for a connection.
    const endless =
      deadlineOf(caller) !== Number.POSITIVE_INFINITY || stages.acquireTimeout === Number.POSITIVE_INFINITY
    const limited: Restore = (self) =>
      restore(
        Effect.timeoutFail(Effect.interruptible(self), {
          duration: stages.acquireTimeout,
          onTimeout: () => first as never
        })
      )
    const turn = Effect.flatMap(breaker.awaitAdmission(endless ? restore : limited), run)
    if (wait) return turn
    // A connection has succeeded since: whoever comes now is no newcomer to an outage, and waits as for a connection.
    return Effect.flatMap(breaker.snapshot, ({ reason, state }) =>
      state === "HalfOpen" && reason === "recovered" ? turn : Effect.fail(first)
    )
  })

const deadlineOf = ({ operation }: Caller) => operation?.deadline ?? Number.POSITIVE_INFINITY

/** Count the effect as an operation in flight, however it ends. */
export const tracked = <A, E, R>(stages: Stages, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let entered = false
    return Effect.onExit(
      Effect.suspend(() => {
        stages.budget.unsafeEnter()
        entered = true
        return effect
      }),
      () => {
        if (entered) stages.budget.unsafeLeave()
        return Effect.void
      }
    )
  })

/** `repeatable`: whether an attempt whose outcome is unknown may be made again. */
export const guard = <A>(
  stages: Stages,
  caller: Caller,
  attempt: Attempt<A>,
  repeatable: boolean
): Effect.Effect<A, PgError.PgError> =>
  tracked(
    stages,
    Effect.catchAll(admitted(stages, caller, attempt, caller.operation?.whenOpen === "wait"), (first) =>
      recover(stages, caller, attempt, repeatable, first)
    )
  )

/** What becomes of work whose first attempt has failed. */
export const recover = <A>(
  stages: Stages,
  caller: Caller,
  attempt: Attempt<A>,
  repeatable: boolean,
  first: PgError.PgError
): Effect.Effect<A, PgError.PgError> =>
  repeat(stages, caller, admitted(stages, caller, attempt, true), first, {
    view: (error) => error,
    repeatable,
    conclude: (error, attempts, unknown) =>
      conclude(
        stages,
        caller,
        unknown ? PgError.withContext(error, { outcome: "Unknown" }) : error,
        repeatable,
        attempts
      )
  })

/** How `repeat` sees the failures of an attempt. */
export interface Failing<E> {
  /** Our part of a failure; what is the program's own (undefined) ends it. */
  readonly view: (error: E) => PgError.PgError | undefined
  readonly repeatable: boolean
  /** The failure as the caller gets it. */
  readonly conclude: (error: E, attempts: number, unknown: boolean) => E
}

/** After a first failure: again, as policy, deadline and budget allow. */
export const repeat = <A, E, R>(
  stages: Stages,
  caller: Caller,
  again: Effect.Effect<A, E, R>,
  first: E,
  failing: Failing<E>
): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    const { budget, recorder } = stages
    const { clock } = caller
    const driver = yield* RetryPolicy.driver(stages.retry ?? RetryPolicy.none)
    let error = first
    /** The failure that ends it: to be refused by the circuit taught nothing new, what led there says more. */
    let told = first
    let attempts = 0
    /** An attempt that may have been applied stays so, whatever becomes of those after it. */
    let unknown = false
    let over = false
    const end = (error: E) =>
      Effect.suspend(() => {
        over = true
        const seen = failing.view(error)
        if (seen !== undefined) note(caller, seen, attempts, undefined)
        return Effect.fail(failing.conclude(error, attempts, unknown))
      })
    while (true) {
      const last = error
      const seen = failing.view(last)
      if (seen?._tag !== "CircuitOpenError") {
        attempts++
        told = last
      }
      unknown ||= seen?.outcome === "Unknown"
      if (seen === undefined || stages.retry === undefined) return yield* end(told)
      if (seen.outcome === "Unknown" && !failing.repeatable) return yield* end(told)
      const now = clock.unsafeCurrentTimeMillis()
      const free = wasNeverSent(seen) && driver.unsafeImmediate()
      const delay = free ? Option.some(Duration.zero) : yield* driver.next(seen, now)
      if (Option.isNone(delay) || now + Duration.toMillis(delay.value) >= deadlineOf(caller)) return yield* end(told)
      const retry = Effect.suspend(() => {
        const delayMs = Duration.toMillis(delay.value)
        note(caller, seen, attempts, delayMs)
        recorder.retry(seen, delayMs)
        return free ? again : Effect.zipRight(Effect.sleep(delay.value), again)
      })
      const refused = Effect.suspend(() => {
        recorder.retryRefused(seen)
        return end(told)
      })
      // The single prober bounds how often connecting is tried; those retries need no permit.
      const result: Either.Either<A, E> = yield* Effect.either(
        seen.phase === "Acquire" ? retry : budget.withPermit(retry, refused)
      )
      if (Either.isRight(result)) return result.right
      if (over) return yield* Effect.fail(result.left)
      error = result.left
    }
  })

/** One event per failed attempt on the span of the statement, or of the transaction. */
export const note = (caller: Caller, error: PgError.PgError, attempt: number, delayMs: number | undefined): void => {
  if (caller.span?.status._tag !== "Started") return
  caller.span.event(ATTEMPT_FAILED, caller.clock.unsafeCurrentTimeNanos(), {
    [ERROR_TYPE]: error._tag,
    [ATTEMPT_NUMBER]: attempt,
    ...(error.sqlState === undefined ? {} : { [RESPONSE_STATUS_CODE]: error.sqlState }),
    ...(delayMs === undefined ? {} : { [ATTEMPT_DELAY]: delayMs / 1000 })
  })
}

/** The error as the caller gets it: what may or may not have been applied, and must not be repeated blindly, says so. */
export const conclude = (
  stages: Stages,
  caller: Caller,
  error: PgError.PgError,
  repeatable: boolean,
  attempts: number
): PgError.PgError => {
  const operation = caller.operation?.name
  const last = PgError.withContext(error, { attempts, operation })
  if (last.outcome === "NotApplied" || repeatable || last._tag === "OutcomeUnknownError") return last
  const unknown = PgError.outcomeUnknown(last)
  stages.recorder.outcomeUnknown(unknown)
  return unknown
}
