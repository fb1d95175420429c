/**
 * The database of the examples: a PostgreSQL of its own that goes with the program, or yours, if `DATABASE_URL` is set. Yours
 * is left as it was: the examples work in a schema of their own, which is dropped at the end.
 */
import { SqlClient } from "@effect/sql"
import { Config, Context, Effect, Layer, Option } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const schema = `effect_pg_example_${process.pid}`

/** `ResilientPg.layer` on that database; `options` are those of the layer, without the URL. */
export const database = (options: Omit<ResilientPg.Options, "url"> = {}) =>
  Effect.gen(function* () {
    const given = yield* Config.option(Config.redacted("DATABASE_URL"))
    if (Option.isNone(given)) return ResilientPg.layer({ ...options, url: (yield* EmbeddedPostgres.make()).url })
    const url = given.value
    const owner = yield* Layer.build(ResilientPg.layer({ url, maxConnections: 1 }))
    const sql = Context.get(owner, SqlClient.SqlClient)
    yield* Effect.acquireRelease(sql`CREATE SCHEMA ${sql(schema)}`, () =>
      Effect.orDie(sql`DROP SCHEMA ${sql(schema)} CASCADE`)
    )
    return ResilientPg.layer({ ...options, url, parameters: { ...options.parameters, search_path: schema } })
  }).pipe(Layer.unwrapScoped)
