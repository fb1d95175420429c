/** Nested transactions: levels of one connection, who waits for whom, and whose work goes with whose. */
import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Chunk, Deferred, Effect, Exit, Fiber, Option, TestClock, TestContext } from "effect"
import { PgError } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { heldUp, turns } from "./heldUp.js"
import { keeping, keepingThroughProxy } from "./kept.js"
import { executing, failure, misplaced } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Nested transactions", (it) => {
  it.scoped("nested transactions in parallel take turns: what one rolls back is nobody else's work", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* keeping()
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
      const { insert, kept, proxy, sql } = yield* keepingThroughProxy()
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
          const { bytesToServer } = yield* proxy.stats
          const beside = yield* Effect.fork(insert(2))
          yield* turns
          assert.strictEqual((yield* proxy.stats).bytesToServer, bytesToServer)
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
        const { insert, kept, sql } = yield* keeping()
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
              yield* TestPg.eventually(
                TestClock.sleeps(),
                Chunk.some((until) => until === 30_000)
              )
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
      const { insert, kept, run, sql } = yield* keeping()
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
      const { kept, sql } = yield* keeping({ maxConnections: 1, parameters: { log_statement: "all" } })
      yield* sql.withTransaction(
        Effect.forEach(
          Arr.range(1, 1_000),
          (n) => sql.withTransaction(n % 250 === 0 ? sql`INSERT INTO kept VALUES (${n})` : Effect.void),
          { discard: true }
        )
      )
      assert.deepStrictEqual(yield* kept, [250, 500, 750, 1_000])
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
      const { insert, kept, sql } = yield* keeping()
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
                yield* turns
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

  it.scoped("a nested transaction that is interrupted is undone, and the outer one goes on and commits", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* keeping()
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          const nested = yield* Effect.fork(sql.withTransaction(Effect.zipRight(insert(2), sql`SELECT pg_sleep(600)`)))
          yield* TestPg.eventually(executing("SELECT pg_sleep(600)"), (count) => count === 1)
          assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(nested)))
          yield* insert(3)
        })
      )
      assert.deepStrictEqual(yield* kept, [1, 3])
    })
  )

  it.scoped("a nested transaction interrupted in the moment of its RELEASE takes the whole transaction with it", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
      const release = yield* proxy.hold({ on: FaultProxy.query(/^RELEASE/) })
      const error = yield* failure(
        sql.withTransaction(
          Effect.gen(function* () {
            yield* insert(1)
            const nested = yield* Effect.fork(sql.withTransaction(insert(2)))
            yield* release.happened()
            assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(nested)))
            yield* release.release
            const after = yield* failure(insert(3))
            assert.strictEqual(after._tag, "TransactionAbortedError")
          })
        )
      )
      assert.strictEqual(error._tag, "TransactionAbortedError")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.match(error.message, /interrupted in the very moment of its release/)
      assert.deepStrictEqual(yield* kept, [])
      yield* insert(4)
      assert.deepStrictEqual(yield* kept, [4])
    })
  )

  it.scoped("a nested transaction given up while its SAVEPOINT is still queued costs the parent nothing", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
      const expected: Array<number> = []
      for (let operations = 1, more = true; more; operations++) {
        const slow = yield* proxy.hold({ on: FaultProxy.query(/^SELECT 'slow'/) })
        const nested = yield* heldUp(sql.withTransaction(insert(-operations)))
        yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* insert(operations)
            // Keeps the connection while the nested transaction comes and goes, and the parent ends.
            yield* Effect.forkDaemon(sql`SELECT 'slow'`)
            yield* slow.happened()
            const fiber = yield* Effect.forkDaemon(nested.effect)
            yield* turns
            nested.holdAfter(operations)
            yield* Fiber.interruptFork(fiber)
            more = yield* nested.happened
            yield* Effect.forkDaemon(Effect.zipRight(turns, slow.release))
          })
        )
        yield* nested.letGo
        expected.push(operations)
      }
      assert.isAbove(expected.length, 5)
      assert.deepStrictEqual(yield* kept, expected)
      assert.deepStrictEqual(yield* misplaced, [])
    })
  )

  it.scoped("a failure in a nested transaction keeps its tag and its operation, however far out it is seen", () =>
    Effect.gen(function* () {
      const { insert, kept, run, sql } = yield* keeping()
      yield* insert(1)
      const inner = <A, E, R>(effect: Effect.Effect<A, E, R>) => run(effect, { name: "inner" })
      const seen = {
        caught: yield* run(Effect.zipLeft(Effect.flip(inner(insert(1))), insert(2)), { name: "outer" }),
        "not caught": yield* Effect.flip(run(inner(insert(1)), { name: "outer" })),
        "of a transaction that is repeated": yield* Effect.flip(run(inner(insert(1)), { name: "outer", retry: true })),
        "as the cause of a SqlError": yield* failure(
          sql.withTransaction(sql.withTransaction(Effect.mapError(inner(insert(1)), PgError.toSqlError)))
        ),
        "beside one of the outer transaction's": yield* Effect.flip(
          run(inner(Effect.zipRight(Effect.ignore(sql.withTransaction(insert(1))), insert(1))), { name: "outer" })
        )
      }
      for (const [how, error] of Object.entries(seen)) {
        const { operation, outcome, _tag } = error
        assert.deepStrictEqual([how, _tag, operation, outcome], [how, "UniqueViolation", "inner", "NotApplied"])
      }
      // What the end of the nested one fails with is its own, and what comes after it is not.
      const aborted = yield* Effect.flip(run(inner(Effect.ignore(insert(1))), { name: "outer" }))
      assert.deepStrictEqual([aborted._tag, aborted.operation], ["TransactionAbortedError", "inner"])
      const after = yield* Effect.flip(run(Effect.zipRight(inner(insert(3)), insert(1)), { name: "outer" }))
      assert.deepStrictEqual([after._tag, after.operation], ["UniqueViolation", "outer"])
      assert.deepStrictEqual(yield* kept, [1, 2])
    })
  )
})
