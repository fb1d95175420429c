/** Ways in which a slot of the pool was lost, or the server was knocked at without pause. */
import { Buffer } from "node:buffer"
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Metric, type MetricState, Redacted, Ref, Schedule } from "effect"
import type { PgError } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, hold } from "./support.js"

/** What stands before the server hangs up right after the first ReadyForQuery, until it is healed. */
const greeter = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.EmbeddedPostgres
  const idle = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])
  const sockets = new Set<Net.Socket>()
  let attempts = 0
  let ill = true
  const listener = Net.createServer((client) => {
    attempts++
    const upstream = Net.connect(server.config.port, server.config.host)
    for (const [one, other] of [
      [client, upstream],
      [upstream, client]
    ] as const) {
      sockets.add(one)
      one.on("error", () => other.destroy())
      one.on("close", () => other.destroy())
    }
    client.pipe(upstream)
    upstream.on("data", (data) => {
      client.write(data)
      if (ill && data.includes(idle)) client.end()
    })
  })
  yield* Effect.acquireRelease(
    Effect.async<void>((resume) => {
      listener.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        listener.close()
      })
  )
  const url = new URL(Redacted.value(server.url))
  url.port = String((listener.address() as Net.AddressInfo).port)
  return {
    url: Redacted.make(url.href),
    attempts: Effect.sync(() => attempts),
    heal: Effect.sync(() => {
      ill = false
    })
  }
})

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

  it.scoped("who greets and hangs up is asked ever more slowly, by one connection at a time, until one answers", () =>
    Effect.gen(function* () {
      const { attempts, heal, url } = yield* greeter
      const { pool, sessions, sql } = yield* clientOf({ url, minConnections: 2, retry: false, breaker: false })
      const atOnce = yield* Ref.make(0)
      const watcher = yield* Effect.fork(
        Effect.repeat(
          Effect.flatMap(pool, ({ connecting }) => Ref.update(atOnce, (most) => Math.max(most, connecting))),
          Schedule.spaced("2 millis")
        )
      )
      const knocks = (count: number) =>
        Effect.gen(function* () {
          const before = yield* attempts
          const began = performance.now()
          yield* TestPg.eventually(attempts, (now) => now >= before + count)
          return performance.now() - began
        })
      // For `minConnections`: the first two at once, then after at least 25, 50, 100, 200 and 400 ms.
      assert.isAtLeast(yield* knocks(7), 700)
      // No faster for many who ask, and none of them is given such a connection.
      const failures = yield* Ref.make<ReadonlyArray<PgError.PgError>>([])
      yield* Ref.set(atOnce, 0)
      const queries = yield* Effect.fork(
        Effect.replicateEffect(
          Effect.eventually(
            Effect.tapError(sql`SELECT 1 AS one`, ({ cause }) =>
              Ref.update(failures, (all) => [...all, cause as PgError.PgError])
            )
          ),
          20,
          { concurrency: "unbounded" }
        )
      )
      assert.isAtLeast(yield* knocks(4), 1_000)
      assert.strictEqual(yield* Ref.get(atOnce), 1)
      yield* Fiber.interrupt(watcher)
      assert.isAtLeast((yield* Ref.get(failures)).length, 20)
      for (const error of yield* Ref.get(failures)) {
        assert.deepStrictEqual([error._tag, error.outcome], ["ConnectionError", "NotApplied"])
      }
      yield* heal
      assert.lengthOf(yield* Fiber.join(queries), 20)
      yield* TestPg.eventually(sessions, ({ length }) => length >= 2)
    })
  )
})
