import * as PgError from "../../src/error/PgError.js"
import type { ErrorOf } from "../../src/policy/RetryPolicy.js"

/** Every tag once: does not compile while one is missing. */
const classes: { readonly [Tag in PgError.Tag]: new (fields: any) => ErrorOf<Tag> } = {
  ConnectionError: PgError.ConnectionError,
  AuthenticationError: PgError.AuthenticationError,
  AuthorizationError: PgError.AuthorizationError,
  SqlSyntaxError: PgError.SqlSyntaxError,
  UniqueViolation: PgError.UniqueViolation,
  ConstraintError: PgError.ConstraintError,
  DeadlockError: PgError.DeadlockError,
  SerializationError: PgError.SerializationError,
  LockTimeoutError: PgError.LockTimeoutError,
  StatementTimeoutError: PgError.StatementTimeoutError,
  UnknownError: PgError.UnknownError,
  PoolTimeoutError: PgError.PoolTimeoutError,
  TooManyConnectionsError: PgError.TooManyConnectionsError,
  ServerUnavailableError: PgError.ServerUnavailableError,
  ReadOnlyError: PgError.ReadOnlyError,
  ResourceError: PgError.ResourceError,
  QueryTimeoutError: PgError.QueryTimeoutError,
  CircuitOpenError: PgError.CircuitOpenError,
  OutcomeUnknownError: PgError.OutcomeUnknownError,
  TransactionAbortedError: PgError.TransactionAbortedError,
  PoolClosedError: PgError.PoolClosedError,
  IdempotencyKeyReusedError: PgError.IdempotencyKeyReusedError,
  InvalidOptionsError: PgError.InvalidOptionsError
}

export const tags = Object.keys(classes) as ReadonlyArray<PgError.Tag>

const failure: PgError.Failure = {
  message: "made by a test",
  phase: "Execute",
  outcome: "NotApplied",
  transient: true,
  attempts: 1
}

const reason = new PgError.ConnectionError(failure)

/** The error of a tag: transient, not applied, at its first attempt, unless `fields` say otherwise. */
export const errorOf = <Tag extends PgError.Tag>(
  tag: Tag,
  fields: Partial<PgError.Failure & { readonly reason: PgError.PgError }> = {}
): ErrorOf<Tag> => {
  const Class = classes[tag]
  return new Class({ ...failure, reason, faults: [], ...fields })
}
