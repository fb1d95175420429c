/**
 * Migrations: the folder `migrations/`, shown, applied by three programs that start at the same time, undone and applied again.
 *
 *   npx tsx examples/migrations.ts
 */
import { fileURLToPath } from "node:url"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Effect, Layer } from "effect"
import { Migrations } from "effect-pg-resilience"
import { database } from "./database.js"

const folder = fileURLToPath(new URL("migrations", import.meta.url))
const options = { loader: Migrations.fromDirectory(folder), lockTimeout: "2 seconds" } as const

const titles = (steps: ReadonlyArray<Migrations.Step>) =>
  steps.map(({ direction, id, name }) => `${direction} ${id}_${name}`).join(", ") || "nothing"

const program = Effect.gen(function* () {
  for (const { name, statements } of yield* Migrations.plan(options)) {
    yield* Effect.log(`${name}: ${statements.length} statements, the first: ${statements[0]?.sql}`)
  }

  const starts = yield* Effect.replicateEffect(Migrations.up(options), 3, { concurrency: "unbounded" })
  yield* Effect.log(`three starts: ${titles(starts.flatMap(({ done }) => done))}`)

  const sql = yield* SqlClient.SqlClient
  const emails = yield* sql<{ email: string }>`SELECT email FROM accounts ORDER BY id`
  yield* Effect.log(emails.map(({ email }) => email).join(" and "))

  yield* Effect.log(`undone: ${titles((yield* Migrations.rollback(options, 2)).done)}`)
  yield* Effect.log(`again: ${titles((yield* Migrations.up(options)).done)}`)
  for (const { check, id, name, state } of yield* Migrations.status(options)) {
    yield* Effect.log(`${id}_${name} is ${state}, ${check}`)
  }
})

NodeRuntime.runMain(Effect.provide(program, Layer.merge(database(), NodeContext.layer)))
