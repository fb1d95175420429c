/** What the stages of a query's way are to one another: the services of one layer, as plain functions. */

import type { SqlError } from "@effect/sql/SqlError"
import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type * as PgError from "../../error/PgError.js"
import type * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import type { State as Operation } from "../../policy/internal/operation.js"
import type * as RetryBudget from "../../policy/RetryBudget.js"
import type * as RetryPolicy from "../../policy/RetryPolicy.js"
import type * as Pool from "../Pool.js"
import type { Options } from "../Transaction.js"
import type { Held } from "./held.js"
import type { Ledger } from "./ledger.js"
import type { Paces } from "./pace.js"

/**
 * How a transaction ended; `repeated` when it was rolled back to be run again. `settledCommitted` and `settledAborted`: what
 * was found out about a COMMIT whose answer got lost, of a transaction that is to happen exactly once.
 */
export type TransactionOutcome =
  | "committed"
  | "rolledBack"
  | "aborted"
  | "unknown"
  | "repeated"
  | "settledCommitted"
  | "settledAborted"

/** Told of everything, synchronously; asks nothing. */
export interface Recorder {
  /**
   * One attempt of a statement, or of a transaction's own BEGIN, COMMIT, …, has ended. `Interrupted`: its caller, or a deadline
   * of theirs, gave it up in flight. What was never sent is no attempt.
   */
  readonly attempt: (
    operation: Operation | undefined,
    command: string,
    seconds: number,
    failure: PgError.Tag | "Interrupted" | undefined
  ) => void
  readonly retry: (error: PgError.PgError, delayMs: number) => void
  readonly retryRefused: (error: PgError.PgError) => void
  /** There was no connection for an attempt, so that nothing of it was sent. */
  readonly unserved: (error: PgError.PgError) => void
  /** A write was interrupted while in flight. How its connection settles is told by the pool. */
  readonly interruptedWrite: (operation: Operation | undefined, what: "statement" | "COMMIT") => void
  /** The COMMIT of a query with side effects failed whose stream was left before its end. */
  readonly streamLost: (error: unknown) => void
  readonly outcomeUnknown: (error: PgError.OutcomeUnknownError) => void
  readonly transaction: (outcome: TransactionOutcome) => void
  /** What became of a COMMIT whose answer got lost was found out, in so many seconds. */
  readonly settled: (outcome: "settledCommitted" | "settledAborted", seconds: number) => void
}

export interface Stages {
  /** Rows in portions, in a transaction made for them: on a connection that is held, or on one of the pool. */
  readonly streamed: (
    held: Held | undefined,
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined
  ) => Stream.Stream<any, SqlError>
  /** In a transaction of its own, within the operation that the fiber works for. */
  readonly transacted: <A>(
    use: (held: Held) => Effect.Effect<A, SqlError>,
    options: Options
  ) => Effect.Effect<A, SqlError>
  /** Whose connections these are: two clients in one program share one context tag. */
  readonly owner: object
  readonly pool: Pool.Pool
  /** How long statements take; `lanes`: those that are short share connections. */
  readonly paces: Paces
  readonly lanes: boolean
  readonly breaker: CircuitBreaker.CircuitBreaker["Type"]
  readonly budget: RetryBudget.RetryBudget["Type"]
  /** Undefined: nothing is retried. */
  readonly retry: RetryPolicy.RetryPolicy | undefined
  readonly recorder: Recorder
  readonly autoRetryReads: boolean
  readonly exposeServerDetail: boolean
  /** Milliseconds; bounds the wait for the circuit of work that has no deadline. */
  readonly acquireTimeout: number
  readonly serverTimeouts: { readonly statement?: number | undefined }
  readonly ledger: Ledger
  /** On the live clock, in nobody's operation. */
  readonly live: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** One statement on a connection of its own, beside a pool that may be full of those that wait for it. Live clock. */
  readonly aside: (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<unknown, unknown>
  /** This token's transaction was acknowledged: nobody will ask for it. */
  readonly acknowledged: (token: string) => void
  /** Server limits that go into BEGIN's message, since the server takes no startup parameters. */
  readonly setLocal: () => string
}

/** What a stage needs to know of the fiber it runs in. */
export interface Caller {
  readonly clock: Clock.Clock
  readonly operation: Operation | undefined
  /** Where events of failed attempts go. */
  span: Tracer.Span | undefined
}

/** What `Effect.uninterruptibleMask` gives: the caller's own interruptibility, which inside a finalizer is none. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
