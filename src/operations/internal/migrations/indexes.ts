/** Indexes that a statement with CONCURRENTLY has left behind. */
import type { InvalidIndex } from "./errors.js"
import type { Ask } from "./tables.js"

/**
 * Every invalid index of the database that nobody is building now. Source: PostgreSQL manual, CREATE INDEX, "Building Indexes
 * Concurrently". The index of a partitioned table, which is invalid until it has all its parts, is not one.
 */
export const invalidIndexes = (ask: Ask) =>
  ask<InvalidIndex>(`SELECT format('%I.%I', n.nspname, c.relname) AS index, i.indrelid::regclass::text AS table,
  format('DROP INDEX CONCURRENTLY %I.%I;', n.nspname, c.relname) AS drop
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
ORDER BY 1`)

const nameOf = (index: string) => index.slice(index.lastIndexOf(".") + 1).replace(/^"|"$/g, "")

/**
 * Those that the statements are to blame for: not invalid before, or named by one of them, as CREATE INDEX … IF NOT EXISTS
 * takes an invalid index for one.
 */
export const blamed = (
  before: ReadonlyArray<InvalidIndex>,
  after: ReadonlyArray<InvalidIndex>,
  statements: ReadonlyArray<string>
): ReadonlyArray<InvalidIndex> => {
  const known = new Set(before.map(({ index }) => index))
  return after.filter(({ index }) => !known.has(index) || statements.some((sql) => sql.includes(nameOf(index))))
}
