/** The queue for a connection: bounds, order, giving up, and connects that outlive whoever asked for them. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Random, Ref, Stream, TestClock, TestContext } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, hold, proxied } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Pool: the queue", (it) => {
  it.scoped("opens no more connections than its maximum, as the server counts them, and shares them among all", () =>
    Effect.gen(function* () {
      const { pool, sessions, sql } = yield* clientOf({ maxConnections: 4 })
      const seen = yield* Ref.make<ReadonlyArray<number>>([])
      const watch = Effect.forever(
        Effect.zipRight(
          Effect.flatMap(sessions, ({ length }) => Ref.update(seen, Arr.append(length))),
          Effect.yieldNow()
        )
      )
      const watcher = yield* Effect.fork(watch)
      yield* Effect.forEach(Arr.range(1, 40), () => Effect.repeatN(sql`SELECT pg_sleep(0.02)`, 2), {
        concurrency: "unbounded"
      })
      yield* Fiber.interrupt(watcher)
      assert.isAtMost(Math.max(...(yield* seen)), 4)
      assert.lengthOf(yield* sessions, 4)
      const { idle, total, used, waiting } = yield* pool
      assert.deepStrictEqual({ idle, total, used, waiting }, { idle: 4, total: 4, used: 0, waiting: 0 })
    })
  )

  it.scoped("serves whoever waits in the order in which they came", () =>
    Effect.gen(function* () {
      const { pool, sql } = yield* clientOf({ maxConnections: 1 })
      const held = yield* hold(sql)
      const served = yield* Ref.make<ReadonlyArray<number>>([])
      const fibers = yield* Effect.forEach(Arr.range(1, 20), (n) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(
            Effect.scoped(Effect.zipRight(sql.reserve, Ref.update(served, Arr.append(n))))
          )
          yield* TestPg.eventually(pool, ({ waiting }) => waiting === n)
          return fiber
        })
      )
      yield* held.release
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(yield* served, Arr.range(1, 20))
    })
  )

  it.scoped("refuses at once whoever would wait beyond maxWaiting, and says so", () =>
    Effect.gen(function* () {
      const { pool, sql } = yield* clientOf({ maxConnections: 1, maxWaiting: 2 })
      const held = yield* hold(sql)
      const waiting = yield* Effect.fork(Effect.all([sql`SELECT 1`, sql`SELECT 2`], { concurrency: 2 }))
      yield* TestPg.eventually(pool, ({ waiting }) => waiting === 2)
      const error = yield* failure(sql`SELECT 3`)
      assert.strictEqual(error._tag, "PoolTimeoutError")
      assert.strictEqual(error.phase, "Acquire")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.match(error.message, /^The queue for a connection is full: 1 of 1 connections in use, 2 waiting/)
      yield* held.release
      assert.lengthOf(yield* Fiber.join(waiting), 2)
    })
  )

  it.scoped("with maxWaiting 0 still opens connections for those who need one, up to the maximum", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf({ maxConnections: 2, maxWaiting: 0 })
      const first = yield* hold(sql)
      yield* hold(sql)
      assert.strictEqual((yield* failure(sql`SELECT 1`))._tag, "PoolTimeoutError")
      yield* first.release
      assert.lengthOf(yield* sql`SELECT 1`, 1)
    })
  )

  it.scoped(
    "ends the wait after acquireTimeout of the caller's Clock, not a millisecond before, with the figures",
    () =>
      Effect.gen(function* () {
        const { pool, sql } = yield* clientOf({ maxConnections: 1, acquireTimeout: "30 seconds" })
        const held = yield* hold(sql)
        const error = yield* Effect.gen(function* () {
          const waiter = yield* Effect.fork(failure(sql`SELECT 1`))
          yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
          yield* TestClock.adjust("29999 millis")
          assert.isNull(waiter.unsafePoll())
          assert.strictEqual((yield* pool).waiting, 1)
          yield* TestClock.adjust("1 millis")
          return yield* Fiber.join(waiter)
        }).pipe(Effect.provide(TestContext.TestContext))
        assert.strictEqual(error._tag, "PoolTimeoutError")
        assert.match(
          error.message,
          /^No connection came free within 30000 ms: 1 of 1 connections in use, 0 waiting\. Shorten/
        )
        yield* held.release
        assert.lengthOf(yield* sql`SELECT 1`, 1)
      })
  )

  it.scoped("lets those who wait longer than others time out each in its turn", () =>
    Effect.gen(function* () {
      const { pool, sql } = yield* clientOf({ minConnections: 1, maxConnections: 1, acquireTimeout: "100 millis" })
      // Opening the connection may take longer than that.
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
      const held = yield* hold(sql)
      const ended = yield* Ref.make<ReadonlyArray<number>>([])
      const fibers = yield* Effect.forEach(Arr.range(1, 5), (n) =>
        Effect.fork(Effect.zipRight(failure(sql`SELECT 1`), Ref.update(ended, Arr.append(n))))
      )
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(yield* ended, [1, 2, 3, 4, 5])
      assert.strictEqual((yield* pool).waiting, 0)
      yield* held.release
    })
  )

  it.scoped("an interrupted waiter leaves the queue at once, and the others keep their places", () =>
    Effect.gen(function* () {
      const { pool, sql } = yield* clientOf({ maxConnections: 1 })
      const held = yield* hold(sql)
      const served = yield* Ref.make<ReadonlyArray<number>>([])
      const fibers = yield* Effect.forEach([1, 2, 3] as const, (n) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(Effect.zipRight(sql`SELECT 1`, Ref.update(served, Arr.append(n))))
          yield* TestPg.eventually(pool, ({ waiting }) => waiting === n)
          return fiber
        })
      )
      // The connection is still held: nothing but the interruption itself can end this.
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fibers[1]!)))
      assert.strictEqual((yield* pool).waiting, 2)
      yield* held.release
      yield* Fiber.joinAll([fibers[0]!, fibers[2]!])
      assert.deepStrictEqual(yield* served, [1, 3])
    })
  )

  it.scoped("storms of interruptions leak neither connections nor places in the queue", () =>
    Effect.gen(function* () {
      const { pool, sessions, sql } = yield* clientOf({ maxConnections: 4 })
      const uses = [
        sql`SELECT pg_sleep(0.004)`,
        Effect.scoped(Effect.flatMap(sql.reserve, (held) => held.execute("SELECT pg_sleep(0.002)", [], undefined))),
        sql.withTransaction(sql`SELECT pg_sleep(0.002)`),
        Stream.runDrain(sql`SELECT generate_series(1, 300)`.stream),
        sql.withTransaction(sql.withTransaction(sql`SELECT 1`))
      ]
      const storm = Effect.gen(function* () {
        const use = yield* Random.choice(uses)
        const millis = yield* Random.nextIntBetween(0, 25)
        yield* Effect.timeoutOption(use, millis)
      })
      for (const seed of ["first", "second", "third"]) {
        yield* Effect.forEach(Arr.range(1, 200), () => storm, { concurrency: "unbounded" }).pipe(
          Effect.withRandom(Random.make(seed))
        )
      }
      const { idle, total } = yield* TestPg.eventually(
        pool,
        ({ closing, connecting, idle, total, waiting }) => idle === total && waiting + connecting + closing === 0
      )
      assert.isAtMost(total, 4)
      assert.strictEqual(idle, total)
      const rows = yield* Effect.forEach(Arr.range(1, 10), (n) => sql<{ n: number }>`SELECT ${n}::int AS n`, {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        Arr.flatten(rows),
        Arr.makeBy(10, (i) => ({ n: i + 1 }))
      )
      // One that was opened for the ten may still be on its way in.
      yield* TestPg.eventually(
        sessions,
        (remaining) => remaining.length <= 4 && remaining.every(({ state }) => state === "idle")
      )
    })
  )

  it.scoped("a connect whose caller was interrupted comes to the pool", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({ url, maxConnections: 2 })
      const startup = yield* proxy.hold({ on: FaultProxy.kind("StartupMessage") })
      const caller = yield* Effect.fork(sql`SELECT 1`)
      yield* startup.happened()
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(caller)))
      const { connecting, waiting } = yield* pool
      assert.deepStrictEqual({ connecting, waiting }, { connecting: 1, waiting: 0 })
      yield* startup.release
      yield* TestPg.eventually(pool, ({ connecting, idle }) => idle === 1 && connecting === 0)
      yield* sql`SELECT 1`
      assert.strictEqual((yield* proxy.stats).attempted, 1)
    })
  )
})
