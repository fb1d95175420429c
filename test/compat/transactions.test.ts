/** `withTransaction` means on our layer what it means on the bare client. */

import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as TestPg from "../support/TestPg.js"
import { agree } from "./support.js"

const setup = `
  CREATE TABLE people (id int PRIMARY KEY, full_name text NOT NULL);
  INSERT INTO people VALUES (1, 'Ada'), (2, 'Grace');
`

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })(
  "Transactions, as on the bare client",
  (it) => {
    it.effect("keeps the meaning of a transaction: commit, rollback, nesting, and its own reads", () =>
      Effect.gen(function* () {
        const ids = yield* agree(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const insert = (id: number) => sql`INSERT INTO people ${sql.insert({ id, full_name: `${id}` })}`
            const count = Effect.map(sql<{ n: number }>`SELECT count(*)::int AS n FROM people`, ([row]) => row!.n)
            const own = yield* sql.withTransaction(Effect.zipRight(insert(10), count))
            const failed = yield* Effect.flip(
              sql.withTransaction(Effect.zipRight(insert(11), Effect.fail("no" as const)))
            )
            const died = yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert(12), Effect.die("bad"))))
            yield* sql.withTransaction(
              Effect.gen(function* () {
                yield* insert(13)
                yield* Effect.ignore(sql.withTransaction(Effect.zipRight(insert(14), Effect.fail("inner"))))
                yield* sql.withTransaction(
                  Effect.zipRight(
                    insert(15),
                    Effect.ignore(sql.withTransaction(Effect.zipRight(insert(16), insert(1))))
                  )
                )
                yield* insert(17)
              })
            )
            const rows = yield* sql<{ id: number }>`SELECT id FROM people ORDER BY id`
            return { own, failed, died, ids: rows.map(({ id }) => id), count: yield* count }
          }),
          { setup }
        )
        assert.deepStrictEqual(ids.ids, [1, 2, 10, 13, 15, 17])
      })
    )

    it.effect("carries its connection in the tag that programs may look into", () =>
      agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const depth = Effect.map(Effect.serviceOption(SqlClient.TransactionConnection), (option) =>
            option._tag === "None" ? -1 : option.value[1]
          )
          const nested = sql.withTransaction(Effect.all([depth, sql.withTransaction(depth)]))
          const direct = sql.withTransaction(
            Effect.flatMap(Effect.serviceOptional(SqlClient.TransactionConnection), ([connection]) =>
              connection.executeValues("SELECT 1", [])
            )
          )
          return [yield* depth, yield* nested, yield* direct]
        })
      )
    )
  }
)
