/** That a layer moves its metrics: what each of them says is in Metrics.test.ts. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Metric } from "effect"
import { CircuitBreaker } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as figures from "../../src/telemetry/internal/figures.js"
import { CONNECTION_STATE, ERROR_TYPE } from "../../src/telemetry/names.js"
import { clientOf, executing, failure, hold, proxied } from "../client/support.js"
import * as TestPg from "../support/TestPg.js"
import { counted } from "./counted.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("A layer's metrics", (it) => {
  const reaches = (poolName: string, name: string, labels: ReadonlyArray<string>, key: string, value: number) =>
    TestPg.eventually(counted(poolName, name, ...labels), (counts) => counts[key] === value, {
      message: `${name} of "${key}" does not come to ${value}`
    })

  it.scoped("follow its connections, and go back to nothing with it", () =>
    Effect.gen(function* () {
      const poolName = "followed"
      const { close, pool, sql } = yield* clientOf({ poolName, minConnections: 1, maxConnections: 1, leakThreshold: 1 })
      const state = [CONNECTION_STATE]
      yield* reaches(poolName, "db.client.connection.count", state, "idle", 1)
      const { release } = yield* hold(sql)
      yield* reaches(poolName, "db.client.connection.count", state, "used", 1)
      yield* reaches(poolName, "db.client.connection.count", state, "idle", 0)
      const waiting = yield* Effect.fork(sql`SELECT 1`)
      yield* reaches(poolName, "db.client.connection.pending_requests", [], "", 1)
      yield* reaches(poolName, "pgresilience.leaks", [], "", 1)
      assert.deepInclude(yield* pool, { leaked: 1 })
      yield* release
      assert.deepInclude(yield* pool, { leaked: 0 })
      yield* Fiber.join(waiting)
      yield* reaches(poolName, "db.client.connection.pending_requests", [], "", 0)
      yield* reaches(poolName, "pgresilience.retry.budget", ["state"], "allowed", 3)
      const bounds = ["max", "idle.min", "idle.max"].map((name) => `db.client.connection.${name}`)
      for (const name of bounds) assert.deepStrictEqual(yield* counted(poolName, name), { "": 1 })
      yield* close
      for (const name of bounds) assert.deepStrictEqual(yield* counted(poolName, name), { "": 0 })
      assert.deepStrictEqual(yield* counted(poolName, "db.client.connection.count", ...state), { idle: 0, used: 0 })
      assert.deepInclude(yield* counted(poolName, "pgresilience.connection.evicted", "reason"), { closing: 1 })
    })
  )

  it.scoped("tell of every wait for a connection: of none, of one, and of one in vain", () =>
    Effect.gen(function* () {
      const poolName = "waited for"
      const { sql } = yield* clientOf({ poolName, maxConnections: 1, acquireTimeout: "2 seconds" })
      const waits = Effect.map(Metric.snapshot, (pairs) => figures.perPool(pairs).get(poolName)!.waits)
      yield* sql`SELECT 1`
      yield* Effect.repeatN(sql`SELECT 1`, 8)
      const before = yield* waits
      assert.strictEqual(before.count, 10)
      const { release } = yield* hold(sql)
      assert.strictEqual((yield* failure(sql`SELECT 1`))._tag, "PoolTimeoutError")
      yield* release
      const after = yield* waits
      assert.strictEqual(after.count, 12)
      // Two seconds, as far as sums of fractions go.
      assert.isAtLeast(after.sum - before.sum, 2 - 1e-9)
    })
  )

  it.scoped("count what goes wrong, by its kind", () =>
    Effect.gen(function* () {
      const poolName = "gone wrong"
      const { proxy, url } = yield* proxied
      const { context, sql } = yield* clientOf({ url, poolName, maxConnections: 1 })
      yield* sql`CREATE TABLE gone_wrong (n int)`
      yield* Effect.addFinalizer(() => TestPg.control("DROP TABLE gone_wrong"))

      const breaker = Context.get(context, CircuitBreaker.CircuitBreaker)
      yield* Effect.zipRight(breaker.forceOpen, breaker.reset)
      assert.deepStrictEqual(yield* counted(poolName, "pgresilience.breaker.transitions", "from", "to"), {
        "Closed ForcedOpen": 1,
        "ForcedOpen Closed": 1
      })
      assert.deepStrictEqual(yield* counted(poolName, "pgresilience.breaker.state", "state"), {
        Closed: 1,
        ForcedOpen: 0
      })

      const fiber = yield* Effect.fork(sql`SELECT pg_sleep(602)`)
      yield* TestPg.eventually(executing("SELECT pg_sleep(602)"), (n) => n === 1)
      yield* Fiber.interrupt(fiber)
      yield* reaches(poolName, "pgresilience.cancels", ["result"], "Cancelled", 1)

      yield* proxy.cut({ on: FaultProxy.query(/^SELECT 3/), when: "before" })
      yield* sql`SELECT 3`
      assert.deepStrictEqual(yield* counted(poolName, "pgresilience.retry.attempts", ERROR_TYPE), {
        ConnectionError: 1
      })
      yield* proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "after" })
      assert.strictEqual((yield* failure(sql`INSERT INTO gone_wrong VALUES (1)`))._tag, "OutcomeUnknownError")
      assert.deepStrictEqual(yield* counted(poolName, "pgresilience.outcome.unknown", ERROR_TYPE), {
        ConnectionError: 1
      })
      assert.deepStrictEqual(yield* counted(poolName, "pgresilience.connection.evicted", "reason"), { lost: 2 })
    })
  )
})
