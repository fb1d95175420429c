import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Redacted } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import { ERROR_TYPE } from "../../src/telemetry/names.js"
import * as Prometheus from "../../src/telemetry/Prometheus.js"
import * as promText from "../support/promText.js"
import * as TestPg from "../support/TestPg.js"
import { counted } from "../telemetry/counted.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("HealthMonitor on PostgreSQL", (it) => {
  it.scoped("asks beside a pool that is exhausted, and says how long its workload waits", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const client = { url, maxConnections: 1 }
      const services = Layer.provideMerge(
        HealthMonitor.layer({ interval: "infinity", timeout: "30 seconds" }),
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

  it.scoped("asks as the workload does: as its role, by its set-up, with a password that it asks for", () =>
    Effect.gen(function* () {
      const { config } = yield* TestPg.database
      let asked = 0
      const client: ResilientPg.Options = {
        ...config,
        password: Effect.sync(() => {
          asked += 1
          return config.password
        }),
        applicationName: "shop",
        maxConnections: 1,
        transformResultNames: (name) => name.toUpperCase(),
        onConnect: (connection) => Effect.asVoid(connection.executeRaw("SET search_path = shop", []))
      }
      const backends = Effect.map(
        TestPg.control<{ n: number }>(
          "SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = $1 AND application_name = 'shop'",
          [config.database]
        ),
        ([row]) => row!.n
      )
      for (const [probe, opened] of [
        ["dedicated", 2],
        ["pool", 1]
      ] as const) {
        asked = 0
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`SELECT 1`
          const health = yield* HealthMonitor.HealthMonitor
          assert.deepInclude((yield* health.check).probe, { ok: true })
          const [row] = yield* health.ask("SELECT current_user AS me, current_setting('search_path') AS path")
          assert.deepStrictEqual(row, { me: config.username, path: "shop" })
          assert.strictEqual((yield* Effect.flip(health.ask("SELEC 1")))._tag, "SqlSyntaxError")
          assert.strictEqual(asked, opened)
          assert.strictEqual(yield* backends, opened)
        }).pipe(
          Effect.provide(
            Layer.provideMerge(
              HealthMonitor.layer({ interval: "infinity", timeout: "30 seconds", probe }),
              ResilientPg.layer(client)
            )
          )
        )
        yield* TestPg.eventually(backends, (n) => n === 0)
      }
    })
  )

  it.scoped("measures the round trip alone, and not how long it takes to connect", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* Effect.gen(function* () {
        const { probe } = yield* Effect.flatMap(HealthMonitor.HealthMonitor, (health) => health.check)
        assert.isTrue(probe.ok && probe.pingMs < 3000, JSON.stringify(probe))
      }).pipe(
        Effect.provide(
          Layer.provide(
            HealthMonitor.layer({ interval: "infinity", timeout: "30 seconds" }),
            ResilientPg.layer({ url, onConnect: () => Effect.sleep("3 seconds") })
          )
        )
      )
    })
  )

  it.scoped("lets nobody ask for longer than a check may take", () =>
    Effect.gen(function* () {
      const { config, url } = yield* TestPg.database
      yield* Effect.gen(function* () {
        const health = yield* HealthMonitor.HealthMonitor
        yield* health.check
        const error = yield* Effect.flip(health.ask("SELECT pg_sleep(600)"))
        assert.strictEqual(error._tag, "QueryTimeoutError")
        // Cancelled, not left to itself.
        yield* TestPg.eventually(
          TestPg.control(
            "SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND query LIKE '%pg_sleep(600)' AND state = 'active'",
            [config.database]
          ),
          (rows) => rows.length === 0
        )
        const { probe } = yield* TestPg.eventually(health.check, ({ probe }) => probe.ok)
        assert.isTrue(probe.ok)
      }).pipe(
        Effect.provide(
          Layer.provide(HealthMonitor.layer({ interval: "infinity", timeout: "2 seconds" }), ResilientPg.layer({ url }))
        )
      )
    })
  )

  it.scoped("counts what there was no connection for among the failures", () =>
    Effect.gen(function* () {
      const poolName = "nobody there"
      const client = { host: "127.0.0.1", port: 1, username: "app", database: "shop", poolName, retry: false as const }
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const health = yield* HealthMonitor.HealthMonitor
        yield* Effect.replicateEffect(Effect.flip(sql`SELECT 1`), 3)
        const { signals, window } = yield* health.check
        assert.deepInclude(window, { operations: 0, errorRate: 1, errors: { ConnectionError: 3 } })
        assert.strictEqual(signals.errorRate, 1)
        const scraped = promText.parse(yield* Prometheus.text())
        const total = (name: string) =>
          scraped.get(name)?.samples.find(({ labels }) => labels["pool"] === poolName)?.value
        assert.strictEqual(total("db_queries_failed_total"), 3)
        assert.strictEqual(total("db_queries_successful_total"), 0)
      }).pipe(
        Effect.provide(
          Layer.provideMerge(
            HealthMonitor.layer({ interval: "infinity", timeout: "2 seconds" }),
            ResilientPg.layer(client)
          )
        )
      )
    })
  )

  it.scoped("says that nobody answered where a connection is let in and left without an answer", () =>
    Effect.gen(function* () {
      const { config, url } = yield* TestPg.database
      const proxy = yield* FaultProxy.make({ upstream: config })
      yield* proxy.blackHole({ new: true })
      const report = yield* HealthMonitor.HealthMonitor.pipe(
        Effect.flatMap((health) => health.check),
        Effect.provide(
          Layer.provide(
            HealthMonitor.layer({ interval: "infinity", timeout: "3 seconds" }),
            ResilientPg.layer({ url: proxy.url(url), poolName: "black hole", acquireTimeout: "200 millis" })
          )
        )
      )
      // Not that the pool has too few connections.
      assert.deepInclude(report.probe, { ok: false, tag: "ConnectionError" })
      assert.deepInclude(yield* counted("black hole/health", "pgresilience.operation.unserved", ERROR_TYPE), {
        ConnectionError: 1
      })
    })
  )

  it.scoped("says why a database cannot be asked, without its password", () =>
    Effect.gen(function* () {
      const password = Redacted.make("hunter2")
      const client = { host: "127.0.0.1", port: 1, username: "app", password, database: "shop" }
      const options = { interval: "infinity", timeout: "2 seconds" } as const
      for (const monitor of [HealthMonitor.layer(options), HealthMonitor.layer({ ...options, probe: "pool" })]) {
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
