/** Transactions that are repeated, that run out of time, and whose COMMIT gets lost. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber, Ref } from "effect"
import { type PgError, RetryPolicy, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, waitingForLock } from "./support.js"

/** A client, through a proxy, with a table `kept (n, value)` in a database of its own. */
const fixture = (options: Parameters<typeof clientOf>[0] = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control("CREATE TABLE kept (n int PRIMARY KEY, value int NOT NULL DEFAULT 0)", [], url)
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.make({ upstream: server.config })
    const client = yield* clientOf({ url: proxy.url(url), ...options })
    const { context, sql } = client
    const kept = TestPg.control<{ n: number; value: number }>("SELECT n, value FROM kept ORDER BY n", [], url)
    const insert = (n: number) => sql`INSERT INTO kept (n) VALUES (${n})`
    const run = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: Transaction.Options) =>
      Effect.provide(Transaction.run(effect, options), context)
    /** The effect, and how often it was run. */
    const counted = <A, E, R>(effect: (attempt: number) => Effect.Effect<A, E, R>) =>
      Effect.map(Ref.make(0), (runs) => ({
        runs: Ref.get(runs),
        body: Effect.flatMap(
          Ref.updateAndGet(runs, (n) => n + 1),
          effect
        )
      }))
    return { ...client, counted, insert, kept, proxy, run, url }
  })

/** Two parties; each waits once for the other. */
const meeting = Effect.map(Effect.all([Deferred.make<void>(), Deferred.make<void>()]), ([a, b]) => ({
  first: Effect.zipRight(Deferred.succeed(a, undefined), Deferred.await(b)),
  second: Effect.zipRight(Deferred.succeed(b, undefined), Deferred.await(a))
}))

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction, repeated", (it) => {
  it.scoped("write skew between two fibers: the server refuses one of them, which runs again and sees the other", () =>
    Effect.gen(function* () {
      const { context, counted, insert, kept, sql } = yield* fixture()
      const { first, second } = yield* meeting
      // Each inserts the number of rows that it sees: in any serial order 0 and 1, as skew 0 and 0.
      const body = (meet: Effect.Effect<void>) => (attempt: number) =>
        Effect.gen(function* () {
          const [row] = yield* sql<{ count: number }>`SELECT count(*)::int AS count FROM kept`
          if (attempt === 1) yield* meet
          yield* insert(row!.count)
        })
      const [a, b] = yield* Effect.all([counted(body(first)), counted(body(second))])
      yield* Effect.all([Transaction.serializable(a.body), Transaction.serializable(b.body)], {
        concurrency: 2
      }).pipe(Effect.provide(context))
      assert.strictEqual((yield* a.runs) + (yield* b.runs), 3)
      assert.deepStrictEqual(
        Arr.map(yield* kept, ({ n }) => n),
        [0, 1]
      )
    })
  )

  it.scoped("a deadlock: the victim runs again, and both are stored", () =>
    Effect.gen(function* () {
      const { counted, kept, run, sql } = yield* fixture({ parameters: { deadlock_timeout: "50ms" } })
      yield* sql`INSERT INTO kept (n) VALUES (1), (2)`
      const { first, second } = yield* meeting
      const touch = (n: number) => sql`UPDATE kept SET value = value + 1 WHERE n = ${n}`
      const body = (from: number, to: number, meet: Effect.Effect<void>) => (attempt: number) =>
        Effect.gen(function* () {
          yield* touch(from)
          if (attempt === 1) yield* meet
          yield* touch(to)
        })
      const [a, b] = yield* Effect.all([counted(body(1, 2, first)), counted(body(2, 1, second))])
      yield* Effect.all([run(a.body, { retry: true }), run(b.body, { retry: true })], { concurrency: 2 })
      assert.strictEqual((yield* a.runs) + (yield* b.runs), 3)
      assert.deepStrictEqual(yield* kept, [
        { n: 1, value: 2 },
        { n: 2, value: 2 }
      ])
    })
  )

  it.scoped("without retry the body runs once, and the failure has its tag", () =>
    Effect.gen(function* () {
      const { counted, insert, run, sql } = yield* fixture()
      const { body, runs } = yield* counted(() =>
        Effect.zipRight(insert(1), sql`DO $$ BEGIN RAISE serialization_failure; END $$`)
      )
      const error = yield* Effect.flip(run(body))
      assert.strictEqual(error._tag, "SerializationError")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.strictEqual(yield* runs, 1)
      const again = yield* Effect.flip(run(body, { retry: true }))
      assert.strictEqual(again._tag, "SerializationError")
      // The first, and the five that RetryPolicy.contention has.
      assert.strictEqual(yield* runs, 1 + 6)
      assert.strictEqual(again.attempts, 6)
    })
  )

  it.scoped("what is no matter of another try is not repeated: the program's own failures, defects, constraints", () =>
    Effect.gen(function* () {
      const { counted, insert, kept, run } = yield* fixture()
      const bodies = [
        yield* counted(() => Effect.zipRight(insert(1), Effect.fail("mine" as const))),
        yield* counted(() => Effect.zipRight(insert(1), Effect.die("defect"))),
        yield* counted(() => Effect.zipRight(insert(1), insert(1))),
        yield* counted(() => Effect.zipRight(insert(1), Effect.interrupt))
      ]
      const exits = yield* Effect.forEach(bodies, ({ body }) => Effect.exit(run(body, { retry: true })))
      assert.isTrue(exits.every(Exit.isFailure))
      assert.deepStrictEqual(yield* Effect.all(Arr.map(bodies, ({ runs }) => runs)), [1, 1, 1, 1])
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("a connection lost before COMMIT was sent: the body runs again and is stored once", () =>
    Effect.gen(function* () {
      const { counted, insert, kept, proxy, run } = yield* fixture()
      const cut = yield* proxy.cut({ on: FaultProxy.query(/^COMMIT/), when: "before" })
      const { body, runs } = yield* counted((attempt) => Effect.zipRight(insert(attempt), insert(10)))
      // COMMIT was handed to the socket, so nobody can know: not repeated.
      const unknown = yield* Effect.flip(run(body, { retry: true }))
      assert.strictEqual(unknown._tag, "OutcomeUnknownError")
      assert.strictEqual(unknown.outcome, "Unknown")
      yield* cut.happened()
      assert.strictEqual(yield* runs, 1)
      yield* proxy.cut({ on: FaultProxy.query(/^INSERT INTO kept/), when: "after" })
      yield* run(body, { retry: true })
      assert.strictEqual(yield* runs, 3)
      assert.deepStrictEqual(
        Arr.map(yield* kept, ({ n }) => n),
        [3, 10]
      )
    })
  )

  it.scoped("withTransaction repeats getting a connection and BEGIN, never the body", () =>
    Effect.gen(function* () {
      const { counted, insert, kept, proxy, sql } = yield* fixture()
      yield* proxy.cut({ on: FaultProxy.query(/^BEGIN/), when: "after" })
      const { body, runs } = yield* counted(insert)
      yield* sql.withTransaction(body)
      assert.strictEqual(yield* runs, 1)
      yield* proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "after" })
      const error = yield* failure(sql.withTransaction(body))
      assert.strictEqual(error._tag, "ConnectionError")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.strictEqual(yield* runs, 2)
      assert.deepStrictEqual(
        Arr.map(yield* kept, ({ n }) => n),
        [1]
      )
    })
  )

  it.scoped("retry: false in the layer leaves out repeating altogether", () =>
    Effect.gen(function* () {
      const { context, counted, insert, proxy, sql } = yield* fixture({ retry: false })
      yield* proxy.cut({ on: FaultProxy.query(/^BEGIN/), when: "after" })
      assert.strictEqual((yield* failure(sql.withTransaction(insert(1))))._tag, "ConnectionError")
      const { body, runs } = yield* counted(() => sql`DO $$ BEGIN RAISE serialization_failure; END $$`)
      const error = yield* Effect.flip(Effect.provide(Transaction.serializable(body), context))
      assert.strictEqual(error._tag, "SerializationError")
      assert.strictEqual(yield* runs, 1)
    })
  )

  it.scoped("the timeout covers everything, and its end is on time while the server still holds the lock", () =>
    Effect.gen(function* () {
      const { insert, kept, run, sql, url } = yield* fixture()
      yield* insert(1)
      const other = yield* clientOf({ url })
      const release = yield* Deferred.make<void>()
      const locked = yield* Deferred.make<void>()
      const holder = yield* Effect.fork(
        other.sql.withTransaction(
          Effect.zipRight(
            other.sql`SELECT FROM kept FOR UPDATE`,
            Effect.zipRight(Deferred.succeed(locked, undefined), Deferred.await(release))
          )
        )
      )
      yield* Deferred.await(locked)
      const error = yield* Effect.flip(
        run(Effect.zipRight(insert(2), sql`UPDATE kept SET value = 1 WHERE n = 1`), {
          name: "transfer",
          timeout: "200 millis"
        })
      )
      assert.strictEqual(error._tag, "QueryTimeoutError")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.strictEqual(error.operation, "transfer")
      assert.isNull((holder as Fiber.RuntimeFiber<unknown, unknown>).unsafePoll())
      // Cancelled, not left behind in the queue for the lock.
      yield* TestPg.eventually(waitingForLock("UPDATE kept"), (count) => count === 0)
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.join(holder)
      assert.deepStrictEqual(yield* kept, [{ n: 1, value: 0 }])
    })
  )

  it.scoped("a timeout with COMMIT under way is an unknown outcome, of a read-only transaction only a timeout", () =>
    Effect.gen(function* () {
      const { context, insert, kept, proxy, run, sql } = yield* fixture()
      // Open already: the limit is for what comes before COMMIT, too.
      yield* sql`SELECT 1`
      const commits = yield* proxy.hold({ on: FaultProxy.query(/^COMMIT/), times: 2 })
      const error = yield* Effect.flip(run(insert(1), { timeout: "2 seconds" }))
      assert.strictEqual(error._tag, "OutcomeUnknownError")
      assert.strictEqual((error as PgError.OutcomeUnknownError).reason._tag, "QueryTimeoutError")
      const read = yield* Effect.flip(
        Effect.provide(Transaction.readOnly(sql`SELECT 1`, { timeout: "2 seconds" }), context)
      )
      assert.strictEqual(read._tag, "QueryTimeoutError")
      yield* commits.release
      yield* TestPg.eventually(kept, ({ length }) => length === 1)
    })
  )

  it.scoped(
    "interrupted while COMMIT is on its way, the transaction is stored or not as a whole, and the connection returns",
    () =>
      Effect.gen(function* () {
        const { insert, kept, pool, proxy, sql } = yield* fixture({ maxConnections: 1 })
        const commit = yield* proxy.hold({ on: FaultProxy.query(/^COMMIT/) })
        const fiber = yield* Effect.fork(sql.withTransaction(Effect.zipRight(insert(1), insert(2))))
        yield* commit.happened()
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        yield* commit.release
        yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
        assert.include([0, 2], (yield* kept).length)
      })
  )

  it.scoped("a policy of the program's own decides what is repeated", () =>
    Effect.gen(function* () {
      const { counted, insert, kept, run } = yield* fixture({
        retry: { UniqueViolation: RetryPolicy.backoff({ retries: 2, first: "1 millis", cap: "1 millis" }) }
      })
      const { body, runs } = yield* counted((attempt) =>
        Effect.zipRight(insert(1), attempt < 3 ? insert(1) : insert(2))
      )
      const error = yield* Effect.flip(run(body, { retry: true }))
      // 23505 is not transient, and `backoff` asks for that.
      assert.strictEqual(error._tag, "UniqueViolation")
      assert.strictEqual(yield* runs, 1)
      assert.deepStrictEqual(yield* kept, [])
    })
  )
})
