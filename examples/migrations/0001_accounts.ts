/** A migration as `PgMigrator` knows it: an Effect by `default`. `down` is what undoes it. */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE accounts (id int PRIMARY KEY, email text NOT NULL)`
  yield* sql`INSERT INTO accounts ${sql.insert([
    { id: 1, email: "Ada@example.com" },
    { id: 2, email: "grace@example.com" }
  ])}`
})

export const down = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE accounts`)
