/** Making errors: from a tag and a record, and from other errors. */
import type { ClassifiedTag } from "../SqlState.js"
import * as Tags from "../tags.js"
import { maxMessage } from "./message.js"
import { oneLine } from "./read.js"

const classes: { readonly [T in ClassifiedTag]: new (failure: Tags.Failure) => Extract<Tags.PgError, { _tag: T }> } = {
  ConnectionError: Tags.ConnectionError,
  AuthenticationError: Tags.AuthenticationError,
  AuthorizationError: Tags.AuthorizationError,
  SqlSyntaxError: Tags.SqlSyntaxError,
  UniqueViolation: Tags.UniqueViolation,
  ConstraintError: Tags.ConstraintError,
  DeadlockError: Tags.DeadlockError,
  SerializationError: Tags.SerializationError,
  LockTimeoutError: Tags.LockTimeoutError,
  StatementTimeoutError: Tags.StatementTimeoutError,
  UnknownError: Tags.UnknownError,
  PoolTimeoutError: Tags.PoolTimeoutError,
  TooManyConnectionsError: Tags.TooManyConnectionsError,
  ServerUnavailableError: Tags.ServerUnavailableError,
  ReadOnlyError: Tags.ReadOnlyError,
  ResourceError: Tags.ResourceError,
  QueryTimeoutError: Tags.QueryTimeoutError,
  TransactionAbortedError: Tags.TransactionAbortedError,
  PoolClosedError: Tags.PoolClosedError
}

/** Without the fields that are undefined, so that an error renders as what is known of it. */
const known = <A extends object>(record: A): A =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as A

/** An error of the tag. */
export const make = (tag: ClassifiedTag, failure: Tags.Failure): Tags.PgError => new classes[tag](known(failure))

/** The same error with some fields replaced: same class, same stack. */
export const copy = <E extends Tags.PgError>(
  error: E,
  fields: Partial<Tags.Failure & Pick<Tags.OutcomeUnknownError, "settlement">>
): E => {
  const { cause, message, stack } = error
  const Class = error.constructor as new (failure: Tags.Failure) => E
  const made = new Class(known({ ...error, message, cause, ...known(fields) }))
  Object.defineProperty(made, "stack", { value: stack, configurable: true, writable: true })
  return made
}

/** The error for work of which nobody can tell whether it was applied, made of the one that led here. */
export const outcomeUnknown = (reason: Tags.PgError, settlement?: Tags.Settlement): Tags.OutcomeUnknownError => {
  if (reason._tag === "OutcomeUnknownError") return reason
  const { attempts, message, operation, phase } = reason
  return new Tags.OutcomeUnknownError({
    // No code and no SQLSTATE: programs repeat what has `ECONNRESET` or 57P01 there. They are the reason's.
    ...known({ attempts, operation, phase, settlement }),
    message: oneLine(`it is not known whether the work was applied, look before repeating it: ${message}`, maxMessage),
    outcome: "Unknown",
    transient: false,
    reason: reason.outcome === "Unknown" ? reason : copy(reason, { outcome: "Unknown" }),
    cause: reason
  })
}
