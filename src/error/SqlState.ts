/**
 * The classification table: what a SQLSTATE, a system's error code or a message means for the caller.
 *
 * It is data alone. `classify` looks things up here and the README prints it. The longest match wins: SQLSTATE with the
 * server's routine, then SQLSTATE, then its class (the first two characters). What is not listed is an `UnknownError`
 * that is not transient. Codes of sockets and messages of driver and poolers are in `internal/messages.ts`.
 *
 * Two kinds of answer are not about our own session, whatever their SQLSTATE is in the table: what a function gave a
 * SQLSTATE of its choice (PL/pgSQL's RAISE, and all that PL/Python and its like raise, errors of the server that they let
 * through included), and what postgres_fdw and dblink pass on of another server. Rows that speak of the statement hold for
 * them too: a RAISE with 40001 is a `SerializationError`, with 23505 a `UniqueViolation`, with 28000 an
 * `AuthenticationError`. Rows that speak of session or server do not (`ConnectionError`, `ServerUnavailableError`,
 * `TooManyConnectionsError`, `ResourceError`, `QueryTimeoutError`, `ReadOnlyError`): they become an `UnknownError` that
 * keeps its SQLSTATE, is not repeated, counts for the circuit breaker as a sign of life and replaces no connection.
 *
 * Source: PostgreSQL manual, Appendix A.
 */
import { backoff, group, type Rule, replaced, unnamed } from "./internal/rule.js"

export * from "./internal/messages.js"
export type { ClassifiedTag, Group, Rule } from "./internal/rule.js"

const repeat = "repeat the whole transaction"
const serverLog = "see the server's log"
const exposed = "exposeServerDetail shows its text, data included"

/** By SQLSTATE and by class. */
export const table: ReadonlyArray<Rule> = [
  ...group("ConnectionError", "transient", { "08": "the connection failed" }, { shown: "plain", advice: replaced }),
  ...group(
    "ConnectionError",
    "transient",
    { "08007": "the server lost track of a transaction" },
    { outcomeUnknown: true }
  ),
  ...group("ConnectionError", "permanent", { "08P01": "the two ends misunderstand each other" }, { shown: "plain" }),
  ...group("ConnectionError", "permanent", { "57P04": "the database was dropped" }),
  ...group(
    "ConnectionError",
    "transient",
    { "57P05": "the server ended the session because it sat idle" },
    { settles: true, advice: "let the pool's idle time be shorter than idle_session_timeout" }
  ),
  ...group(
    "ConnectionError",
    "permanent",
    { "25P03": "the server ended the session because its transaction sat idle" },
    { settles: true, advice: "do not wait for other things inside a transaction" }
  ),
  ...group(
    "ConnectionError",
    "permanent",
    { "3D000+InitPostgres": "the database does not exist" },
    { settles: true, shown: "always", advice: "create it, or correct its name" }
  ),
  ...group(
    "ServerUnavailableError",
    "transient",
    {
      "57P01": "an administrator ended the session, or the server is stopping",
      "57P02": "the server ends all sessions because one of them crashed"
    },
    { shown: "always", advice: backoff }
  ),
  ...group(
    "ServerUnavailableError",
    "transient",
    { "57P03": "the server takes no connections at the moment" },
    { shown: "always", settles: true, advice: backoff }
  ),
  ...group(
    "TooManyConnectionsError",
    "transient",
    { "53300": "the server has no connection slot left" },
    { shown: "always", settles: true, advice: "wait, make pools smaller, or raise max_connections" }
  ),
  ...group("ResourceError", "transient", { "53": "the server lacks resources" }, { shown: "plain", advice: backoff }),
  ...group("ResourceError", "permanent", { "53100": "the server's disk is full" }, { shown: "plain" }),
  ...group(
    "ResourceError",
    "transient",
    { "58000": "the server's system reported an error", "58030": "the server could not read or write a file" },
    { advice: serverLog }
  ),
  ...group("ResourceError", "permanent", { "58": "the server's system reported an error" }, { advice: serverLog }),
  ...group(
    "AuthenticationError",
    "permanent",
    { "28": "the server refused the role or its password" },
    { shown: "always", settles: true, advice: "check user, password and pg_hba.conf" }
  ),
  ...group(
    "AuthorizationError",
    "permanent",
    { "42501": "the role lacks a privilege" },
    { shown: "plain", advice: "grant it, or use another role" }
  ),
  ...group(
    "ReadOnlyError",
    "transient",
    { "25006": "the server takes no writes here" },
    { shown: "plain", advice: "unless the transaction is meant to read only, this is a standby" }
  ),
  ...group(
    "SerializationError",
    "transient",
    { "40": "the transaction was rolled back", "72": "the transaction's snapshot is too old" },
    { advice: repeat }
  ),
  ...group(
    "SerializationError",
    "transient",
    { "40001": "a concurrent transaction was in the way" },
    { shown: "always", settles: true, advice: repeat }
  ),
  ...group(
    "DeadlockError",
    "transient",
    { "40P01": "the transaction was in a deadlock with another one" },
    { shown: "always", advice: repeat }
  ),
  ...group(
    "LockTimeoutError",
    "transient",
    { "55P03": "a lock was not to be had in time" },
    { shown: "always", advice: backoff }
  ),
  ...group(
    "QueryTimeoutError",
    "transient",
    { "25P04": "the server ended the session because its transaction took too long" },
    { settles: true, advice: "shorten the transaction, or raise transaction_timeout" }
  ),
  ...group(
    "TransactionAbortedError",
    "permanent",
    { "25P02": "an earlier statement of the transaction has failed" },
    { advice: "roll back, and look at that first failure" }
  ),
  ...group(
    "UniqueViolation",
    "permanent",
    { "23505": "the key exists already" },
    { advice: "handle it, or write ON CONFLICT" }
  ),
  ...group("ConstraintError", "permanent", {
    "23": "an integrity constraint refused the change",
    "23001": "a row is still referenced",
    "23502": "a value is missing",
    "23503": "a referenced row is missing, or a row is still referenced",
    "23514": "a row does not satisfy a check",
    "23P01": "a row conflicts with another one",
    "40002": "an integrity constraint refused the transaction"
  }),
  ...group(
    "SqlSyntaxError",
    "permanent",
    {
      "3F": "a schema does not exist",
      "42": "the server does not understand the statement",
      "42601": "the statement has a syntax error",
      "42602": "a name is not valid",
      "42703": "a column does not exist",
      "42704": "an object does not exist",
      "42883": "a function or operator does not exist for these types",
      "42P01": "a table does not exist"
    },
    { shown: "positioned", advice: "check the statement, the search_path and the migrations" }
  ),
  ...group(
    "SqlSyntaxError",
    "permanent",
    { "08P01+exec_bind_message": "the statement was given a wrong number of parameters" },
    { settles: true, shown: "plain" }
  ),
  ...group(
    "SqlSyntaxError",
    "permanent",
    {
      "42701": "the column exists already",
      "42710": "the object exists already",
      "42723": "the function exists already",
      "42809": "an object is of the wrong kind",
      "42P04": "the database exists already",
      "42P06": "the schema exists already",
      "42P07": "the table exists already"
    },
    { shown: "plain" }
  ),
  ...group("SqlSyntaxError", "permanent", {
    "3D": "the database does not exist",
    "42804": "two types do not fit together",
    "42846": "a value cannot be cast to the type asked for"
  }),
  ...group(
    "UnknownError",
    "transient",
    { "40003": "the server cannot tell whether it is done" },
    { outcomeUnknown: true }
  ),
  ...group(
    "UnknownError",
    "transient",
    {
      "26": "a prepared statement is not known on this connection",
      "42P05": "a prepared statement exists already on this connection"
    },
    { advice: unnamed }
  ),
  ...group(
    "UnknownError",
    "transient",
    { "0A000+RevalidateCachedQuery": "the result of a prepared statement has changed its type" },
    { advice: "run the transaction again, as a table has changed meanwhile" }
  ),
  ...group("UnknownError", "transient", {
    "57014+ProcessInterrupts": "somebody else cancelled the statement",
    HV00N: "a foreign server could not be reached"
  }),
  ...group(
    "UnknownError",
    "permanent",
    {
      "10": "an XPath or XQuery expression is not valid",
      "22": "a value is not acceptable",
      "22001": "a text is longer than its column allows",
      "22003": "a number is out of range",
      "22004": "a value is null where null is not allowed",
      "22007": "a text is not a valid date or time",
      "22008": "a date or time is out of range",
      "22012": "division by zero",
      "22021": "a text is not valid in the database's encoding",
      "22023": "an argument has a value that is not allowed",
      "22P02": "a text is not valid for its type",
      "22P03": "a binary value is not valid for its type",
      "44": "a row does not satisfy the view's check option"
    },
    { advice: "check the parameters" }
  ),
  ...group(
    "UnknownError",
    "permanent",
    {
      "0A": "the server does not support this",
      "0B": "a transaction cannot begin here",
      "0L": "the role cannot grant this",
      "21": "there are more rows than allowed here",
      "24": "the cursor is in the wrong state",
      "25": "the transaction is in the wrong state for this",
      "27": "a trigger changed the row that is being changed",
      "2B": "other objects depend on it",
      "2D": "the transaction cannot end here",
      "34": "the cursor does not exist",
      "3B": "the savepoint does not exist",
      "54": "a limit of the server is exceeded",
      "55": "an object is not in a state that allows this",
      "57": "an operator intervened"
    },
    { shown: "plain" }
  ),
  ...group("UnknownError", "permanent", {
    "00": "success, reported as an error",
    "01": "a warning, reported as an error",
    "02": "no data, reported as an error",
    "03": "the statement is not complete",
    "09": "a triggered action failed",
    "0F": "a locator is not valid",
    "0P": "the role is not valid here",
    "0Z": "diagnostics were asked for outside a handler",
    "20": "a CASE statement has no branch for the value",
    "2F": "a function broke a rule of SQL",
    "38": "a function in another language failed",
    "39": "a function in another language was called wrongly",
    "57014": "the statement was given up",
    F0: "the server's configuration file is faulty",
    HV: "a foreign server reported an error"
  }),
  ...group(
    "UnknownError",
    "permanent",
    { P0: "a function raised an error", XX: "internal error of the server" },
    { advice: exposed }
  )
].toSorted((a, b) => (a.match < b.match ? -1 : 1))

/** What is in no table. */
export const unlisted: Rule = {
  match: "",
  tag: "UnknownError",
  transient: false,
  note: "an error of an unknown kind",
  advice: exposed
}

const byMatch = new Map(table.map((row) => [row.match, row]))

/** Whether a text has the form of a SQLSTATE. */
export const isSqlState = (code: string): boolean => /^[0-9A-Z]{5}$/.test(code)

/** The row for a SQLSTATE, or `unlisted`. */
export const bySqlState = (sqlState: string, routine?: string): Rule =>
  byMatch.get(`${sqlState}+${routine}`) ?? byMatch.get(sqlState) ?? byMatch.get(sqlState.slice(0, 2)) ?? unlisted
