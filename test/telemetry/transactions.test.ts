/** The counter of transactions, as a layer moves it. */
import { assert, layer } from "@effect/vitest"
import { Effect, Metric, type MetricState, Ref } from "effect"
import { Transaction } from "effect-pg-resilience"
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
})
