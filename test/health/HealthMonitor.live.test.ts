import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Redacted } from "effect"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as TestPg from "../support/TestPg.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("HealthMonitor on PostgreSQL", (it) => {
  it.scoped("asks beside a pool that is exhausted, and says how long its workload waits", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const client = { url, maxConnections: 1 }
      const services = Layer.provideMerge(
        HealthMonitor.layerDedicated(client, { interval: "infinity", timeout: "30 seconds" }),
        ResilientPg.layer(client)
      )
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const health = yield* HealthMonitor.HealthMonitor
        const release = yield* Deferred.make<void>()
        const taken = yield* Deferred.make<void>()
        const holder = yield* Effect.fork(
          sql.withTransaction(
            Effect.zipRight(sql`SELECT 1`, Effect.zipRight(Deferred.succeed(taken, undefined), Deferred.await(release)))
          )
        )
        yield* Deferred.await(taken)
        const waiter = yield* Effect.fork(sql`SELECT 2`)
        yield* TestPg.eventually(ResilientPg.pool, ({ waiting }) => waiting === 1)

        const { probe, signals } = yield* health.check
        assert.deepInclude(probe, { ok: true })
        assert.isTrue(probe.ok && probe.pingMs > 0 && probe.queryMs !== undefined && probe.queryMs > 0)
        // Only now may the pool's one connection come free: the check was answered without it.
        assert.deepInclude(signals, { active: 1, waiting: 1, utilization: 1, total: 1 })

        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(holder)
        yield* Fiber.join(waiter)
        const { window } = yield* health.check
        assert.isAtLeast(window.operations, 2)
        assert.isAbove(window.waitMs, 0)
        assert.strictEqual(window.errorRate, 0)
      }).pipe(Effect.provide(services))
    })
  )

  it.scoped("says why a database cannot be asked, without its password", () =>
    Effect.gen(function* () {
      const password = Redacted.make("hunter2")
      const client = { host: "127.0.0.1", port: 1, username: "app", password, database: "shop" }
      const options = { interval: "infinity", timeout: "2 seconds" } as const
      for (const monitor of [HealthMonitor.layerDedicated(client, options), HealthMonitor.layer(options)]) {
        const report = yield* HealthMonitor.HealthMonitor.pipe(
          Effect.flatMap((health) => health.check),
          Effect.provide(Layer.provide(monitor, ResilientPg.layer(client)))
        )
        assert.deepInclude(report.probe, { ok: false, tag: "ConnectionError" })
        assert.strictEqual(report.status, "unhealthy")
        assert.notInclude(JSON.stringify(report), "hunter2")
      }
    })
  )
})
