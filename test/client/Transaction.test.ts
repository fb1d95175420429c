/** Transactions: their options, what of them is stored, and what their failures say. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Cause, Effect, Exit, Fiber } from "effect"
import { Operation, type PgError, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { turns } from "./heldUp.js"
import { keeping, keepingThroughProxy } from "./kept.js"
import { executing, failure } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction", (it) => {
  it.scoped("isolation, access mode and deferrable reach the server, and hold for this transaction only", () =>
    Effect.gen(function* () {
      const { context, run, sql } = yield* keeping({ maxConnections: 1 })
      const modes = sql`SELECT current_setting('transaction_isolation') AS isolation,
        current_setting('transaction_read_only') AS "readOnly", current_setting('transaction_deferrable') AS deferrable`
      const seen = (isolation: string, readOnly: string, deferrable: string) => [{ isolation, readOnly, deferrable }]
      const standard = seen("read committed", "off", "off")
      assert.deepStrictEqual(yield* run(modes), standard)
      for (const isolation of ["read uncommitted", "read committed", "repeatable read", "serializable"] as const) {
        assert.deepStrictEqual(yield* run(modes, { isolation }), seen(isolation, "off", "off"))
      }
      assert.deepStrictEqual(
        yield* run(modes, { isolation: "serializable", readOnly: true, deferrable: true }),
        seen("serializable", "on", "on")
      )
      assert.deepStrictEqual(
        yield* Effect.provide(Transaction.readOnly(modes), context),
        seen("read committed", "on", "off")
      )
      assert.deepStrictEqual(
        yield* Effect.provide(Transaction.serializable(modes), context),
        seen("serializable", "off", "off")
      )
      assert.deepStrictEqual(yield* sql.withTransaction(modes), standard)
      assert.deepStrictEqual(yield* modes, standard)
    })
  )

  it.scoped("isolation and deferrable are refused for a nested transaction, by their names", () =>
    Effect.gen(function* () {
      const { insert, kept, run } = yield* keeping()
      const error = yield* run(Effect.zipRight(insert(1), Effect.flip(run(insert(2), { isolation: "serializable" }))))
      assert.strictEqual(error._tag, "InvalidOptionsError")
      assert.deepStrictEqual(
        (error as PgError.InvalidOptionsError).faults.map(({ field }) => field),
        ["isolation"]
      )
      const both = yield* run(Effect.flip(run(insert(3), { isolation: "serializable", deferrable: true })))
      assert.deepStrictEqual(
        (both as PgError.InvalidOptionsError).faults.map(({ field }) => field),
        ["isolation", "deferrable"]
      )
      assert.deepStrictEqual(yield* kept, [1])
    })
  )

  it.scoped("a failed statement that the outermost transaction swallowed is told at COMMIT", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* keeping()
      const error = yield* failure(sql.withTransaction(Effect.zipRight(insert(1), Effect.ignore(sql`SELECT 1 / 0`))))
      assert.strictEqual(error._tag, "TransactionAbortedError")
      assert.strictEqual(error.phase, "Commit")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("a statement that was interrupted takes its transaction with it, although the program goes on", () =>
    Effect.gen(function* () {
      const { insert, kept, pid, pool, sql } = yield* keeping({ maxConnections: 1 })
      const before = yield* pid
      for (const after of [Effect.void, insert(2)]) {
        const error = yield* failure(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* insert(1)
              const asleep = yield* Effect.fork(sql`SELECT pg_sleep(600)`)
              yield* TestPg.eventually(executing("SELECT pg_sleep(600)"), (count) => count === 1)
              yield* Fiber.interrupt(asleep)
              yield* after
            })
          )
        )
        assert.strictEqual(error._tag, "TransactionAbortedError")
        assert.strictEqual(error.outcome, "NotApplied")
        assert.strictEqual(yield* pid, before)
      }
      assert.deepStrictEqual(yield* kept, [])
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
    })
  )

  it.scoped("the program's own failure is never replaced, even when ROLLBACK has nobody to go to", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { insert, kept, sql } = yield* keeping()
      const body = <E>(failing: Effect.Effect<never, E>) =>
        Effect.gen(function* () {
          const [row] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
          yield* insert(1)
          yield* server.terminate(row!.pid)
          yield* TestPg.eventually(
            TestPg.control("SELECT FROM pg_stat_activity WHERE pid = $1", [row!.pid]),
            ({ length }) => length === 0
          )
          return yield* failing
        })
      class Mine {
        readonly _tag = "Mine"
      }
      const exit = yield* Effect.exit(sql.withTransaction(body(Effect.fail(new Mine()))))
      assert.isTrue(Exit.isFailure(exit) && Cause.isFailType(exit.cause) && exit.cause.error instanceof Mine)
      const defect = yield* Effect.exit(sql.withTransaction(body(Effect.die("defect"))))
      assert.isTrue(Exit.isFailure(defect) && Cause.isDieType(defect.cause) && defect.cause.defect === "defect")
      const lost = yield* failure(sql.withTransaction(body(Effect.zipRight(sql`SELECT 1`, Effect.never))))
      assert.include(["ServerUnavailableError", "ConnectionError"], lost._tag)
      assert.strictEqual(lost.outcome, "NotApplied")
      const atCommit = yield* failure(sql.withTransaction(Effect.ignore(body(Effect.fail("swallowed")))))
      assert.include(["ServerUnavailableError", "ConnectionError"], atCommit._tag)
      assert.strictEqual(atCommit.outcome, "NotApplied")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("a failure in a named operation inside a transaction is caught by its tag around it", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* keeping({ maxConnections: 1 })
      yield* insert(1)
      const caught = yield* sql
        .withTransaction(Effect.zipRight(insert(2), Operation.named("again")(insert(1))))
        .pipe(Effect.catchTag("UniqueViolation", ({ operation }) => Effect.succeed(operation)))
      assert.strictEqual(caught, "again")
      assert.deepStrictEqual(yield* kept, [1])
    })
  )

  it.scoped(
    "statements in parallel share the transaction's connection; one interrupted in the queue is never sent",
    () =>
      Effect.gen(function* () {
        const { insert, kept, proxy, sql } = yield* keepingThroughProxy()
        yield* sql.withTransaction(
          Effect.gen(function* () {
            const held = yield* proxy.hold({ on: FaultProxy.query(/^SELECT 'first'/) })
            const first = yield* Effect.fork(sql`SELECT 'first'`)
            yield* held.happened()
            const second = yield* Effect.fork(insert(1))
            yield* turns
            yield* Fiber.interrupt(second)
            const others = yield* Effect.fork(
              Effect.forEach(Arr.range(2, 9), insert, { concurrency: "unbounded", discard: true })
            )
            yield* turns
            yield* held.release
            yield* Fiber.join(Fiber.zip(first, others))
          })
        )
        assert.deepStrictEqual(yield* kept, Arr.range(2, 9))
      })
  )
})
