/** What becomes of single attempts, as a layer tells it: on spans, in metrics. */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Tracer } from "effect"
import { Operation } from "effect-pg-resilience"
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

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Attempts", (it) => {
  it.scoped("that are given up in flight have a duration like those that end", () =>
    Effect.gen(function* () {
      const poolName = "given up"
      const { sql } = yield* clientOf({ poolName })
      yield* sql`SELECT 1`
      const exit = yield* Effect.exit(Operation.named("nap", { timeout: "200 millis" })(sql`SELECT pg_sleep(600)`))
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* counted(poolName, "db.client.operation.duration", OPERATION_NAME, ERROR_TYPE), {
        "select ": 1,
        "nap Interrupted": 1
      })
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
