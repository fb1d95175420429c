/** Fibers that outlive the transaction they belong to, or are in the middle of something when it ends. */
import { assert, layer } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option } from "effect"
import type { PgError } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { heldUp, turns } from "./heldUp.js"
import { keeping, keepingThroughProxy } from "./kept.js"
import { executing, failure, hold, misplaced } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })(
  "Transactions and who outlives them",
  (it) => {
    it.scoped("whoever outlives a transaction or a reserved connection is refused, and nothing is sent", () =>
      Effect.gen(function* () {
        const { insert, kept, sql } = yield* keeping({ maxConnections: 1 })
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

    it.scoped(
      "what a fiber left behind still executes does not keep the connection of a transaction that is over",
      () =>
        Effect.gen(function* () {
          const { insert, kept, pool, sql } = yield* keeping({ maxConnections: 1 })
          const idle = TestPg.eventually(pool, ({ idle, total }) => idle === total, {
            message: "the pool is not whole"
          })
          const body = (begun: Deferred.Deferred<ReadonlyArray<Fiber.Fiber<PgError.PgError, unknown>>>) =>
            Effect.gen(function* () {
              yield* insert(1)
              const running = yield* Effect.forkDaemon(failure(sql`SELECT pg_sleep(600)`))
              yield* TestPg.eventually(executing("SELECT pg_sleep(600)"), (count) => count === 1)
              const queued = yield* Effect.forkDaemon(failure(sql`SELECT pg_sleep(601)`))
              yield* turns
              yield* Deferred.succeed(begun, [running, queued])
            })
          // Interrupted in its body, and while its COMMIT waits behind what was left behind.
          for (const rest of [Effect.never, Effect.void]) {
            const begun = yield* Deferred.make<ReadonlyArray<Fiber.Fiber<PgError.PgError, unknown>>>()
            const fiber = yield* Effect.fork(sql.withTransaction(Effect.zipRight(body(begun), rest)))
            const left = yield* Deferred.await(begun)
            yield* turns
            assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
            yield* idle
            // Not joined: that would take over what they know of the transaction, too.
            for (const error of yield* Effect.forEach(left, (fiber) => Effect.flatten(Fiber.await(fiber)))) {
              assert.strictEqual(error._tag, "TransactionAbortedError")
              assert.strictEqual(error.outcome, "NotApplied")
              assert.match(error.message, /has ended, and this fiber outlived it/)
            }
            assert.deepStrictEqual(yield* kept, [])
          }
          const held = yield* hold(sql)
          const left = yield* Effect.forkDaemon(failure(held.connection.execute("SELECT pg_sleep(602)", [], undefined)))
          yield* TestPg.eventually(executing("SELECT pg_sleep(602)"), (count) => count === 1)
          yield* held.release
          yield* idle
          assert.strictEqual((yield* Fiber.join(left))._tag, "TransactionAbortedError")
        })
    )

    it.scoped("what a fiber left half done in a nested transaction is not committed with the rest", () =>
      Effect.gen(function* () {
        const { insert, kept, sql } = yield* keeping()
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

    it.scoped("a nested transaction that outlives its parent says nothing on the connection's next holder", () =>
      Effect.gen(function* () {
        const { insert, kept, sql } = yield* keeping({ maxConnections: 1 })
        const ends: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          Effect.void,
          Effect.fail("its own failure"),
          Effect.die("its own defect"),
          Effect.interrupt,
          Effect.flip(insert(99))
        ]
        for (const end of ends) {
          const opened = yield* Deferred.make<void>()
          const goOn = yield* Deferred.make<void>()
          const nested = sql.withTransaction(
            insert(98).pipe(
              Effect.zipRight(Deferred.succeed(opened, undefined)),
              Effect.zipRight(Deferred.await(goOn)),
              Effect.zipRight(end)
            )
          )
          const outliving = yield* sql.withTransaction(
            Effect.zipLeft(Effect.forkDaemon(Effect.exit(nested)), Deferred.await(opened))
          )
          const exit = yield* sql.withTransaction(
            Effect.gen(function* () {
              yield* insert(1)
              yield* Deferred.succeed(goOn, undefined)
              const exit = yield* Fiber.join(outliving)
              // Refused, had anybody said a word of savepoints here.
              yield* insert(2)
              return exit
            })
          )
          assert.deepStrictEqual(yield* kept, [1, 2])
          if (end === ends[0]) {
            const error = yield* failure(exit)
            assert.strictEqual(error._tag, "TransactionAbortedError")
            assert.strictEqual(error.outcome, "NotApplied")
          } else if (end === ends[1])
            assert.deepStrictEqual(Exit.causeOption(exit), Option.some(Cause.fail("its own failure")))
          yield* sql`TRUNCATE kept`
        }
        assert.deepStrictEqual(yield* misplaced, [])
      })
    )

    it.scoped("a parent that commits with the RELEASE of a nested transaction on its way keeps what that one did", () =>
      Effect.gen(function* () {
        const { insert, kept, proxy, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
        const release = yield* proxy.hold({ on: FaultProxy.query(/^RELEASE/) })
        const parent = yield* Effect.fork(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* insert(1)
              const nested = yield* Effect.forkDaemon(sql.withTransaction(insert(2)))
              yield* release.happened()
              return nested
            })
          )
        )
        yield* release.happened()
        yield* turns
        yield* release.release
        yield* Fiber.join(yield* Fiber.join(parent))
        assert.deepStrictEqual(yield* kept, [1, 2])
        assert.deepStrictEqual(yield* misplaced, [])
      })
    )

    it.scoped(
      "a parent may commit at any moment of a nested transaction: it and the connection's next holder succeed",
      () =>
        Effect.gen(function* () {
          const { insert, kept, sql } = yield* keeping({ maxConnections: 1 })
          const expected: Array<number> = []
          let cutShort = 0
          for (let operations = 1, more = true; more; operations++) {
            const n = operations * 3
            const nested = yield* heldUp(sql.withTransaction(insert(n)))
            nested.holdAfter(operations)
            const outliving = yield* sql.withTransaction(
              Effect.gen(function* () {
                yield* insert(n + 1)
                const fiber = yield* Effect.forkDaemon(nested.effect)
                more = yield* nested.happened
                return fiber
              })
            )
            const exit = yield* sql.withTransaction(
              Effect.gen(function* () {
                yield* nested.letGo
                const exit = yield* Fiber.await(outliving)
                yield* insert(n + 2)
                return exit
              })
            )
            if (Exit.isSuccess(exit)) expected.push(n)
            else {
              cutShort++
              assert.strictEqual((yield* failure(exit))._tag, "TransactionAbortedError")
            }
            expected.push(n + 1, n + 2)
          }
          assert.isAbove(cutShort, 20)
          assert.deepStrictEqual(yield* kept, expected)
          assert.deepStrictEqual(yield* misplaced, [])
        })
    )
  }
)
