/** The built-in scenario: reads, writes and transactions on a table that comes and goes with the scope. */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Transaction from "../../../client/Transaction.js"
import * as validate from "../../../config/internal/validate.js"
import * as PgError from "../../../error/PgError.js"
import * as Operation from "../../../policy/Operation.js"

export interface Options {
  /** Weights, 0 or more. Default 70, 20 and 10; if any is given, those that are not are 0. */
  readonly read?: number | undefined
  readonly write?: number | undefined
  readonly transaction?: number | undefined
  /** Of the table: 2 to 10 million, about 200 bytes each. Default 10,000. */
  readonly rows?: number | undefined
}

export const defaults = { read: 70, write: 20, transaction: 10, rows: 10_000 } as const

/** What its tables are called, before what is random. */
export const tablePrefix = "effect_pg_load_"

const weight = validate.optional(validate.number({ min: 0, max: 1e9 }))

const rule = validate.struct(
  {
    read: weight,
    write: weight,
    transaction: weight,
    rows: validate.defaulted(validate.integer({ min: 2, max: 10_000_000 }), defaults.rows)
  },
  {
    exact: true,
    relation: ({ read, transaction, write }) => {
      const given = [read, write, transaction].filter((weight) => weight !== undefined)
      return given.length > 0 && given.every((weight) => weight === 0)
        ? [validate.fault("read", 0, "a weight above 0 among read, write and transaction")]
        : []
    }
  }
)

/** To make the table, which nobody else holds up. */
const createLimit = "30 seconds"
/** To fill it. */
const prepareLimit = "5 minutes"
/** To drop it, the server's absence included. */
const dropLimit = "15 seconds"

type Services = SqlClient.SqlClient | Transaction.Transactor

/** See `LoadTest.mix`. */
export const make = (
  options: Options = {}
): Effect.Effect<
  { readonly [name: string]: { readonly effect: Effect.Effect<unknown, PgError.PgError>; readonly weight: number } },
  PgError.PgError,
  Services | Scope.Scope
> =>
  Effect.gen(function* () {
    const { rows, ...weights } = yield* validate.decode(rule, "mix")(options)
    const sql = yield* SqlClient.SqlClient
    const transactor = yield* Transaction.Transactor
    const given = Object.values(weights).some((weight) => weight !== undefined)
    const { read = 0, transaction = 0, write = 0 } = given ? weights : defaults

    const [place] = yield* sql<{ schema: string | null }>`SELECT current_schema() AS schema`.pipe(
      Operation.named("load-prepare")
    )
    const schema = place?.schema ?? null
    if (schema === null) {
      return yield* validate.invalidOptions([
        validate.fault("search_path", "no schema that exists", "one in which the table of the load test can be made")
      ])
    }
    const name = `${tablePrefix}${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`
    const table = sql(`${schema}.${name}`)

    const drop = sql`DROP TABLE IF EXISTS ${table}`.pipe(
      Operation.named("load-drop", { timeout: dropLimit, idempotent: true, whenOpen: "wait" }),
      Effect.catchAll((error) =>
        Effect.logError(`The table ${schema}.${name} of the load test is left behind, drop it: ${error.message}`)
      )
    )
    const create =
      sql`CREATE TABLE ${table} (id integer PRIMARY KEY, value bigint NOT NULL, payload text NOT NULL)`.pipe(
        Operation.named("load-prepare", { timeout: createLimit })
      )
    // Not to be interrupted, so that nothing creates it after it was dropped; but of an unknown outcome it is dropped, too.
    yield* Effect.acquireRelease(
      Effect.tapError(create, (error) => (error.outcome === "Unknown" ? drop : Effect.void)),
      () => drop
    )
    yield* sql`INSERT INTO ${table} SELECT id, 0, repeat(md5(id::text), 5) FROM generate_series(1, ${rows}::int) AS id`.pipe(
      Operation.named("load-prepare", { timeout: prepareLimit })
    )
    yield* Operation.named("load-prepare", { timeout: prepareLimit, idempotent: true })(sql`ANALYZE ${table}`)

    const id = Random.nextIntBetween(1, rows + 1)
    const reading = Effect.flatMap(id, (id) => sql`SELECT id, value, payload FROM ${table} WHERE id = ${id}`)
    const writing = Effect.flatMap(id, (id) => sql`UPDATE ${table} SET value = value + 1 WHERE id = ${id}`)
    // Locked in the order of their keys, so that two of them never wait for each other.
    const moving = Effect.gen(function* () {
      const from = yield* id
      const to = (from % rows) + 1
      yield* sql`SELECT value FROM ${table} WHERE id IN (${from}, ${to}) ORDER BY id FOR UPDATE`
      yield* sql`UPDATE ${table} SET value = value - 1 WHERE id = ${from}`
      yield* sql`UPDATE ${table} SET value = value + 1 WHERE id = ${to}`
    })
    return {
      read: { effect: Operation.named("load-read")(reading), weight: read },
      write: { effect: Operation.named("load-write")(writing), weight: write },
      transaction: { effect: transactor.run(moving, { name: "load-transaction", retry: true }), weight: transaction }
    }
  }).pipe(PgError.refine)
