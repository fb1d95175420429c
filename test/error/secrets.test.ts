import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck as fc } from "effect"
import { classify } from "../../src/error/classify.js"
import * as PgError from "../../src/error/PgError.js"
import * as SqlState from "../../src/error/SqlState.js"
import { type Answer, answer, systemError } from "./arbitraries.js"
import { renderings } from "./renderings.js"

/** The mark of every value that must not be seen. With line ends, because a message is cut from a stack by its lines. */
const secret = "s3cr3t"
const value = `"${secret}\n    at ${secret} (${secret}.js:1:1)\n${secret}"`

const assertHidden = (error: Error) =>
  Effect.map(renderings(error), (lines) => {
    assert.isAbove(lines.length, 40)
    for (const line of lines) assert.notInclude(line, secret)
  })

/** The error itself, as the cause of a SqlError, of unknown outcome, after some retries. */
const forms = (error: PgError.PgError): ReadonlyArray<Error> => [
  error,
  PgError.toSqlError(error),
  PgError.outcomeUnknown(error),
  PgError.withContext(error, { operation: "sign-up", attempts: 3 })
]

const hidden = (cause: unknown) => Effect.forEach(forms(classify(cause)), assertHidden, { discard: true })

/** An answer full of values, as the server gives them. */
const leaking = (fields: Answer) =>
  answer({
    message: `the server quotes ${value}`,
    detail: `Key (email)=(${value}) already exists.`,
    hint: `Perhaps you meant ${value}.`,
    where: `unnamed portal parameter $1 = ${value}`,
    internalQuery: `SELECT ${value}`,
    ...fields
  })

describe("the data in a server's answer", () => {
  const quoting = SqlState.table.filter((rule) => rule.shown === undefined).map((rule) => rule.match.split("+")[0]!)

  it.effect.each(quoting)("is in no rendering of an error of %s", (match) =>
    hidden(leaking({ code: match.padEnd(5, "0") }))
  )

  it.effect.each(["42P01", "42601", "42704", "42883", "3F000"])(
    "is in no rendering of %s without a position, because then a parameter may name the object",
    (code) => hidden(leaking({ code, position: undefined!, where: undefined! }))
  )

  it.effect.each(["42601", "55000", "0A000"])(
    "is in no rendering of %s with a context, because then a value is being read or a function runs",
    (code) => hidden(leaking({ code, position: "6" }))
  )

  it.effect.each(["40001", "57P01", "53300", "28P01", "42501"])(
    "is in no rendering of a RAISE that borrows %s",
    (code) => hidden(leaking({ code, routine: "exec_stmt_raise", where: undefined! }))
  )

  it.effect("is in no rendering of a syntax error that stopped at a literal", () =>
    Effect.forEach(
      [`'${secret}'`, `$$${secret}$$`, `1${secret}`, `'${secret}\n"`],
      (token) => hidden(answer({ code: "42601", position: "8", message: `syntax error at or near "${token}"` })),
      { discard: true }
    )
  )

  it.effect.each([
    ["genfile.c", "read_binary_file"],
    ["be-fsstubs.c", "lo_import_internal"],
    ["fd.c", "ReadDirExtended"]
  ])("is in no rendering of 42501 from %s, where it is the path of a file", ([file, routine]) =>
    hidden(leaking({ code: "42501", file: file!, routine, where: undefined! }))
  )

  it("leaves names, which a program needs", () => {
    const error = classify(leaking({ code: "23505", table: "users", constraint: "users_key", position: "3" }))
    assert.include(error.cause, { code: "23505", table: "users", constraint: "users_key", position: "3" })
    assert.notProperty(error.cause, "detail")
    assert.match((error.cause as Error).stack!, /^DatabaseError: 23505 a_routine\n {4}at /)
  })
})

/** Answers that somebody other than the server's own code has worded, names included, by where they come from. */
const worded: ReadonlyArray<readonly [speaker: string, place: Answer]> = [
  ["RAISE", { routine: "exec_stmt_raise", file: "pl_exec.c" }],
  ["RAISE in a trigger on login", { routine: "exec_stmt_raise", file: "pl_exec.c", severity: "FATAL" }],
  ["ASSERT", { routine: "exec_stmt_assert", file: "pl_exec.c" }],
  ["PL/Python", { routine: "PLy_elog_impl", file: "plpy_elog.c" }],
  ["PL/Perl", { routine: "croak_cstr", file: "plperl.c" }],
  ["PL/Tcl", { routine: "throw_tcl_error", file: "pltcl.c" }],
  ["PL/V8", { routine: "rethrow", file: "plv8.cc" }],
  ["PL/Lua", { routine: "pllua_elog", file: "elog.c" }],
  ["PL/Java", { routine: "endCall", file: "JNICalls.c" }],
  ["postgres_fdw", { routine: "pgfdw_report_error", file: "connection.c" }],
  ["whoever names no routine", { routine: undefined }]
]

describe("the names in a server's answer", () => {
  const names = { schema: value, table: value, column: value, constraint: value, dataType: value }

  it.effect.each(worded)("are in no rendering of what %s says, under any SQLSTATE", ([speaker, place]) =>
    Effect.forEach(
      // What a pooler says under 40001 may be shown; it has no names to give.
      ["23505", "P0001", ...(speaker.startsWith("whoever") ? [] : ["40001"])],
      (code) => hidden(leaking({ code, ...names, ...place, where: undefined! })),
      { discard: true }
    )
  )

  it.each(worded)("are there with exposeServerDetail, also of what %s says", (_, place) => {
    const error = classify(answer({ code: "23514", table: "orders", constraint: "my_rule", ...place }), {
      exposeServerDetail: true
    })
    assert.include(error, { table: "orders", constraint: "my_rule" })
  })

  it.each([
    ["a planner's file", { routine: "RevalidateCachedQuery", file: "plancache.c" }],
    ["PL/pgSQL itself", { routine: "exec_assign_value", file: "pl_exec.c" }],
    ["an index", { routine: "_bt_check_unique", file: "nbtinsert.c" }]
  ])("are the server's own when they come from %s", (_, place) => {
    const error = classify(answer({ code: "23505", schema: "s", table: "t", column: "c", constraint: "k", ...place }))
    assert.include(error, { schema: "s", table: "t", column: "c", constraint: "k" })
    assert.include(error.message, 'constraint "k" of table "s.t"')
  })
})

/** An error whose stack still begins with the message it had first. */
const rewritten = (first: string, message: string) => {
  const error = new Error(first)
  assert.include(error.stack, first)
  return Object.assign(error, { message })
}

describe("the data in any other error", () => {
  it.effect("is in no rendering, whichever property it hides in", () =>
    Effect.forEach(
      [
        new SyntaxError(`Unexpected token 's', ${value} is not valid JSON`),
        Object.assign(new Error(value), { code: value, input: value, name: value, cause: new Error(value) }),
        Object.assign(new TypeError("Invalid URL"), { code: "ERR_INVALID_URL", input: `postgres://u:${secret}@host` }),
        new AggregateError([new Error(value), value], value),
        rewritten(`${secret}\n    at ${secret} (file.js:1:1)`, ""),
        new Error(`SASL: SCRAM-SERVER-FIRST-MESSAGE: ${secret}`),
        systemError("ECONNRESET", value, { password: secret }),
        { message: value, code: secret, [secret]: secret, stack: `Error\n    at ${secret} (file.js:1:1)` },
        value,
        [secret],
        new Map([[secret, secret]])
      ],
      hidden,
      { discard: true }
    )
  )

  it.effect("is in no rendering of an arbitrary object full of it", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.dictionary(
            fc.oneof(
              fc.constantFrom(
                "message",
                "code",
                "name",
                "stack",
                "detail",
                "cause",
                "errors",
                "address",
                "hostname",
                "severity",
                "table"
              ),
              fc.string()
            ),
            fc.oneof(fc.constant(value), fc.constant([value]), fc.constant({ message: value, code: value }))
          ),
          fc.boolean(),
          (fields, isError) => {
            const cause = Object.assign(isError ? new Error(value) : {}, fields)
            return Effect.runPromise(assertHidden(classify(cause)))
          }
        ),
        { numRuns: 20 }
      )
    )
  )
})

describe("exposeServerDetail", () => {
  it("keeps message, detail, hint, context and the error itself", () => {
    const cause = leaking({ code: "22P02" })
    const error = classify(cause, { exposeServerDetail: true })
    assert.strictEqual(error.cause, cause)
    assert.include(error.message, secret)
    assert.notInclude(error.message, "\n")
    assert.include(error, { detail: cause.detail, hint: cause.hint, where: cause.where })
  })

  it("is off unless asked for", () => {
    const error = classify(leaking({ code: "22P02" }), {})
    for (const field of ["detail", "hint", "where"]) assert.notProperty(error, field)
  })
})

describe("the server's own message", () => {
  it.each([
    [
      "a name in the statement",
      answer({ code: "42P01", position: "15", message: 'relation "nope" does not exist' }),
      'relation "nope" does not exist'
    ],
    [
      "a word of the statement",
      answer({ code: "42601", position: "1", message: 'syntax error at or near "selec"' }),
      'at or near "selec"'
    ],
    [
      "a sign in the statement",
      answer({ code: "42601", position: "1", message: 'syntax error at or near ")"' }),
      'at or near ")"'
    ],
    [
      "a fixed text",
      answer({ code: "40001", where: "while updating a tuple", message: "could not serialize access" }),
      "could not serialize access"
    ],
    [
      "a limit of the server's configuration",
      answer({ code: "53400", file: "fd.c", routine: "FileWriteV", message: "temporary file size exceeds the limit" }),
      "temporary file size exceeds the limit"
    ],
    [
      "a name the program is configured with",
      answer({ code: "28P01", message: 'password authentication failed for user "app"' }),
      'user "app"'
    ]
  ])("is shown where it is %s", (_, cause, expected) => {
    assert.include(classify(cause).message, expected)
  })

  it("is on one line and cut where it is long, so that code and advice still fit", () => {
    const { message } = classify(answer({ code: "40001", message: `a\r\n\tb\u2028c\u001b[31m${"x".repeat(1_000)}` }))
    assert.match(message, /^a b c \[31mx+… \(40001\); repeat the whole transaction$/)
    assert.isAtMost(message.length, 400)
  })
})
