/** What becomes of single attempts, as a layer tells it: on spans, in metrics. */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Metric, Tracer } from "effect"
import { Operation, Transaction } from "effect-pg-resilience"
import * as figures from "../../src/telemetry/internal/figures.js"
import {
  ATTEMPT_FAILED,
  ATTEMPT_NUMBER,
  ERROR_TYPE,
  OPERATION_NAME,
  RESPONSE_STATUS_CODE
} from "../../src/telemetry/names.js"
import { clientOf, hold } from "../client/support.js"
import * as TestPg from "../support/TestPg.js"
import { counted } from "./counted.js"

const timeouts = (poolName: string) =>
  Effect.map(Metric.snapshot, (pairs) => figures.perPool(pairs).get(poolName)?.timeouts)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Attempts", (it) => {
  it.scoped("that are given up in flight have a duration like those that end", () =>
    Effect.gen(function* () {
      const poolName = "given up"
      const { context, sql } = yield* clientOf({ poolName })
      yield* sql`SELECT 1`
      const nap = Operation.named("nap", { timeout: "200 millis" })(sql`SELECT pg_sleep(600)`)
      const exit = yield* Effect.exit(Effect.provide(nap, context))
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* counted(poolName, "db.client.operation.duration", OPERATION_NAME, ERROR_TYPE), {
        "select ": 1,
        "nap Interrupted": 1
      })
      assert.deepStrictEqual(yield* counted(poolName, "pgresilience.operation.timeouts", OPERATION_NAME), { nap: 1 })
      assert.strictEqual(yield* timeouts(poolName), 1)
    })
  )

  it.scoped("have their operations' deadlines counted, each once, whatever it was that took so long", () =>
    Effect.gen(function* () {
      const poolName = "too late"
      const { context, sql } = yield* clientOf({ poolName, maxConnections: 1 })
      const late = <A, E>(self: Effect.Effect<A, E, Transaction.Transactor>) =>
        Effect.flip(Effect.provide(self, context))
      yield* sql`CREATE TABLE t (id int)`
      const sleep = sql`SELECT pg_sleep(600)`

      // the inner one has the outer one's deadline
      yield* late(Operation.named("inner")(sleep).pipe(Operation.named("outer", { timeout: "100 millis" })))
      // the inner one's failure ends the outer one in time
      yield* late(Operation.named("short", { timeout: "100 millis" })(sleep).pipe(Operation.named("long")))
      // handled inside
      yield* Operation.named("short", { timeout: "100 millis" })(sleep).pipe(
        Effect.catchAll(() => Effect.void),
        Operation.named("long"),
        Effect.provide(context)
      )
      yield* late(Transaction.run(sleep, { timeout: "100 millis" }))
      // of unknown outcome, in its own words
      const write = sql`INSERT INTO t SELECT 1 FROM pg_sleep(600)`
      const error = yield* late(Operation.named("write", { timeout: "100 millis" })(write))
      assert.propertyVal(error, "_tag", "OutcomeUnknownError")
      // while it waits for a connection
      const { release } = yield* hold(sql)
      yield* late(Operation.named("waiting", { timeout: "100 millis" })(sql`SELECT 1`))
      yield* release
      // by the server's own limit, long before the deadline
      yield* late(sql`SET statement_timeout = 50`.pipe(Effect.zipRight(sleep), Operation.named("limited")))
      // interrupted from outside
      const fiber = yield* Effect.fork(Effect.provide(Operation.named("left")(Effect.never), context))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fiber)

      assert.deepStrictEqual(yield* counted(poolName, "pgresilience.operation.timeouts", OPERATION_NAME), {
        outer: 1,
        short: 2,
        transaction: 1,
        write: 1,
        waiting: 1
      })
      assert.deepStrictEqual(yield* counted(poolName, "db.client.connection.timeouts"), { "": 0 })
      // and one of the server
      assert.strictEqual(yield* timeouts(poolName), 7)
    })
  )

  it.scoped("that get no connection are none, and are told by the pool", () =>
    Effect.gen(function* () {
      const poolName = "in vain"
      const { sql } = yield* clientOf({ poolName, maxConnections: 1, maxWaiting: 0 })
      const { release } = yield* hold(sql)
      yield* Effect.exit(sql`SELECT 1`)
      assert.deepStrictEqual(yield* counted(poolName, "db.client.operation.duration"), {})
      assert.deepStrictEqual(yield* counted(poolName, "db.client.connection.timeouts"), { "": 1 })
      yield* release
      yield* sql`SELECT 1`
      assert.deepStrictEqual(yield* counted(poolName, "db.client.connection.create_time"), { "": 1 })
      assert.deepStrictEqual(yield* counted(poolName, "db.client.connection.use_time"), { "": 2 })
      assert.isAbove((yield* counted(poolName, "db.client.connection.wait_time"))[""]!, 0)
    })
  )

  it.scoped("that fail inside a transaction leave an event on the span of their statement", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf()
      const events: Array<readonly [span: string, attributes: Record<string, unknown>]> = []
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        context: (f, fiber) => native.context(f, fiber),
        span: (name, ...rest) => {
          const span = native.span(name, ...rest)
          const { event } = span
          span.event = (what, time, attributes = {}) => {
            if (what === ATTEMPT_FAILED) events.push([name, attributes])
            event.call(span, what, time, attributes)
          }
          return span
        }
      })
      yield* sql.withTransaction(sql`SELECT 1 / 0`).pipe(Effect.flip, Effect.withTracer(tracer))
      assert.deepStrictEqual(events, [
        ["sql.execute", { [ERROR_TYPE]: "UnknownError", [RESPONSE_STATUS_CODE]: "22012", [ATTEMPT_NUMBER]: 1 }]
      ])
    })
  )
})
