import { SqlError } from "@effect/sql/SqlError"
import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import {
  classify,
  type Facts,
  isFatal,
  isFinalAnswer,
  isStaleStatement,
  isUnsupportedStartupParameter
} from "../../src/error/classify.js"
import * as PgError from "../../src/error/PgError.js"
import * as SqlState from "../../src/error/SqlState.js"
import { ofError, success } from "../../src/policy/internal/verdict.js"
import { answer, facts, hostile, systemError, thrown } from "./arbitraries.js"

/** Tag and transience in one word. */
const verdict = (cause: unknown, known?: Facts) => {
  const { _tag, transient } = classify(cause, known)
  return `${_tag} ${transient ? "transient" : "permanent"}`
}

/** A SQLSTATE that the row of the table is for. */
const sqlStateOf = (match: string) => match.slice(0, 5).split("+")[0]!.padEnd(5, "0")

const predicates = [isFatal, isFinalAnswer, isStaleStatement, isUnsupportedStartupParameter]

const assertSound = (error: PgError.PgError) => {
  assert.isTrue(PgError.isPgError(error))
  assert.property(PgError.retrySafety, error._tag)
  assert.isString(error.message)
  assert.isNotEmpty(error.message)
  assert.isAtMost(error.message.length, 400)
  assert.notMatch(error.message, /[\p{Cc}\p{Zl}\p{Zp}]/u)
}

describe("classify", () => {
  it("makes a PgError with one line of message of anything whatever, and never throws", () => {
    fc.assert(
      fc.property(thrown, facts, (make, known) => {
        const cause = make()
        assertSound(classify(cause, known))
        for (const predicate of predicates) assert.isBoolean(predicate(cause))
      }),
      { numRuns: 1_000 }
    )
  })

  it.each(hostile)("survives %s", (_, make) => {
    assertSound(classify(make()))
    assertSound(classify(make(), { exposeServerDetail: true }))
    for (const predicate of predicates) assert.isBoolean(predicate(make()))
  })

  it("decides by SQLSTATE whatever else the answer holds", () => {
    const states = fc.stringMatching(/^[0-9A-Z]{5}$/)
    fc.assert(
      fc.property(states, fc.string(), (code, message) => {
        fc.pre(code !== "57014" && SqlState.byPoolerMessage(message) === undefined)
        const error = classify(answer({ code, message }))
        const rule = SqlState.bySqlState(code, "a_routine")
        assert.strictEqual(error.sqlState, code)
        assert.strictEqual(error.code, code)
        assert.strictEqual(error._tag, rule.outcomeUnknown ? "OutcomeUnknownError" : rule.tag)
      })
    )
  })

  it("says what it knows: phase, outcome, operation, attempts, and the names the server gives", () => {
    const cause = answer({ code: "23505", schema: "public", table: "users", constraint: "users_email_key" })
    const error = classify(cause, { phase: "Commit", outcome: "Unknown", operation: "sign-up", attempts: 3 })
    assert.include(error, {
      _tag: "UniqueViolation",
      phase: "Commit",
      outcome: "Unknown",
      operation: "sign-up",
      attempts: 3,
      transient: false,
      severity: "ERROR",
      sqlState: "23505",
      code: "23505",
      schema: "public",
      table: "users",
      constraint: "users_email_key"
    })
    assert.strictEqual(
      error.message,
      'Commit: the key exists already: constraint "users_email_key" of table "public.users" (23505); ' +
        "handle it, or write ON CONFLICT"
    )
  })

  it("assumes a first attempt to execute that was not applied, and has no fields that are undefined", () => {
    const error = classify(new Error("x"))
    assert.include(error, { phase: "Execute", outcome: "NotApplied", attempts: 1 })
    assert.notInclude(Object.values(error), undefined)
  })

  it("returns a PgError as it is, also from within other errors", () => {
    const error = classify(answer({ code: "40001" }))
    for (const wrapped of [error, new SqlError({ cause: error }), new Error("x", { cause: error })]) {
      assert.strictEqual(classify(wrapped, { attempts: 9 }), error)
    }
  })

  it("looks through wrappers for the error that is known", () => {
    const cause = answer({ code: "40P01" })
    assert.strictEqual(
      verdict(new SqlError({ cause, message: "Failed to execute statement" })),
      "DeadlockError transient"
    )
    assert.strictEqual(verdict(new Error("outer", { cause: new Error("inner", { cause }) })), "DeadlockError transient")
    assert.strictEqual(verdict(new SqlError({ message: "Connection error" })), "UnknownError permanent")
  })

  it("reads a SQLSTATE without severity only where it cannot be a system's code", () => {
    assert.strictEqual(classify({ code: "23505" }).sqlState, "23505")
    assert.strictEqual(verdict({ code: "EPIPE" }), "ConnectionError transient")
    assert.strictEqual(verdict({ code: "EPIPE", severity: "ERROR" }), "UnknownError permanent")
    assert.isUndefined(classify({ code: "ABCDE" }).code)
  })

  describe("of a cancelled statement (57014)", () => {
    const english = {
      timeout: "canceling statement due to statement timeout",
      user: "canceling statement due to user request"
    }
    const german = "storniere Anfrage"
    const cancel = (message: string) => answer({ code: "57014", message, routine: "ProcessInterrupts" })

    it.each<[string, string, Facts, string]>([
      ["our deadline", english.user, { cancelledByUs: "timeout" }, "QueryTimeoutError transient"],
      ["our interruption", english.user, { cancelledByUs: "interrupt" }, "UnknownError permanent"],
      [
        "our deadline, though the server's came first",
        english.timeout,
        { cancelledByUs: "timeout" },
        "QueryTimeoutError transient"
      ],
      ["the server's limit by its English text", english.timeout, {}, "StatementTimeoutError transient"],
      [
        "the server's limit by the time, in any language",
        german,
        { elapsed: 1_000, statementTimeout: 1_000 },
        "StatementTimeoutError transient"
      ],
      [
        "the server's limit, clocks apart by milliseconds",
        german,
        { elapsed: 991, statementTimeout: 1_000 },
        "StatementTimeoutError transient"
      ],
      [
        "somebody else's cancel, before the limit",
        german,
        { elapsed: 500, statementTimeout: 1_000 },
        "UnknownError transient"
      ],
      [
        "somebody else's cancel, without a limit",
        german,
        { elapsed: 1_000, statementTimeout: 0 },
        "UnknownError transient"
      ],
      ["somebody else's cancel, the time not known", german, { statementTimeout: 1_000 }, "UnknownError transient"],
      [
        "somebody else's cancel by its English text",
        english.user,
        { elapsed: 2_000, statementTimeout: 1_000 },
        "UnknownError transient"
      ]
    ])("is %s", (_, message, known, expected) => {
      assert.strictEqual(verdict(cancel(message), known), expected)
    })

    it("is no cancel at all when another part of the server gave up, such as COPY without data", () => {
      const copy = answer({ code: "57014", message: "COPY from stdin failed", routine: "CopyGetData" })
      assert.strictEqual(verdict(copy, { cancelledByUs: "timeout" }), "UnknownError permanent")
    })
  })

  describe("of several addresses (AggregateError with an empty message)", () => {
    const part = (code: string, address: string) => systemError(code, "", { address, port: 5432 })

    it("looks at the parts", () => {
      const error = classify(new AggregateError([part("ECONNREFUSED", "::1"), part("ECONNREFUSED", "127.0.0.1")], ""))
      assert.include(error, { _tag: "ConnectionError", transient: true, code: "ECONNREFUSED" })
      assert.match(error.message, /^nobody listens there: ::1:5432 \(ECONNREFUSED\); /)
    })

    it("is transient when one of them is", () => {
      const error = classify(new AggregateError([part("EACCES", "::1"), part("ETIMEDOUT", "127.0.0.1")], ""))
      assert.include(error, { transient: true, code: "ETIMEDOUT" })
    })
  })

  it("makes an OutcomeUnknownError of the SQLSTATEs that say so, whatever the call's own facts", () => {
    for (const [code, reason] of [
      ["08007", "ConnectionError"],
      ["40003", "UnknownError"]
    ] as const) {
      const error = classify(answer({ code }), { outcome: "NotApplied", operation: "pay", attempts: 2 })
      assert.include(error, {
        _tag: "OutcomeUnknownError",
        outcome: "Unknown",
        operation: "pay",
        attempts: 2
      })
      assert(error._tag === "OutcomeUnknownError")
      assert.include(error.reason, { _tag: reason, outcome: "Unknown", sqlState: code })
    }
  })

  it("does not call a standby transient when the program asked for a read-only transaction", () => {
    const cause = answer({ code: "25006" })
    assert.strictEqual(verdict(cause), "ReadOnlyError transient")
    assert.strictEqual(verdict(cause, { readOnly: true }), "ReadOnlyError permanent")
  })

  it("calls it a connection that cannot be made when the session ends before it has begun", () => {
    const fatal = answer({ code: "42704", severity: "FATAL", message: 'unrecognized configuration parameter "x"' })
    assert.strictEqual(verdict(fatal, { phase: "Acquire" }), "ConnectionError permanent")
    assert.include(classify(fatal).message, 'unrecognized configuration parameter "x"')
    assert.strictEqual(verdict(answer({ code: "42704" }), { phase: "Acquire" }), "SqlSyntaxError permanent")
  })

  it("does not take another server's lost connection for ours", () => {
    const remote = answer({ code: "08006", routine: "pgfdw_report_error" })
    assert.strictEqual(verdict(remote), "UnknownError transient")
    assert.isFalse(isFatal(remote))
    for (const code of ["57P01", "53100", "25006"]) {
      assert.strictEqual(verdict(answer({ code, routine: "dblink_res_error" })), "UnknownError permanent")
    }
    assert.strictEqual(verdict(answer({ code: "23505", routine: "pgfdw_report_error" })), "UniqueViolation permanent")
    assert.strictEqual(
      verdict(answer({ code: "08007", routine: "pgfdw_report_error" })),
      "OutcomeUnknownError permanent"
    )
  })

  describe("of RAISE with a SQLSTATE of the program's choice", () => {
    const raised = (code: string, severity = "ERROR") => answer({ code, severity, routine: "exec_stmt_raise" })

    it.each([
      ["40001", "SerializationError transient"],
      ["40P01", "DeadlockError transient"],
      ["55P03", "LockTimeoutError transient"],
      ["23505", "UniqueViolation permanent"],
      ["23514", "ConstraintError permanent"],
      ["28000", "AuthenticationError permanent"],
      ["42501", "AuthorizationError permanent"],
      ["P0001", "UnknownError permanent"]
    ])("takes %s, which is about the statement, at its word", (code, expected) => {
      assert.strictEqual(verdict(raised(code)), expected)
    })

    it.each([
      "08000",
      "08001",
      "08006",
      "08P01",
      "25006",
      "25P03",
      "25P04",
      "53000",
      "53100",
      "53300",
      "53400",
      "57P01",
      "57P02",
      "57P03",
      "57P04",
      "57P05",
      "58000",
      "58030"
    ])("does not believe that %s is about the session or the server", (code) => {
      for (const severity of ["ERROR", "FEHLER"]) {
        const error = classify(raised(code, severity))
        assert.include(error, { _tag: "UnknownError", transient: false, sqlState: code, code })
        assert.match(error.message, /^a function raised an error \(/)
        assert.deepStrictEqual(ofError(error, true), success, "the circuit breaker sees a sign of life")
        assert.isFalse(isFatal(raised(code, severity)))
        assert.isTrue(isFinalAnswer(raised(code, severity)))
      }
    })

    it("does not believe it of a function in another language either", () => {
      const cause = answer({ code: "57P01", routine: "PLy_elog_impl", file: "plpy_elog.c" })
      assert.strictEqual(verdict(cause), "UnknownError permanent")
      assert.isFalse(isFatal(cause))
      assert.isTrue(isFinalAnswer(cause))
    })

    it("believes that nobody knows the outcome, but not that the connection was lost", () => {
      const error = classify(raised("08007"))
      assert(error._tag === "OutcomeUnknownError")
      assert.strictEqual(error.reason._tag, "UnknownError")
      assert.isFalse(isFinalAnswer(raised("08007")))
    })

    it("believes the end of the session, which a trigger on login brings about", () => {
      assert.strictEqual(verdict(raised("57P03", "FATAL")), "ServerUnavailableError transient")
      assert.isTrue(isFatal(raised("P0001", "FATAL")))
    })
  })

  it("knows a pooler's messages, whatever their SQLSTATE, and not those that PostgreSQL itself may send", () => {
    const pooler = (message: string, code = "08P01") => answer({ code, message, severity: "FATAL", routine: undefined })
    assert.strictEqual(verdict(pooler("query_wait_timeout")), "TooManyConnectionsError transient")
    assert.strictEqual(verdict(pooler("(EMAXCONN) max clients reached", "XX000")), "TooManyConnectionsError transient")
    assert.strictEqual(verdict(answer({ code: "P0001", message: "query_wait_timeout" })), "UnknownError permanent")
    assert.include(classify(pooler("no such user")), { sqlState: "08P01", severity: "FATAL" })
  })
})

describe("isUnsupportedStartupParameter", () => {
  const pooler = (code: string, message: string) => answer({ code, message, severity: "FATAL", routine: undefined })

  it("is true of what poolers answer to a parameter they do not know, and permanent", () => {
    for (const cause of [
      pooler("08P01", "unsupported startup parameter: statement_timeout"),
      pooler("08P01", "unsupported startup parameter in options: lock_timeout"),
      pooler("0A000", "Feature not supported: RDS Proxy currently doesn’t support command-line options.")
    ]) {
      assert.isTrue(isUnsupportedStartupParameter(cause))
      assert.strictEqual(verdict(cause), "ConnectionError permanent")
    }
  })

  it("is false of every other refusal", () => {
    assert.isFalse(isUnsupportedStartupParameter(pooler("08P01", "no such user")))
    assert.isFalse(
      isUnsupportedStartupParameter(answer({ code: "P0001", message: "unsupported startup parameter: x" }))
    )
  })
})

describe("isStaleStatement", () => {
  it("is true of prepared statements that are missing, doubled or out of date", () => {
    for (const cause of [
      answer({ code: "26000" }),
      answer({ code: "42P05" }),
      answer({ code: "0A000", routine: "RevalidateCachedQuery" }),
      answer({ code: "08P01", routine: undefined, message: "prepared statement did not exist" })
    ]) {
      assert.isTrue(isStaleStatement(cause))
      assert.isTrue(classify(cause).transient)
    }
    assert.isFalse(isStaleStatement(answer({ code: "0A000" })))
  })
})

describe("isFatal", () => {
  it("is false of an ERROR of the server, whatever its SQLSTATE says", () => {
    const ends = ["57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "53300", "28000", "28P01", "08006"]
    for (const code of [...ends, ...SqlState.table.map(({ match }) => sqlStateOf(match))]) {
      assert.isFalse(isFatal(answer({ code })), code)
      assert.isFalse(isFatal(classify(answer({ code }))), code)
    }
  })

  it("is true of what ends a session or breaks the conversation", () => {
    for (const cause of [
      answer({ code: "XX000", severity: "PANIC" }),
      answer({ code: "40001", severity: "FATAL" }),
      ...["57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "53300", "28000", "28P01", "08006"].map(
        (code) => answer({ code, severity: "ВАЖНО" })
      ),
      answer({ code: "08P01", routine: undefined, message: "server conn crashed?" }),
      answer({ code: "08P01", routine: undefined, message: "query_wait_timeout" }),
      systemError("ECONNRESET"),
      systemError("ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
      new Error("Connection terminated unexpectedly"),
      new Error("Query read timeout"),
      new Error("Received unexpected dataRow message from backend."),
      new SqlError({ cause: systemError("EPIPE") }),
      classify(systemError("EPIPE")),
      classify(answer({ code: "57P01", severity: "FATAL" })),
      PgError.outcomeUnknown(classify(systemError("EPIPE")))
    ]) {
      assert.isTrue(isFatal(cause), String(cause))
    }
  })

  it("is false of an answer after which the session goes on, and of what is not the connection's", () => {
    for (const cause of [
      answer({ code: "23505" }),
      answer({ code: "57014", routine: "ProcessInterrupts" }),
      answer({ code: "25P02" }),
      answer({ code: "08P01", routine: "exec_bind_message" }),
      answer({ code: "25006" }),
      answer({ code: "08P01", routine: undefined, message: "nothing that a pooler is known to say" }),
      answer({ code: "08006", routine: "pgfdw_report_error", severity: "FEHLER" }),
      classify(answer({ code: "23505" })),
      new Error("timeout exceeded when trying to connect"),
      new SyntaxError("Unexpected token"),
      undefined
    ]) {
      assert.isFalse(isFatal(cause), String(cause))
    }
  })
})

describe("isFinalAnswer", () => {
  /** What can come although the statement was committed: the answer tells of a server that somebody else lost. */
  const inDoubt = ["08000", "08007", "08P01", "40003"]
  const inDoubtOfPooler = [
    ...["53000", "53100", "57000", "57014", "57P01", "57P02", "57P04", "58000", "58030", "XX000"],
    ...inDoubt
  ]

  it.each(SqlState.table)("asks of the row $match whether an ERROR can come after a commit", ({ match }) => {
    const code = sqlStateOf(match)
    const routine = match.split("+")[1] ?? "a_routine"
    const mistake = match === "08P01+exec_bind_message"
    assert.strictEqual(isFinalAnswer(answer({ code, routine })), mistake || !inDoubt.includes(code))
    assert.strictEqual(isFinalAnswer(answer({ code, routine: undefined })), !inDoubtOfPooler.includes(code))
  })

  it.each(SqlState.poolerMessages)("asks of a pooler's “$match” the same, with any severity", ({ match, settles }) => {
    for (const severity of ["ERROR", "FATAL"]) {
      for (const code of ["08P01", "XX000", "58000"]) {
        const said = answer({ code, severity, routine: undefined, message: `${match} and more` })
        assert.strictEqual(isFinalAnswer(said), settles === true, `${severity} ${code}`)
      }
    }
  })

  it("knows which of a pooler's messages tell of a server that was lost with the statement under way", () => {
    assert.deepStrictEqual(
      SqlState.poolerMessages.filter((row) => !row.settles).map((row) => row.match),
      [
        "admin forced disconnect",
        "(EDBHANDLEREXITED)",
        "client unexpected eof",
        "client_idle_timeout",
        "server conn crashed?",
        "server connection closed",
        "unexpected eof",
        "idle transaction timeout",
        "query timeout",
        "query_timeout",
        "transaction timeout"
      ]
    )
  })

  it("is true of the ERRORs of the server, and of the ends of a session that cannot come after a commit", () => {
    for (const cause of [
      answer({ code: "23505" }),
      answer({ code: "57P01" }),
      answer({ code: "57P01", severity: "FEHLER", routine: "exec_stmt_raise" }),
      answer({ code: "08006", routine: "pgfdw_report_error" }),
      answer({ code: "08001", routine: "connect_pg_server" }),
      answer({ code: "08P01", routine: "exec_bind_message" }),
      answer({ code: "25P03", severity: "FATAL" }),
      answer({ code: "25P04", severity: "FATAL" }),
      answer({ code: "57P05", severity: "FATAL" }),
      answer({ code: "40001", severity: "FATAL" }),
      answer({ code: "53300", severity: "FATAL" }),
      answer({ code: "08P01", severity: "FATAL", routine: undefined, message: "query_wait_timeout" })
    ]) {
      assert.isTrue(isFinalAnswer(cause), String(cause))
    }
  })

  it("is false where the commit may have happened before the session ended, and of everything but an answer", () => {
    for (const cause of [
      answer({ code: "57P01", severity: "FATAL" }),
      answer({ code: "57P02", severity: "FATAL" }),
      answer({ code: "58030", severity: "PANIC" }),
      answer({ code: "08007" }),
      answer({ code: "40003" }),
      answer({ code: "08P01", severity: "FATAL", routine: undefined, message: "server conn crashed?" }),
      answer({ code: "08P01", routine: undefined, message: "server conn crashed?" }),
      answer({ code: "08P01", routine: undefined, message: "server lifetime over" }),
      answer({ code: "08006", routine: undefined, message: "odyssey: c1: remote server read/write error" }),
      answer({ code: "58000", routine: undefined, message: "error receiving data from server" }),
      systemError("ECONNRESET"),
      new SyntaxError("Unexpected token"),
      undefined
    ]) {
      assert.isFalse(isFinalAnswer(cause), String(cause))
    }
  })
})
