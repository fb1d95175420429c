/**
 * Deadlines that pass, and callers that go away: what is known then about what they wrote. The programs run on `TestClock`,
 * so that each deadline passes at the very moment that the test is about, however slow the machine is.
 */
import type { SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, TestClock } from "effect"
import { Operation, type PgError, Transaction } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { keepingThroughProxy } from "./kept.js"
import { advisoryLock, hold, waitingForLock } from "./support.js"

type Keeping = Effect.Effect.Success<ReturnType<typeof keepingThroughProxy>>

const timeout = "5 seconds"

/** The failure of an effect whose deadline, 5 seconds, passes when `reached` has happened, and not before. */
const expired = <A, E, R, E2, R2>(self: Effect.Effect<A, E, R>, reached: Effect.Effect<unknown, E2, R2>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(Effect.flip(self))
    yield* reached
    yield* TestClock.adjust("4999 millis")
    assert.isNull(fiber.unsafePoll())
    yield* TestClock.adjust("1 millis")
    return yield* Fiber.join(fiber)
  })

/** What a deadline may end in: nothing was applied, or nobody can say, and then the timeout is the reason. */
const assertNotApplied = (error: PgError.PgError, operation?: string) => {
  assert.strictEqual(error._tag, "QueryTimeoutError")
  assert.strictEqual(error.outcome, "NotApplied")
  assert.strictEqual(error.operation, operation)
}
const assertUnknown = (error: PgError.PgError, operation?: string) => {
  assert.strictEqual(error._tag, "OutcomeUnknownError")
  assert.strictEqual((error as PgError.OutcomeUnknownError).reason._tag, "QueryTimeoutError")
  assert.strictEqual(error.outcome, "Unknown")
  assert.strictEqual(error.operation, operation)
}

/** A read that gets no answer: runs into it, and when it has got there. */
const hanging = ({ proxy, sql }: Keeping) =>
  Effect.map(proxy.hold({ on: FaultProxy.query(/^SELECT 'hangs'/) }), (held) => ({
    read: sql`SELECT 'hangs'`,
    reached: held.happened()
  }))

layer(TestPg.layer, { timeout: "60 seconds" })("A deadline", (it) => {
  it.scoped("that passes while a write waits for a connection leaves nothing behind", () =>
    Effect.gen(function* () {
      const { insert, kept, pool, run, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
      const held = yield* hold(sql)
      const waiting = TestPg.eventually(pool, ({ waiting }) => waiting === 1)
      assertNotApplied(yield* expired(Operation.named("keep", { timeout })(insert(1)), waiting), "keep")
      assertNotApplied(yield* expired(run(insert(2), { name: "all", timeout }), waiting), "all")
      yield* held.release
      yield* insert(3)
      assert.deepStrictEqual(yield* kept, [3])
    })
  )

  it.scoped("that passes while a connection is opened for a write leaves nothing behind", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy } = yield* keepingThroughProxy({ maxConnections: 1 })
      const startup = yield* proxy.hold({ on: FaultProxy.kind("StartupMessage") })
      assertNotApplied(yield* expired(Operation.named("keep", { timeout })(insert(1)), startup.happened()), "keep")
      yield* startup.release
      yield* insert(2)
      assert.deepStrictEqual(yield* kept, [2])
    })
  )

  it.scoped("that passes when a write has been sent ends in an unknown outcome, applied or not", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy } = yield* keepingThroughProxy()
      const keep = (n: number) => Operation.named("keep", { timeout })(insert(n))
      const onItsWay = yield* proxy.hold({ on: FaultProxy.query(/^INSERT/) })
      assertUnknown(yield* expired(keep(1), onItsWay.happened()), "keep")
      yield* proxy.reset
      const applied = yield* proxy.swallowReply({ on: FaultProxy.query(/^INSERT/), ending: "blackHole" })
      assertUnknown(yield* expired(keep(2), applied.happened()), "keep")
      assert.deepStrictEqual(yield* kept, [2])
    })
  )

  it.scoped("that passes while a read hangs knows what was written before it", () =>
    Effect.gen(function* () {
      const client = yield* keepingThroughProxy()
      const { insert, kept, sql } = client
      yield* insert(1)
      const then = (
        before: Effect.Effect<unknown, PgError.PgError | SqlError.SqlError>,
        options: Operation.Options = {}
      ) =>
        Effect.gen(function* () {
          const { reached, read } = yield* hanging(client)
          const both = Operation.named("both", { timeout, ...options })(Effect.zipRight(before, read))
          return yield* expired(both, reached)
        })
      // Stored, by itself, by a transaction, or by an operation inside this one.
      assertUnknown(yield* then(insert(2)), "both")
      assertUnknown(yield* then(sql.withTransaction(insert(3))), "both")
      assertUnknown(yield* then(Operation.named("inner")(insert(4))), "both")
      assert.deepStrictEqual(yield* kept, [1, 2, 3, 4])
      // Stored, but free to be stored again.
      const again = yield* then(sql`INSERT INTO kept VALUES (5) ON CONFLICT DO NOTHING`, { idempotent: true })
      assert.deepStrictEqual([again._tag, again.outcome], ["QueryTimeoutError", "Unknown"])
      // Refused, undone, or only read.
      assertNotApplied(yield* then(Effect.ignore(insert(1))), "both")
      assertNotApplied(yield* then(Effect.ignore(sql.withTransaction(Effect.zipRight(insert(6), insert(1))))), "both")
      assertNotApplied(yield* then(sql`SELECT n FROM kept`), "both")
      assert.deepStrictEqual(yield* kept, [1, 2, 3, 4, 5])
    })
  )

  it.scoped("of a transaction that passes before COMMIT was sent undoes everything", () =>
    Effect.gen(function* () {
      const client = yield* keepingThroughProxy()
      const { insert, kept, run, sql } = client
      const body = (n: number, read: Effect.Effect<unknown, SqlError.SqlError>) =>
        Effect.zipRight(Effect.zipRight(insert(n), sql.withTransaction(insert(n + 1))), read)
      const one = yield* hanging(client)
      assertNotApplied(yield* expired(run(body(1, one.read), { name: "all", timeout }), one.reached), "all")
      const two = yield* hanging(client)
      const named = Operation.named("all", { timeout })(sql.withTransaction(body(3, two.read)))
      assertNotApplied(yield* expired(named, two.reached), "all")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("of a transaction is on time while the server still waits for a lock, and ends that wait", () =>
    Effect.gen(function* () {
      const { insert, kept, run, sql, url } = yield* keepingThroughProxy()
      const lock = yield* advisoryLock(7, url)
      const body = Effect.zipRight(insert(1), sql`SELECT pg_advisory_xact_lock(7)`)
      const waiting = (expected: number) =>
        TestPg.eventually(waitingForLock("SELECT pg_advisory_xact_lock(7)"), (count) => count === expected)
      assertNotApplied(yield* expired(run(body, { name: "all", timeout }), waiting(1)), "all")
      yield* waiting(0)
      yield* lock.release
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("of a transaction that passes when COMMIT has been sent ends in an unknown outcome, applied or not", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, run, sql } = yield* keepingThroughProxy()
      const commit = FaultProxy.query(/^COMMIT/)
      const onItsWay = yield* proxy.hold({ on: commit })
      assertUnknown(yield* expired(run(insert(1), { name: "all", timeout }), onItsWay.happened()), "all")
      yield* proxy.reset
      const applied = yield* proxy.swallowReply({ on: commit, ending: "blackHole" })
      assertUnknown(yield* expired(run(insert(2), { name: "all", timeout }), applied.happened()), "all")
      const named = yield* proxy.swallowReply({ on: commit, ending: "blackHole" })
      const transaction = Operation.named("all", { timeout })(sql.withTransaction(insert(3)))
      assertUnknown(yield* expired(transaction, named.happened()), "all")
      assert.deepStrictEqual(yield* kept, [2, 3])
      assert.strictEqual((yield* proxy.stats).cancelRequests, 0)
      // Else they would be waited for.
      yield* proxy.reset
    })
  )

  it.scoped("of a transaction that wrote nothing is a timeout and no more, its COMMIT sent or not", () =>
    Effect.gen(function* () {
      const { context, proxy, run, sql } = yield* keepingThroughProxy()
      const commits = yield* proxy.hold({ on: FaultProxy.query(/^COMMIT/), times: 2 })
      assertNotApplied(yield* expired(run(sql`SELECT 1`, { timeout }), commits.happened(1)))
      const readOnly = Effect.provide(Transaction.readOnly(sql`SELECT 1`, { timeout }), context)
      assertNotApplied(yield* expired(readOnly, commits.happened(2)))
      yield* commits.release
    })
  )
})

layer(TestPg.layer, { timeout: "60 seconds" })("A caller that goes away", (it) => {
  it.scoped("while COMMIT is on its way has its transaction stored as a whole, and its connection returns", () =>
    Effect.gen(function* () {
      const { insert, kept, pid, proxy, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
      const before = yield* pid
      const commit = yield* proxy.hold({ on: FaultProxy.query(/^COMMIT/) })
      const fiber = yield* Effect.fork(sql.withTransaction(Effect.zipRight(insert(1), insert(2))))
      yield* commit.happened()
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      yield* commit.release
      assert.strictEqual(yield* pid, before)
      assert.deepStrictEqual(yield* kept, [1, 2])
    })
  )
})
