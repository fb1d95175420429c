import { ResultLengthMismatch, SqlError } from "@effect/sql/SqlError"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Data, Duration, Effect, Exit, FiberId, FiberRef } from "effect"
import * as PgError from "../../src/error/PgError.js"
import { answer, systemError } from "./arbitraries.js"

class NotFound extends Data.TaggedError("NotFound")<{ readonly id: number }> {}

const failure: PgError.Failure = {
  message: "refused",
  phase: "Acquire",
  outcome: "NotApplied",
  transient: true,
  attempts: 0,
  retryAfter: Duration.seconds(3)
}

/** One error of every tag. */
const everyError: { readonly [T in PgError.Tag]: Extract<PgError.PgError, { _tag: T }> } = {
  ConnectionError: new PgError.ConnectionError(failure),
  AuthenticationError: new PgError.AuthenticationError(failure),
  AuthorizationError: new PgError.AuthorizationError(failure),
  SqlSyntaxError: new PgError.SqlSyntaxError(failure),
  UniqueViolation: new PgError.UniqueViolation(failure),
  ConstraintError: new PgError.ConstraintError(failure),
  DeadlockError: new PgError.DeadlockError(failure),
  SerializationError: new PgError.SerializationError(failure),
  LockTimeoutError: new PgError.LockTimeoutError(failure),
  StatementTimeoutError: new PgError.StatementTimeoutError(failure),
  UnknownError: new PgError.UnknownError(failure),
  PoolTimeoutError: new PgError.PoolTimeoutError(failure),
  TooManyConnectionsError: new PgError.TooManyConnectionsError(failure),
  ServerUnavailableError: new PgError.ServerUnavailableError(failure),
  ReadOnlyError: new PgError.ReadOnlyError(failure),
  ResourceError: new PgError.ResourceError(failure),
  QueryTimeoutError: new PgError.QueryTimeoutError(failure),
  CircuitOpenError: new PgError.CircuitOpenError(failure),
  OutcomeUnknownError: new PgError.OutcomeUnknownError({ ...failure, reason: new PgError.ConnectionError(failure) }),
  TransactionAbortedError: new PgError.TransactionAbortedError(failure),
  PoolClosedError: new PgError.PoolClosedError(failure),
  IdempotencyKeyReusedError: new PgError.IdempotencyKeyReusedError(failure),
  InvalidOptionsError: new PgError.InvalidOptionsError({
    ...failure,
    faults: [{ field: "max", value: -1, expected: "1 or more" }]
  })
}
const all: ReadonlyArray<readonly [PgError.Tag, PgError.PgError]> = Object.values(everyError).map((_) => [_._tag, _])

describe("PgError", () => {
  it.each(all)("%s is an Error under its own name, and a PgError", (tag, error) => {
    assert.instanceOf(error, Error)
    assert.strictEqual(String(error), `${tag}: refused`)
    assert.isTrue(PgError.isPgError(error))
    assert.property(PgError.retrySafety, tag)
  })

  it("can be told from every other error, also one with the same tag", () => {
    class UnknownError extends Data.TaggedError("UnknownError")<PgError.Failure> {}
    const others = [
      new UnknownError(failure),
      new SqlError({}),
      new Error("x"),
      { ...everyError.UnknownError },
      null,
      1
    ]
    for (const other of others) assert.isFalse(PgError.isPgError(other))
  })

  it.effect("is still one after Effect.fail has tied it to the span it failed in", () =>
    Effect.gen(function* () {
      const error = yield* Effect.fail(everyError.DeadlockError).pipe(Effect.withSpan("statement"), Effect.flip)
      assert.isTrue(PgError.isPgError(error))
      assert.include(PgError.withContext(error, { attempts: 2 }), {
        _tag: "DeadlockError",
        message: "refused",
        attempts: 2
      })
    })
  )

  it("goes to JSON with every field, and with nothing that is not known", () => {
    const { reason, ...fields } = JSON.parse(JSON.stringify(everyError.OutcomeUnknownError))
    assert.deepStrictEqual(fields, {
      _tag: "OutcomeUnknownError",
      ...failure,
      retryAfter: { _id: "Duration", _tag: "Millis", millis: 3_000 }
    })
    assert.strictEqual(reason._tag, "ConnectionError")
  })
})

describe("SqlError", () => {
  it("carries the PgError there and back", () => {
    for (const [, error] of all) {
      const sqlError = PgError.toSqlError(error)
      assert.strictEqual(sqlError.message, error.message)
      assert.strictEqual(sqlError.cause, error)
      assert.strictEqual(PgError.fromSqlError(sqlError, { attempts: 9 }), error)
    }
  })

  it("keeps what programs read from the driver's error today", () => {
    const sqlError = PgError.toSqlError(
      PgError.fromSqlError(new SqlError({ cause: answer({ code: "23505", constraint: "k" }) }))
    )
    assert.include(sqlError.cause, { code: "23505", constraint: "k" })
  })

  it("is classified with the facts of the call when its cause is the driver's error", () => {
    const error = PgError.fromSqlError(new SqlError({ cause: systemError("ECONNRESET") }), {
      phase: "Commit",
      outcome: "Unknown"
    })
    assert.include(error, { _tag: "ConnectionError", phase: "Commit", outcome: "Unknown", code: "ECONNRESET" })
  })
})

describe("refine", () => {
  const unique = new SqlError({ cause: answer({ code: "23505" }) })

  it.effect("lets catchTag see the PgError, and takes SqlError out of the type", () =>
    Effect.gen(function* () {
      const refined: Effect.Effect<never, PgError.PgError | NotFound> = PgError.refine(
        Effect.fail(unique) as Effect.Effect<never, SqlError | NotFound>
      )
      const caught = refined.pipe(Effect.catchTag("UniqueViolation", (error) => Effect.succeed(error.sqlState)))
      assert.strictEqual(yield* caught, "23505")
    })
  )

  it.effect("leaves every other failure, success and fiber state alone", () =>
    Effect.gen(function* () {
      const mismatch = new ResultLengthMismatch({ expected: 1, actual: 0 })
      assert.strictEqual(yield* Effect.flip(PgError.refine(Effect.fail(mismatch))), mismatch)
      const notFound = new NotFound({ id: 1 })
      assert.strictEqual(yield* Effect.flip(PgError.refine(Effect.fail(notFound))), notFound)
      const closed = new Proxy(
        {},
        {
          getPrototypeOf: () => {
            throw new Error("no")
          }
        }
      )
      assert.strictEqual(yield* Effect.flip(PgError.refine(Effect.fail(closed))), closed)
      const ref = FiberRef.unsafeMake(0)
      assert.strictEqual(yield* PgError.refine(Effect.as(FiberRef.set(ref, 1), "ok")), "ok")
      assert.strictEqual(yield* FiberRef.get(ref), 1)
    })
  )

  it.effect("keeps the whole cause: other failures, defects and interruptions beside it", () =>
    Effect.gen(function* () {
      const interrupt = Cause.interrupt(FiberId.none)
      const cause = Cause.parallel(Cause.sequential(Cause.fail(unique), Cause.die("defect")), interrupt)
      const exit = yield* Effect.exit(PgError.refine(Effect.failCause(cause)))
      assert(Exit.isFailure(exit) && exit.cause._tag === "Parallel" && exit.cause.left._tag === "Sequential")
      const first = exit.cause.left.left
      assert.include(first._tag === "Fail" ? first.error : undefined, { _tag: "UniqueViolation" })
      assert.deepStrictEqual(exit.cause.left.right, Cause.die("defect"))
      assert.deepStrictEqual(exit.cause.right, interrupt)
    })
  )
})

describe("withContext", () => {
  it.each(all)("gives a copy of %s that differs in operation and attempts alone", (tag, error) => {
    const copy = PgError.withContext(error, { operation: "sign-up", attempts: 4 })
    assert.notStrictEqual(copy, error)
    assert.strictEqual(copy.constructor, error.constructor)
    assert.strictEqual(copy.stack, error.stack)
    assert.deepStrictEqual({ ...copy }, { ...error, _tag: tag, operation: "sign-up", attempts: 4 } as never)
    assert.deepStrictEqual([copy.message, copy.cause], [error.message, error.cause])
  })

  it("changes only what it is given", () => {
    const named = PgError.withContext(everyError.ConnectionError, { operation: "sign-up" })
    const again = PgError.withContext(named, { operation: undefined, attempts: 2 })
    assert.include(again, { operation: "sign-up", attempts: 2 })
  })
})

describe("outcomeUnknown", () => {
  const reason = PgError.fromSqlError(new SqlError({ cause: systemError("ECONNRESET") }), {
    phase: "Commit",
    operation: "pay",
    attempts: 2
  })

  it("says that nobody knows, and why", () => {
    const error = PgError.outcomeUnknown(reason)
    assert.include(error, {
      outcome: "Unknown",
      transient: false,
      phase: "Commit",
      operation: "pay",
      attempts: 2
    })
    assert.include(error.reason, {
      _tag: "ConnectionError",
      outcome: "Unknown",
      message: reason.message,
      code: "ECONNRESET"
    })
    // a program that repeats what has this code would double the write
    assert.notProperty(error, "code")
    assert.notProperty(error, "sqlState")
    assert.match(error.message, /^it is not known whether the work was applied, .*the other end reset the connection/)
  })

  it("is not wrapped twice", () => {
    const error = PgError.outcomeUnknown(reason)
    assert.strictEqual(PgError.outcomeUnknown(error), error)
  })
})

describe("retrySafety", () => {
  it("is `safe` only where nothing can have been applied, and `never` where trying again is no help", () => {
    const tags = (safety: string) =>
      Object.entries(PgError.retrySafety).flatMap(([tag, is]) => (is === safety ? [tag] : []))
    assert.sameMembers(tags("safe"), [
      "DeadlockError",
      "SerializationError",
      "LockTimeoutError",
      "StatementTimeoutError",
      "PoolTimeoutError",
      "TooManyConnectionsError",
      "ReadOnlyError"
    ])
    assert.sameMembers(tags("ifIdempotent"), [
      "ConnectionError",
      "ServerUnavailableError",
      "ResourceError",
      "QueryTimeoutError",
      "OutcomeUnknownError"
    ])
  })
})
