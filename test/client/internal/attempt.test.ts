import { SqlClient, type SqlError } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Scheduler } from "effect"
import { Operation, ResilientPg } from "effect-pg-resilience"
import * as TestPg from "../../support/TestPg.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("An operation", (it) => {
  it.scoped("whose deadline comes between the answer to its write and its going on says that the write was made", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control("CREATE TABLE kept (n int)", [], url)
      const limit = 500
      let writer: unknown
      const held: Array<() => void> = []
      /** Keeps the writing fiber from going on, as a busy event loop may. */
      const scheduler: Scheduler.Scheduler = {
        shouldYield: (fiber) => Scheduler.defaultScheduler.shouldYield(fiber),
        scheduleTask: (task, priority, fiber) => {
          if (fiber !== undefined && fiber === writer) held.push(task)
          else Scheduler.defaultScheduler.scheduleTask(task, priority, fiber)
        }
      }
      const error = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* ResilientPg.ready()
        const write = Effect.withFiberRuntime<unknown, SqlError.SqlError>((fiber) => {
          writer = fiber
          return sql`INSERT INTO kept VALUES (1)`
        })
        const since = performance.now()
        const fiber = yield* Effect.fork(
          Effect.withScheduler(Effect.flip(Operation.named("keep", { timeout: limit })(write)), scheduler)
        )
        yield* TestPg.eventually(
          Effect.sync(() => held.length),
          (n) => n > 0
        )
        yield* TestPg.eventually(
          Effect.sync(() => performance.now() - since),
          (millis) => millis > limit + 100
        )
        writer = undefined
        for (const task of held) task()
        return yield* Fiber.join(fiber)
      }).pipe(Effect.provide(ResilientPg.layer({ url })))
      assert.deepStrictEqual(yield* TestPg.control("SELECT n FROM kept", [], url), [{ n: 1 }])
      assert.strictEqual(error._tag, "OutcomeUnknownError")
    })
  )
})
