/** How the pool connects while a server is away, coming back, or not to be had: one prober, then a slow start. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Clock, Effect, Fiber, Redacted, Ref, Schedule } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, hold, proxied } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Pool: outages", (it) => {
  it.scoped("a cold pool fills by slow start: 1, 2, 4 and 8 connections at once", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({ url, maxConnections: 20 })
      const on = FaultProxy.kind("StartupMessage")
      const steps = yield* Effect.forEach([1, 2, 4, 8], (times) => proxy.hold({ on, times }))
      const holders = yield* Effect.fork(
        Effect.scoped(
          Effect.zipRight(
            Effect.forEach(Arr.range(1, 20), () => hold(sql), { concurrency: "unbounded" }),
            Effect.never
          )
        )
      )
      const attempted: Array<number> = []
      for (const [i, step] of steps.entries()) {
        yield* step.happened([1, 2, 4, 8][i]!)
        attempted.push((yield* proxy.stats).attempted)
        assert.strictEqual((yield* pool).connecting, [1, 2, 4, 8][i])
        yield* step.release
      }
      assert.deepStrictEqual(attempted, [1, 3, 7, 15])
      yield* TestPg.eventually(pool, ({ used }) => used === 20)
      assert.strictEqual((yield* proxy.stats).attempted, 20)
      yield* Fiber.interrupt(holders)
    })
  )

  it.scoped("while the server refuses, one prober tries for all, ever more slowly; then the pool serves all", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({ url, maxConnections: 10, retry: false, breaker: false })
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      yield* Effect.addFinalizer(() => Effect.orDie(server.start))
      yield* server.stop()
      // Behind the proxy, each try is a connection that is accepted and reset.
      const began = yield* Clock.currentTimeMillis
      const atOnce = yield* Ref.make<ReadonlyArray<number>>([])
      const watcher = yield* Effect.fork(
        Effect.repeat(
          Effect.flatMap(pool, ({ connecting }) => Ref.update(atOnce, Arr.append(connecting))),
          Schedule.spaced("2 millis")
        )
      )
      const failures = yield* Ref.make(0)
      const query = Effect.eventually(Effect.tapError(sql`SELECT 1 AS one`, () => Ref.update(failures, (n) => n + 1)))
      const queries = yield* Effect.fork(Effect.forEach(Arr.range(1, 50), () => query, { concurrency: "unbounded" }))
      yield* TestPg.eventually(proxy.stats, ({ attempted }) => attempted >= 6)
      // Delays before tries 2 to 6: 50, 100, 200, 400 and 800 ms, of each at least half.
      assert.isAtLeast((yield* Clock.currentTimeMillis) - began, 700)
      assert.isAtLeast(yield* Ref.get(failures), 50)
      assert.strictEqual(Math.max(...(yield* Ref.get(atOnce))), 1)
      yield* Fiber.interrupt(watcher)
      yield* server.start
      assert.lengthOf(yield* Fiber.join(queries), 50)
    })
  )

  it.scoped("after a wrong password nobody knocks again until somebody asks", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const wrong = new URL(Redacted.value(url))
      wrong.password = "wrong"
      const { sql } = yield* clientOf({ url: Redacted.make(wrong.href), minConnections: 2 })
      assert.strictEqual((yield* failure(sql`SELECT 1`))._tag, "AuthenticationError")
      const { attempted } = yield* proxy.stats
      yield* TestPg.control("SELECT pg_sleep(1.5)")
      assert.strictEqual((yield* proxy.stats).attempted, attempted)
      assert.strictEqual((yield* failure(sql`SELECT 1`))._tag, "AuthenticationError")
      assert.strictEqual((yield* proxy.stats).attempted, attempted + 1)
    })
  )

  it.scoped("waiters fail with what connecting failed with, unless a connection that answers is in use", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({ url, maxConnections: 2, retry: false })
      const held = yield* hold(sql)
      yield* proxy.refuse
      const waiter = yield* Effect.fork(sql`SELECT 1`)
      yield* TestPg.eventually(pool, ({ generation }) => generation > 0)
      // What is in use is under suspicion until it has answered.
      const error = yield* failure(Fiber.join(waiter))
      assert.strictEqual(error._tag, "ConnectionError")
      assert.strictEqual(error.code, "ECONNREFUSED")
      yield* held.connection.execute("SELECT 1", [], undefined)
      const next = yield* Effect.fork(sql`SELECT 2`)
      yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
      yield* held.release
      assert.lengthOf(yield* Fiber.join(next), 1)
    })
  )

  it.scoped(
    "a server without a free slot is knocked at by one prober, and its slots are used when they come free",
    () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        yield* server.query("CREATE ROLE two LOGIN PASSWORD 'two' CONNECTION LIMIT 2")
        yield* Effect.addFinalizer(() => Effect.orDie(server.query("DROP ROLE two")))
        const as = {
          username: "two",
          password: Redacted.make("two"),
          database: "postgres",
          host: server.config.host,
          port: server.config.port,
          url: undefined
        }
        const others = yield* clientOf({ ...as, maxConnections: 2 })
        const holders = yield* Effect.all([hold(others.sql), hold(others.sql)])
        const { pool, sql } = yield* clientOf({ ...as, maxConnections: 10, retry: false })
        const error = yield* failure(sql`SELECT 1`)
        assert.strictEqual(error._tag, "TooManyConnectionsError")
        yield* Effect.forEach(holders, ({ release }) => release)
        yield* others.close
        assert.lengthOf(yield* Effect.eventually(sql`SELECT 1`), 1)
        yield* TestPg.eventually(pool, ({ waiting }) => waiting === 0)
      })
  )

  it.scoped("a set-up of connections that dies fails whoever waits, and is not repeated in a frenzy", () =>
    Effect.gen(function* () {
      const calls = yield* Ref.make(0)
      const { sql } = yield* clientOf({
        retry: false,
        acquireTimeout: "5 seconds",
        onConnect: () =>
          Effect.zipRight(
            Ref.update(calls, (n) => n + 1),
            Effect.die(new Error("a bug in onConnect"))
          )
      })
      const error = yield* failure(sql`SELECT 1`)
      assert.strictEqual(error._tag, "UnknownError")
      assert.strictEqual(yield* Ref.get(calls), 1)
    })
  )
})
