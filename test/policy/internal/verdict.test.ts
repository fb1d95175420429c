import { SqlError } from "@effect/sql/SqlError"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Exit, FiberId } from "effect"
import type * as PgError from "../../../src/error/PgError.js"
import * as verdict from "../../../src/policy/internal/verdict.js"
import { errorOf, tags } from "../errors.js"

const counted: ReadonlyArray<PgError.Tag> = [
  "ConnectionError",
  "ServerUnavailableError",
  "TooManyConnectionsError",
  "ResourceError"
]
const neutral: ReadonlyArray<PgError.Tag> = ["PoolTimeoutError", "CircuitOpenError", "PoolClosedError"]
const conditional: ReadonlyArray<PgError.Tag> = ["QueryTimeoutError", "OutcomeUnknownError"]

describe("verdict", () => {
  it.each(counted)("counts %s, answered or not", (tag) => {
    for (const answered of [true, false]) {
      assert.deepInclude(verdict.ofError(errorOf(tag), answered), { _tag: "Failure", tag })
    }
  })

  it.each(neutral)("learns nothing from %s", (tag) => {
    assert.strictEqual(verdict.ofError(errorOf(tag), false), verdict.neutral)
  })

  it.each(tags.filter((tag) => ![...counted, ...neutral, ...conditional].includes(tag)))(
    "takes %s for a sign of life",
    (tag) => {
      assert.strictEqual(verdict.ofError(errorOf(tag), false), verdict.success)
    }
  )

  it("counts our own timeout only if not one byte was answered", () => {
    const error = errorOf("QueryTimeoutError")
    assert.deepInclude(verdict.ofError(error, false), { _tag: "Failure", tag: "QueryTimeoutError" })
    assert.strictEqual(verdict.ofError(error, true), verdict.success)
  })

  it("judges an unknown outcome by what led to it", () => {
    const of = (reason: PgError.PgError, answered = false) =>
      verdict.ofError(errorOf("OutcomeUnknownError", { reason }), answered)
    assert.deepInclude(of(errorOf("ConnectionError")), { _tag: "Failure", tag: "ConnectionError" })
    assert.deepInclude(of(errorOf("QueryTimeoutError")), { _tag: "Failure", tag: "QueryTimeoutError" })
    assert.strictEqual(of(errorOf("QueryTimeoutError"), true), verdict.success)
    assert.strictEqual(of(errorOf("UnknownError")), verdict.success)
    assert.deepInclude(of(errorOf("OutcomeUnknownError")), { _tag: "Failure", tag: "ConnectionError" })
  })

  it("judges an effect that ended by its failure, also inside an SqlError", () => {
    const lost = errorOf("ConnectionError")
    const of = (exit: Exit.Exit<unknown, unknown>) => verdict.ofExit(exit, false)
    assert.strictEqual(of(Exit.succeed(1)), verdict.success)
    assert.deepInclude(of(Exit.fail(lost)), { _tag: "Failure", tag: "ConnectionError" })
    assert.deepInclude(of(Exit.fail(new SqlError({ cause: lost }))), { _tag: "Failure", tag: "ConnectionError" })
    const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED", syscall: "connect" })
    assert.deepInclude(of(Exit.fail(new SqlError({ cause: refused }))), { _tag: "Failure", tag: "ConnectionError" })
    assert.strictEqual(of(Exit.fail(new SqlError({ cause: new Error("no such thing") }))), verdict.success)
    assert.strictEqual(of(Exit.fail({ _tag: "ConnectionError" })), verdict.success)
    assert.strictEqual(of(Exit.fail({ _tag: "NotFound" })), verdict.success)
    assert.strictEqual(of(Exit.fail(undefined)), verdict.success)
  })

  it("learns nothing from interruptions and defects", () => {
    const of = (cause: Cause.Cause<unknown>) => verdict.ofExit(Exit.failCause(cause), false)
    assert.strictEqual(of(Cause.interrupt(FiberId.none)), verdict.neutral)
    assert.strictEqual(of(Cause.die(new Error("bug"))), verdict.neutral)
  })

  it("lets a new connection speak against lost connections and silence, and against nothing else", () => {
    assert.sameMembers(
      tags.filter((tag) => verdict.isRecoverable([tag])),
      ["ConnectionError", "ServerUnavailableError", "TooManyConnectionsError", "QueryTimeoutError"]
    )
    assert.isFalse(verdict.isRecoverable([]))
    assert.isFalse(verdict.isRecoverable(["ConnectionError", "ResourceError"]))
  })
})
