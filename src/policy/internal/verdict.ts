/**
 * What one attempt says about the health of the server. Three verdicts, not two: a caller that went away has learned
 * nothing, and an error that the server answered is a sign of life.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { isInstance } from "../../error/internal/read.js"
import * as PgError from "../../error/PgError.js"

/** `Neutral` counts neither for nor against; `Failure` keeps the tag that was counted. */
export type Verdict = Data.TaggedEnum<{
  Success: {}
  Neutral: {}
  Failure: { readonly tag: PgError.Tag }
}>

export const Verdict = Data.taggedEnum<Verdict>()

export const success: Verdict = Verdict.Success()
export const neutral: Verdict = Verdict.Neutral()

/**
 * How each tag is judged; a new tag does not compile until it is listed. `silence`: a failure unless the server had
 * answered something. `reason`: by the error that led to it.
 */
const judgements: { readonly [Tag in PgError.Tag]: "success" | "neutral" | "failure" | "silence" | "reason" } = {
  ConnectionError: "failure",
  ServerUnavailableError: "failure",
  TooManyConnectionsError: "failure",
  ResourceError: "failure",
  QueryTimeoutError: "silence",
  OutcomeUnknownError: "reason",
  PoolTimeoutError: "neutral",
  CircuitOpenError: "neutral",
  PoolClosedError: "neutral",
  AuthenticationError: "success",
  AuthorizationError: "success",
  SqlSyntaxError: "success",
  UniqueViolation: "success",
  ConstraintError: "success",
  DeadlockError: "success",
  SerializationError: "success",
  LockTimeoutError: "success",
  StatementTimeoutError: "success",
  ReadOnlyError: "success",
  TransactionAbortedError: "success",
  IdempotencyKeyReusedError: "success",
  InvalidOptionsError: "success",
  UnknownError: "success"
}

/** Tags of a server that could not be reached, was lost or fell silent: what a new connection disproves. */
const connectivity: ReadonlySet<PgError.Tag> = new Set<PgError.Tag>([
  "ConnectionError",
  "ServerUnavailableError",
  "TooManyConnectionsError",
  "QueryTimeoutError"
])

/** Whether a new connection disproves a failure of this tag. */
export const isConnectivity = (tag: PgError.Tag): boolean => connectivity.has(tag)

/** Whether a circuit opened by `cause` may be probed as soon as a connection succeeds. */
export const isRecoverable = (cause: ReadonlyArray<PgError.Tag>): boolean =>
  cause.length > 0 && cause.every(isConnectivity)

/** The verdict on a failed attempt. `answered`: whether one byte of a reply to it had arrived. */
export const ofError = (error: PgError.PgError, answered: boolean): Verdict => {
  switch (judgements[error._tag]) {
    case "success":
      return success
    case "neutral":
      return neutral
    case "failure":
      return Verdict.Failure({ tag: error._tag })
    case "silence":
      return answered ? success : Verdict.Failure({ tag: error._tag })
    case "reason":
      return ofError((error as PgError.OutcomeUnknownError).reason, answered)
  }
}

/**
 * The verdict on an effect that ended. A `SqlError` is judged as the `PgError` that it stands for; any other failure is
 * the program's own answer. Interruptions and defects say nothing about the server.
 */
export const ofExit = (exit: Exit.Exit<unknown, unknown>, answered: boolean): Verdict => {
  if (Exit.isSuccess(exit)) return success
  return Option.match(Cause.failureOption(exit.cause), {
    onNone: () => neutral,
    onSome: (error) => {
      const judged = isInstance(error, SqlError) ? PgError.fromSqlError(error) : error
      return PgError.isPgError(judged) ? ofError(judged, answered) : success
    }
  })
}
