/** Transformers of statements are the program's own: wherever it sets one, it is applied, as with the bare client. */

import { SqlClient, Statement } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { layers } from "./support.js"

/** A program's guard: each of its statements is asked for 42 instead. */
const transformer: Statement.Statement.Transformer = (_, sql) => Effect.succeed(sql`SELECT 42 AS answer`)

const answer = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT 1 AS answer`)
const transformed = [{ answer: 42 }]

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("A program's own transformer", (it) => {
  const set = Statement.setTransformer(transformer)
  for (const [name, make] of Object.entries(layers)) {
    it.scoped(`is applied wherever it is set: ${name}`, () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        const client = make(url, {})
        const places = {
          around: Effect.provide(answer, client).pipe(Statement.withTransformer(transformer)),
          within: Effect.provide(Statement.withTransformer(answer, transformer), client),
          before: Effect.provide(answer, Layer.mergeAll(set, client)),
          after: Effect.provide(answer, Layer.mergeAll(client, set)),
          below: Effect.provide(answer, Layer.provideMerge(client, set)),
          above: Effect.provide(answer, Layer.provideMerge(set, client))
        }
        const answers = yield* Effect.all(places)
        for (const [place, rows] of Object.entries(answers)) assert.deepStrictEqual([place, rows], [place, transformed])
        const disabled = yield* Effect.provide(Statement.withTransformerDisabled(answer), Layer.merge(client, set))
        assert.deepStrictEqual(disabled, [{ answer: 1 }])
      })
    )
  }

  it.scoped("is seen by statements of transactions, resolvers' batches and forked fibers alike", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const program = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        return yield* sql.withTransaction(
          Effect.all([answer, sql.withTransaction(answer), Effect.flatMap(Effect.fork(answer), (fiber) => fiber.await)])
        )
      })
      const [plain, nested, forked] = yield* Effect.provide(program, Layer.mergeAll(set, ResilientPg.layer({ url })))
      assert.deepStrictEqual([plain, nested], [transformed, transformed])
      assert.deepStrictEqual(yield* forked, transformed)
    })
  )
})
