/**
 * A program that does its work once for a key, says `done` when it has and before it is committed, and then waits to be
 * killed. Arguments: the URL, the key.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Redacted, Schema } from "effect"
import { ResilientPg, Transaction } from "../../../src/index.js"

const [url = "", key = ""] = process.argv.slice(2)

await Effect.runPromise(
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    const work = Effect.gen(function* () {
      yield* sql`INSERT INTO kept (n) VALUES (1)`
      yield* Effect.sync(() => console.log("done"))
      return yield* Effect.never
    })
    yield* Transaction.once(key, Schema.Number, work)
  }).pipe(Effect.provide(ResilientPg.layer({ url: Redacted.make(url), applicationName: "once" })))
)
