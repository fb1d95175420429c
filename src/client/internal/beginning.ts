/**
 * The beginning of a transaction: its BEGIN waits for the first statement, and travels with it.
 *
 * 1. Both go in one packet and end with one Sync: where BEGIN fails the server skips the statement, so that nothing of a
 *    transaction is ever executed outside of it.
 * 2. Until the server has said that the transaction has begun nothing else is sent on the connection: whoever comes meanwhile,
 *    COMMIT too, waits.
 * 3. What could not begin may begin on another connection, unseen by anybody: nothing of it is stored, and nobody was told
 *    anything. If that fails too, or if the first statement was given up before the server had said so, the transaction takes
 *    no statement any more.
 * 4. What can not travel with BEGIN (several commands, a cursor, a savepoint) waits for its answer.
 * 5. Where there is no statement there is no BEGIN, and no COMMIT.
 * 6. A connection on which it begins after the transaction has ended is given back at once.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as PgError from "../../error/PgError.js"
import type { Lease } from "../Pool.js"
import { control, type Work } from "./attempt.js"
import { Permit } from "./guard.js"
import { unserved, type Verdicts } from "./leasing.js"
import type { Caller, Stages } from "./stages.js"
import { type Resume, suspended } from "./suspension.js"
import type { Turn } from "./waiting.js"

/** The first thing that is done on a connection of the pool. */
export const beginWork: Work = { ...control("Begin", "begin"), pooled: true }

/** What the levels on one connection have in common. */
export class Grip {
  /** Until the transaction has begun, or has failed to. */
  beginning: Beginning | undefined = undefined
  /** Why there will be no transaction. */
  failed: string | undefined = undefined
  /** The outermost level has ended. */
  over = false

  constructor(
    public lease: Lease,
    public permit: Verdicts
  ) {}

  /** A transaction has begun on it. */
  take(lease: Lease, permit: Verdicts): void {
    if (this.over) {
      lease.release()
      return
    }
    lease.span = this.lease.span
    this.lease = lease
    this.permit = permit
  }
}

/** BEGIN by itself: on the connection that is held, and which goes if it fails; after that, if it may be tried, on another. */
export interface Way {
  readonly text: () => string
  readonly travels: () => boolean
  readonly here: (caller: Caller, grip: Grip) => Effect.Effect<unknown, PgError.PgError>
  readonly elsewhere: (caller: Caller, grip: Grip, error: PgError.PgError) => Effect.Effect<unknown, PgError.PgError>
}

const givenUp = "Its first statement was given up before the server had said that the transaction had begun"

export class Beginning {
  /** Sent, or being tried again. */
  private underWay = false
  private turns: Array<() => void> = []

  constructor(
    private readonly grip: Grip,
    private readonly way: Way
  ) {}

  get text(): string {
    return this.way.text()
  }

  get pending(): boolean {
    return !this.underWay
  }

  /** The next statement may take it along. */
  get travels(): boolean {
    return this.pending && this.way.travels()
  }

  /** It is on its way with the first statement. */
  sent(): void {
    this.underWay = true
  }

  begun(): void {
    this.grip.beginning = undefined
    this.wake()
  }

  abandoned(): void {
    this.failed(givenUp)
  }

  /** For what can not travel with it: begin now, or wait for whoever does. */
  awaited(caller: Caller): Effect.Effect<void, PgError.PgError> {
    return Effect.suspend(() => {
      if (!this.pending) return this.turn
      this.sent()
      const here = Effect.catchAll(this.way.here(caller, this.grip), (error) =>
        this.way.elsewhere(caller, this.grip, error)
      )
      return this.concluded(here)
    })
  }

  /** It failed as it travelled: on another connection, if it may be tried. */
  again(caller: Caller, error: PgError.PgError): Effect.Effect<void, PgError.PgError> {
    return this.concluded(Effect.suspend(() => this.way.elsewhere(caller, this.grip, error)))
  }

  /** When it is no longer under way. */
  get turn(): Effect.Effect<void> {
    return suspended((resume) => {
      if (this.pending || this.grip.beginning !== this) return resume(Effect.void)
      const turn = () => resume(Effect.void)
      this.turns.push(turn)
      return () => {
        this.turns = this.turns.filter((other) => other !== turn)
      }
    })
  }

  private concluded(attempt: Effect.Effect<unknown, PgError.PgError>): Effect.Effect<void, PgError.PgError> {
    return Effect.asVoid(
      Effect.onExit(attempt, (exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit)) this.begun()
          else if (Exit.isInterrupted(exit)) this.abandoned()
          else this.failed("The transaction could not begin")
        })
      )
    )
  }

  failed(why: string): void {
    this.grip.failed = why
    this.grip.beginning = undefined
    this.wake()
  }

  private wake(): void {
    const { turns } = this
    this.turns = []
    for (const turn of turns) turn()
  }
}

/** The wait for the connection that a transaction is to have. */
export class Arrival implements Turn<Lease, PgError.PgError> {
  readonly permit: Permit
  lease: Lease | undefined = undefined
  error: PgError.PgError | undefined = undefined
  /** It has the one or the other. */
  over = false
  private readonly leave: () => void
  private resume: Resume<void, never> = () => {}

  constructor(
    private readonly stages: Stages,
    { clock }: Caller,
    admission: number
  ) {
    this.permit = new Permit(stages.breaker, clock, admission)
    stages.budget.unsafeEnter()
    this.leave = stages.pool.unsafeAcquire(this, clock)
  }

  served(lease: Lease): void {
    this.lease = lease
    this.end()
  }

  failed(error: PgError.PgError): void {
    this.error = error
    unserved(this.stages, this.permit, error)
    this.end()
  }

  get awaited(): Effect.Effect<void> {
    return suspended((resume) => {
      this.resume = resume
    })
  }

  /** Its caller has gone: what it has got in that moment goes back. */
  giveUp(): void {
    this.permit.neutral()
    if (this.lease !== undefined) this.lease.release()
    else if (!this.over) {
      this.leave()
      this.end()
    }
  }

  private end(): void {
    this.over = true
    this.stages.budget.unsafeLeave()
    this.resume(Effect.void)
  }
}
