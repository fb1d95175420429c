/**
 * One statement on a connection that somebody holds: send, wait for the final answer, classify, record.
 *
 * The caller that is interrupted goes on at once; what it leaves on the wire is settled in the background.
 */
import * as Effect from "effect/Effect"
import { classify, isFinalAnswer } from "../../error/classify.js"
import { outcomeOf } from "../../error/outcome.js"
import * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import type { Lease } from "../Pool.js"
import type { Request } from "./request.js"
import type { Reply, Session, Slot } from "./session.js"
import type { Caller, Stages } from "./stages.js"
import type { Resume } from "./suspension.js"

/** What decides how a failure of a statement is to be read. */
export interface Work {
  readonly phase: PgError.Phase
  /** One of a closed set, for metrics: never SQL. */
  readonly command: string
  readonly readOnly: boolean
  /** On a connection of the pool, for this statement alone. */
  readonly pooled: boolean
  /** An ERROR answer does not prove that nothing was applied. */
  readonly opaque: boolean
  /** It may begin or end a transaction. */
  readonly transactionControl: boolean
  readonly isCommit: boolean
  /** Given up, its outcome is found out: nothing to warn of. */
  readonly settles?: boolean
  /** BEGIN travels before it: what fails before that is done is BEGIN, in the words of this. */
  readonly begins?: { readonly request: Request; readonly work: Work } | undefined
}

/** A transaction's own commands. */
export const control = (phase: PgError.Phase, command: string, readOnly = true): Work => ({
  phase,
  command,
  readOnly,
  pooled: false,
  opaque: false,
  transactionControl: true,
  isCommit: phase === "Commit"
})

/** Failures of attempts that were never sent: to repeat those is free and safe. */
const unsent = new WeakSet<PgError.PgError>()
export const wasNeverSent = (error: PgError.PgError): boolean => unsent.has(error)

export const queryCanceled = "57014"

/** Cancelled by the pool, whose grace is over, and not by anybody else. */
const cutOff = ({ cause, code, operation, outcome, phase, severity, sqlState }: PgError.PgError): PgError.PgError =>
  new PgError.PoolClosedError({
    message: "The pool closed, and cancelled this statement, which did not end within closeGrace",
    phase,
    outcome,
    transient: false,
    attempts: 1,
    operation,
    sqlState,
    code,
    severity,
    cause
  })

/** The typed failure of a reply that has one. */
export const failureOf = (
  stages: Stages,
  { operation }: Pick<Caller, "operation">,
  work: Work,
  reply: Reply,
  elapsedMs: number
): PgError.PgError => {
  const error = classify(reply.error, {
    phase: reply.written || !work.pooled ? work.phase : "Acquire",
    outcome: outcomeOf({
      written: reply.written,
      answered: reply.answered || isFinalAnswer(reply.error),
      inTransaction: reply.inTransaction && !work.isCommit,
      isCommit: work.isCommit,
      readOnly: work.readOnly,
      // In a transaction the server refuses what is not atomic; what could have ended the transaction stays unclear.
      opaque: work.opaque && (!reply.inTransaction || work.transactionControl)
    }),
    readOnly: work.readOnly,
    operation: operation?.name,
    attempts: 1,
    elapsed: elapsedMs,
    statementTimeout: stages.serverTimeouts.statement,
    exposeServerDetail: stages.exposeServerDetail
  })
  if (!reply.written && work.pooled) unsent.add(error)
  return error.sqlState === queryCanceled && stages.pool.closed() ? cutOff(error) : error
}

/** What happens around the statement, in the order of time; each at most once. */
export interface Hooks {
  /** The answer is there, `undefined` for success: before the caller goes on. */
  readonly answered: (error: PgError.PgError | undefined, elapsedMs: number) => void
  /** The caller went away; `inFlight` unless it was still queued. */
  readonly abandoned: (inFlight: boolean) => void
  /** What was abandoned in flight is settled: whether the server had anything to say. */
  readonly settled: (silent: boolean) => void
}

/** How it ended. `error` is undefined exactly when the server completed it. */
export interface Ending {
  readonly done: (reply: Reply, error: PgError.PgError | undefined) => void
}

/** A statement that was handed to a session. Once it is answered it holds nothing of what it was for (`suspension.ts`). */
class Flight {
  private readonly since = performance.now()
  /** What may be in the database once it is sent: not a read, and not inside a transaction that is still open. */
  private readonly counts: boolean
  /** Undefined once it is answered: an interruption before its caller could go on changes nothing any more. */
  private hooks: (Hooks & Ending) | undefined
  private slot: Slot | undefined = undefined

  constructor(
    private readonly stages: Stages,
    private readonly caller: Pick<Caller, "operation">,
    private readonly session: Session,
    private readonly work: Work,
    hooks: Hooks & Ending
  ) {
    this.hooks = hooks
    this.counts =
      !work.readOnly &&
      work.begins === undefined &&
      (work.isCommit || work.pooled || work.transactionControl || session.status === "I")
    if (this.counts) this.count(1)
  }

  start(request: Request, pipelined: boolean): void {
    const onReply = (reply: Reply) => this.answered(reply)
    const slot = pipelined
      ? this.session.pipeline(request, onReply)
      : this.session.submit(request, onReply, !this.work.isCommit)
    if (this.hooks !== undefined) this.slot = slot
  }

  private answered(reply: Reply): void {
    const { caller, hooks, stages } = this
    const { begins } = this.work
    const work = begins !== undefined && !begins.request.begun ? begins.work : this.work
    this.hooks = undefined
    this.slot = undefined
    const elapsedMs = performance.now() - this.since
    const error = reply.error === undefined ? undefined : failureOf(stages, caller, work, reply, elapsedMs)
    // Not told to read only, and yet refused to write: this is a standby now.
    if (error?._tag === "ReadOnlyError" && !work.readOnly) stages.pool.turnedReadOnly()
    if (this.counts && error?.outcome === "NotApplied") this.count(-1)
    hooks!.answered(error, elapsedMs)
    stages.recorder.attempt(caller.operation, work.command, elapsedMs / 1000, error?._tag)
    hooks!.done(reply, error)
  }

  abandon(): void {
    const { caller, counts, hooks, session, slot, stages, work } = this
    if (hooks === undefined || slot === undefined) return
    slot.onSettled = (silent) => hooks.settled(silent)
    const inFlight = session.abandon(slot)
    if (inFlight) {
      stages.recorder.attempt(caller.operation, work.command, (performance.now() - this.since) / 1000, "Interrupted")
    }
    if (counts && inFlight && work.settles !== true)
      stages.recorder.interruptedWrite(caller.operation, work.isCommit ? "COMMIT" : "statement")
    if (counts && !inFlight) this.count(-1)
    hooks.abandoned(inFlight)
  }

  private count(by: 1 | -1): void {
    operation.countWrite(this.caller.operation, by, this.work.isCommit)
  }
}

/** Sends, and tells once how it ended. Gives what its caller does who goes away: nothing is told from then on. */
export const dispatch = (
  stages: Stages,
  caller: Caller,
  { lane, session }: Pick<Lease, "lane" | "session">,
  request: Request,
  work: Work,
  hooks: Hooks & Ending
): (() => void) => {
  const flight = new Flight(stages, { operation: caller.operation }, session, work, hooks)
  flight.start(request, lane !== undefined)
  return () => flight.abandon()
}

/** What the caller wants of a reply, `view`, as a value. What it throws is a defect of the caller's. */
export const seen = <A>(view: (reply: Reply) => A, reply: Reply): Effect.Effect<A> => {
  try {
    return Effect.succeed(view(reply))
  } catch (defect) {
    return Effect.die(defect)
  }
}

/** The end of it resumes a fiber. */
export const resuming = (resume: Resume<Reply, PgError.PgError>): Ending => ({
  done: (reply, error) => resume(error === undefined ? Effect.succeed(reply) : Effect.fail(error))
})

/** `dispatch` for a fiber that is suspended until it is done. */
export const send = (
  stages: Stages,
  caller: Caller,
  lease: Pick<Lease, "lane" | "session">,
  request: Request,
  work: Work,
  hooks: Hooks,
  resume: Resume<Reply, PgError.PgError>
): (() => void) =>
  dispatch(stages, caller, lease, request, work, {
    answered: hooks.answered,
    abandoned: hooks.abandoned,
    settled: hooks.settled,
    done: resuming(resume).done
  })
