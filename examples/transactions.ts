/**
 * Transactions: all or nothing, nested ones that may fail, and one that is repeated when two get in each other's way.
 *
 *   npx tsx examples/transactions.ts
 */

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { Transaction } from "effect-pg-resilience"
import { database } from "./database.js"

const balance = (id: number) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [row] = yield* sql<{ balance: number }>`SELECT balance FROM accounts WHERE id = ${id}`
    return row?.balance ?? 0
  })

const add = (id: number, amount: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE accounts SET balance = balance + ${amount} WHERE id = ${id}`)

/** Reads before it writes, so two of them at once cannot both be right: one is repeated, from its beginning. */
const transfer = (from: number, to: number, amount: number) =>
  Effect.gen(function* () {
    if ((yield* balance(from)) < amount) return yield* Effect.fail("not enough money" as const)
    yield* add(from, -amount)
    yield* add(to, amount)
  }).pipe((body) => Transaction.serializable(body, { name: "transfer" }))

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0))`
  yield* sql`INSERT INTO accounts VALUES (1, 100), (2, 100)`

  yield* Effect.forEach([10, 20, 30], (amount) => transfer(1, 2, amount), { concurrency: "unbounded" })
  yield* Effect.log(`after three transfers at once: ${yield* balance(1)} and ${yield* balance(2)}`)

  // The body's own failure rolls back, and comes out as it is.
  yield* Effect.log(yield* Effect.flip(transfer(1, 2, 1_000)))

  // What may fail gets a transaction of its own inside; the rest of the work stays.
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* add(1, 5)
      yield* sql.withTransaction(add(2, -1_000)).pipe(Effect.catchAll(() => Effect.log("the nested one was undone")))
    })
  )
  yield* Effect.log(`in the end: ${yield* balance(1)} and ${yield* balance(2)}`)
})

NodeRuntime.runMain(Effect.provide(program, database()))
