/**
 * What the load tester itself costs: operations a second that do nothing, and the heap while a million of them run.
 *
 *   node --expose-gc --import tsx test/operations/programs/loadMemory.ts
 *
 * With `DATABASE_URL` also for a thousand fibers with a thousand `SELECT 1` each.
 */
import { SqlClient } from "@effect/sql"
import { Config, Console, Effect, Option } from "effect"
import { LoadTest, ResilientPg } from "effect-pg-resilience"

const heap = (): number => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed / 2 ** 20
}

const fibers = 1000
const each = 1000

const measured = <R>(name: string, effect: Effect.Effect<unknown, unknown, R>) =>
  Effect.gen(function* () {
    yield* LoadTest.run({ scenario: { warm: effect }, concurrency: fibers, operations: 20 })
    const before = heap()
    const seen: Array<number> = []
    let next = 0.1
    const result = yield* LoadTest.run({
      scenario: { operation: effect },
      concurrency: fibers,
      operations: each,
      sampleEvery: "100 millis",
      onProgress: ({ fraction }) => {
        if (fraction < next) return
        next = fraction + 0.2
        seen.push(heap())
      }
    })
    const shown = [before, ...seen, heap()].map((megabytes) => megabytes.toFixed(1)).join(", ")
    const { failed, rate, succeeded } = result.total
    yield* Console.log(
      `${name}: ${succeeded} operations, ${failed} failed, ${Math.round(rate)} a second; heap in MB before, meanwhile, after: ${shown}`
    )
  })

const program = Effect.gen(function* () {
  yield* measured("nothing", Effect.void)
  yield* measured("a yield", Effect.yieldNow())
  const url = yield* Config.option(Config.redacted("DATABASE_URL"))
  if (Option.isSome(url)) {
    yield* Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* measured("SELECT 1", sql`SELECT 1`)
    }).pipe(Effect.provide(ResilientPg.layer({ url: url.value })))
  }
})

await Effect.runPromise(program)
