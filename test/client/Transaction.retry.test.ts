/** Transactions that are repeated as a whole, and what is never repeated. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Ref, Schedule } from "effect"
import { RetryPolicy, Transaction } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { keepingThroughProxy } from "./kept.js"
import { failure } from "./support.js"

/** The effect, and how often it was run. */
const counted = <A, E, R>(effect: (attempt: number) => Effect.Effect<A, E, R>) =>
  Effect.map(Ref.make(0), (runs) => ({
    runs: Ref.get(runs),
    body: Effect.flatMap(
      Ref.updateAndGet(runs, (n) => n + 1),
      effect
    )
  }))

/** Two parties; each waits once for the other. */
const meeting = Effect.map(Effect.all([Deferred.make<void>(), Deferred.make<void>()]), ([a, b]) => ({
  first: Effect.zipRight(Deferred.succeed(a, undefined), Deferred.await(b)),
  second: Effect.zipRight(Deferred.succeed(b, undefined), Deferred.await(a))
}))

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction, repeated", (it) => {
  it.scoped("write skew between two fibers: the server refuses one of them, which runs again and sees the other", () =>
    Effect.gen(function* () {
      const { context, insert, kept, sql } = yield* keepingThroughProxy()
      const { first, second } = yield* meeting
      const stored = yield* Deferred.make<void>()
      const serializable = <A, E, R>(body: Effect.Effect<A, E, R>) =>
        Effect.zipRight(Transaction.serializable(body), Deferred.succeed(stored, undefined))
      // Each inserts the number of rows that it sees: in any serial order 0 and 1, as skew 0 and 0.
      const body = (meet: Effect.Effect<void>) => (attempt: number) =>
        Effect.gen(function* () {
          // Only what is committed by then is seen: else the second one's next try could meet the first one again.
          if (attempt > 1) yield* Deferred.await(stored)
          const [row] = yield* sql<{ count: number }>`SELECT count(*)::int AS count FROM kept`
          if (attempt === 1) yield* meet
          yield* insert(row!.count)
        })
      const [a, b] = yield* Effect.all([counted(body(first)), counted(body(second))])
      yield* Effect.all([serializable(a.body), serializable(b.body)], {
        concurrency: 2
      }).pipe(Effect.provide(context))
      assert.strictEqual((yield* a.runs) + (yield* b.runs), 3)
      assert.deepStrictEqual(yield* kept, [0, 1])
    })
  )

  it.scoped("a deadlock: the victim runs again, and both are stored", () =>
    Effect.gen(function* () {
      const { run, sql, url } = yield* keepingThroughProxy({ parameters: { deadlock_timeout: "50ms" } })
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
      assert.deepStrictEqual(yield* TestPg.control("SELECT n, value FROM kept ORDER BY n", [], url), [
        { n: 1, value: 2 },
        { n: 2, value: 2 }
      ])
    })
  )

  it.scoped("without retry the body runs once, and the failure has its tag", () =>
    Effect.gen(function* () {
      const { insert, run, sql } = yield* keepingThroughProxy()
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

  for (const [what, lost] of [
    ["BEGIN", /^BEGIN/],
    ["a statement", /^INSERT/]
  ] as const) {
    it.scoped(`a policy of 2 retries begins a transaction that loses ${what} each time 3 times and no more`, () =>
      Effect.gen(function* () {
        const retry = RetryPolicy.make({ ConnectionError: Schedule.recurs(2) })
        const { insert, kept, proxy, run } = yield* keepingThroughProxy({
          maxConnections: 1,
          retry,
          breaker: false,
          retryBudget: false
        })
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

  it.scoped("what is no matter of another try is not repeated: the program's own failures, defects, constraints", () =>
    Effect.gen(function* () {
      const { insert, kept, run } = yield* keepingThroughProxy()
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
      const { insert, kept, proxy, run } = yield* keepingThroughProxy()
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
      assert.deepStrictEqual(yield* kept, [3, 10])
    })
  )

  it.scoped("withTransaction repeats getting a connection and BEGIN with what came with it, never the body", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* keepingThroughProxy()
      yield* proxy.cut({ on: FaultProxy.query(/^BEGIN/), when: "after" })
      const { body, runs } = yield* counted((attempt) =>
        Effect.zipRight(insert(attempt), sql`UPDATE kept SET value = value + 1`)
      )
      yield* sql.withTransaction(body)
      assert.strictEqual(yield* runs, 1)
      yield* proxy.cut({ on: FaultProxy.query(/^UPDATE/), when: "after" })
      const error = yield* failure(sql.withTransaction(body))
      assert.strictEqual(error._tag, "ConnectionError")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.strictEqual(yield* runs, 2)
      assert.deepStrictEqual(yield* kept, [1])
    })
  )

  it.scoped("retry: false in the layer leaves out repeating altogether", () =>
    Effect.gen(function* () {
      const { context, insert, proxy, sql } = yield* keepingThroughProxy({ retry: false })
      yield* proxy.cut({ on: FaultProxy.query(/^BEGIN/), when: "after" })
      assert.strictEqual((yield* failure(sql.withTransaction(insert(1))))._tag, "ConnectionError")
      const { body, runs } = yield* counted(() => sql`DO $$ BEGIN RAISE serialization_failure; END $$`)
      const error = yield* Effect.flip(Effect.provide(Transaction.serializable(body), context))
      assert.strictEqual(error._tag, "SerializationError")
      assert.strictEqual(yield* runs, 1)
    })
  )

  it.scoped("a policy of the program's own decides what is repeated", () =>
    Effect.gen(function* () {
      const conflicting = (policy: RetryPolicy.RetryPolicy) =>
        Effect.gen(function* () {
          const { insert, kept, run } = yield* keepingThroughProxy({ retry: policy })
          const { body, runs } = yield* counted((attempt) =>
            Effect.zipRight(insert(1), attempt < 3 ? insert(1) : insert(2))
          )
          const exit = yield* Effect.exit(run(body, { retry: true }))
          return { exit, kept: yield* kept, runs: yield* runs }
        })
      const again = yield* conflicting(RetryPolicy.make({ UniqueViolation: Schedule.recurs(2) }))
      assert.deepInclude(again, { kept: [1, 2], runs: 3 })
      // 23505 is not transient, and `backoff` asks for that.
      const backoff = RetryPolicy.backoff({ retries: 2, first: "1 millis", cap: "1 millis" })
      const once = yield* conflicting(RetryPolicy.make({ UniqueViolation: backoff }))
      assert.deepInclude(once, { kept: [], runs: 1 })
      assert.strictEqual((yield* failure(once.exit))._tag, "UniqueViolation")
    })
  )

  it.scoped("attempts in the error counts whole transactions, whatever else failed in them", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, run, sql } = yield* keepingThroughProxy()
      const refused = sql`DO $$ BEGIN RAISE serialization_failure; END $$`
      const swallowed = Effect.ignore(sql.withTransaction(Effect.zipRight(insert(2), refused)))
      const violating = yield* counted((attempt) =>
        Effect.all([insert(1), swallowed, swallowed, attempt < 3 ? refused : insert(1)], { discard: true })
      )
      const violation = yield* Effect.flip(run(violating.body, { name: "transfer", retry: true }))
      assert.strictEqual(violation._tag, "UniqueViolation")
      assert.strictEqual(violation.operation, "transfer")
      assert.deepStrictEqual([violation.attempts, yield* violating.runs], [3, 3])
      yield* proxy.cut({ on: FaultProxy.query(/^COMMIT/), when: "before" })
      const losing = yield* counted((attempt) => Effect.zipRight(insert(1), attempt < 2 ? refused : Effect.void))
      const unknown = yield* Effect.flip(run(losing.body, { retry: true }))
      assert.strictEqual(unknown._tag, "OutcomeUnknownError")
      assert.deepStrictEqual([unknown.attempts, yield* losing.runs], [2, 2])
      assert.deepStrictEqual(yield* kept, [])
    })
  )
})
