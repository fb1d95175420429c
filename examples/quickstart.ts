/**
 * The smallest program: one layer provided, and queries as with `@effect/sql-pg`.
 *
 *   npx tsx examples/quickstart.ts
 */

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { Operation } from "effect-pg-resilience"
import { database } from "./database.js"

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE TEMPORARY TABLE greetings (language text PRIMARY KEY, text text NOT NULL)`
  yield* sql`INSERT INTO greetings ${sql.insert([
    { language: "en", text: "Hello" },
    { language: "de", text: "Hallo" }
  ])}`

  // A name and a deadline for what belongs together. The error channel is now made of tags.
  const rows = yield* sql<{ text: string }>`SELECT text FROM greetings ORDER BY language`.pipe(
    Operation.named("list-greetings", { timeout: "2 seconds" })
  )
  yield* Effect.log(rows.map(({ text }) => text).join(", "))
})

// A temporary table lives as long as its connection, so this program wants exactly one.
NodeRuntime.runMain(Effect.provide(program, database({ minConnections: 1, maxConnections: 1 })))
