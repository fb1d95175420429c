/**
 * The two tables. The first is the migrator's own, unchanged: a row means "applied". The second is ours, beside it, with what
 * the first has no room for; what it says counts only together with the first, so that it may be missing, or out of date.
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import { escapeIdentifier } from "pg"
import * as PgError from "../../../error/PgError.js"
import type { Direction, Recorded } from "./model.js"

/** One statement with its parameters, on whatever connection is meant. */
export type Ask = <Row extends object = Record<string, unknown>>(
  sql: string,
  params?: ReadonlyArray<unknown>
) => Effect.Effect<ReadonlyArray<Row>, PgError.PgError>

/** As `Ask`, of anything that executes. */
export const askBy =
  (execute: (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<any>, SqlError>): Ask =>
  (sql, params = []) =>
    Effect.mapError(execute(sql, params), (error) => PgError.fromSqlError(error))

/** Names in SQL, `schema.table` as the migrator takes it. */
export interface Tables {
  readonly migrations: string
  readonly notes: string
}

const quoted = (table: string) => table.split(".").map(escapeIdentifier).join(".")

export const tablesOf = (table: string): Tables => ({ migrations: quoted(table), notes: quoted(`${table}_state`) })

const existing = (ask: Ask, { migrations, notes }: Tables) =>
  Effect.map(
    ask<{ migrations: boolean; notes: boolean }>(
      "SELECT to_regclass($1) IS NOT NULL AS migrations, to_regclass($2) IS NOT NULL AS notes",
      [migrations, notes]
    ),
    ([row]) => row!
  )

/** The migrator's columns are the migrator's. Source: `@effect/sql`, Migrator. */
const definitions = ({ migrations, notes }: Tables) => [
  `CREATE TABLE IF NOT EXISTS ${migrations} (
  migration_id integer primary key,
  created_at timestamp with time zone not null default now(),
  name text not null
)`,
  `CREATE TABLE IF NOT EXISTS ${notes} (
  migration_id integer PRIMARY KEY,
  name text NOT NULL,
  state text NOT NULL CHECK (state IN ('applying', 'applied', 'reverting')),
  checksum text,
  adopted boolean NOT NULL DEFAULT false,
  run text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp()
)`
]

/** SQLSTATEs of somebody else who creates the same table in this moment, whatever IF NOT EXISTS says. */
const sameMoment = new Set(["23505", "42P07", "42710"])

/** With their schemas: a migration may leave another search_path behind. */
const qualified = (ask: Ask, { migrations, notes }: Tables): Effect.Effect<Tables, PgError.PgError> =>
  Effect.map(
    ask<{ name: string }>(
      `SELECT format('%I.%I', n.nspname, c.relname) AS name FROM unnest($1::text[]) WITH ORDINALITY AS given (name, place)
  JOIN pg_class c ON c.oid = to_regclass(given.name) JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY place`,
      [[migrations, notes]]
    ),
    ([first, second]) => ({ migrations: first!.name, notes: second!.name })
  )

/** Creates what is not there, and tells where both are. A migrator of another kind may be doing the same. */
export const ensure = (ask: Ask, tables: Tables): Effect.Effect<Tables, PgError.PgError> =>
  Effect.flatMap(existing(ask, tables), ({ migrations, notes }) =>
    migrations && notes
      ? Effect.void
      : Effect.forEach(
          definitions(tables),
          (definition) =>
            Effect.retry(ask(definition), {
              times: 3,
              while: ({ sqlState }) => sqlState !== undefined && sameMoment.has(sqlState)
            }),
          { discard: true }
        )
  ).pipe(Effect.zipRight(qualified(ask, tables)))

interface Row {
  readonly id: number
  readonly name: string
  readonly applied: boolean
  readonly applied_at: Date | null
  readonly state: "applying" | "applied" | "reverting" | null
  readonly checksum: string | null
  readonly adopted: boolean | null
  readonly run: string | null
  readonly since: Date | null
}

/** A mark counts only where the migrator's table does not say otherwise: what is applied is not being applied. */
const markOf = ({ applied, since, state }: Row): Recorded["mark"] => {
  const direction: Direction | undefined =
    state === "applying" && !applied ? "up" : state === "reverting" && applied ? "down" : undefined
  return direction && { direction, since: since! }
}

const recordedOf = (row: Row): Recorded => ({
  id: row.id,
  name: row.name,
  applied: row.applied,
  appliedAt: row.applied_at ?? undefined,
  mark: markOf(row),
  run: row.run ?? undefined,
  checksum: row.checksum ?? undefined,
  adopted: row.adopted === true
})

/** What is recorded. Nothing is created: without tables there is nothing. */
export const read = (ask: Ask, tables: Tables): Effect.Effect<ReadonlyArray<Recorded>, PgError.PgError> =>
  Effect.flatMap(existing(ask, tables), (there) => {
    if (!there.migrations && !there.notes) return Effect.succeed([])
    const none = "migration_id integer, name text"
    const m = there.migrations
      ? tables.migrations
      : `(SELECT NULL::timestamptz AS created_at, * FROM json_to_recordset('[]') AS _(${none}))`
    const n = there.notes
      ? tables.notes
      : `(SELECT * FROM json_to_recordset('[]') AS _(${none}, state text, checksum text, adopted boolean, run text, since timestamptz))`
    return Effect.map(
      ask<Row>(
        `SELECT migration_id AS id, coalesce(m.name, n.name) AS name, m.name IS NOT NULL AS applied, m.created_at AS applied_at,
  n.state, n.checksum, n.adopted, n.run, n.since FROM ${m} m FULL JOIN ${n} n USING (migration_id) ORDER BY 1`
      ),
      (rows) => rows.map(recordedOf)
    )
  })

/** The migrator's row and our note: in one transaction, that of the migration where it has one. */
export const writeApplied = (
  ask: Ask,
  { migrations, notes }: Tables,
  row: { readonly id: number; readonly name: string; readonly checksum: string | undefined; readonly run: string }
) =>
  Effect.zipRight(
    ask(`INSERT INTO ${migrations} (migration_id, name) VALUES ($1, $2)`, [row.id, row.name]),
    ask(
      `INSERT INTO ${notes} (migration_id, name, state, checksum, run) VALUES ($1, $2, 'applied', $3, $4)
  ON CONFLICT (migration_id) DO UPDATE SET name = excluded.name, state = 'applied', checksum = excluded.checksum,
    adopted = false, run = excluded.run, since = clock_timestamp()`,
      [row.id, row.name, row.checksum ?? null, row.run]
    )
  )

export const writeReverted = (ask: Ask, { migrations, notes }: Tables, id: number) =>
  Effect.zipRight(
    ask(`DELETE FROM ${migrations} WHERE migration_id = $1`, [id]),
    ask(`DELETE FROM ${notes} WHERE migration_id = $1`, [id])
  )

/** Begun outside a transaction. A checksum that is noted is kept. */
export const writeMark = (
  ask: Ask,
  { notes }: Tables,
  row: { readonly id: number; readonly name: string; readonly direction: Direction; readonly run: string }
) =>
  ask(
    `INSERT INTO ${notes} (migration_id, name, state, run) VALUES ($1, $2, $3, $4)
  ON CONFLICT (migration_id) DO UPDATE SET name = excluded.name, state = excluded.state, run = excluded.run,
    since = clock_timestamp()`,
    [row.id, row.name, row.direction === "up" ? "applying" : "reverting", row.run]
  )

/** As if it had not been begun. */
export const clearMark = (ask: Ask, { notes }: Tables, id: number, direction: Direction) =>
  direction === "up"
    ? ask(`DELETE FROM ${notes} WHERE migration_id = $1`, [id])
    : ask(`UPDATE ${notes} SET state = 'applied' WHERE migration_id = $1`, [id])

/** The checksum of what is applied: as first seen (`adopted`), or as accepted. */
export const writeChecksum = (
  ask: Ask,
  { migrations, notes }: Tables,
  row: {
    readonly id: number
    readonly name: string
    readonly checksum: string | undefined
    readonly run: string
    readonly adopted: boolean
  }
) =>
  Effect.zipRight(
    ask(`UPDATE ${migrations} SET name = $2 WHERE migration_id = $1 AND name <> $2`, [row.id, row.name]),
    ask(
      `INSERT INTO ${notes} (migration_id, name, state, checksum, adopted, run) VALUES ($1, $2, 'applied', $3, $4, $5)
  ON CONFLICT (migration_id) DO UPDATE SET name = excluded.name, state = 'applied', checksum = excluded.checksum,
    adopted = excluded.adopted, run = excluded.run`,
      [row.id, row.name, row.checksum ?? null, row.adopted, row.run]
    )
  )
