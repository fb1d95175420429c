/** Ways in which a slot of the pool was lost, or the server was knocked at without pause. */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Metric, type MetricState } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
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

  it.scoped("a COMMIT that gets no answer, its caller gone, does not keep its slot for long", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      const client = yield* clientOf({ url: proxy.url(url), maxConnections: 1, acquireTimeout: "20 seconds" })
      yield* client.sql`CREATE TABLE kept (n int)`
      const held = yield* proxy.hold({ on: FaultProxy.query(/^COMMIT/) })
      const fiber = yield* Effect.fork(client.sql.withTransaction(client.sql`INSERT INTO kept VALUES (1)`))
      yield* held.happened()
      yield* proxy.blackHole({ existing: true })
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      assert.strictEqual((yield* client.pool).quarantined, 1)
      assert.deepStrictEqual(yield* client.sql`SELECT 1 AS one`, [{ one: 1 }])
    })
  )

  it.scoped("a `stream` that throws when a statement is to be cancelled costs its connection, and not the slot", () =>
    Effect.gen(function* () {
      let broken = false
      const client = yield* clientOf({
        maxConnections: 1,
        acquireTimeout: "20 seconds",
        stream: () => {
          if (broken) throw new Error("the tunnel is down")
          return new Net.Socket()
        }
      })
      const before = yield* client.pid
      const fiber = yield* Effect.fork(client.sql`SELECT pg_sleep(600)`)
      yield* TestPg.eventually(client.sessions, ([one]) => one?.query === "SELECT pg_sleep(600)")
      broken = true
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      yield* TestPg.eventually(client.pool, ({ total }) => total === 0)
      broken = false
      assert.notStrictEqual(yield* client.pid, before)
      // Nobody could ask the server to end it.
      yield* TestPg.control("SELECT pg_terminate_backend($1)", [before])
    })
  )

  it.scoped("an event loop that stands still while connections are checked costs none of them", () =>
    Effect.gen(function* () {
      const size = 5
      const { pool, sessions, sql } = yield* clientOf({ maxConnections: size, checkAfterIdle: 0 })
      yield* Effect.scoped(Effect.replicateEffect(hold(sql), size, { concurrency: "unbounded" }))
      yield* TestPg.eventually(pool, ({ idle }) => idle === size)
      const before = yield* sessions
      const asking = yield* Effect.fork(Effect.replicateEffect(sql`SELECT 1`, size, { concurrency: "unbounded" }))
      // In the same turn of the event loop, so that no answer has been read when it stops.
      yield* Effect.repeat(Effect.zipLeft(pool, Effect.yieldNow()), {
        times: 1_000,
        until: ({ quarantined }) => quarantined === size
      })
      assert.strictEqual((yield* pool).quarantined, size)
      const end = performance.now() + 1_500
      while (performance.now() < end) {}
      yield* Fiber.join(asking)
      assert.strictEqual((yield* pool).generation, 0)
      assert.deepStrictEqual(
        (yield* sessions).map(({ pid }) => pid),
        before.map(({ pid }) => pid)
      )
    })
  )
})
