import { assert, describe, it } from "@effect/vitest"
import * as SqlState from "../../src/error/SqlState.js"
import type { Tag } from "../../src/error/tags.js"
import { errorTable } from "../support/errorTable.js"

type Decision = readonly [tag: Tag, transient: boolean]

const permanent = (tag: Tag): Decision => [tag, false]
const transient = (tag: Tag): Decision => [tag, true]
const decided = (rule: SqlState.Rule | undefined): Decision | undefined => rule && [rule.tag, rule.transient]

/** What each SQLSTATE must mean, written apart from the table; `+` before the server's routine. */
const sqlStates: Record<string, Decision> = {
  "08000": transient("ConnectionError"),
  "08001": transient("ConnectionError"),
  "08003": transient("ConnectionError"),
  "08004": transient("ConnectionError"),
  "08006": transient("ConnectionError"),
  "08P01": permanent("ConnectionError"),
  "08P01+exec_bind_message": permanent("SqlSyntaxError"),
  "0A000": permanent("UnknownError"),
  "0A000+RevalidateCachedQuery": transient("UnknownError"),
  "20000": permanent("UnknownError"),
  "21000": permanent("UnknownError"),
  "22001": permanent("UnknownError"),
  "22P02": permanent("UnknownError"),
  "23000": permanent("ConstraintError"),
  "23001": permanent("ConstraintError"),
  "23502": permanent("ConstraintError"),
  "23503": permanent("ConstraintError"),
  "23505": permanent("UniqueViolation"),
  "23514": permanent("ConstraintError"),
  "23P01": permanent("ConstraintError"),
  "24000": permanent("UnknownError"),
  "25001": permanent("UnknownError"),
  "25006": transient("ReadOnlyError"),
  "25P01": permanent("UnknownError"),
  "25P02": permanent("TransactionAbortedError"),
  "25P03": permanent("ConnectionError"),
  "25P04": transient("QueryTimeoutError"),
  "26000": transient("UnknownError"),
  "28000": permanent("AuthenticationError"),
  "28P01": permanent("AuthenticationError"),
  "2BP01": permanent("UnknownError"),
  "3B001": permanent("UnknownError"),
  "3D000": permanent("SqlSyntaxError"),
  "3D000+InitPostgres": permanent("ConnectionError"),
  "3F000": permanent("SqlSyntaxError"),
  "40000": transient("SerializationError"),
  "40001": transient("SerializationError"),
  "40002": permanent("ConstraintError"),
  "40P01": transient("DeadlockError"),
  "42501": permanent("AuthorizationError"),
  "42601": permanent("SqlSyntaxError"),
  "42703": permanent("SqlSyntaxError"),
  "42P01": permanent("SqlSyntaxError"),
  "42P05": transient("UnknownError"),
  "42P17": permanent("SqlSyntaxError"),
  "44000": permanent("UnknownError"),
  "53000": transient("ResourceError"),
  "53100": permanent("ResourceError"),
  "53200": transient("ResourceError"),
  "53300": transient("TooManyConnectionsError"),
  "53400": transient("ResourceError"),
  "54001": permanent("UnknownError"),
  "55000": permanent("UnknownError"),
  "55006": permanent("UnknownError"),
  "55P03": transient("LockTimeoutError"),
  "57014": permanent("UnknownError"),
  "57014+ProcessInterrupts": transient("UnknownError"),
  "57P01": transient("ServerUnavailableError"),
  "57P02": transient("ServerUnavailableError"),
  "57P03": transient("ServerUnavailableError"),
  "57P04": permanent("ConnectionError"),
  "57P05": transient("ConnectionError"),
  "58000": transient("ResourceError"),
  "58030": transient("ResourceError"),
  "58P01": permanent("ResourceError"),
  "72000": transient("SerializationError"),
  F0000: permanent("UnknownError"),
  HV000: permanent("UnknownError"),
  HV00N: transient("UnknownError"),
  P0001: permanent("UnknownError"),
  XX000: permanent("UnknownError"),
  XX002: permanent("UnknownError"),
  ZZ999: permanent("UnknownError")
}

const codes: Record<string, Decision | undefined> = {
  EAI_AGAIN: transient("ConnectionError"),
  EAI_FAIL: permanent("ConnectionError"),
  ENOTFOUND: permanent("ConnectionError"),
  ECONNREFUSED: transient("ConnectionError"),
  ECONNRESET: transient("ConnectionError"),
  ECONNABORTED: transient("ConnectionError"),
  EPIPE: transient("ConnectionError"),
  ETIMEDOUT: transient("ConnectionError"),
  EHOSTUNREACH: transient("ConnectionError"),
  ENETUNREACH: transient("ConnectionError"),
  ENETDOWN: transient("ConnectionError"),
  EADDRNOTAVAIL: transient("ConnectionError"),
  EMFILE: transient("ConnectionError"),
  ENFILE: transient("ConnectionError"),
  ENOENT: transient("ConnectionError"),
  EACCES: permanent("ConnectionError"),
  ERR_STREAM_DESTROYED: transient("ConnectionError"),
  ERR_STREAM_WRITE_AFTER_END: transient("ConnectionError"),
  ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC: transient("ConnectionError"),
  ERR_SSL_WRONG_VERSION_NUMBER: permanent("ConnectionError"),
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: permanent("ConnectionError"),
  ERR_TLS_CERT_ALTNAME_INVALID: permanent("ConnectionError"),
  ERR_TLS_HANDSHAKE_TIMEOUT: transient("ConnectionError"),
  CERT_HAS_EXPIRED: permanent("ConnectionError"),
  CERT_REVOKED: permanent("ConnectionError"),
  DEPTH_ZERO_SELF_SIGNED_CERT: permanent("ConnectionError"),
  SELF_SIGNED_CERT_IN_CHAIN: permanent("ConnectionError"),
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: permanent("ConnectionError"),
  ERR_INVALID_ARG_TYPE: undefined,
  E: undefined
}

const driver: Record<string, Decision | undefined> = {
  "timeout exceeded when trying to connect": transient("PoolTimeoutError"),
  "Connection terminated due to connection timeout": transient("ConnectionError"),
  "timeout expired": transient("ConnectionError"),
  "Cannot use a pool after calling end on the pool": permanent("PoolClosedError"),
  "Called end on pool more than once": permanent("PoolClosedError"),
  "Release called on client which has already been released to the pool.": permanent("UnknownError"),
  "Client has encountered a connection error and is not queryable": transient("ConnectionError"),
  "Client was closed and is not queryable": transient("ConnectionError"),
  "Connection terminated unexpectedly": transient("ConnectionError"),
  "Connection terminated": transient("ConnectionError"),
  "Query read timeout": transient("QueryTimeoutError"),
  "Client has already been connected. You cannot reuse a client.": permanent("UnknownError"),
  "The server does not support SSL connections": permanent("ConnectionError"),
  "There was an error establishing an SSL connection": transient("ConnectionError"),
  "SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string": permanent("AuthenticationError"),
  "Received unexpected rowDescription message from backend.": transient("ConnectionError"),
  "received invalid response: 48": transient("ConnectionError"),
  "a query, but not one that is known": undefined
}

const pooler: Record<string, Decision | undefined> = {
  query_wait_timeout: transient("TooManyConnectionsError"),
  "no more connections allowed (max_client_conn)": transient("TooManyConnectionsError"),
  "server login has been failing, cached error: x (server_login_retry)": transient("ServerUnavailableError"),
  "pooler is shutting down": transient("ServerUnavailableError"),
  "server shutting down": transient("ServerUnavailableError"),
  client_login_timeout: transient("ServerUnavailableError"),
  "client_login_timeout (server down)": transient("ServerUnavailableError"),
  "server conn crashed?": transient("ConnectionError"),
  query_timeout: transient("QueryTimeoutError"),
  "unexpected eof": transient("ConnectionError"),
  "unsupported startup parameter: statement_timeout": permanent("ConnectionError"),
  "unsupported startup parameter in options: geqo": permanent("ConnectionError"),
  "no such database: shop": permanent("ConnectionError"),
  "no such user": permanent("AuthenticationError"),
  "password authentication failed": permanent("AuthenticationError"),
  "(EMAXCONNSESSION) max clients reached in session mode": transient("TooManyConnectionsError"),
  "pause failed": undefined
}

describe("SqlState", () => {
  const everyRule = [...SqlState.table, ...SqlState.systemCodes, ...SqlState.driverMessages, ...SqlState.poolerMessages]

  it.each(Object.entries(sqlStates))("decides %s as %s", (key, decision) => {
    const [sqlState = "", routine] = key.split("+")
    assert.deepStrictEqual(decided(SqlState.bySqlState(sqlState, routine)), decision)
  })

  it.each(Object.entries(codes))("decides the code %s as %s", (code, decision) => {
    assert.deepStrictEqual(decided(SqlState.bySystemCode(code)), decision)
  })

  it.each(Object.entries(driver))("decides the driver's “%s” as %s", (message, decision) => {
    assert.deepStrictEqual(decided(SqlState.byDriverMessage(message)), decision)
  })

  it.each(Object.entries(pooler))("decides the pooler's “%s” as %s", (message, decision) => {
    assert.deepStrictEqual(decided(SqlState.byPoolerMessage(message)), decision)
  })

  it("prefers an exact SQLSTATE to its class, and one with the server's routine to both", () => {
    assert.strictEqual(SqlState.bySqlState("08007").match, "08007")
    assert.strictEqual(SqlState.bySqlState("08006").match, "08")
    assert.strictEqual(SqlState.bySqlState("0A000", "RevalidateCachedQuery").match, "0A000+RevalidateCachedQuery")
    assert.strictEqual(SqlState.bySqlState("0A000", "another").match, "0A")
    assert.strictEqual(SqlState.bySqlState("ZZ999"), SqlState.unlisted)
  })

  it("leaves no doubt: a match stands in each table once", () => {
    for (const rules of [SqlState.table, SqlState.systemCodes, SqlState.driverMessages, SqlState.poolerMessages]) {
      const matches = rules.map((rule) => rule.match)
      assert.strictEqual(new Set(matches).size, matches.length)
    }
  })

  it("never shows the server's words where they quote data", () => {
    for (const { match, shown } of SqlState.table) {
      if (/^(22|23|P0|XX|38|39|HV|42804|42846)/.test(match)) assert.isUndefined(shown, match)
    }
  })

  it("says in every note what happened, in a few plain words on one line", () => {
    for (const rule of everyRule) {
      assert.match(rule.note, /^[a-zA-Z][^\n]{5,80}$/, rule.match)
      assert.notMatch(rule.note, /\.$/, rule.match)
    }
  })

  it("prints as Markdown with one line for each row, four cells each", () => {
    const lines = errorTable()
      .split("\n")
      .filter((line) => line !== "")
    assert.strictEqual(lines.length, 4 * 2 + everyRule.length)
    for (const line of lines) assert.strictEqual(line.match(/(?<!\\)\|/g)?.length, 5, line)
    assert.include(lines, "| `40P01` | `DeadlockError` | yes | the transaction was in a deadlock with another one |")
    assert.include(
      lines,
      "| `08007` | `OutcomeUnknownError` (reason `ConnectionError`) | no | the server lost track of a transaction |"
    )
  })
})
