/** A server about which there is nothing to say, as facts: each test changes one of them. */
import { Either } from "effect"
import type { Around } from "../../src/operations/internal/doctor/check.js"
import type { Facts, Subjects } from "../../src/operations/internal/doctor/facts.js"
import { judge } from "../../src/operations/internal/doctor/judge.js"
import { defaults } from "../../src/operations/internal/doctor/thresholds.js"

const settings = {
  archive_mode: "on",
  autovacuum: "on",
  data_checksums: "on",
  default_transaction_read_only: "off",
  fsync: "on",
  full_page_writes: "on",
  idle_in_transaction_session_timeout: "60000",
  lock_timeout: "10000",
  log_lock_waits: "on",
  max_connections: "100",
  max_slot_wal_keep_size: "-1",
  password_encryption: "scram-sha-256",
  reserved_connections: "0",
  statement_timeout: "30000",
  superuser_reserved_connections: "3",
  synchronous_commit: "on",
  synchronous_standby_names: "",
  tcp_keepalives_idle: "60",
  track_counts: "on",
  track_io_timing: "on",
  wal_level: "replica"
}

export type Settings = Partial<Record<keyof typeof settings, string>>

export const settingsWith = (changed: Settings = {}): Subjects["settings"] =>
  new Map(
    Object.entries({ ...settings, ...changed }).map(([name, setting]) => [name, { name, setting, source: "default" }])
  )

const subjects: Subjects = {
  settings: settingsWith(),
  connections: { sessions: 5, role_limit: -1, database_limit: -1 },
  sessions: [],
  prepared: [],
  replicas: [],
  standby: { receiving: false, paused: false, lag_bytes: null, lag_seconds: null },
  slots: [],
  archiver: {
    archived: 9,
    failed: 0,
    failing: false,
    last_failed: null,
    failed_seconds: null
  },
  statistics: {
    deadlocks: 0,
    temporary_files: 0,
    temporary_bytes: 0,
    since_seconds: 3_600,
    checksum_failures: 0,
    bytes: 2 ** 30
  },
  ages: [{ database: "app", transactions: 1_000, multixacts: 10 }],
  indexes: [],
  constraints: [],
  tables: [],
  sequences: [],
  unlogged: [],
  ledger: [{ name: "effect_pg_ledger", persistence: "p" }],
  extensions: [{ name: "pg_stat_statements", installed: "1.12", available: "1.12" }]
}

/** Noon of a day on which PostgreSQL 18 is maintained and 13 is not. */
export const today = Date.parse("2026-06-01T12:00:00Z")

export interface Change {
  readonly subjects?: Partial<Subjects>
  /** Subjects of which nothing is known, and why. */
  readonly unknown?: { readonly [name in keyof Subjects]?: string }
  readonly server?: Partial<Facts["server"]>
  readonly introduction?: Partial<Facts["introduction"]>
  readonly program?: Partial<Around["program"]>
}

export const examined = (change: Change = {}) => {
  const known = Object.entries({ ...subjects, ...change.subjects }).map(([name, value]) => [name, Either.right(value)])
  const unknown = Object.entries(change.unknown ?? {}).map(([name, why]) => [name, Either.left(why)])
  return judge({
    thresholds: defaults,
    program: {
      maxConnections: 10,
      instances: 1,
      sizing: {},
      ledger: { schema: "public", table: "effect_pg_ledger" },
      ...change.program
    },
    facts: {
      at: today,
      introduction: {
        address: "203.0.113.5",
        tls: "TLSv1.3",
        connectMs: 20,
        roundTripMs: 1,
        pooler: false,
        ...change.introduction
      },
      server: {
        version: "18.1",
        version_number: 180_001,
        database: "app",
        role: "shop",
        standby: false,
        server_encoding: "UTF8",
        client_encoding: "UTF8",
        tls: true,
        reads_all_stats: true,
        ...change.server
      },
      subjects: Object.fromEntries([...known, ...unknown])
    }
  })
}

/** What is worse than in order, as `severity check`. */
export const worth = (change: Change = {}) =>
  examined(change)
    .findings.filter(({ severity }) => severity !== "ok")
    .map(({ check, severity }) => `${severity} ${check}`)
