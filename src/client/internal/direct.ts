/**
 * The way of a statement that meets no trouble: from admission to answer in one asynchronous step, without a fiber's
 * help. Admission, connection, statement and answer follow one another in callbacks; whatever fails goes on in guard.ts, as if
 * its first attempt had been made there.
 *
 * 1. A permit, a place among the operations in flight, a place in the pool's queue and a connection are each given back
 *    exactly once: by the answer, by the failure, or by the interruption that came before both.
 * 2. Once it has an answer, an interruption changes nothing any more.
 * 3. What is learned of its pace is learned before its connection is given back, and so before anybody else is given it.
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import * as PgError from "../../error/PgError.js"
import type { Lease } from "../Pool.js"
import { dispatch, type Ending, type Hooks, seen, send, type Work } from "./attempt.js"
import { type Attempt, guard, Permit, recover, tracked } from "./guard.js"
import type { Cargo } from "./lanes.js"
import { hooks, leased, reportSilence, unserved } from "./leasing.js"
import type { Mark, Pace } from "./pace.js"
import type { Request } from "./request.js"
import type { Reply } from "./session.js"
import type { Caller, Stages } from "./stages.js"
import { type Resume, suspend, suspended } from "./suspension.js"
import type { Turn } from "./waiting.js"

/** What is to be done, and how. */
export interface Errand<A> {
  readonly stages: Stages
  readonly caller: Caller
  /** A new one for each attempt. */
  request: () => Request
  readonly work: Work
  /** Whether an attempt whose outcome is unknown may be made again. */
  readonly repeatable: boolean
  /** What the caller wants of the reply. */
  view: (reply: Reply) => A
  /** Of a statement that may share a connection if it is short. What has failed once gets one of its own. */
  readonly pace: Pace | undefined
  /** By what it is, whatever the program says of it: whether it shares connections with reads, or with writes. */
  readonly reads: boolean
}

/** One attempt as guard.ts makes it: a connection now or in turn, the statement on it, and the connection back. */
const attempt =
  ({ caller, request, stages, work }: Errand<unknown>): Attempt<Reply> =>
  (permit) =>
    leased(stages, caller, permit, (lease) =>
      suspended((resume) => send(stages, caller, lease, request(), work, hooks(stages, permit, lease.release), resume))
    )

/** What is left to do after the first attempt, or instead of it, as the caller sees it. */
const viewed = <A>({ view }: Errand<A>, rest: Effect.Effect<Reply, PgError.PgError>): Effect.Effect<A, SqlError> =>
  Effect.mapBoth(rest, { onFailure: PgError.toSqlError, onSuccess: view })

/** It was answered: whatever of it is left for the collector's long round holds nothing of what it was for (`suspension.ts`). */
const forget = (errand: Errand<any>): void => {
  errand.caller.span = undefined
  errand.request = spent
  errand.view = spent
}

const spent = (): never => {
  throw new Error("A statement that was answered is asked for again")
}

/** The first attempt under way. */
class Passage<A> implements Turn<Lease, PgError.PgError>, Hooks, Ending {
  readonly cargo: Cargo | undefined
  private readonly permit: Permit
  /** Undefined when it is over. */
  private errand: Errand<A> | undefined
  private lease: Lease | undefined = undefined
  private sent: Mark | undefined = undefined
  /** Gives up what is under way: the place in the queue, then the statement. */
  private leave: () => void = nothing

  constructor(
    errand: Errand<A>,
    admission: number,
    private resume: Resume<A, SqlError>
  ) {
    const { caller, pace, reads, stages } = errand
    this.errand = errand
    this.permit = new Permit(stages.breaker, caller.clock, admission)
    const load = pace?.expected
    this.cargo = load === undefined ? undefined : { reads, load }
  }

  start({ caller, stages }: Errand<A>): void {
    stages.budget.unsafeEnter()
    const leave = stages.pool.unsafeAcquire(this, caller.clock)
    if (this.lease === undefined) this.leave = leave
  }

  // --- of the pool

  served(lease: Lease): void {
    const { caller, pace, request, stages, work } = this.errand!
    this.lease = lease
    if (pace !== undefined) this.sent = stages.paces.begin()
    const abandon = dispatch(stages, caller, lease, request(), work, this)
    if (this.errand !== undefined) this.leave = abandon
  }

  failed(error: PgError.PgError): void {
    unserved(this.errand!.stages, this.permit, error)
    this.goOn(error)
  }

  // --- of the statement

  answered(error: PgError.PgError | undefined, elapsedMs: number): void {
    this.pass(error === undefined, elapsedMs)
    this.lease!.lane?.answered()
    this.permit.settle(error, elapsedMs)
    this.lease!.release()
  }

  abandoned(inFlight: boolean): void {
    this.pass(false, inFlight ? 0 : undefined)
    this.permit.neutral()
    this.lease!.release()
  }

  settled(silent: boolean): void {
    if (silent) reportSilence(this.errand!.stages, this.permit)
  }

  done(reply: Reply, error: PgError.PgError | undefined): void {
    if (error !== undefined) {
      this.goOn(error)
      return
    }
    const errand = this.errand!
    const value = seen(errand.view, reply)
    forget(errand)
    this.end(value)
  }

  // --- of the caller

  interrupt(): void {
    if (this.errand === undefined) return
    this.leave()
    this.permit.neutral()
    this.errand.stages.budget.unsafeLeave()
  }

  /** It is no longer under way. `elapsedMs`: undefined for what was not sent. */
  private pass(succeeded: boolean, elapsedMs: number | undefined): void {
    const { lease, sent } = this
    const { pace, stages } = this.errand!
    if (pace === undefined || sent === undefined) return
    stages.paces.end()
    if (elapsedMs === undefined) return
    if (succeeded) stages.paces.ran(pace, elapsedMs, sent, lease?.lane?.latest)
    else stages.paces.failed(pace, sent, lease?.lane?.latest)
  }

  private goOn(error: PgError.PgError): void {
    const errand = this.errand!
    const { caller, repeatable, stages } = errand
    this.end(viewed(errand, tracked(stages, recover(stages, caller, attempt(errand), repeatable, error))))
  }

  private end(effect: Effect.Effect<A, SqlError>): void {
    const { errand, resume } = this
    this.errand = undefined
    this.lease = undefined
    this.leave = nothing
    this.resume = nothing
    errand!.stages.budget.unsafeLeave()
    resume(effect)
  }
}

const nothing = () => {}

/** To be executed by `fiber`. */
export const direct = <A>(fiber: Fiber.RuntimeFiber<unknown, unknown>, errand: Errand<A>): Effect.Effect<A, SqlError> =>
  suspend<A, SqlError>(fiber, (resume) => {
    const { caller, repeatable, stages } = errand
    const admission = stages.breaker.unsafeAdmit(caller.clock, caller.operation?.name)
    if (!Predicate.isNumber(admission)) {
      return resume(viewed(errand, guard(stages, caller, attempt(errand), repeatable)))
    }
    const passage = new Passage(errand, admission, resume)
    passage.start(errand)
    return () => passage.interrupt()
  })
