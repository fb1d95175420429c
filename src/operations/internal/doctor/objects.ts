/** Checks of what is in the database: indexes, constraints, sequences, tables, extensions, and how old it all is. */
import { type Check, check, clean, count, each, levelOf, ok, percent, type Said, size, span } from "./check.js"

/** What REINDEX CONCURRENTLY leaves behind when it fails: PostgreSQL manual, REINDEX, "Rebuilding Indexes Concurrently". */
const leftover = /_cc(new|old)\d*"?$/

const indexes = check("invalid-indexes", ["indexes"], ({ indexes }) =>
  each(
    indexes,
    ({ busy, partitioned, table, unique, ...row }): Said => {
      const index = clean(row.index)
      const drop = `DROP INDEX CONCURRENTLY ${index}`
      if (busy)
        return {
          severity: "info",
          title: "An index is not valid yet",
          found: `${index} on ${clean(table)}: somebody is building it, or vacuuming the table.`,
          advice: "Look again when that is over: SELECT * FROM pg_stat_progress_create_index."
        }
      return {
        severity: "warning",
        title: "An index is invalid",
        found: `${index} on ${clean(table)}: it costs on every write, and no query uses it${unique ? "; nor does it keep the table free of duplicates" : ""}.`,
        advice: partitioned
          ? `Some partition has no index attached to it: ALTER INDEX ${index} ATTACH PARTITION … for each that is missing.`
          : leftover.test(index)
            ? `A failed REINDEX CONCURRENTLY left it behind: ${drop}.`
            : `${unique ? "Remove what is there twice, then " : ""}REINDEX INDEX CONCURRENTLY ${index}; or, if nobody needs it, ${drop}.`
      }
    },
    ok("Every index is valid", "No build of one has failed.")
  )
)

const constraints = check("constraints", ["constraints"], ({ constraints }) =>
  each(
    constraints,
    ({ constraint, table }): Said => ({
      severity: "info",
      title: "A constraint was never validated",
      found: `${clean(constraint)} on ${clean(table)} holds for new rows; old ones may break it.`,
      advice: `ALTER TABLE ${clean(table)} VALIDATE CONSTRAINT ${clean(constraint)} (it does not keep others from writing).`
    }),
    ok("Every constraint is validated", "All rows satisfy them.")
  )
)

const sequences = check("sequences", ["sequences"], ({ sequences }, { facts, thresholds }) => {
  const unread = sequences.filter(({ readable }) => !readable)
  const judged = sequences
    .flatMap((sequence) => {
      const share = (sequence.last ?? 0) / sequence.limit
      const level = levelOf(share, thresholds.sequenceShare)
      return level === "ok" ? [] : [{ ...sequence, share, level }]
    })
    .sort((a, b) => b.share - a.share)
  const found = judged.map(({ column, column_name, level, share, table, type, ...row }): Said => {
    const left = Math.max(0, row.limit - (row.last ?? 0))
    return {
      severity: level,
      title: "A sequence is near its end",
      found: `${clean(row.sequence)} is used to ${percent(share)}: ${count(left, "value")} left${column === null ? "" : ` for ${clean(column)} (${type})`}. Then every insert fails (2200H or 22003).`,
      advice:
        table !== null && type !== "bigint"
          ? `ALTER TABLE ${clean(table)} ALTER COLUMN ${clean(column_name ?? "")} TYPE bigint, which rewrites the table, and ALTER SEQUENCE ${clean(row.sequence)} AS bigint.`
          : `ALTER SEQUENCE ${clean(row.sequence)} AS bigint NO MAXVALUE.`
    }
  })
  if (found.length === 0 && unread.length > 0)
    return `the role ${facts.server.role} may not read ${count(unread.length, "sequence")}: GRANT SELECT ON ALL SEQUENCES IN SCHEMA … TO it`
  return each(
    found,
    (said) => said,
    ok(
      "Sequences have values left",
      `${count(sequences.length, "sequence")}, none used to ${percent(thresholds.sequenceShare.warning)}.`
    )
  )
})

/** Half of 2³²: what is older than that would seem to lie in the future. Source: PostgreSQL manual, 24.1.5. */
const wraparound = 2 ** 31

const ids = check("wraparound", ["ages"], ({ ages }, { thresholds }) => {
  const worst = ages.flatMap(({ database, multixacts, transactions }) => [
    { database, age: transactions, what: "transaction", setting: "autovacuum_freeze_max_age" },
    { database, age: multixacts, what: "multixact", setting: "autovacuum_multixact_freeze_max_age" }
  ])
  return each(
    worst.filter(({ age }) => levelOf(age, thresholds.idAge) !== "ok").sort((a, b) => b.age - a.age),
    ({ age, database, setting, what }): Said => ({
      severity: levelOf(age, thresholds.idAge),
      title: `The ${what} ids run out`,
      found: `${clean(database)} is ${count(age, what)} old, ${percent(age / wraparound)} of what there is. Autovacuum (${setting}) does not get through; at the end the server takes no more writes.`,
      advice: `End what holds it up (old transactions, prepared ones, replication slots), then VACUUM (FREEZE, VERBOSE) in ${clean(database)} as its owner.`
    }),
    ok(
      "There are ids enough",
      `The oldest database is ${count(Math.max(0, ...ages.map(({ transactions }) => transactions)), "transaction")} old.`
    )
  )
})

const tables = check("dead-rows", ["tables"], ({ tables }, { thresholds }) => {
  const dead = tables
    .map((table) => ({ ...table, share: table.dead / Math.max(1, table.dead + table.live) }))
    .filter((table) => table.dead >= thresholds.deadRows && levelOf(table.share, thresholds.deadShare) !== "ok")
    .map(({ dead, share, vacuumed_seconds, ...row }): Said => {
      const table = clean(row.table)
      return {
        severity: levelOf(share, thresholds.deadShare),
        title: "A table is full of dead rows",
        found: `${table}: ${count(dead, "dead row")}, ${percent(share)} of all, ${vacuumed_seconds === null ? "never vacuumed" : `vacuumed ${span(vacuumed_seconds)} ago`}.`,
        advice: `VACUUM (VERBOSE, ANALYZE) ${table}; if it removes nothing, an old transaction or a slot is in the way; if it comes too rarely, ALTER TABLE ${table} SET (autovacuum_vacuum_scale_factor = 0.05).`
      }
    })
  const unknown = tables
    .filter(({ analyzed, live }) => !analyzed && live >= thresholds.neverAnalyzedRows)
    .map(
      ({ live, ...row }): Said => ({
        severity: "info",
        title: "A table was never analyzed",
        found: `${clean(row.table)}: about ${count(live, "row")}, of which the planner knows nothing.`,
        advice: `ANALYZE ${clean(row.table)}. After a restore or an upgrade: vacuumdb --all --analyze-in-stages.`
      })
    )
  return each(
    [...dead, ...unknown],
    (said) => said,
    ok("Tables are vacuumed and analyzed", `${count(tables.length, "table")} looked at.`)
  )
})

const ledger = check("ledger", ["ledger", "unlogged"], ({ ledger, unlogged }, { program }): ReadonlyArray<Said> => {
  const place = `${program.ledger.schema}.${program.ledger.table}`
  const ours = new Set(ledger.map(({ name }) => name))
  const found: Array<Said> = []
  for (const { name, persistence } of ledger)
    if (persistence !== "p")
      found.push({
        severity: "critical",
        title: "The ledger is not logged",
        found: `${program.ledger.schema}.${clean(name)} is unlogged: a crash empties it, and exactly-once is lost in the very moment that it is for.`,
        advice: `ALTER TABLE ${clean(program.ledger.schema)}.${clean(name)} SET LOGGED.`
      })
  const others = unlogged.filter(({ name, schema }) => schema !== program.ledger.schema || !ours.has(name))
  if (others.length > 0)
    found.push({
      severity: "info",
      title: "Some tables are not logged",
      found: `${others
        .slice(0, 5)
        .map(({ table }) => clean(table))
        .join(
          ", "
        )}${others.length > 5 ? `, and ${others.length - 5} more` : ""}: empty after a crash, and on every standby.`,
      advice: "If what is in them matters: ALTER TABLE … SET LOGGED."
    })
  if (found.length > 0) return found
  return ours.has(program.ledger.table)
    ? [ok("The ledger is there", `${place} is a logged table.`)]
    : [
        {
          severity: "info",
          title: "There is no ledger",
          found: `${place} does not exist: transactions with exactlyOnce: "ledger", and Transaction.once, need it.`,
          advice:
            "If the program uses those: run Transaction.createLedger once, or Transaction.ledgerMigration as a migration."
        }
      ]
})

const extensions = check("extensions", ["extensions"], ({ extensions }): ReadonlyArray<Said> => {
  const statements = extensions.find(({ name }) => name === "pg_stat_statements")
  const outdated = extensions.filter(({ available, installed }) => installed !== null && installed !== available)
  const found = outdated.map(
    ({ available, installed, name }): Said => ({
      severity: "info",
      title: "An extension is older than what is installed",
      found: `${clean(name)} is ${installed}, and ${available} is there.`,
      advice: `ALTER EXTENSION ${clean(name)} UPDATE.`
    })
  )
  if (statements?.installed !== null || statements === undefined)
    return statements === undefined
      ? [
          ...found,
          {
            severity: "info",
            title: "pg_stat_statements cannot be had",
            found: "The server does not come with it: nobody can say which statements take the server's time.",
            advice: "Install the server's contrib package (postgresql-contrib), or ask your platform."
          }
        ]
      : [...found, ok("pg_stat_statements is there", "It says which statements take the server's time.")]
  return [
    ...found,
    {
      severity: "info",
      title: "pg_stat_statements is missing",
      found: "Nobody can say which statements take the server's time.",
      advice: "Add it to shared_preload_libraries, restart the server, and CREATE EXTENSION pg_stat_statements."
    }
  ]
})

const statistics = check("usage", ["statistics"], ({ statistics }, { facts, thresholds }) => {
  const { bytes, deadlocks, since_seconds, temporary_bytes, temporary_files } = statistics
  const when = since_seconds === null ? "since its statistics began" : `in ${span(since_seconds)}`
  const found: Array<Said> = [ok("Size", `The database ${facts.server.database} has ${size(bytes)}.`)]
  if (deadlocks > 0)
    found.push({
      severity: "info",
      title: "There were deadlocks",
      found: `${count(deadlocks, "deadlock")} ${when}. Each ended one transaction (40P01).`,
      advice:
        "Take locks in one order everywhere; repeat such transactions as a whole (Transaction.run with retry: true). The server's log names the statements."
    })
  if (temporary_bytes >= thresholds.temporaryBytes)
    found.push({
      severity: "info",
      title: "Queries spill to disk",
      found: `${count(temporary_files, "temporary file")} with ${size(temporary_bytes)} ${when}: sorts and hashes did not fit into work_mem.`,
      advice:
        "Find them (ALTER SYSTEM SET log_temp_files = '10MB'; SELECT pg_reload_conf()), add an index, or raise work_mem for their role; set temp_file_limit against a full disk."
    })
  return found
})

export const all: ReadonlyArray<Check> = [ids, indexes, constraints, sequences, tables, ledger, extensions, statistics]
