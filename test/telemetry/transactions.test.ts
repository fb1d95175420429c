/** The counter of transactions, as a layer moves it. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Metric, type MetricState, Ref } from "effect"
import { Transaction } from "effect-pg-resilience"
import { commit, ledgered, unknown } from "../client/exactly.js"
import { clientOf } from "../client/support.js"
import * as TestPg from "../support/TestPg.js"

/** How often each outcome was counted for this pool. */
const outcomes = (poolName: string) =>
  Effect.map(Metric.snapshot, (pairs) => {
    const counted: Record<string, number> = {}
    for (const { metricKey, metricState } of pairs) {
      const labels = new Map(metricKey.tags.map(({ key, value }) => [key, value]))
      if (metricKey.name !== "pgresilience.transactions" || labels.get("db.client.connection.pool.name") !== poolName)
        continue
      counted[labels.get("outcome")!] = (metricState as MetricState.MetricState.Counter<number>).count
    }
    return counted
  })

/** How often each outcome's time was taken. */
const settleTimes = (poolName: string) =>
  Effect.map(Metric.snapshot, (pairs) => {
    const counted: Record<string, number> = {}
    for (const { metricKey, metricState } of pairs) {
      const labels = new Map(metricKey.tags.map(({ key, value }) => [key, value]))
      if (metricKey.name !== "pgresilience.transaction.settle_time") continue
      if (labels.get("db.client.connection.pool.name") !== poolName) continue
      counted[labels.get("outcome")!] = (metricState as MetricState.MetricState.Histogram).count
    }
    return counted
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("The counter of transactions", (it) => {
  it.scoped("tells committed, rolled back, aborted and repeated apart", () =>
    Effect.gen(function* () {
      const poolName = "counted transactions"
      const { context, sql } = yield* clientOf({ poolName })
      const runs = yield* Ref.make(0)
      const conflict = Effect.gen(function* () {
        if ((yield* Ref.updateAndGet(runs, (n) => n + 1)) < 3)
          yield* sql`DO $$ BEGIN RAISE serialization_failure; END $$`
      })
      yield* Effect.gen(function* () {
        yield* Transaction.run(sql`SELECT 1`)
        yield* Effect.flip(Transaction.run(Effect.fail("mine")))
        // The program goes on after a failure: COMMIT is answered with ROLLBACK.
        yield* Effect.flip(Transaction.run(Effect.ignore(sql`SELECT 1 / 0`)))
        yield* Transaction.run(conflict, { retry: true })
      }).pipe(Effect.provide(context))
      assert.deepStrictEqual(yield* outcomes(poolName), { committed: 2, rolledBack: 3, aborted: 1, repeated: 2 })
    })
  )

  it.scoped("tells what was found out about a lost COMMIT, and how long it took, and what nobody found out", () =>
    Effect.gen(function* () {
      const poolName = "settled transactions"
      const { insert, kept, once, proxy } = yield* ledgered({ alone: true, poolName, breaker: false })
      yield* once(insert(1))
      yield* proxy.swallowReply({ on: commit })
      yield* once(insert(2))
      yield* proxy.cut({ on: commit, when: "before", times: 2 })
      yield* once(insert(3))
      assert.deepStrictEqual(yield* outcomes(poolName), {
        committed: 2,
        settledCommitted: 1,
        settledAborted: 2
      })
      assert.deepStrictEqual(yield* settleTimes(poolName), { settledCommitted: 1, settledAborted: 2 })
      // By the server's ids what was not applied is repeated like any failure, and questions are no transactions of the program.
      yield* proxy.cut({ on: commit, when: "before" })
      yield* once(insert(4), { exactlyOnce: "xid" })
      yield* proxy.swallowReply({ on: commit })
      yield* once(insert(5), { exactlyOnce: "xid" })
      assert.deepInclude(yield* outcomes(poolName), { settledCommitted: 2, settledAborted: 3, repeated: 1 })
      assert.lengthOf(yield* kept, 5)
      // Given up, and interrupted in the middle of it.
      yield* proxy.swallowReply({ on: commit })
      yield* unknown(once(Effect.zipLeft(insert(6), proxy.refuse), { timeout: "1 second" }))
      yield* proxy.accept
      assert.strictEqual((yield* outcomes(poolName)).unknown, 1)
      const held = yield* proxy.hold({ on: commit })
      const fiber = yield* Effect.fork(once(insert(7)))
      yield* held.happened()
      yield* Fiber.interrupt(fiber)
      assert.strictEqual((yield* outcomes(poolName)).unknown, 2)
      yield* held.release
    })
  )
})
