/** `PgMigrator` on our layer: fresh, again, started at several places at once, and with a migration that fails. */

import { NodeContext } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgMigrator } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Cause, Effect, Exit, Option, String } from "effect"
import { ResilientPg, Transaction } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { agree } from "./support.js"

const createUsers = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`CREATE TABLE users (id serial PRIMARY KEY, user_name text NOT NULL)`
)
const addUsers = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`INSERT INTO users ${sql.insert([{ user_name: "Ada" }, { user_name: "Grace" }])}`
  yield* sql.withTransaction(sql`INSERT INTO users ${sql.insert([{ user_name: "Alan" }])}`)
})
const failing = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.zipRight(sql`CREATE TABLE half (id int)`, sql`INSERT INTO users (id, user_name) VALUES (1, 'again')`)
)

const run = (...migrations: ReadonlyArray<Effect.Effect<unknown, unknown, SqlClient.SqlClient>>) =>
  PgMigrator.run({
    loader: PgMigrator.fromRecord(Object.fromEntries(migrations.map((migration, i) => [`${i + 1}_step`, migration])))
  }).pipe(Effect.provide(NodeContext.layer))

const state = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return {
    applied: yield* sql`SELECT migration_id, name FROM effect_sql_migrations ORDER BY 1`.values,
    users: yield* sql`SELECT id, user_name FROM users ORDER BY id`.values,
    tables: yield* sql`SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1`.values
  }
})

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("PgMigrator", (it) => {
  it.effect("migrates a fresh database, does nothing the second time, and only what is new the third", () =>
    Effect.gen(function* () {
      const { runs, users } = yield* agree(
        Effect.gen(function* () {
          const runs = [yield* run(createUsers), yield* run(createUsers), yield* run(createUsers, addUsers)]
          return { runs, ...(yield* state) }
        })
      )
      assert.deepStrictEqual(runs, [[[1, "step"]], [], [[2, "step"]]])
      assert.lengthOf(users, 3)
    })
  )

  it.effect("does so under names that are transformed", () =>
    agree(
      Effect.zip(
        run(createUsers, addUsers),
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT * FROM users`)
      ),
      { transformQueryNames: String.camelToSnake, transformResultNames: String.snakeToCamel }
    )
  )

  it.effect("leaves nothing of a run in which a migration fails, and reports the migration's error", () =>
    Effect.gen(function* () {
      const { cause, tables } = yield* agree(
        Effect.gen(function* () {
          yield* run(createUsers)
          const exit = yield* Effect.exit(run(createUsers, addUsers, failing))
          const defects = Exit.isFailure(exit) ? Arr.fromIterable(Cause.defects(exit.cause)) : []
          const error: any = Option.getOrThrow(Arr.head(defects))
          const { message, reason } = error
          // What the migrator does with a failed migration is a defect: of its own kind, with the failure as its cause.
          return { ...(yield* state), cause: { message, reason, tag: error.cause._tag, code: error.cause.cause.code } }
        })
      )
      assert.deepStrictEqual(cause, {
        message: 'Migration "3_step" failed',
        reason: "failed",
        tag: "SqlError",
        code: "23505"
      })
      assert.deepStrictEqual(tables, [["effect_sql_migrations"], ["users"]])
    })
  )

  it.scoped("applies each migration once when several programs start at the same time", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control(
        "CREATE TABLE effect_sql_migrations (migration_id integer PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now(), name text NOT NULL)",
        [],
        url
      )
      const starters = Arr.makeBy(6, () => Effect.provide(run(createUsers, addUsers), ResilientPg.layer({ url })))
      const runs = yield* Effect.all(starters, { concurrency: "unbounded" })
      assert.deepStrictEqual(Arr.flatten(runs), [
        [1, "step"],
        [2, "step"]
      ])
      const { applied, users } = yield* Effect.provide(state, ResilientPg.layer({ url }))
      assert.deepStrictEqual(applied, [
        [1, "step"],
        [2, "step"]
      ])
      assert.lengthOf(users, 3)
    })
  )

  it.scoped("applies each migration once, too, when none of them finds the migrator's own table", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const starters = Arr.makeBy(6, () => Effect.provide(run(createUsers, addUsers), ResilientPg.layer({ url })))
      const results = yield* Effect.all(Arr.map(starters, Effect.either), { concurrency: "unbounded" })
      // Its CREATE TABLE takes no care of others: whoever comes second fails, as with the bare client, and is to try again.
      const [failures, runs] = Arr.separate(results)
      for (const error of failures) {
        assert.include(["42P07", "42710", "23505"], ((error as any).cause as { readonly code?: unknown }).code)
      }
      assert.deepStrictEqual(Arr.flatten(runs), [
        [1, "step"],
        [2, "step"]
      ])
      assert.lengthOf((yield* Effect.provide(state, ResilientPg.layer({ url }))).users, 3)
    })
  )

  it.scoped("creates the ledger of transactions that run exactly once, where it is not there yet", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const migrated = run(Transaction.ledgerMigration(), Transaction.ledgerMigration(), createUsers)
      yield* Effect.provide(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          assert.lengthOf(yield* migrated, 3)
          yield* Transaction.run(sql`INSERT INTO users (user_name) VALUES ('Ada')`, { exactlyOnce: true })
          yield* Transaction.createLedger
        }),
        ResilientPg.layer({ url })
      )
    })
  )
})
