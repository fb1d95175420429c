/**
 * What is read from the server: one statement a subject, all of them reading catalogs and statistics only. Each is wrapped so
 * that its rows come as one JSON text, whatever parsers and transforms the client has for other types; a column that an older
 * server does not know is read through `to_jsonb`, which has it as null there. Nothing reads the text of other sessions'
 * queries, because it may hold data.
 */
import * as Schema from "effect/Schema"

export interface Query<A> {
  readonly row: Schema.Schema<A, any>
  readonly sql: string
  /** Without `pg_read_all_stats` the server would answer with rows that are half empty, and look like good news. */
  readonly needsAllStats: boolean
}

export const query = <A, I>(row: Schema.Schema<A, I>, sql: string, needsAllStats = false): Query<A> => ({
  row,
  sql: `SELECT COALESCE(pg_catalog.json_agg(pg_catalog.row_to_json(r)), '[]')::text AS rows FROM (${sql}) r`,
  needsAllStats
})

const Text = Schema.String
const Num = Schema.Number
const Bool = Schema.Boolean
const MaybeNum = Schema.NullOr(Schema.Number)
const MaybeText = Schema.NullOr(Schema.String)

const since = (moment: string) => `EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - ${moment})::pg_catalog.float8`
/** Where the log is, on a primary and on a standby that feeds others. */
const position =
  "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END"
const bytesBehind = (lsn: string) => `pg_catalog.pg_wal_lsn_diff(${position}, ${lsn})::pg_catalog.float8`
const relation = (namespace: string, name: string) =>
  `pg_catalog.quote_ident(${namespace}) || '.' || pg_catalog.quote_ident(${name})`

/** Of lists that may be long: what is beyond is counted by nobody, and the worst come first. */
const most = 200

export const server = query(
  Schema.Struct({
    version: Text,
    version_number: Num,
    database: Text,
    role: Text,
    standby: Bool,
    server_encoding: Text,
    client_encoding: Text,
    tls: Bool,
    reads_all_stats: Bool
  }),
  `SELECT pg_catalog.current_setting('server_version') AS version,
    pg_catalog.current_setting('server_version_num')::int AS version_number,
    pg_catalog.current_database() AS database, current_user AS role, pg_catalog.pg_is_in_recovery() AS standby,
    pg_catalog.current_setting('server_encoding') AS server_encoding,
    pg_catalog.current_setting('client_encoding') AS client_encoding,
    COALESCE((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()), false) AS tls,
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS reads_all_stats`
)

export const settingNames = [
  "archive_mode",
  "autovacuum",
  "data_checksums",
  "default_transaction_read_only",
  "fsync",
  "full_page_writes",
  "idle_in_transaction_session_timeout",
  "lock_timeout",
  "log_lock_waits",
  "max_connections",
  "max_slot_wal_keep_size",
  "password_encryption",
  "reserved_connections",
  "statement_timeout",
  "superuser_reserved_connections",
  "synchronous_commit",
  "synchronous_standby_names",
  "tcp_keepalives_idle",
  "track_counts",
  "track_io_timing",
  "wal_level"
] as const
export type SettingName = (typeof settingNames)[number]

export const settings = query(
  Schema.Struct({ name: Text, setting: Text, source: Text }),
  `SELECT name, setting, source FROM pg_catalog.pg_settings WHERE name IN (${settingNames.map((name) => `'${name}'`).join(", ")})`
)

/** What every role may see, unlike the rows of pg_stat_activity. Limits are -1 where there are none. */
export const connections = query(
  Schema.Struct({
    sessions: Num,
    role_limit: Num,
    database_limit: Num
  }),
  `SELECT (SELECT COALESCE(pg_catalog.sum(numbackends), 0)::int FROM pg_catalog.pg_stat_database) AS sessions,
    COALESCE((SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user), -1) AS role_limit,
    COALESCE((SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), -1) AS database_limit`
)

export const sessions = query(
  Schema.Struct({
    pid: Num,
    database: MaybeText,
    role: MaybeText,
    application: Text,
    state: MaybeText,
    transaction_seconds: MaybeNum,
    state_seconds: MaybeNum,
    lock_seconds: MaybeNum,
    blocked_by: Schema.Array(Num)
  }),
  `SELECT pid, datname AS database, usename AS role, application_name AS application, state,
    ${since("xact_start")} AS transaction_seconds, ${since("state_change")} AS state_seconds,
    CASE WHEN wait_event_type = 'Lock' THEN COALESCE(
      (SELECT ${since("pg_catalog.min((pg_catalog.to_jsonb(l) ->> 'waitstart')::pg_catalog.timestamptz)")}
        FROM pg_catalog.pg_locks l WHERE l.pid = a.pid AND NOT l.granted), 0) END AS lock_seconds,
    CASE WHEN wait_event_type = 'Lock' THEN pg_catalog.pg_blocking_pids(pid) ELSE '{}' END AS blocked_by
  FROM pg_catalog.pg_stat_activity a
  WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()`,
  true
)

export const prepared = query(
  Schema.Struct({ gid: Text, command: Text, database: Text, owner: Text, seconds: Num }),
  `SELECT gid, pg_catalog.quote_literal(gid) AS command, database, owner, ${since("prepared")} AS seconds
  FROM pg_catalog.pg_prepared_xacts ORDER BY prepared LIMIT ${most}`
)

export const replicas = query(
  Schema.Struct({
    name: Text,
    state: MaybeText,
    synchronous: MaybeText,
    lag_bytes: MaybeNum,
    lag_seconds: MaybeNum
  }),
  `SELECT application_name AS name, state, sync_state AS synchronous, ${bytesBehind("replay_lsn")} AS lag_bytes,
    EXTRACT(EPOCH FROM replay_lag)::pg_catalog.float8 AS lag_seconds
  FROM pg_catalog.pg_stat_replication`,
  true
)

/** A standby that has replayed all it got is not behind, however long ago the last transaction was. */
export const standby = query(
  Schema.Struct({ receiving: Bool, paused: Bool, lag_bytes: MaybeNum, lag_seconds: MaybeNum }),
  `SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) AS receiving,
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END AS paused,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())::pg_catalog.float8 AS lag_bytes,
    CASE WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN 0
      ELSE ${since("pg_catalog.pg_last_xact_replay_timestamp()")} END AS lag_seconds`
)

export const slots = query(
  Schema.Struct({
    name: Text,
    command: Text,
    type: Text,
    active: Bool,
    wal_status: MaybeText,
    kept_bytes: MaybeNum
  }),
  `SELECT slot_name AS name, pg_catalog.quote_literal(slot_name) AS command, slot_type AS type, active, wal_status,
    ${bytesBehind("restart_lsn")} AS kept_bytes
  FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY restart_lsn LIMIT ${most}`
)

export const archiver = query(
  Schema.Struct({
    archived: Num,
    failed: Num,
    failing: Bool,
    last_failed: MaybeText,
    failed_seconds: MaybeNum
  }),
  `SELECT archived_count AS archived, failed_count AS failed, last_failed_wal AS last_failed,
    COALESCE(last_failed_time > COALESCE(last_archived_time, '-infinity'), false) AS failing,
    ${since("last_failed_time")} AS failed_seconds
  FROM pg_catalog.pg_stat_archiver`
)

export const statistics = query(
  Schema.Struct({
    deadlocks: Num,
    temporary_files: Num,
    temporary_bytes: Num,
    since_seconds: MaybeNum,
    checksum_failures: MaybeNum,
    bytes: Num
  }),
  `SELECT deadlocks, temp_files AS temporary_files, temp_bytes AS temporary_bytes, ${since("stats_reset")} AS since_seconds,
    (SELECT pg_catalog.sum(checksum_failures)::pg_catalog.float8 FROM pg_catalog.pg_stat_database) AS checksum_failures,
    pg_catalog.pg_database_size(datid)::pg_catalog.float8 AS bytes
  FROM pg_catalog.pg_stat_database WHERE datname = pg_catalog.current_database()`
)

export const ages = query(
  Schema.Struct({ database: Text, transactions: Num, multixacts: Num }),
  `SELECT datname AS database, pg_catalog.age(datfrozenxid) AS transactions, pg_catalog.mxid_age(datminmxid) AS multixacts
  FROM pg_catalog.pg_database ORDER BY 2 DESC`
)

/**
 * `busy`: somebody holds the lock on the table that building an index takes. Every role may see that, unlike the progress of
 * building one.
 */
export const indexes = query(
  Schema.Struct({ index: Text, table: Text, unique: Bool, partitioned: Bool, busy: Bool }),
  `SELECT ${relation("n.nspname", "i.relname")} AS index, ${relation("tn.nspname", "t.relname")} AS table,
    x.indisunique AS unique, i.relkind = 'I' AS partitioned,
    EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.relation = x.indrelid AND l.granted
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND l.mode = 'ShareUpdateExclusiveLock') AS busy
  FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
    JOIN pg_catalog.pg_class t ON t.oid = x.indrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  WHERE (NOT x.indisvalid OR NOT x.indisready) AND n.nspname NOT LIKE 'pg\\_temp\\_%' ORDER BY 1 LIMIT ${most}`
)

/** Not those that are declared as not enforced, which is somebody's decision. */
export const constraints = query(
  Schema.Struct({ table: Text, constraint: Text }),
  `SELECT ${relation("n.nspname", "t.relname")} AS table, pg_catalog.quote_ident(c.conname) AS constraint
  FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_class t ON t.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
  WHERE NOT c.convalidated AND COALESCE(pg_catalog.to_jsonb(c) ->> 'conenforced', 'true') = 'true'
  ORDER BY 1, 2 LIMIT ${most}`
)

export const tables = query(
  Schema.Struct({ table: Text, live: Num, dead: Num, analyzed: Bool, vacuumed_seconds: MaybeNum }),
  `SELECT ${relation("schemaname", "relname")} AS table, n_live_tup AS live, n_dead_tup AS dead,
    last_analyze IS NOT NULL OR last_autoanalyze IS NOT NULL AS analyzed,
    ${since("GREATEST(last_vacuum, last_autovacuum)")} AS vacuumed_seconds
  FROM pg_catalog.pg_stat_user_tables ORDER BY n_dead_tup DESC, n_live_tup DESC LIMIT ${most}`
)

/**
 * `last` and `limit` as a count from where the sequence begins to be used up. The column that owns it may end before the
 * sequence does: an integer one at 2,147,483,647. Sequences that begin again cannot end.
 */
export const sequences = query(
  Schema.Struct({
    sequence: Text,
    readable: Bool,
    last: MaybeNum,
    limit: Num,
    column: MaybeText,
    type: MaybeText,
    table: MaybeText,
    column_name: MaybeText
  }),
  `SELECT ${relation("n.nspname", "c.relname")} AS sequence,
    pg_catalog.has_sequence_privilege(c.oid, 'SELECT, USAGE') AS readable,
    CASE WHEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT, USAGE')
      THEN pg_catalog.abs(pg_catalog.pg_sequence_last_value(c.oid)::pg_catalog.float8) END AS last,
    LEAST(
      pg_catalog.abs((CASE WHEN s.seqincrement > 0 THEN s.seqmax ELSE s.seqmin END)::pg_catalog.float8),
      CASE a.atttypid WHEN 'pg_catalog.int2'::pg_catalog.regtype THEN 32767
        WHEN 'pg_catalog.int4'::pg_catalog.regtype THEN 2147483647 ELSE 'Infinity'::pg_catalog.float8 END) AS limit,
    ${relation("tn.nspname", "t.relname")} || '.' || pg_catalog.quote_ident(a.attname) AS column,
    pg_catalog.format_type(a.atttypid, NULL) AS type,
    ${relation("tn.nspname", "t.relname")} AS table, pg_catalog.quote_ident(a.attname) AS column_name
  FROM pg_catalog.pg_sequence s
    JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_depend d ON d.objid = c.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_catalog.pg_class t ON t.oid = d.refobjid LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
  WHERE NOT s.seqcycle AND c.relpersistence <> 't'`
)

export const unlogged = query(
  Schema.Struct({ table: Text, schema: Text, name: Text }),
  `SELECT ${relation("n.nspname", "c.relname")} AS table, n.nspname AS schema, c.relname AS name
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'u' ORDER BY 1 LIMIT ${most}`
)

/** Ordinary tables, to find the ledger among them; `keys` is that of results by idempotency key. */
export const ledger = (schema: string, table: string) => {
  const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
  return query(
    Schema.Struct({ name: Text, persistence: Text }),
    `SELECT c.relname AS name, c.relpersistence AS persistence
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ${literal(schema)} AND c.relname IN (${literal(table)}, ${literal(`${table}_keys`)}) AND c.relkind IN ('r', 'p')`
  )
}

export const extensions = query(
  Schema.Struct({ name: Text, installed: MaybeText, available: MaybeText }),
  `SELECT name, installed_version AS installed, default_version AS available FROM pg_catalog.pg_available_extensions
  WHERE name = 'pg_stat_statements' OR (installed_version IS NOT NULL AND installed_version <> default_version) ORDER BY 1`
)
