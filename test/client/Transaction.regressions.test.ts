/** Transactions that meet their end at awkward moments: what went wrong once, and must not again. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Cause, Deferred, Effect, Exit, Fiber, Option, Schedule } from "effect"
import { Operation, type PgError, RetryPolicy, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { heldUp, turns } from "./heldUp.js"
import { advisoryLock, clientOf, failure, hold, waitingForLock } from "./support.js"

/** A client of one connection, through a proxy or not, with an empty table `kept (n)` in a database of its own. */
const fixture = (options: Parameters<typeof clientOf>[0] = {}, { direct = false } = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control("CREATE TABLE kept (n int PRIMARY KEY)", [], url)
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.make({ upstream: server.config })
    const client = yield* clientOf({ url: direct ? url : proxy.url(url), maxConnections: 1, ...options })
    const { context, pool, sql } = client
    const kept = Effect.map(
      TestPg.control<{ n: number }>("SELECT n FROM kept ORDER BY n", [], url),
      Arr.map(({ n }) => n)
    )
    const insert = (n: number) => sql`INSERT INTO kept VALUES (${n})`
    const run = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: Transaction.Options) =>
      Effect.provide(Transaction.run(effect, options), context)
    const idle = TestPg.eventually(pool, ({ idle, total }) => idle === total, { message: "the pool is not whole" })
    return { ...client, idle, insert, kept, proxy, run, url }
  })

/** What the server has logged of words that were said at the wrong place. */
const misplaced = Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, (server) =>
  Effect.map(server.log, (log) =>
    Array.from(
      log.matchAll(/savepoint "\w+" does not exist|SAVEPOINT can only be used.*|there is no transaction in progress/g),
      ([words]) => words
    )
  )
)

/** How many server processes execute this statement. */
const executing = (query: string) =>
  Effect.map(
    TestPg.control("SELECT FROM pg_stat_activity WHERE state = 'active' AND query = $1", [query]),
    ({ length }) => length
  )

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction, at awkward moments", (it) => {
  it.scoped("a nested transaction that outlives its parent says nothing on the connection's next holder", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
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
      const { insert, kept, proxy, sql } = yield* fixture()
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
        const { insert, kept, sql } = yield* fixture({}, { direct: true })
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

  it.scoped("a nested transaction given up while its SAVEPOINT is still queued costs the parent nothing", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* fixture()
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

  it.scoped("a nested transaction interrupted in the moment of its RELEASE takes the whole transaction with it", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* fixture()
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

  it.scoped("what a fiber left behind still executes does not keep the connection of a transaction that is over", () =>
    Effect.gen(function* () {
      const { idle, insert, kept, sql } = yield* fixture()
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

  it.scoped("a failure in a named operation inside a transaction is caught by its tag around it", () =>
    Effect.gen(function* () {
      const { insert, kept, sql } = yield* fixture()
      yield* insert(1)
      const caught = yield* sql
        .withTransaction(Effect.zipRight(insert(2), Operation.named("again")(insert(1))))
        .pipe(Effect.catchTag("UniqueViolation", ({ operation }) => Effect.succeed(operation)))
      assert.strictEqual(caught, "again")
      assert.deepStrictEqual(yield* kept, [1])
    })
  )

  for (const [what, lost] of [
    ["BEGIN", /^BEGIN/],
    ["a statement", /^INSERT/]
  ] as const) {
    it.scoped(`a policy of 2 retries begins a transaction that loses ${what} each time 3 times and no more`, () =>
      Effect.gen(function* () {
        const retry = RetryPolicy.make({ ConnectionError: Schedule.recurs(2) })
        const { insert, kept, proxy, run } = yield* fixture({ retry, breaker: false, retryBudget: false })
        const cut = yield* proxy.cut({ on: FaultProxy.query(lost), when: "before", times: Number.POSITIVE_INFINITY })
        const error = yield* Effect.flip(run(insert(1), { retry: true }))
        assert.strictEqual(error._tag, "ConnectionError")
        assert.strictEqual(error.outcome, "NotApplied")
        assert.strictEqual(error.attempts, 3)
        assert.strictEqual(yield* cut.count, 3)
        assert.deepStrictEqual(yield* kept, [])
      })
    )
  }

  it.scoped("closing the pool does not cancel a COMMIT in flight: what it commits is stored", () =>
    Effect.gen(function* () {
      const { close, insert, kept, proxy, sql, url } = yield* fixture({ closeGrace: "100 millis" })
      // A deferred trigger keeps COMMIT at work until the lock comes free.
      yield* TestPg.control(
        `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN PERFORM pg_advisory_xact_lock(43); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION wait()`,
        [],
        url
      )
      const lock = yield* advisoryLock(43, url)
      const fiber = yield* Effect.fork(failure(sql.withTransaction(insert(1))))
      yield* TestPg.eventually(waitingForLock("COMMIT"), (count) => count === 1)
      yield* close
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "OutcomeUnknownError")
      assert.strictEqual((yield* proxy.stats).cancelRequests, 0)
      assert.strictEqual(yield* waitingForLock("COMMIT"), 1)
      yield* lock.release
      yield* TestPg.eventually(kept, (rows) => rows.length === 1)
    })
  )
})
