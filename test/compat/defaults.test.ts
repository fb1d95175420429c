/** What the bare client would finish, ours finishes: with nothing configured, time alone ends nothing but the wait for a place. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Stream, TestClock, TestContext } from "effect"
import { advisoryLock, clientOf, failure, waitingForLock } from "../client/support.js"
import * as TestPg from "../support/TestPg.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Defaults", (it) => {
  it.scoped("end no statement, stream, transaction or reserved connection, however long it takes", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf()
      const lock = yield* advisoryLock(41)
      const waits = sql`SELECT pg_advisory_xact_lock_shared(41)`
      const reserved = Effect.scoped(
        Effect.flatMap(sql.reserve, (_) => _.executeRaw("SELECT pg_advisory_xact_lock_shared(41)", []))
      )
      const all: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        waits,
        Stream.runCollect(waits.stream),
        sql.withTransaction(waits),
        sql.withTransaction(sql.withTransaction(waits)),
        reserved
      ]
      const fibers = yield* Effect.forEach(all, (one) => Effect.fork(one))
      yield* TestPg.eventually(waitingForLock("SELECT pg_advisory_xact_lock_shared(41)"), (n) => n === all.length)
      yield* TestClock.adjust("2 days")
      assert.strictEqual(yield* waitingForLock("SELECT pg_advisory_xact_lock_shared(41)"), all.length)
      for (const fiber of fibers) assert.isNull(fiber.unsafePoll())
      yield* lock.release
      for (const fiber of fibers) yield* Fiber.join(fiber)
    }).pipe(Effect.provide(TestContext.TestContext))
  )

  it.scoped("give 10 connections, and end the wait for one after 30 seconds", () =>
    Effect.gen(function* () {
      const { pool, sql } = yield* clientOf()
      yield* Effect.replicateEffect(sql.reserve, 10)
      const fiber = yield* Effect.fork(failure(sql`SELECT 1`))
      yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
      yield* TestClock.adjust("29999 millis")
      assert.isNull(fiber.unsafePoll())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "PoolTimeoutError")
    }).pipe(Effect.provide(TestContext.TestContext))
  )
})
