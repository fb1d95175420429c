/** Ways in which a slot of the pool was lost, or the server was knocked at without pause. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Metric, type MetricState } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, hold } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Pool: regressions", (it) => {
  it.scoped("a reserved connection that the server ends makes all others suspect at once, and only once", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { pool, sessions, sql } = yield* clientOf({ maxConnections: 2, retry: false })
      const { connection, release } = yield* hold(sql)
      const running = yield* Effect.fork(Effect.exit(connection.execute("SELECT pg_sleep(600)", [], undefined)))
      const [session] = yield* TestPg.eventually(sessions, ([one]) => one?.query === "SELECT pg_sleep(600)")
      assert.isTrue(yield* server.terminate(session!.pid))
      assert.strictEqual((yield* Fiber.join(running))._tag, "Failure")
      assert.strictEqual((yield* pool).generation, 1)
      assert.strictEqual((yield* pool).total, 0)
      yield* release
      assert.strictEqual((yield* pool).generation, 1)
      assert.lengthOf(yield* sql`SELECT 1`, 1)
    })
  )

  it.scoped("ready asks a full queue now and then, not without pause, until there is room", () =>
    Effect.gen(function* () {
      const poolName = "full queue"
      const { ready, sql } = yield* clientOf({ poolName, maxConnections: 1, maxWaiting: 0 })
      const { release } = yield* hold(sql)
      const error = yield* failure(ready({ within: "1 second" }))
      assert.strictEqual(error._tag, "PoolTimeoutError")
      assert.include(error.message, "queue")
      const refused = Metric.unsafeSnapshot().find(
        ({ metricKey: { name, tags } }) =>
          name === "db.client.connection.timeouts" && tags.some(({ value }) => value === poolName)
      )
      const { count } = refused!.metricState as MetricState.MetricState.Counter<number>
      assert.isAtLeast(count, 1)
      assert.isAtMost(count, 21)
      const waiting = yield* Effect.fork(ready())
      yield* release
      yield* Fiber.join(waiting)
    })
  )
})
