/**
 * Policies are values: a retry policy per error tag, a breaker, limits, and the switch that leaves a stage out.
 *
 *   npx tsx examples/custom-policy.ts
 */

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Effect, Schedule, Stream } from "effect"
import { CircuitBreaker, Operation, ResilientPg, RetryPolicy } from "effect-pg-resilience"
import { database } from "./database.js"

const retry = RetryPolicy.make(
  {
    // Any `Schedule` over the error of its tag. This one: two retries, half a second apart.
    ResourceError: Schedule.intersect(Schedule.recurs(2), Schedule.spaced("500 millis")),
    // Full jitter, like all that this library schedules.
    LockTimeoutError: RetryPolicy.backoff({ retries: 6, first: "50 millis", factor: 2, cap: "2 seconds" }),
    // Not at all.
    ServerUnavailableError: undefined,
    maxRetries: 8
  },
  RetryPolicy.web
)

const Database = database({
  maxConnections: 4,
  retry,
  breaker: { failureThreshold: 3, resetTimeout: "10 seconds" },
  timeouts: { query: "2 seconds", transaction: "10 seconds" },
  serverTimeouts: { lock: "1 second" }
})

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const breaker = yield* CircuitBreaker.CircuitBreaker
  yield* Effect.fork(
    Stream.runForEach(breaker.changes, ({ from, reason, to }) => Effect.log(`breaker: ${from} to ${to} (${reason})`))
  )
  yield* ResilientPg.ready({ within: "10 seconds" })

  // Maintenance: nobody gets through, and everybody is told at once.
  yield* breaker.forceOpen
  const refused = yield* Effect.flip(sql`SELECT 1`.pipe(Operation.named("during-maintenance")))
  yield* Effect.log(refused._tag)
  yield* breaker.reset

  const [row] = yield* sql<{ lock_timeout: string }>`SHOW lock_timeout`
  yield* Effect.log(`lock_timeout is ${row?.lock_timeout}`)
  const { idle, max } = yield* ResilientPg.pool
  yield* Effect.log(`${idle} of at most ${max} connections idle`)
})

NodeRuntime.runMain(Effect.provide(program, Database))
