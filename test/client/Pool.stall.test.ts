/** The program's own event loop stands still, as it does when its machine does: no fault of the server's. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import { stall } from "../support/stall.js"
import * as TestPg from "../support/TestPg.js"
import { clientOf, hold, proxied } from "./support.js"

/** The limit of a check, and half as much again. */
const longer = 1_500

/** A client with one connection, whose next use begins with a check that stops half-way to the server. */
const checked = Effect.gen(function* () {
  const { proxy, url } = yield* proxied
  const { pid, pool } = yield* clientOf({ url, maxConnections: 1, checkAfterIdle: 0, retry: false })
  const before = yield* pid
  const check = yield* proxy.hold({ on: FaultProxy.kind("Query") })
  const next = yield* Effect.fork(pid)
  yield* check.happened()
  return { proxy, pool, before, check, next }
})

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Pool: stalls of our own", (it) => {
  it.scoped("a stall while a connection is being checked does not cost the connection", () =>
    Effect.gen(function* () {
      const { before, check, next, pool } = yield* checked
      // In one go, so that the first timer due after the stall finds the check on its way and not answered.
      yield* Effect.zipRight(stall(longer), check.release)
      assert.strictEqual(yield* Fiber.join(next), before)
      assert.strictEqual((yield* pool).generation, 0)
    })
  )

  it.scoped("answers that came during a stall are read after it: no connection that was being checked is lost", () =>
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
      yield* stall(longer)
      yield* Fiber.join(asking)
      assert.strictEqual((yield* pool).generation, 0)
      assert.deepStrictEqual(
        (yield* sessions).map(({ pid }) => pid),
        before.map(({ pid }) => pid)
      )
    })
  )

  it.scoped("after a stall a connection that stays silent is noticed all the same", () =>
    Effect.gen(function* () {
      const { before, next, pool, proxy } = yield* checked
      yield* proxy.blackHole({ existing: true })
      yield* stall(longer)
      assert.notStrictEqual(yield* Fiber.join(next), before)
      assert.strictEqual((yield* pool).generation, 1)
    })
  )
})
