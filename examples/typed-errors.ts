/**
 * One tag for each decision that a program can take: handle it, try again, or look before repeating.
 *
 *   npx tsx examples/typed-errors.ts
 */

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Duration, Effect } from "effect"
import { Operation, PgError } from "effect-pg-resilience"
import { database } from "./database.js"

const register = (email: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`INSERT INTO users (email) VALUES (${email})`
    return "registered" as const
  }).pipe(
    Operation.named("register-user", { timeout: "2 seconds" }),
    // The program's own business: the address is taken. `constraint` says which rule it was.
    Effect.catchTag("UniqueViolation", ({ constraint }) => Effect.succeed(`taken (${constraint})` as const)),
    // Nothing was sent: say so, and when to come back, where that is known.
    Effect.catchTag("CircuitOpenError", "PoolTimeoutError", ({ retryAfter = Duration.seconds(1) }) =>
      Effect.succeed(`busy, try again in ${Duration.format(retryAfter)}` as const)
    ),
    // The one case in which repeating could do it twice: look first.
    Effect.catchTag("OutcomeUnknownError", ({ reason }) => Effect.succeed(`unknown after ${reason._tag}` as const))
  )

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE users (email text PRIMARY KEY)`
  yield* Effect.log(yield* register("ada@example.com"))
  yield* Effect.log(yield* register("ada@example.com"))

  // Without an operation the failure is an `SqlError`, as ever; its cause is the same typed error.
  const error = yield* Effect.flip(sql`SELECT * FROM nowhere`)
  const { _tag, outcome, sqlState } = PgError.fromSqlError(error)
  yield* Effect.log(`${_tag} ${sqlState} ${outcome}`)
})

NodeRuntime.runMain(Effect.provide(program, database()))
