/**
 * What can go wrong between a program and PostgreSQL: one tag per decision that a caller can take.
 *
 * Every error says in `outcome` whether the work may have been applied, in `phase` how far it came, and in `message`, on
 * one line, what happened and what to do. Neither passwords nor parameter values are ever part of an error, unless
 * `exposeServerDetail` asks for the server's own words.
 *
 * ```ts
 * const register = (email: string) =>
 *   sql`INSERT INTO users (email) VALUES (${email})`.pipe(
 *     PgError.refine,
 *     Effect.catchTag("UniqueViolation", () => Effect.fail(new EmailTaken({ email })))
 *   )
 * ```
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { classify, type Facts } from "./classify.js"
import { copy } from "./internal/build.js"
import { isInstance } from "./internal/read.js"
import type { Failure, PgError, Tag } from "./tags.js"

export type { Facts } from "./classify.js"
export { outcomeUnknown } from "./internal/build.js"
export { isPgError } from "./internal/recognise.js"
export * from "./tags.js"

/**
 * When the same work may be done again. `safe`: nothing of it was applied. `ifIdempotent`: the server may have applied it,
 * `outcome` says more. `never`: repeating is no help, or not ours to decide. A new tag does not compile until it is listed.
 */
export const retrySafety: { readonly [T in Tag]: "safe" | "ifIdempotent" | "never" } = {
  ConnectionError: "ifIdempotent",
  AuthenticationError: "never",
  AuthorizationError: "never",
  SqlSyntaxError: "never",
  UniqueViolation: "never",
  ConstraintError: "never",
  DeadlockError: "safe",
  SerializationError: "safe",
  LockTimeoutError: "safe",
  StatementTimeoutError: "safe",
  UnknownError: "never",
  PoolTimeoutError: "safe",
  TooManyConnectionsError: "safe",
  ServerUnavailableError: "ifIdempotent",
  ReadOnlyError: "safe",
  ResourceError: "ifIdempotent",
  QueryTimeoutError: "ifIdempotent",
  CircuitOpenError: "never",
  OutcomeUnknownError: "ifIdempotent",
  TransactionAbortedError: "never",
  PoolClosedError: "never",
  IdempotencyKeyReusedError: "never",
  InvalidOptionsError: "never"
}

/** The `PgError` that a `SqlError` carries as its cause, or else its classification. Never throws. */
export const fromSqlError = (error: SqlError, facts?: Facts): PgError => classify(error, facts)

/** The error as the `SqlClient` interface wants it: `cause` is the `PgError`, `message` its one line. */
export const toSqlError = (error: PgError): SqlError => new SqlError({ cause: error, message: error.message })

/**
 * Puts the `PgError` in the place of every `SqlError` in the failure channel, so that `Effect.catchTag` works on it. All
 * other failures, defects and interruptions stay as they are.
 */
export const refine = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, Exclude<E, SqlError> | PgError, R> =>
  Effect.mapErrorCause(
    self,
    Cause.map((error) => (isInstance(error, SqlError) ? fromSqlError(error) : (error as Exclude<E, SqlError>)))
  )

/** The same error, as the failure of that operation, after so many attempts, of that outcome. Tag, fields and stack stay. */
export const withContext = <E extends PgError>(
  error: E,
  context: Partial<Pick<Failure, "attempts" | "operation" | "outcome">>
): E => copy(error, context)
