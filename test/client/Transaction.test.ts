/** Transactions on one connection: options, levels, and who waits for whom. */
import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Cause, Deferred, Effect, Exit, Fiber, Option, Ref, TestClock, TestContext } from "effect"
import { type PgError, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure } from "./support.js"

/** A client with an empty table `kept (n)` in a database of its own. */
const fixture = (options: Parameters<typeof clientOf>[0] = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control("CREATE TABLE kept (n int PRIMARY KEY)", [], url)
    const client = yield* clientOf({ url, ...options })
    const { context, sql } = client
    const kept = Effect.map(
      TestPg.control<{ n: number }>("SELECT n FROM kept ORDER BY n", [], url),
      Arr.map(({ n }) => n)
    )
    const insert = (n: number) => sql`INSERT INTO kept VALUES (${n})`
    const run = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: Transaction.Options) =>
      Effect.provide(Transaction.run(effect, options), context)
    return { ...client, url, kept, insert, run }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction", (it) => {
  it.scoped("isolation, access mode and deferrable reach the server, and hold for this transaction only", () =>
    Effect.gen(function* () {
      const { context, run, sql } = yield* fixture({ maxConnections: 1 })
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
      const { insert, kept, run } = yield* fixture()
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

  it.scoped("nested transactions in parallel take turns: what one rolls back is nobody else's work", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
      const nested = (n: number) =>
        sql.withTransaction(
          Effect.gen(function* () {
            yield* insert(n)
            yield* Effect.yieldNow()
            if (n % 2 === 0) return yield* Effect.fail(n)
          })
        )
      const exits = yield* sql.withTransaction(
        Effect.forEach(Arr.range(1, 10), (n) => Effect.either(nested(n)), { concurrency: "unbounded" })
      )
      assert.deepStrictEqual(
        exits.map(({ _tag }) => _tag),
        Arr.makeBy(10, (i) => (i % 2 === 0 ? "Right" : "Left"))
      )
      assert.deepStrictEqual(yield* kept, [1, 3, 5, 7, 9])
    })
  )

  it.scoped("a statement of the parent waits until the nested transaction has ended, and outlives its rollback", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
      yield* sql.withTransaction(
        Effect.gen(function* () {
          const open = yield* Deferred.make<void>()
          const end = yield* Deferred.make<void>()
          const nested = yield* Effect.fork(
            sql.withTransaction(
              Effect.gen(function* () {
                yield* insert(1)
                yield* Deferred.succeed(open, undefined)
                yield* Deferred.await(end)
                return yield* Effect.fail("rolled back" as const)
              })
            )
          )
          yield* Deferred.await(open)
          const beside = yield* Effect.fork(insert(2))
          const settled = yield* Effect.timeoutOption(Fiber.await(beside), "50 millis")
          assert.isTrue(Option.isNone(settled))
          yield* Deferred.succeed(end, undefined)
          assert.strictEqual(yield* Effect.flip(Fiber.join(nested)), "rolled back")
          yield* Fiber.join(beside)
        })
      )
      assert.deepStrictEqual(yield* kept, [2])
    })
  )

  it.scoped(
    "a nested transaction that waits for its own parent fails after 30 seconds of the Clock, naming both spans",
    () =>
      Effect.gen(function* () {
        const { insert, kept, sql } = yield* fixture()
        const [error, before] = yield* sql
          .withTransaction(
            Effect.gen(function* () {
              const open = yield* Deferred.make<void>()
              const end = yield* Deferred.make<void>()
              const nested = yield* Effect.fork(
                sql.withTransaction(
                  Effect.zipRight(insert(1), Effect.zipRight(Deferred.succeed(open, undefined), Deferred.await(end)))
                )
              )
              yield* Deferred.await(open)
              const waiter = yield* Effect.fork(failure(insert(2)))
              // On its way to the turn it waits for.
              yield* Effect.repeat(Effect.yieldNow(), { times: 20 })
              yield* TestClock.adjust("29999 millis")
              const before = waiter.unsafePoll()
              yield* TestClock.adjust("1 millis")
              const error = yield* Fiber.join(waiter)
              yield* Deferred.succeed(end, undefined)
              yield* Fiber.join(nested)
              return [error, before] as const
            }).pipe(Effect.withSpan("body"))
          )
          .pipe(Effect.provide(TestContext.TestContext))
        assert.isNull(before)
        assert.strictEqual(error._tag, "TransactionAbortedError")
        assert.strictEqual(error.outcome, "NotApplied")
        assert.match(
          error.message,
          /^A nested transaction \(span "sql\.transaction" \w+\) of span "sql\.transaction" \w+ stayed open for 30 seconds/
        )
        assert.deepStrictEqual(yield* kept, [1])
      })
  )

  it.scoped("a deadline ends the wait for a nested transaction before that", () =>
    Effect.gen(function* () {
      const { insert, kept, run, sql } = yield* fixture()
      yield* sql.withTransaction(
        Effect.gen(function* () {
          const open = yield* Deferred.make<void>()
          const end = yield* Deferred.make<void>()
          const nested = yield* Effect.fork(
            sql.withTransaction(Effect.zipRight(Deferred.succeed(open, undefined), Deferred.await(end)))
          )
          yield* Deferred.await(open)
          const error = yield* Effect.flip(run(insert(1), { timeout: "100 millis" }))
          assert.strictEqual(error._tag, "QueryTimeoutError")
          yield* Deferred.succeed(end, undefined)
          yield* Fiber.join(nested)
          yield* insert(2)
        })
      )
      assert.deepStrictEqual(yield* kept, [2])
    })
  )

  it.scoped("every savepoint is released: 1,000 nested transactions leave none behind", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { applicationName, kept, sql } = yield* fixture({ maxConnections: 1, parameters: { log_statement: "all" } })
      yield* sql.withTransaction(
        Effect.forEach(
          Arr.range(1, 1_000),
          (n) => sql.withTransaction(n % 250 === 0 ? sql`INSERT INTO kept VALUES (${n})` : Effect.void),
          { discard: true }
        )
      )
      assert.deepStrictEqual(yield* kept, [250, 500, 750, 1_000])
      assert.isString(applicationName)
      const log = yield* server.log
      const opened = Array.from(log.matchAll(/statement: SAVEPOINT (\w+)/g), ([, name]) => name!)
      const released = Array.from(log.matchAll(/statement: RELEASE SAVEPOINT (\w+)/g), ([, name]) => name!)
      assert.lengthOf(opened, 1_000)
      assert.lengthOf(Arr.dedupe(opened), 1_000)
      assert.deepStrictEqual(released, opened)
    })
  )

  it.scoped("a failed statement that a nested transaction swallowed undoes that one, and the outer one goes on", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
      const error = yield* sql.withTransaction(
        Effect.gen(function* () {
          const level = Option.getOrThrow(yield* Effect.serviceOption(SqlClient.TransactionConnection))
          const outside = Effect.provideService(SqlClient.TransactionConnection, level)
          yield* insert(1)
          const beside = yield* Deferred.make<Fiber.Fiber<unknown, SqlError.SqlError>>()
          const error = yield* failure(
            sql.withTransaction(
              Effect.gen(function* () {
                yield* insert(2)
                yield* Effect.ignore(sql`SELECT 1 / 0`)
                // The outer one's own, waiting behind the nested one: it must not suffer for it.
                yield* Deferred.succeed(beside, yield* Effect.forkDaemon(outside(insert(4))))
                yield* Effect.repeat(Effect.yieldNow(), { times: 20 })
              })
            )
          )
          yield* Fiber.join(yield* Deferred.await(beside))
          yield* insert(3)
          return error
        })
      )
      assert.strictEqual(error._tag, "TransactionAbortedError")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.match(error.message, /^The nested transaction was rolled back: a statement in it had failed/)
      assert.deepStrictEqual(yield* kept, [1, 3, 4])
    })
  )

  it.scoped("a failed statement that the outermost transaction swallowed is told at COMMIT", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
      const error = yield* failure(sql.withTransaction(Effect.zipRight(insert(1), Effect.ignore(sql`SELECT 1 / 0`))))
      assert.strictEqual(error._tag, "TransactionAbortedError")
      assert.strictEqual(error.phase, "Commit")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("what a fiber left half done in a nested transaction is not committed with the rest", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
      const after = yield* Deferred.make<void>()
      const forgotten = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          const open = yield* Deferred.make<void>()
          const fiber = yield* Effect.forkDaemon(
            sql.withTransaction(
              sql.withTransaction(
                Effect.gen(function* () {
                  yield* insert(2)
                  yield* Deferred.succeed(open, undefined)
                  yield* Deferred.await(after)
                  return yield* failure(insert(3))
                })
              )
            )
          )
          yield* Deferred.await(open)
          return fiber
        })
      )
      assert.deepStrictEqual(yield* kept, [1])
      yield* Deferred.succeed(after, undefined)
      const exit = yield* Fiber.await(forgotten)
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* kept, [1])
    })
  )

  it.scoped("whoever outlives a transaction or a reserved connection is refused, and nothing is sent", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture({ maxConnections: 1 })
      const ended = yield* Deferred.make<void>()
      const late = yield* sql.withTransaction(
        Effect.forkDaemon(
          Effect.zipRight(
            Deferred.await(ended),
            Effect.all([failure(insert(1)), failure(sql.withTransaction(insert(2)))])
          )
        )
      )
      yield* Deferred.succeed(ended, undefined)
      for (const error of yield* Fiber.join(late)) {
        assert.strictEqual(error._tag, "TransactionAbortedError")
        assert.match(error.message, /has ended, and this fiber outlived it: nothing was sent/)
      }
      const reserved = yield* Effect.scoped(sql.reserve)
      assert.strictEqual(
        (yield* failure(reserved.execute("INSERT INTO kept VALUES (3)", [], undefined)))._tag,
        "TransactionAbortedError"
      )
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("a nested transaction that is interrupted is undone, and the outer one goes on and commits", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
      const result = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          const result = yield* Effect.timeoutOption(
            sql.withTransaction(Effect.zipRight(insert(2), sql`SELECT pg_sleep(600)`)),
            "100 millis"
          )
          yield* insert(3)
          return result
        })
      )
      assert.isTrue(Option.isNone(result))
      assert.deepStrictEqual(yield* kept, [1, 3])
    })
  )

  it.scoped("a statement that timed out takes its transaction with it, although the program goes on", () =>
    Effect.gen(function* () {
      const { insert, kept, pid, pool, sql } = yield* fixture({ maxConnections: 1 })
      const before = yield* pid
      const attempt = (after: Effect.Effect<unknown, SqlError.SqlError>) =>
        failure(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* insert(1)
              const result = yield* Effect.timeoutOption(sql`SELECT pg_sleep(600)`, "50 millis")
              assert.isTrue(Option.isNone(result))
              yield* after
            })
          )
        )
      for (const after of [Effect.void, insert(2)]) {
        const error = yield* attempt(after)
        assert.strictEqual(error._tag, "TransactionAbortedError")
        assert.strictEqual(error.outcome, "NotApplied")
      }
      assert.deepStrictEqual(yield* kept, [])
      assert.strictEqual(yield* pid, before)
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
    })
  )

  it.scoped("the program's own failure is never replaced, even when ROLLBACK has nobody to go to", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { insert, kept, sql } = yield* fixture()
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

  it.scoped(
    "statements in parallel share the transaction's connection; one interrupted in the queue is never sent",
    () =>
      Effect.gen(function* () {
        const { insert, kept, sql } = yield* fixture()
        yield* sql.withTransaction(
          Effect.gen(function* () {
            const first = yield* Effect.fork(sql`SELECT pg_sleep(0.3)`)
            yield* Effect.yieldNow()
            const second = yield* Effect.fork(insert(1))
            yield* Effect.yieldNow()
            yield* Fiber.interrupt(second)
            yield* Effect.all(Arr.map(Arr.range(2, 9), insert), { concurrency: "unbounded" })
            yield* Fiber.join(first)
          })
        )
        assert.deepStrictEqual(yield* kept, Arr.range(2, 9))
      })
  )

  it.scoped("a transaction inside an effect that already has another client's transaction is this client's own", () =>
    Effect.gen(function* () {
      const a = yield* fixture()
      const b = yield* fixture()
      const count = yield* Ref.make(0)
      yield* a.sql
        .withTransaction(
          Effect.gen(function* () {
            yield* a.insert(1)
            yield* b.sql.withTransaction(Effect.zipRight(b.insert(2), a.sql.withTransaction(a.insert(3))))
            yield* Ref.update(count, (n) => n + 1)
            return yield* Effect.fail("a is rolled back")
          })
        )
        .pipe(Effect.ignore)
      assert.deepStrictEqual([yield* a.kept, yield* b.kept, yield* count], [[], [2], 1])
    })
  )

  it.scoped("SqlClient's own tag tells code outside whether it is in a transaction", () =>
    Effect.gen(function* () {
      const { sql } = yield* fixture()
      const depth = Effect.map(
        Effect.serviceOption(SqlClient.TransactionConnection),
        Option.map(([, depth]) => depth)
      )
      assert.deepStrictEqual(yield* depth, Option.none())
      assert.deepStrictEqual(yield* sql.withTransaction(depth), Option.some(0))
      assert.deepStrictEqual(yield* sql.withTransaction(sql.withTransaction(depth)), Option.some(1))
    })
  )
})
