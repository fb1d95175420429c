/** Names of queries, results and JSON are transformed as by the bare client, by the options of both. */

import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Stream, String } from "effect"
import * as TestPg from "../support/TestPg.js"
import { agree } from "./support.js"

const setup = `
  CREATE TABLE people (id int PRIMARY KEY, full_name text NOT NULL);
  INSERT INTO people VALUES (1, 'Ada'), (2, 'Grace');
`

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Names, as with the bare client", (it) => {
  const camel = { transformResultNames: String.snakeToCamel, transformQueryNames: String.camelToSnake }

  const transformed = Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    yield* sql`CREATE TABLE ${sql("theThings")} (${sql("thingId")} int, ${sql("someData")} jsonb)`
    const someData = sql.json({ innerName: 1, deepList: [{ oneMore: 2 }] })
    yield* sql`INSERT INTO ${sql("theThings")} ${sql.insert({ thingId: 1, someData })}`
    const select = sql`SELECT * FROM ${sql("theThings")}`
    const plain = sql.withoutTransforms()
    return {
      rows: yield* select,
      values: yield* select.values,
      raw: ((yield* sql`SELECT * FROM the_things`.raw) as any).rows,
      withoutTransform: yield* sql`SELECT * FROM the_things`.withoutTransform,
      untransformed: (yield* Effect.flip(select.withoutTransform)).cause instanceof Error,
      unprepared: yield* select.unprepared,
      streamed: yield* Stream.runCollect(select.stream),
      several: yield* Effect.exit(sql.unsafe("SELECT 1 AS first_one; SELECT 2 AS second_one")),
      plain: yield* plain`SELECT * FROM ${plain("the_things")}`,
      plainJson: yield* plain`SELECT ${(plain as PgClient.PgClient).json({ keptName: 1 })}::jsonb AS kept_name`,
      twice: plain.withoutTransforms() === plain,
      inTransaction: yield* sql.withTransaction(select),
      columns: yield* plain`
        SELECT column_name FROM information_schema.columns WHERE table_name = 'the_things' ORDER BY 1`
    }
  })

  it.effect("transforms the names of queries, results and JSON, and leaves them with withoutTransforms", () =>
    Effect.gen(function* () {
      const { columns, plain, rows } = yield* agree(transformed, camel)
      assert.deepStrictEqual(rows, [{ thingId: 1, someData: { innerName: 1, deepList: [{ oneMore: 2 }] } }])
      assert.deepStrictEqual(plain, [{ thing_id: 1, some_data: { inner_name: 1, deep_list: [{ one_more: 2 }] } }])
      assert.deepStrictEqual(columns, [{ column_name: "some_data" }, { column_name: "thing_id" }])
    })
  )

  it.effect("leaves the names inside JSON with transformJson: false", () =>
    Effect.gen(function* () {
      const { plain } = yield* agree(transformed, { ...camel, transformJson: false })
      assert.deepStrictEqual(plain, [{ thing_id: 1, some_data: { innerName: 1, deepList: [{ oneMore: 2 }] } }])
    })
  )

  it.effect("transforms results alone, or queries alone", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const plain = sql.withoutTransforms()
        return {
          rows: yield* sql`SELECT full_name FROM people WHERE ${sql("id")} = 1`,
          named: yield* Effect.exit(Effect.asVoid(sql`SELECT ${sql("fullName")} FROM people`)).pipe(
            Effect.map(Exit.isSuccess)
          ),
          plain: yield* plain`SELECT full_name FROM people WHERE id = 1`,
          itself: plain === sql
        }
      })
      const results = yield* agree(program, { setup, transformResultNames: String.snakeToCamel })
      assert.deepStrictEqual([results.named, results.itself], [false, false])
      const queries = yield* agree(program, { setup, transformQueryNames: String.camelToSnake })
      assert.deepStrictEqual([queries.named, queries.itself], [true, true])
    })
  )
})
