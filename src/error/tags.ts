/**
 * The tags of `PgError`: one per decision that a caller can take. `PgError.ts` is the module to import.
 *
 * Names follow Effect 4's `SqlError` reasons where those exist.
 */
import { TypeIdError } from "@effect/platform/Error"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/** The brand of every `PgError`. */
export const TypeId: unique symbol = Symbol.for("effect-pg-resilience/PgError")

export type TypeId = typeof TypeId

/** How far an attempt had come when it failed. */
export type Phase = "Acquire" | "Begin" | "Execute" | "Savepoint" | "Commit" | "Rollback" | "Listen"

/**
 * `NotApplied`: nothing of the failed work is in the database, or will be. `Unknown`: a COMMIT or an autocommit write was
 * sent and no final answer came, so it may or may not have been applied.
 */
export type Outcome = "NotApplied" | "Unknown"

/** How an outcome that is unknown now can be found out later. Plain data: stored by the schema of that name, asked elsewhere. */
export type Settlement =
  | {
      readonly mode: "ledger"
      /** A UUID: the row of the ledger that is there if the work was applied. */
      readonly token: string
      /** Half of the ledger's `retention` after the attempt: afterwards the answer is `Expired`. */
      readonly askBefore: DateTime.Utc
    }
  | {
      readonly mode: "xid"
      /** The server's 64-bit transaction id, as text. */
      readonly xid: string
      /** Of the server: within one and the same, what it says of the id is to be believed. */
      readonly incarnation: string
    }

/** `Settlement` as plain JSON: to be stored, and asked for by another program. */
export const Settlement = Schema.Union(
  Schema.Struct({ mode: Schema.Literal("ledger"), token: Schema.UUID, askBefore: Schema.DateTimeUtc }),
  Schema.Struct({ mode: Schema.Literal("xid"), xid: Schema.String, incarnation: Schema.String })
)

/** What every error carries. */
export interface Failure {
  /**
   * One line, at most 400 characters: what happened, to what, and what to do. Holds no parameter value, unless
   * `exposeServerDetail` shows the server's own words.
   */
  readonly message: string
  readonly phase: Phase
  readonly outcome: Outcome
  /** Whether the same work, tried again later, may succeed without anybody changing anything. */
  readonly transient: boolean
  /** Attempts made, the failed one included; 0 where nothing was tried. */
  readonly attempts: number
  /** The innermost named `Operation` that the work belonged to. */
  readonly operation?: string | undefined
  /** The server's five-character SQLSTATE, where the server answered. Source: PostgreSQL manual, Appendix A. */
  readonly sqlState?: string | undefined
  /** `sqlState`, or the system's code of a socket failure such as `ECONNREFUSED`: what `pg`'s own errors have here. */
  readonly code?: string | undefined
  /** Time after which another try makes sense, where the refusing side knows it. */
  readonly retryAfter?: Duration.Duration | undefined
  /** `ERROR`, `FATAL` or `PANIC`, in the server's language. */
  readonly severity?: string | undefined
  /**
   * The constraint that refused the work, as the catalog has it. Like `schema`, `table` and `column` it is there only where
   * the server's own code names it: what a function gives (`RAISE … USING CONSTRAINT = …`, `plpy.error`) may hold data, and
   * is kept only with `exposeServerDetail: true`. A function that catches an error and says `RAISE` alone keeps its names.
   */
  readonly constraint?: string | undefined
  /** The schema of `table`, or of the type in question. As `constraint`: the server's own word only. */
  readonly schema?: string | undefined
  /** The table in question. As `constraint`: the server's own word only. */
  readonly table?: string | undefined
  /** The column in question. As `constraint`: the server's own word only. */
  readonly column?: string | undefined
  /** The server's own detail, only with `exposeServerDetail: true`: it quotes rows. */
  readonly detail?: string | undefined
  /** The server's own hint, only with `exposeServerDetail: true`. */
  readonly hint?: string | undefined
  /** The server's own context, only with `exposeServerDetail: true`: it quotes statements and values. */
  readonly where?: string | undefined
  /**
   * A sanitised copy of the driver's error (no message, detail, hint or context of the server, and no name that is not its
   * own word), or the `PgError` that led here. The driver's error itself with `exposeServerDetail: true`.
   */
  readonly cause?: unknown
}

/** The connection could not be made, or was lost. Not transient when the host is unknown or its certificate is bad. */
export class ConnectionError extends TypeIdError(TypeId, "ConnectionError")<Failure> {}
/** Role or password refused (28xxx). */
export class AuthenticationError extends TypeIdError(TypeId, "AuthenticationError")<Failure> {}
/** The role lacks a privilege (42501). */
export class AuthorizationError extends TypeIdError(TypeId, "AuthorizationError")<Failure> {}
/** The server does not understand the statement, or does not know an object in it (42xxx). */
export class SqlSyntaxError extends TypeIdError(TypeId, "SqlSyntaxError")<Failure> {}
/** A unique constraint refused the row (23505); `constraint` names it. */
export class UniqueViolation extends TypeIdError(TypeId, "UniqueViolation")<Failure> {}
/** Any other integrity constraint refused the row (23xxx). */
export class ConstraintError extends TypeIdError(TypeId, "ConstraintError")<Failure> {}
/** The server ended a deadlock by aborting this transaction (40P01). */
export class DeadlockError extends TypeIdError(TypeId, "DeadlockError")<Failure> {}
/** The transaction cannot be put in a serial order with others (40001, 40000). */
export class SerializationError extends TypeIdError(TypeId, "SerializationError")<Failure> {}
/** A lock was not to be had within `lock_timeout`, or at once with NOWAIT (55P03). */
export class LockTimeoutError extends TypeIdError(TypeId, "LockTimeoutError")<Failure> {}
/** The server's `statement_timeout` ended the statement (57014). */
export class StatementTimeoutError extends TypeIdError(TypeId, "StatementTimeoutError")<Failure> {}
/** Everything that has no tag of its own, every SQLSTATE not listed in the table included. */
export class UnknownError extends TypeIdError(TypeId, "UnknownError")<Failure> {}
/** No connection came free in time, or the queue for one is full: the program asks for more than the pool has. */
export class PoolTimeoutError extends TypeIdError(TypeId, "PoolTimeoutError")<Failure> {}
/** The server, or a pooler before it, has no connection slot left (53300). */
export class TooManyConnectionsError extends TypeIdError(TypeId, "TooManyConnectionsError")<Failure> {}
/** The server is starting, stopping, or ended this session (57P01, 57P02, 57P03). */
export class ServerUnavailableError extends TypeIdError(TypeId, "ServerUnavailableError")<Failure> {}
/** A write met a read-only transaction (25006): most likely we are talking to a standby. */
export class ReadOnlyError extends TypeIdError(TypeId, "ReadOnlyError")<Failure> {}
/** Memory, disk, a configured limit or the server's file system (53xxx, 58xxx). */
export class ResourceError extends TypeIdError(TypeId, "ResourceError")<Failure> {}
/** The deadline of the `Operation` or transaction passed, or the server's `transaction_timeout` (25P04). */
export class QueryTimeoutError extends TypeIdError(TypeId, "QueryTimeoutError")<Failure> {}
/** The circuit breaker refused the call; nothing was sent. `retryAfter` says when it will admit a probe. */
export class CircuitOpenError extends TypeIdError(TypeId, "CircuitOpenError")<Failure> {}
/**
 * The work may or may not have been applied, and repeating it could apply it twice. `reason` is what led here. Look in the
 * database before repeating it, or make the work idempotent. It has neither `sqlState` nor `code`, which programs take for
 * leave to repeat; those are the reason's.
 */
export class OutcomeUnknownError extends TypeIdError(TypeId, "OutcomeUnknownError")<
  Failure & {
    readonly reason: PgError
    /** What `Transaction.outcome` goes by: of a transaction, or statement, that was to happen exactly once. */
    readonly settlement?: Settlement | undefined
  }
> {}
/** The transaction was rolled back, or has ended, although the program went on as if it had not. */
export class TransactionAbortedError extends TypeIdError(TypeId, "TransactionAbortedError")<Failure> {}
/** The layer is closing or closed; nothing was sent, or what was in flight was cancelled when its grace was over. */
export class PoolClosedError extends TypeIdError(TypeId, "PoolClosedError")<Failure> {}
/** An idempotency key was used again for different work. */
export class IdempotencyKeyReusedError extends TypeIdError(TypeId, "IdempotencyKeyReusedError")<Failure> {}

/** One option that cannot be accepted. */
export interface Fault {
  readonly field: string
  /** What was given; a secret is left out by whoever reports it. */
  readonly value: unknown
  readonly expected: string
}

/** Options refused when the layer is built: every faulty field at once, nothing repaired in silence. */
export class InvalidOptionsError extends TypeIdError(TypeId, "InvalidOptionsError")<
  Failure & { readonly faults: ReadonlyArray<Fault> }
> {}

/** Every failure of this library. */
export type PgError =
  | ConnectionError
  | AuthenticationError
  | AuthorizationError
  | SqlSyntaxError
  | UniqueViolation
  | ConstraintError
  | DeadlockError
  | SerializationError
  | LockTimeoutError
  | StatementTimeoutError
  | UnknownError
  | PoolTimeoutError
  | TooManyConnectionsError
  | ServerUnavailableError
  | ReadOnlyError
  | ResourceError
  | QueryTimeoutError
  | CircuitOpenError
  | OutcomeUnknownError
  | TransactionAbortedError
  | PoolClosedError
  | IdempotencyKeyReusedError
  | InvalidOptionsError

/** The names that `Effect.catchTag` takes. */
export type Tag = PgError["_tag"]
