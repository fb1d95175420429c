/** What the bare client would do, ours does: once the server is back, nothing is refused for what happened before. */

import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { CircuitBreaker, type PgError, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("After an outage", (it) => {
  it.scoped("a newcomer waits for the first statements that try the server again, and is not refused", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      const context = yield* Layer.build(ResilientPg.layer({ url, retry: false }))
      const sql = Context.get(context, PgClient.PgClient)
      const { snapshot, state } = Context.get(context, CircuitBreaker.CircuitBreaker)
      yield* server.stop()
      yield* TestPg.eventually(Effect.zipRight(Effect.ignore(sql`SELECT 1`), state), (now) => now === "Open")
      yield* server.start
      yield* TestPg.eventually(state, (now) => now === "HalfOpen")
      const trying = "SELECT pg_sleep(64)"
      const slow = yield* Effect.forEach([1, 2, 3], () => Effect.fork(sql.unsafe(trying)))
      const running = TestPg.control("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = $1", [trying])
      yield* TestPg.eventually(running, ({ length }) => length === 3)
      const newcomer = yield* Effect.fork(sql`SELECT 1 AS one`)
      yield* TestPg.eventually(snapshot, ({ waiting }) => waiting === 1 || newcomer.unsafePoll() !== null)
      assert.isNull(newcomer.unsafePoll())
      yield* Fiber.interrupt(slow[0]!)
      assert.deepStrictEqual(yield* Fiber.join(newcomer), [{ one: 1 }])
      yield* Fiber.interruptAll(slow)
    })
  )

  it.scoped("a reserved connection that was lost is no outage, however often the program tries it", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      const context = yield* Layer.build(ResilientPg.layer({ url }))
      const sql = Context.get(context, PgClient.PgClient)
      const { snapshot } = Context.get(context, CircuitBreaker.CircuitBreaker)
      const { pool } = Context.get(context, ResilientPg.ResilientPg)
      const connection = yield* sql.reserve
      const [[pid]] = (yield* connection.executeValues("SELECT pg_backend_pid()", [])) as [[number]]
      yield* server.terminate(pid)
      yield* TestPg.eventually(pool, ({ total }) => total === 0)
      // As a cluster's runner does with the connection of its shard locks, until it has another one.
      const errors = yield* Effect.replicateEffect(Effect.flip(connection.executeRaw("SELECT 1", [])), 10)
      for (const { cause } of errors) assert.strictEqual((cause as PgError.PgError).outcome, "NotApplied")
      assert.deepInclude(yield* snapshot, { state: "Closed", trips: 0 })
      assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
    })
  )
})
