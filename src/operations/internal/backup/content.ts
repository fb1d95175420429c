/**
 * What is in a database, and whether what was restored is the same.
 *
 * Everything is read in one transaction of the caller: with `REPEATABLE READ`, in one snapshot. Sequences are no part of
 * snapshots, so theirs are read before the dump reads them: what is restored may be ahead, and must not be behind.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Pg from "pg"
import type { Content, Database } from "./manifest.js"
import { type Progress, said } from "./progress.js"

/**
 * Nothing ends a long transaction that waits for `pg_dump`; rows hidden by policies are an error and not left out; and
 * values have one text, whatever the role's or the database's settings. Only settings that the server knows are set.
 */
const settings = {
  statement_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  transaction_timeout: "0",
  row_security: "off",
  search_path: "pg_catalog",
  TimeZone: "UTC",
  DateStyle: "ISO, YMD",
  IntervalStyle: "postgres",
  bytea_output: "hex",
  extra_float_digits: "3",
  xmlbinary: "base64",
  lc_monetary: "C"
}

/** For the transaction around. */
export const settle: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe(
    `SELECT set_config(s.name, wanted.value, true)
     FROM json_each_text($1::json) AS wanted JOIN pg_settings s ON lower(s.name) = lower(wanted.key)`,
    [JSON.stringify(settings)]
  )
})

/** Of users: neither the server's own, nor a session's, nor an extension's, which CREATE EXTENSION makes. */
const ofUsers = (relation: string, catalog: string) => `
  n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = '${catalog}'::regclass AND d.objid = ${relation}.oid AND d.deptype = 'e')`

const tablesSql = `
  SELECT n.nspname AS schema, c.relname AS name,
         array(SELECT quote_ident(a.attname) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY a.attname COLLATE "C") AS columns
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND ${ofUsers("c", "pg_class")}
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`

// An identity's sequence depends on its table as internal; those of extensions are left out as their tables are.
const sequencesSql = `
  SELECT s.schemaname AS schema, s.sequencename AS name, s.last_value::text AS value, s.increment_by::text AS increment
  FROM pg_sequences s JOIN pg_namespace n ON n.nspname = s.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.sequencename
  WHERE c.relpersistence <> 't' AND ${ofUsers("c", "pg_class")}
  ORDER BY s.schemaname COLLATE "C", s.sequencename COLLATE "C"`

const objectsSql = `
  SELECT
    (SELECT count(*)::int FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace
     WHERE o.contype <> 'n' AND ${ofUsers("o", "pg_constraint")}) AS constraints,
    (SELECT count(*)::int FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE i.indisvalid AND c.relpersistence <> 't' AND ${ofUsers("c", "pg_class")}) AS indexes,
    (SELECT count(*)::int FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT t.tgisinternal AND ${ofUsers("c", "pg_class")}) AS triggers,
    (SELECT count(*)::int FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE ${ofUsers("p", "pg_proc")}) AS functions,
    (SELECT count(*)::int FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('v', 'm') AND ${ofUsers("c", "pg_class")}) AS views,
    (SELECT count(*)::text FROM pg_largeobject_metadata) AS "largeObjects",
    array(SELECT format('%I.%I.%I', n.nspname, c.relname, o.conname)
          FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE NOT o.convalidated AND ${ofUsers("c", "pg_class")} ORDER BY 1) AS unvalidated`

/** Of the database that the transaction is in. The catalog's columns differ from version to version. */
const databaseSql = `
  SELECT d.datname AS name, pg_get_userbyid(d.datdba) AS owner, pg_encoding_to_char(d.encoding) AS encoding,
         d.datcollate AS collate, d.datctype AS ctype,
         coalesce(to_jsonb(d)->>'datlocprovider', 'c') AS provider,
         coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale') AS locale,
         pg_database_size(d.oid)::text AS bytes,
         coalesce((SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = 0), '{}') AS settings,
         CASE WHEN d.datacl IS NOT NULL THEN
           coalesce((SELECT jsonb_agg(jsonb_build_object(
             'grantee', CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END,
             'privilege', a.privilege_type, 'grantable', a.is_grantable))
           FROM aclexplode(d.datacl) a), '[]') END AS privileges,
         d.datconnlimit AS "connectionLimit"
  FROM pg_database d WHERE d.datname = current_database()`

export const database: Effect.Effect<Database, SqlError, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql.unsafe<Database>(databaseSql)
  return row!
})

export const sequences: Effect.Effect<Content["sequences"], SqlError, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return yield* sql.unsafe<Content["sequences"][number]>(sequencesSql)
})

/**
 * One pass over each table. A checksum is the sum of a hash of each row's text, columns in the order of their names, so
 * neither the order of rows nor that of columns matters. The hash is PostgreSQL's own (`hashtextextended`).
 */
const countSql = (schema: string, name: string, columns: ReadonlyArray<string>, checksums: boolean) => {
  const table = `${Pg.escapeIdentifier(schema)}.${Pg.escapeIdentifier(name)}`
  const checksum = `coalesce(sum(hashtextextended(ROW(${columns.join(", ")})::text COLLATE "C", 0)::numeric), 0)::text`
  return `SELECT count(*)::text AS rows${checksums ? `, ${checksum} AS checksum` : ""} FROM ONLY ${table}`
}

/** Everything but the sequences, which were read before. Takes a pass over every table. */
export const describe = (
  sequences: Content["sequences"],
  checksums: boolean,
  onProgress: (progress: Progress) => Effect.Effect<void>
): Effect.Effect<Content, SqlError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const listed = yield* sql.unsafe<{ schema: string; name: string; columns: ReadonlyArray<string> }>(tablesSql)
    const step = checksums ? "checksum" : "count"
    const tables = yield* Effect.forEach(listed, ({ columns, name, schema }, n) =>
      Effect.gen(function* () {
        yield* onProgress({
          ...said(step, `${schema}.${name}`),
          done: n,
          total: listed.length,
          unit: "tables"
        })
        const [row] = yield* sql.unsafe<{ rows: string; checksum?: string }>(countSql(schema, name, columns, checksums))
        return { schema, name, ...row! }
      })
    )
    const [objects] = yield* sql.unsafe<
      Content["objects"] & { largeObjects: string; unvalidated: ReadonlyArray<string> }
    >(objectsSql)
    const { largeObjects, unvalidated, ...counts } = objects!
    return { tables, sequences, largeObjects, objects: counts, unvalidated }
  })

/** Indexes of a restored database that cannot be used, as `schema.name`. */
export const invalidIndexes: Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> = Effect.gen(
  function* () {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql.unsafe<{ name: string }>(`
      SELECT format('%I.%I', n.nspname, c.relname) AS name
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE NOT i.indisvalid AND c.relkind = 'i' AND ${ofUsers("c", "pg_class")} ORDER BY 1`)
    return rows.map(({ name }) => name)
  }
)

const idOf = ({ name, schema }: { readonly schema: string; readonly name: string }) => `${schema}.${name}`

const behind = (restored: string | null, { increment, value }: Content["sequences"][number]): boolean => {
  if (value === null) return false
  if (restored === null) return true
  return BigInt(increment) > 0n ? BigInt(restored) < BigInt(value) : BigInt(restored) > BigInt(value)
}

/** All that differs, in words. Empty: the restored database is what was backed up. */
export const compare = (
  saved: Content,
  restored: Content,
  invalidIndexes: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const faults: Array<string> = []
  const tables = new Map(restored.tables.map((table) => [idOf(table), table]))
  for (const table of saved.tables) {
    const found = tables.get(idOf(table))
    tables.delete(idOf(table))
    if (found === undefined) faults.push(`table ${idOf(table)} is missing`)
    else if (found.rows !== table.rows) {
      faults.push(`table ${idOf(table)} has ${found.rows} rows instead of ${table.rows}`)
    } else if (table.checksum !== undefined && found.checksum !== table.checksum) {
      faults.push(`table ${idOf(table)} has other content: checksum ${found.checksum} instead of ${table.checksum}`)
    }
  }
  for (const name of tables.keys()) faults.push(`table ${name} was not in the backup`)
  const sequences = new Map(restored.sequences.map((sequence) => [idOf(sequence), sequence]))
  for (const sequence of saved.sequences) {
    const found = sequences.get(idOf(sequence))
    if (found === undefined) faults.push(`sequence ${idOf(sequence)} is missing`)
    else if (behind(found.value, sequence)) {
      faults.push(`sequence ${idOf(sequence)} is at ${found.value ?? "its start"}, behind ${sequence.value}`)
    }
  }
  if (saved.largeObjects !== restored.largeObjects) {
    faults.push(`there are ${restored.largeObjects} large objects instead of ${saved.largeObjects}`)
  }
  for (const kind of ["constraints", "indexes", "triggers", "functions", "views"] as const) {
    if (saved.objects[kind] !== restored.objects[kind]) {
      faults.push(`there are ${restored.objects[kind]} ${kind} instead of ${saved.objects[kind]}`)
    }
  }
  const known = new Set(saved.unvalidated)
  for (const name of restored.unvalidated) {
    if (!known.has(name)) faults.push(`constraint ${name} is not validated`)
  }
  for (const name of invalidIndexes) faults.push(`index ${name} is not valid`)
  return faults
}
