/** What is waited for on a connection that is held, from the statement's turn to its answer: a few small objects, one after the other. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as PgError from "../../error/PgError.js"
import type { Lease } from "../Pool.js"
import { type Ending, type Hooks, queryCanceled, seen, type Work } from "./attempt.js"
import type { Beginning } from "./beginning.js"
import { conclude, note } from "./guard.js"
import type { Held } from "./held.js"
import { reportSilence, type Verdicts } from "./leasing.js"
import type { Request } from "./request.js"
import type { Reply } from "./session.js"
import type { Caller } from "./stages.js"
import type { Resume } from "./suspension.js"

/** What becomes of a statement: how it ended, or what is to be done in the place of it. */
export interface Sequel extends Ending {
  readonly instead: (effect: Effect.Effect<Reply, PgError.PgError>) => void
  /** Given up before it was sent. */
  readonly unsent: () => void
}

/** A statement that a fiber waits for. Once it is answered it holds nothing of what it was for (`suspension.ts`). */
export class Execution<A> implements Sequel {
  constructor(
    private readonly held: Held,
    private readonly caller: Caller,
    private readonly work: Work,
    private view: (reply: Reply) => A,
    private resume: Resume<A, SqlError>
  ) {}

  done(reply: Reply, error: PgError.PgError | undefined): void {
    const { caller, resume, view } = this
    const result = error === undefined ? seen(view, reply) : Effect.fail(this.failure(error))
    caller.span = undefined
    this.view = answered
    this.resume = nothing
    resume(result)
  }

  instead(effect: Effect.Effect<Reply, PgError.PgError>): void {
    this.resume(Effect.mapBoth(effect, { onSuccess: this.view, onFailure: (error) => this.failure(error) }))
  }

  unsent(): void {}

  private failure(failure: PgError.PgError): SqlError {
    const { caller, held, work } = this
    // Cancelled because nobody else may wait for what was left behind.
    const cutOff = held.ended && failure.sqlState === queryCanceled && failure.outcome === "NotApplied"
    const error = cutOff ? held.outlived(caller, "its statement was cancelled") : failure
    note(caller, error, 1, undefined)
    const repeatable = work.readOnly || caller.operation?.idempotent === true
    return PgError.toSqlError(conclude(held.stages, caller, error, repeatable, 1))
  }
}

const nothing = () => {}
const answered = (): never => {
  throw new Error("A statement that was answered is looked at again")
}

/** A statement on the connection, and what is learned of it. */
export class Sending implements Hooks, Ending {
  protected readonly permit: Verdicts
  /** What is tried on a connection that is gone already says nothing new about the server. */
  private readonly gone: boolean

  constructor(
    protected readonly held: Held,
    protected readonly sequel: Sequel
  ) {
    this.permit = held.permit
    this.gone = held.lease.session.lost !== undefined
  }

  answered(error: PgError.PgError | undefined, _elapsedMs: number): void {
    if (error !== undefined && !this.gone) this.permit.report(error)
  }

  abandoned(inFlight: boolean): void {
    if (!inFlight) this.sequel.unsent()
  }

  settled(silent: boolean): void {
    if (silent) reportSilence(this.held.stages, this.permit)
  }

  done(reply: Reply, error: PgError.PgError | undefined): void {
    this.sequel.done(reply, error)
  }
}

/** The first statement of a transaction, and BEGIN with it. */
export class Opening extends Sending {
  private readonly lease: Lease

  constructor(
    held: Held,
    sequel: Sequel,
    private readonly beginning: Beginning,
    private readonly first: Request,
    /** What is to be done where it did not begin. */
    private readonly otherwise: (error: PgError.PgError) => Effect.Effect<Reply, PgError.PgError>
  ) {
    super(held, sequel)
    this.lease = held.lease
  }

  override answered(error: PgError.PgError | undefined, elapsedMs: number): void {
    const { begun } = this.first
    this.permit.settle(begun ? undefined : error, elapsedMs)
    if (begun) {
      this.beginning.begun()
      super.answered(error, elapsedMs)
    } else this.lease.release()
  }

  override abandoned(_inFlight: boolean): void {
    this.permit.neutral()
    this.beginning.abandoned()
  }

  override done(reply: Reply, error: PgError.PgError | undefined): void {
    if (error === undefined || this.first.begun) super.done(reply, error)
    else this.sequel.instead(this.otherwise(error))
  }
}
