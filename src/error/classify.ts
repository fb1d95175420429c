/** From anything that a driver throws to a `PgError`: pure, total and driven by the table in `SqlState.ts`. */
import { make, outcomeUnknown } from "./internal/build.js"
import { messageOf } from "./internal/message.js"
import { speakerOf, withoutData } from "./internal/origin.js"
import { oneLine, property, text } from "./internal/read.js"
import { isPgError, type Observed, observe, type Recognised, recognise } from "./internal/recognise.js"
import { Sanitised } from "./internal/sanitise.js"
import * as SqlState from "./SqlState.js"
import type { Failure, Outcome, PgError, Phase, Tag } from "./tags.js"

/** What the caller of the driver knows of the call, and no error says. */
export interface Facts {
  /** Default `Execute`. */
  readonly phase?: Phase | undefined
  /** What `outcomeOf` says. Default `NotApplied`. */
  readonly outcome?: Outcome | undefined
  /** Name of the `Operation`. */
  readonly operation?: string | undefined
  /** The failed attempt included. Default 1. */
  readonly attempts?: number | undefined
  /** Why this library cancelled the statement, if it did: what 57014 then means. */
  readonly cancelledByUs?: "timeout" | "interrupt" | undefined
  /** Milliseconds from sending the statement to this error. Tells a statement timeout from a cancel in any language. */
  readonly elapsed?: number | undefined
  /** The `statement_timeout` that is in force, in milliseconds; 0 for none. */
  readonly statementTimeout?: number | undefined
  /** The program itself asked for a read-only transaction, so that 25006 is its own fault and trying again no help. */
  readonly readOnly?: boolean | undefined
  /**
   * Keep the server's message, detail, hint and context, the names that RAISE gives, and the error itself, data and all.
   * Default false.
   */
  readonly exposeServerDetail?: boolean | undefined
}

/** Clocks of two machines, and both rounded to milliseconds. */
const tolerance = 10

const cancelled = ({ message }: Observed, { cancelledByUs, elapsed, statementTimeout }: Facts): SqlState.Rule => {
  const foreign = SqlState.bySqlState("57014", "ProcessInterrupts")
  if (cancelledByUs === "timeout") {
    return { ...foreign, tag: "QueryTimeoutError", note: "the deadline passed and the statement was cancelled" }
  }
  if (cancelledByUs === "interrupt") {
    return { ...foreign, transient: false, note: "the statement was cancelled because its fiber was interrupted" }
  }
  // English says which it was; in other languages the time tells.
  const late = statementTimeout && elapsed !== undefined && elapsed + tolerance >= statementTimeout
  return message.includes("due to statement timeout") || (late && !message.includes("due to user request"))
    ? {
        ...foreign,
        tag: "StatementTimeoutError",
        note: "the statement took longer than statement_timeout",
        advice: "make it faster, or raise statement_timeout"
      }
    : foreign
}

/** Tags that say something of the session or the server, and not of the statement. */
const ofServer: ReadonlySet<SqlState.ClassifiedTag> = new Set([
  "ConnectionError",
  "ServerUnavailableError",
  "TooManyConnectionsError",
  "ResourceError",
  "QueryTimeoutError",
  "ReadOnlyError"
])

/** The row, as far as other facts than SQLSTATE and message do not change it. */
const judge = ({ observed, rule }: Recognised, facts: Facts): SqlState.Rule => {
  const { routine, severity } = observed.fields
  if (observed.sqlState === "57014" && (routine === undefined || routine === "ProcessInterrupts")) {
    return cancelled(observed, facts)
  }
  const speaker = speakerOf(observed)
  if (speaker !== undefined && ofServer.has(rule.tag)) {
    const remote = observed.sqlState?.startsWith("08") ? "HV00N" : "HV000"
    const row = SqlState.bySqlState(speaker === "function" ? "P0001" : remote)
    return { ...row, outcomeUnknown: rule.outcomeUnknown }
  }
  if (rule.tag === "ReadOnlyError" && facts.readOnly) {
    return { ...rule, transient: false, advice: "the program itself asked for a read-only transaction" }
  }
  // The session cannot begin: what is unknown is named in the program's configuration, not in a statement.
  if (rule.tag === "SqlSyntaxError" && severity === "FATAL") {
    return { ...rule, tag: "ConnectionError", shown: "always", advice: "check the connection's parameters" }
  }
  return rule
}

/** The server's own texts, which quote values. */
const exposedFields = (error: unknown): Pick<Failure, "detail" | "hint" | "where"> => ({
  detail: text(error, "detail"),
  hint: text(error, "hint"),
  where: text(error, "where")
})

/**
 * The `PgError` for anything that went wrong; a `PgError` is returned as it is. Never throws, whatever the value is.
 *
 * The table decides. Beyond it: 57014 is our own timeout or interruption when we cancelled, a `StatementTimeoutError` when
 * the time or the text says so, and otherwise somebody else's cancel; what ends the session before it has begun is a
 * `ConnectionError`; 08007 and 40003 are an `OutcomeUnknownError` whatever `facts.outcome` says; what RAISE or another
 * server says is never about this session or server (see `SqlState.ts`).
 */
export const classify = (cause: unknown, facts: Facts = {}): PgError => {
  const found = recognise(cause) ?? { rule: SqlState.unlisted, observed: observe(cause) }
  if (isPgError(found)) return found
  const { attempts = 1, exposeServerDetail = false, operation, outcome = "NotApplied", phase = "Execute" } = facts
  const rule = judge(found, facts)
  const observed = exposeServerDetail ? found.observed : withoutData(found.observed)
  const { column, constraint, schema, severity, table } = observed.fields
  const error = make(rule.tag, {
    message: messageOf({ observed, rule }, phase, exposeServerDetail),
    phase,
    outcome: rule.outcomeUnknown ? "Unknown" : outcome,
    transient: rule.transient,
    attempts,
    operation: operation === undefined ? undefined : oneLine(operation, 128),
    sqlState: observed.sqlState,
    code: observed.code,
    severity,
    constraint,
    schema,
    table,
    column,
    ...(exposeServerDetail ? exposedFields(observed.error) : undefined),
    cause: exposeServerDetail ? observed.error : new Sanitised(observed)
  })
  return rule.outcomeUnknown ? outcomeUnknown(error) : error
}

/** SQLSTATEs and classes after which the session is gone, where the server's language has words of its own for FATAL. */
const lastStates = new Set(["57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "53300", "28", "08"])

const endsSession = (sqlState: string, severity: string | undefined): boolean => {
  if (severity === "FATAL" || severity === "PANIC") return true
  return severity !== "ERROR" && (lastStates.has(sqlState) || lastStates.has(sqlState.slice(0, 2)))
}

const isTagged = (error: unknown, tag: Tag): boolean => property(error, "_tag") === tag

/** A pooler closes the connection after these, also when it calls them an ERROR. */
const poolerCloses = ({ observed, rule }: Recognised): boolean =>
  observed.sqlState?.startsWith("08") === true && SqlState.poolerMessages.includes(rule)

/**
 * Whether the connection that gave this error is of no more use: the server ended the session, or the socket broke, or the
 * conversation on it is out of step. A server's ERROR never is: the session and its transaction live on, whatever SQLSTATE
 * a function has given it; where that is wrong, the socket's end says so. A pooler's ERROR of class 08 is, because the
 * pooler hangs up after it. Never throws.
 */
export const isFatal = (cause: unknown): boolean => {
  const found = recognise(cause)
  if (found === undefined) return false
  if (isPgError(found)) {
    const error = isTagged(found, "OutcomeUnknownError") ? property(found, "reason") : found
    const sqlState = text(error, "sqlState")
    return sqlState === undefined ? isTagged(error, "ConnectionError") : endsSession(sqlState, text(error, "severity"))
  }
  const { observed, rule } = found
  if (observed.sqlState !== undefined) {
    if (speakerOf(observed) !== undefined) return false
    return endsSession(observed.sqlState, observed.fields.severity) || poolerCloses(found)
  }
  return rule.tag === "ConnectionError" || rule.tag === "AuthenticationError" || rule.tag === "QueryTimeoutError"
}

/** Classes in which whoever stands between us and the server speaks of that server, and not of the statement. */
const ofPooler = new Set(["53", "57", "58", "XX"])

/**
 * Whether the error is an answer that proves that the statement was not applied: an ERROR of the server (but see
 * `CallFacts.opaque`), and what ends the session but cannot come after a commit (`Rule.settles`). None is:
 *
 * - what says itself that nobody knows (08007, 40003);
 * - the end of a session by an administrator or a crash (57P01, 57P02): it may have committed before it could say so;
 * - class 08, and of an answer without a routine also 53, 57, 58 and XX, with any severity: a pooler's word, also with
 *   ERROR, for a server that it lost with the statement under way. PostgreSQL itself always names a routine.
 *
 * It proves nothing of what a foreign server has done with its part. Never throws.
 */
export const isFinalAnswer = (cause: unknown): boolean => {
  const found = recognise(cause)
  if (found === undefined || isPgError(found)) return false
  const { observed, rule } = found
  const { routine, severity } = observed.fields
  if (observed.sqlState === undefined || rule.outcomeUnknown) return false
  if (rule.settles || speakerOf(observed) !== undefined) return true
  const sqlClass = observed.sqlState.slice(0, 2)
  if (sqlClass === "08" || (routine === undefined && ofPooler.has(sqlClass))) return false
  return !endsSession(observed.sqlState, severity)
}

const matches = (rules: ReadonlyArray<string>) => (cause: unknown) => {
  const found = recognise(cause)
  return found !== undefined && !isPgError(found) && rules.includes(found.rule.match)
}

/**
 * Whether a pooler refused the connection because of a startup parameter (`statement_timeout` and the like): connecting
 * again without them succeeds. Takes the driver's error. Never throws.
 */
export const isUnsupportedStartupParameter: (cause: unknown) => boolean = matches([
  "unsupported startup parameter",
  "Feature not supported: RDS Proxy"
])

/**
 * Whether a named prepared statement is missing, doubled or out of date on this connection: nothing was applied, and the
 * same statement without a name succeeds, outside a transaction at once. Takes the driver's error. Never throws.
 */
export const isStaleStatement: (cause: unknown) => boolean = matches([
  "0A000+RevalidateCachedQuery",
  "26",
  "42P05",
  "prepared statement did not exist",
  "prepared statement name is already in use"
])
