/** Connecting: what a connection needs before its first use, that hangs, or leaves something behind. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Ref } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { turns } from "./heldUp.js"
import { advisoryLock, clientOf, failure, proxied, waitingForLock } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Connecting", (it) => {
  it.scoped("a set-up that gets no answer ends at connectTimeout, and the next connection serves", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({
        url,
        retry: false,
        connectTimeout: "2 seconds",
        acquireTimeout: "20 seconds",
        parameters: { search_path: "public" }
      })
      const held = yield* proxy.hold({ on: FaultProxy.query(/set_config/) })
      const waiting = yield* Effect.fork(failure(sql`SELECT 1`))
      yield* held.happened()
      yield* proxy.blackHole({ existing: true })
      const error = yield* Fiber.join(waiting)
      assert.strictEqual(error._tag, "ConnectionError")
      assert.isTrue(error.transient)
      assert.strictEqual(error.outcome, "NotApplied")
      assert.include(error.message, "connectTimeout (2000 ms)")
      assert.include(error.message, "`parameters`")
      assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
      assert.strictEqual((yield* pool).total, 1)
    })
  )

  for (const [what, never] of [
    ["interruptible", Effect.never],
    ["uninterruptible", Effect.uninterruptible(Effect.never)]
  ] as const) {
    it.scoped(`a password or an onConnect that never comes ends at connectTimeout: ${what}`, () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        const { database, host, password, port, username } = server.config
        const calls = yield* Ref.make(0)
        const once = Effect.flatMap(
          Ref.getAndUpdate(calls, (n) => n + 1),
          (n) => (n === 0 ? never : Effect.void)
        )
        const options = { retry: false, connectTimeout: "1500 millis", acquireTimeout: "20 seconds" } as const
        const settings = [
          ["the password", { url: undefined, database, host, port, username, password: Effect.as(once, password) }],
          ["`onConnect`", { onConnect: () => once }]
        ] as const
        for (const [name, setting] of settings) {
          yield* Ref.set(calls, 0)
          const { sessions, sql } = yield* clientOf({ ...options, ...setting })
          const error = yield* failure(sql`SELECT 1`)
          assert.strictEqual(error._tag, "ConnectionError")
          assert.include(error.message, name)
          assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
          // The one that hung is gone from the server, too.
          yield* TestPg.eventually(sessions, ({ length }) => length === 1)
        }
      })
    )
  }

  it.scoped("what onConnect gives up on the way is waited for before the connection's first use", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const lock = yield* advisoryLock(45)
      const query = "SELECT pg_advisory_xact_lock(45)"
      const givenUp = yield* Deferred.make<void>()
      const { pool, sql } = yield* clientOf({
        maxConnections: 1,
        onConnect: (connection) =>
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(connection.execute(query, [], undefined))
            yield* TestPg.eventually(waitingForLock(query), (count) => count === 1)
            assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
            yield* Deferred.succeed(givenUp, undefined)
          }).pipe(Effect.provideService(EmbeddedPostgres.EmbeddedPostgres, server))
      })
      const first = yield* Effect.fork(sql`SELECT 1 AS one`)
      yield* Deferred.await(givenUp)
      yield* turns
      assert.isNull(first.unsafePoll())
      yield* lock.release
      assert.deepStrictEqual(yield* Fiber.join(first), [{ one: 1 }])
      assert.strictEqual((yield* pool).idle, 1)
    })
  )
})
