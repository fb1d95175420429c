/** What the pool learns from connections that are lost while somebody uses them. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, hold, proxied } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Pool: losses in use", (it) => {
  it.scoped("a connection lost with a statement in flight makes all others suspect", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { pool, sessions, sql } = yield* clientOf({ maxConnections: 2, retry: false })
      const running = yield* Effect.fork(Effect.exit(sql`SELECT pg_sleep(600)`))
      const [session] = yield* TestPg.eventually(sessions, ([one]) => one?.query === "SELECT pg_sleep(600)")
      yield* server.terminate(session!.pid)
      yield* Fiber.join(running)
      assert.strictEqual((yield* pool).generation, 1)
    })
  )

  it.scoped(
    "connections lost in use are not opened again all at once: one attempt at a time looks for the server",
    () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* proxied
        const size = 10
        const { pool, sql } = yield* clientOf({ url, maxConnections: size, retry: false })
        yield* Effect.scoped(Effect.replicateEffect(hold(sql), size, { concurrency: "unbounded" }))
        const asleep = yield* Effect.fork(
          Effect.replicateEffect(Effect.exit(sql`SELECT pg_sleep(600)`), size, { concurrency: "unbounded" })
        )
        yield* TestPg.eventually(pool, ({ used }) => used === size)
        const waiting = yield* Effect.fork(
          Effect.replicateEffect(Effect.exit(sql`SELECT 1`), size, { concurrency: "unbounded" })
        )
        yield* TestPg.eventually(pool, ({ waiting }) => waiting === size)
        yield* proxy.blackHole({ existing: false, new: true })
        const before = yield* proxy.stats
        yield* proxy.reset
        yield* Fiber.join(asleep)
        yield* TestPg.eventually(proxy.stats, ({ attempted }) => attempted > before.attempted)
        assert.strictEqual((yield* pool).connecting, 1)
        yield* proxy.heal
        for (const exit of yield* Fiber.join(waiting)) assert.strictEqual(exit._tag, "Success")
      })
  )
})
