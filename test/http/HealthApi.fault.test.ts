import { spawnSync } from "node:child_process"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber } from "effect"
import * as PgError from "../../src/error/PgError.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as Operation from "../../src/policy/Operation.js"
import * as RetryBudget from "../../src/policy/RetryBudget.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as promText from "../support/promText.js"
import * as TestPg from "../support/TestPg.js"
import * as api from "./api.js"

/** Answered from what the program has in memory. */
const fromMemory = [
  "/health",
  "/health/live",
  "/health/metrics",
  "/health/ready",
  "/resilience/health",
  "/resilience/metrics",
  "/resilience/openapi.json",
  "/resilience/report"
]
const asking = ["/resilience/connection-test", "/resilience/pool-config"]

const parameter = "parameter-that-nobody-may-see"

/** What must not be in any answer, whatever goes on. */
const leaks = (text: string, password: string) =>
  [password, parameter, "node_modules", "file://", "    at "].filter((secret) => text.includes(secret))

/** All answers at once, with how long the slowest took. */
const answers = (origin: string, paths: ReadonlyArray<string>, password: string) =>
  Effect.map(
    Effect.timed(
      Effect.forEach(paths, (path) => Effect.map(api.ask(`${origin}${path}`), (_) => ({ path, ..._ })), {
        concurrency: "unbounded"
      })
    ),
    ([took, all]) => {
      for (const { path, text } of all) assert.deepStrictEqual(leaks(text, password), [], path)
      return { late: Duration.format(took), status: Object.fromEntries(all.map(({ path, status }) => [path, status])) }
    }
  )

const spoiled = (sql: SqlClient.SqlClient) => Effect.flip(sql`SELECT ${parameter}::text::int`)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("HealthApi in trouble", (it) => {
  it.scoped("answers everything while the pool is exhausted and its queue is full", () =>
    Effect.gen(function* () {
      const { password, serving } = yield* api.world
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const sql = yield* SqlClient.SqlClient
        const budget = yield* RetryBudget.RetryBudget
        yield* spoiled(sql)
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
        const refused = PgError.fromSqlError(yield* Effect.flip(sql`SELECT 3`))
        assert.strictEqual(refused._tag, "PoolTimeoutError")

        const { late, status } = yield* answers(origin, [...fromMemory, ...asking], password)
        const metrics = promText.parse((yield* api.ask(`${origin}/health/metrics`)).text)
        const budgeted = yield* budget.snapshot
        // Answered while all is held, and nothing has moved.
        assert.deepInclude(yield* ResilientPg.pool, { used: 1, idle: 0, waiting: 1 })
        assert.deepStrictEqual(status, Object.fromEntries([...fromMemory, ...asking].map((path) => [path, 200])))
        const exact = (name: string) =>
          metrics.get(name)!.samples.find(({ labels }) => labels["pool"] === "exhausted")?.value
        assert.strictEqual(exact("db_operations_active"), budgeted.inFlight)
        assert.isAtLeast(budgeted.inFlight, 1)
        assert.strictEqual(exact("db_circuit_breaker_failures"), 0)
        assert.strictEqual(exact("db_pool_utilization_percent"), 100)
        yield* Effect.log(`pool exhausted: the slowest answer took ${late}`)

        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(holder)
        yield* Fiber.join(waiter)
      }).pipe(Effect.provide(serving({ poolName: "exhausted", maxConnections: 1, maxWaiting: 1 })))
    })
  )

  it.scoped(
    "answers everything while the server is silent; not ready within one interval, and ready again within one",
    () =>
      Effect.gen(function* () {
        const { password, proxy, serving } = yield* api.world
        const interval = 1_500
        yield* Effect.gen(function* () {
          const origin = yield* api.origin
          const sql = yield* SqlClient.SqlClient
          const { history, latest } = yield* HealthMonitor.HealthMonitor
          const ready = Effect.map(api.ask(`${origin}/health/ready`), ({ status }) => status)
          yield* TestPg.eventually(latest, (report) => report?.probe.ok === true)
          assert.strictEqual(yield* ready, 200)
          yield* spoiled(sql)

          const before = (yield* history).length
          yield* proxy.blackHole({ existing: true, new: true })
          const stuck = yield* Effect.fork(
            Effect.exit(Operation.named("stuck-read", { timeout: "2 seconds" })(sql`SELECT ${parameter} AS x`))
          )
          yield* TestPg.eventually(ready, (status) => status === 503)
          const failed = (yield* history).slice(before)
          // The first may have been under way when the server fell silent; the one after it must tell.
          assert.isAtMost(
            failed.findIndex(({ probe }) => !probe.ok),
            1
          )

          const { late, status } = yield* answers(origin, [...fromMemory, ...asking], password)
          assert.deepStrictEqual(status, {
            ...Object.fromEntries([...fromMemory, ...asking].map((path) => [path, 200])),
            "/health": 503,
            "/health/ready": 503,
            "/resilience/connection-test": 503
          })
          const test = JSON.parse((yield* api.ask(`${origin}/resilience/connection-test`)).text)
          assert.deepInclude(test, { _tag: "ConnectionFailed" })
          assert.isTrue(Object.hasOwn(PgError.retrySafety, test.error))
          // Answered while the server is still silent: it has said nothing to anybody since.
          assert.isFalse((yield* latest)!.probe.ok)
          const inMemory = yield* answers(origin, fromMemory, password)
          yield* Effect.log(`silent server: ${late} with what asks it, ${inMemory.late} without`)
          yield* Fiber.join(stuck)

          const down = (yield* history).length
          yield* proxy.heal
          yield* TestPg.eventually(ready, (status) => status === 200)
          const since = (yield* history).slice(down)
          yield* Effect.log(`ready again with check ${since.findIndex(({ probe }) => probe.ok) + 1} after it`)
          assert.isAtMost(
            since.findIndex(({ probe }) => probe.ok),
            1
          )
          assert.strictEqual((yield* api.ask(`${origin}/resilience/connection-test`)).status, 200)
        }).pipe(Effect.provide(serving({ poolName: "silent" }, { interval, timeout: "1200 millis" })))
      })
  )

  it.scoped("says at the first question that it is not ready, where the database was never there", () =>
    Effect.gen(function* () {
      const { password, proxy, serving } = yield* api.world
      yield* proxy.refuse
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        assert.strictEqual((yield* api.ask(`${origin}/health/live`)).status, 200)
        const { status, text } = yield* api.ask(`${origin}/health/ready`)
        assert.strictEqual(status, 503)
        assert.deepInclude(JSON.parse(text), { _tag: "NotReady", reason: "ConnectionError" })
        const health = yield* api.ask(`${origin}/health`)
        assert.strictEqual(health.status, 503)
        // Nothing of where the database is: this one is for everyone.
        assert.notInclude(health.text, "127.0.0.1")
        assert.notInclude(text, "127.0.0.1")
        const { late } = yield* answers(origin, [...fromMemory, ...asking], password)
        yield* Effect.log(`no server: the slowest answer took ${late}`)
      }).pipe(Effect.provide(serving()))
    })
  )

  it.scoped("asks the database once for all who test the connection at the same moment", () =>
    Effect.gen(function* () {
      const { proxy, serving } = yield* api.world
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        yield* api.ask(`${origin}/resilience/connection-test`)
        const held = yield* proxy.hold({ on: ({ text }) => text.includes("numbackends"), times: Infinity })
        const callers = yield* Effect.fork(
          Effect.all(
            Array.from({ length: 20 }, () => api.ask(`${origin}/resilience/connection-test`)),
            { concurrency: "unbounded" }
          )
        )
        yield* held.happened()
        // What is asked meanwhile of the same server is answered after those who came before it.
        yield* Effect.forEach(Array.from({ length: 20 }), () => api.ask(`${origin}/health/live`))
        assert.strictEqual(yield* held.count, 1)
        yield* held.release
        const texts = (yield* Fiber.join(callers)).map(({ status, text }) => `${status} ${text}`)
        assert.isBelow(new Set(texts).size, 20)
      }).pipe(Effect.provide(serving()))
    })
  )

  it.scoped("tells metrics that promtool takes", (context) =>
    Effect.gen(function* () {
      const { serving } = yield* api.world
      yield* Effect.gen(function* () {
        const origin = yield* api.origin
        const sql = yield* SqlClient.SqlClient
        yield* sql`SELECT 1`
        const { headers, text } = yield* api.ask(`${origin}/health/metrics`)
        assert.strictEqual(headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
        assert.isTrue(promText.parse(text).has("db_health_score"))
        const own = text.replace(
          /^(# (HELP|TYPE) )?(?!db_|pgresilience_|#).*\n|^# (HELP|TYPE) (?!db_|pgresilience_).*\n/gm,
          ""
        )
        const { error, status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], {
          input: own,
          encoding: "utf8"
        })
        if (error !== undefined)
          return context.skip("promtool is not on PATH: the strict parser alone has judged the text")
        assert.deepStrictEqual(
          { status, said: `${stdout}${stderr}` },
          { status: 3, said: "db_query_duration_avg_ms metric names should not contain abbreviated units\n" }
        )
      }).pipe(Effect.provide(serving({ poolName: "scraped" })))
    })
  )
})
