/**
 * The way of a statement that meets no trouble: from admission to answer in one asynchronous step, without a fiber's
 * help. Admission, connection, statement and answer follow one another in callbacks; whatever fails goes on in guard.ts, as if
 * its first attempt had been made there.
 *
 * 1. A permit, a place among the operations in flight, a place in the pool's queue and a connection are each given back
 *    exactly once: by the answer, by the failure, or by the interruption that came before both.
 * 2. Once it has an answer, an interruption changes nothing any more.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as PgError from "../../error/PgError.js"
import type { Lease } from "../Pool.js"
import { dispatch, send, type Work } from "./attempt.js"
import { type Attempt, guard, Permit, recover, tracked } from "./guard.js"
import { hooks, leased, unserved } from "./leasing.js"
import type { Request } from "./request.js"
import type { Reply } from "./session.js"
import type { Caller, Stages } from "./stages.js"

/** One attempt as guard.ts makes it: a connection now or in turn, the statement on it, and the connection back. */
const attempt =
  (stages: Stages, caller: Caller, request: () => Request, work: Work): Attempt<Reply> =>
  (permit) =>
    leased(stages, caller, permit, (lease) =>
      Effect.async((resume) =>
        send(stages, caller, lease.session, request(), work, hooks(stages, permit, lease.release), resume)
      )
    )

/** A value of what was answered. What `view` throws is a defect of the caller's. */
const viewed = <A>(view: (reply: Reply) => A, reply: Reply): Effect.Effect<A> => {
  try {
    return Effect.succeed(view(reply))
  } catch (defect) {
    return Effect.die(defect)
  }
}

/** `repeatable`: whether an attempt whose outcome is unknown may be made again. `view`: what the caller wants of the reply. */
export const direct = <A>(
  stages: Stages,
  caller: Caller,
  request: () => Request,
  work: Work,
  repeatable: boolean,
  view: (reply: Reply) => A
): Effect.Effect<A, PgError.PgError> =>
  Effect.async<A, PgError.PgError>((resume) => {
    const { breaker, budget, pool } = stages
    const again = () => attempt(stages, caller, request, work)
    const admission = breaker.unsafeAdmit(caller.clock, caller.operation?.name)
    if (!Predicate.isNumber(admission)) return resume(Effect.map(guard(stages, caller, again(), repeatable), view))

    const permit = new Permit(breaker, caller.clock, admission)
    let over = false
    const end = (effect: Effect.Effect<A, PgError.PgError>) => {
      over = true
      budget.unsafeLeave()
      resume(effect)
    }
    const goOn = (error: PgError.PgError) =>
      end(Effect.map(tracked(stages, recover(stages, caller, again(), repeatable, error)), view))
    const failed = (error: PgError.PgError) => {
      unserved(stages, permit, error)
      goOn(error)
    }
    const answered = (reply: Reply, error: PgError.PgError | undefined) =>
      error === undefined ? end(viewed(view, reply)) : goOn(error)
    let abandon: (() => void) | undefined
    const served = ({ release, session }: Lease) => {
      abandon = dispatch(stages, caller, session, request(), work, hooks(stages, permit, release), answered)
    }

    budget.unsafeEnter()
    const leave = pool.unsafeAcquire({ served, failed }, caller.clock)
    return Effect.sync(() => {
      if (over) return
      if (abandon === undefined) leave()
      else abandon()
      permit.neutral()
      budget.unsafeLeave()
    })
  })
