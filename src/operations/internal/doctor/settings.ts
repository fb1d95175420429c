/** Checks of the server's settings: durability, limits, maintenance, what is logged and archived. */
import { type Check, check, count, ok, type Said, span } from "./check.js"
import type { Subjects } from "./facts.js"
import type { SettingName } from "./queries.js"

type Settings = Subjects["settings"]

/** A setting that this server, or this role, does not show is no setting that is fine. */
const one = (
  name: string,
  setting: SettingName,
  judge: (value: string, source: string) => ReadonlyArray<Said>
): Check =>
  check(name, ["settings"], ({ settings }: { readonly settings: Settings }) => {
    const known = settings.get(setting)
    return known === undefined ? `this server does not show ${setting}` : judge(known.setting, known.source)
  })

/** What ALTER SYSTEM does not reach: the value was set nearer to the session. */
const command = (name: SettingName, value: string, source: string, restart = false): string => {
  if (source === "database" || source === "user" || source === "database user")
    return `It is set for this ${source === "database" ? "database: ALTER DATABASE" : source === "user" ? "role: ALTER ROLE" : "role in this database: ALTER ROLE … IN DATABASE"} … RESET ${name}.`
  if (source === "client" || source === "session")
    return `This connection asks for it: take ${name} out of its parameters.`
  return `ALTER SYSTEM SET ${name} = ${value}; ${restart ? "then restart the server." : "SELECT pg_reload_conf()."}`
}

const fsync = one("fsync", "fsync", (value, source) =>
  value === "on"
    ? [ok("Commits reach the disk", "fsync is on.")]
    : [
        {
          severity: "critical",
          title: "Commits do not reach the disk",
          found: "fsync is off: when the machine crashes, the whole database may be damaged beyond repair.",
          advice: command("fsync", "on", source)
        }
      ]
)

const fullPageWrites = one("full-page-writes", "full_page_writes", (value, source) =>
  value === "on"
    ? [ok("Torn pages are repaired", "full_page_writes is on.")]
    : [
        {
          severity: "critical",
          title: "Torn pages are not repaired",
          found:
            "full_page_writes is off: a page half written when the machine crashes stays damaged, unless the file system never tears one.",
          advice: command("full_page_writes", "on", source)
        }
      ]
)

/** Source for the loss: PostgreSQL manual, 28.4 "Asynchronous Commit". */
const synchronousCommit = one("synchronous-commit", "synchronous_commit", (value, source) =>
  value !== "off"
    ? [ok("A commit is answered when it is safe", `synchronous_commit is ${value}.`)]
    : [
        {
          severity: "warning",
          title: "A commit is answered before it is safe",
          found:
            "synchronous_commit is off: a crash loses what was committed in the last moments (up to three times wal_writer_delay), although the program was told that it is there.",
          advice: `${command("synchronous_commit", "on", source)} Switch it off only in transactions that may be lost (SET LOCAL).`
        }
      ]
)

const idleInTransaction = one("idle-in-transaction-timeout", "idle_in_transaction_session_timeout", (value, source) =>
  Number(value) > 0
    ? [ok("Idle transactions are ended", `idle_in_transaction_session_timeout is ${span(Number(value) / 1000)}.`)]
    : [
        {
          severity: "warning",
          title: "Idle transactions are never ended",
          found:
            "idle_in_transaction_session_timeout is 0: a client that hangs in a transaction keeps its locks, and VACUUM waiting, for ever.",
          advice: `${command("idle_in_transaction_session_timeout", "'60s'", source)} Or for this library's connections only: serverTimeouts: { idleInTransaction: "60 seconds" }.`
        }
      ]
)

/** What a program usually wants. */
const usual = { statement_timeout: "30s", lock_timeout: "10s" } as const

const timeouts = check("timeouts", ["settings"], ({ settings }) => {
  const named = (["statement_timeout", "lock_timeout"] as const).map((name) => ({
    name,
    ms: Number(settings.get(name)?.setting ?? 0)
  }))
  const none = named.filter(({ ms }) => ms === 0).map(({ name }) => name)
  if (none.length === 0)
    return [
      ok(
        "The server ends what takes too long",
        `${named.map(({ ms, name }) => `${name} is ${span(ms / 1000)}`).join(", ")}.`
      )
    ]
  const commands = none.map((name) => `ALTER ROLE … SET ${name} = '${usual[name]}'`).join("; ")
  return [
    {
      severity: "info",
      title: "The server lets statements run for ever",
      found: `${none.join(" and ")} ${none.length === 1 ? "is" : "are"} 0: a deadline of the client's is worth nothing when the client dies.`,
      advice: `For the program's role: ${commands}; or \`serverTimeouts\` in the layer's options. Not for migrations and backups.`
    }
  ]
})

const readOnly = one("read-only", "default_transaction_read_only", (value, source) =>
  value === "off"
    ? [ok("Transactions may write", "default_transaction_read_only is off.")]
    : [
        {
          severity: "warning",
          title: "Transactions may not write",
          found: "default_transaction_read_only is on: every write fails with 25006.",
          advice: `${command("default_transaction_read_only", "off", source)} Some platforms set it when the disk is nearly full: look at that first.`
        }
      ]
)

const lockWaits = one("log-lock-waits", "log_lock_waits", (value, source) =>
  value === "on"
    ? [ok("Long waits for locks are logged", "log_lock_waits is on.")]
    : [
        {
          severity: "info",
          title: "Long waits for locks leave no trace",
          found: "log_lock_waits is off: afterwards, nobody can say who kept whom waiting.",
          advice: command("log_lock_waits", "on", source)
        }
      ]
)

const ioTiming = one("track-io-timing", "track_io_timing", (value, source) =>
  value === "on"
    ? [ok("Time spent on reading and writing is measured", "track_io_timing is on.")]
    : [
        {
          severity: "info",
          title: "Time spent on reading and writing is not measured",
          found: "track_io_timing is off: a slow disk cannot be told from a slow plan.",
          advice: `${command("track_io_timing", "on", source)} Where clocks are slow (pg_test_timing), leave it.`
        }
      ]
)

const autovacuum = check("autovacuum", ["settings"], ({ settings }) => {
  const off = (["autovacuum", "track_counts"] as const).filter((name) => settings.get(name)?.setting === "off")
  return off.length === 0
    ? [ok("Autovacuum is on", "Dead rows are removed, and statistics renewed, without anybody's doing.")]
    : [
        {
          severity: "critical",
          title: "Autovacuum is off",
          found: `${off.join(" and ")} ${off.length === 1 ? "is" : "are"} off: tables grow, plans grow stale, and in the end the server must stop for want of transaction ids.`,
          advice: off.map((name) => command(name, "on", settings.get(name)?.source ?? "")).join(" ")
        }
      ]
})

const keepAlives = check("tcp-keepalives", ["settings"], ({ settings }, { thresholds }) => {
  const known = settings.get("tcp_keepalives_idle")
  if (known === undefined) return "this server does not show tcp_keepalives_idle"
  const seconds = Number(known.setting)
  if (seconds === 0) return [ok("Keep-alives are not needed", "The connection is not by TCP.")]
  if (seconds <= thresholds.keepAliveSeconds)
    return [ok("The server notices clients that are gone", `tcp_keepalives_idle is ${span(seconds)}.`)]
  return [
    {
      severity: "info",
      title: "The server is slow to notice clients that are gone",
      found: `tcp_keepalives_idle is ${span(seconds)}: the session of a client that vanished, and its locks, stay that long at least.`,
      advice: command("tcp_keepalives_idle", "60", known.source)
    }
  ]
})

const wal = check("wal", ["settings"], ({ settings }) => {
  const level = settings.get("wal_level")?.setting
  const archiving = settings.get("archive_mode")?.setting
  if (level === undefined || archiving === undefined) return "this server does not show wal_level and archive_mode"
  if (level === "minimal")
    return [
      {
        severity: "warning",
        title: "Neither standbys nor point-in-time recovery are possible",
        found: "wal_level is minimal: the log says too little to restore from it.",
        advice: "ALTER SYSTEM SET wal_level = replica; then restart the server, and take a base backup."
      }
    ]
  return archiving === "off"
    ? [
        {
          severity: "info",
          title: "The log is not archived",
          found: `archive_mode is off (wal_level ${level}): from a backup you get the state of that backup, and nothing after it.`,
          advice:
            "If losing the time since the last backup is too much: set archive_mode and archive_command (manual, 25.3), or what your platform calls point-in-time recovery."
        }
      ]
    : [ok("The log is archived", `archive_mode is ${archiving}, wal_level ${level}.`)]
})

const archiver = check("archiver", ["settings", "archiver"], ({ archiver, settings }) => {
  if (settings.get("archive_mode")?.setting === "off") return [ok("There is no archiver", "archive_mode is off.")]
  const { archived, failed, failed_seconds, failing, last_failed } = archiver
  if (!failing) return [ok("The archiver works", `${count(archived, "file")} archived, ${count(failed, "failure")}.`)]
  return [
    {
      severity: "critical",
      title: "The archiver fails",
      found: `${last_failed ?? "A file"} could not be archived ${span(failed_seconds ?? 0)} ago, and none since: ${count(failed, "failure")}. The log stays on the server's disk until that is full.`,
      advice:
        "Look in the server's log for what archive_command (or archive_library) says, and mend that: it is tried again by itself."
    }
  ]
})

const checksums = check("checksums", ["settings", "statistics"], ({ settings, statistics }) => {
  const failures = statistics.checksum_failures ?? 0
  if (failures > 0)
    return [
      {
        severity: "critical",
        title: "Damaged pages were read",
        found: `${count(failures, "checksum failure")}: the disk, or something under it, returned other data than was written.`,
        advice:
          "Fail over to a standby or restore a backup on other hardware; find the tables with pg_amcheck. Nothing written to this disk can be trusted."
      }
    ]
  return settings.get("data_checksums")?.setting === "on"
    ? [ok("Damaged pages are noticed", "data_checksums is on, and no page has failed.")]
    : [
        {
          severity: "info",
          title: "Damaged pages go unnoticed",
          found: "data_checksums is off: what a failing disk returns is taken for data.",
          advice:
            "Stop the server, run pg_checksums --enable, and start it; or move to a cluster made with initdb --data-checksums."
        }
      ]
})

const passwords = one("password-encryption", "password_encryption", (value, source) =>
  value === "scram-sha-256"
    ? [ok("Passwords are stored safely", "password_encryption is scram-sha-256.")]
    : [
        {
          severity: "warning",
          title: "Passwords are stored as MD5",
          found: `password_encryption is ${value}: who reads such a hash can log in with it.`,
          advice: `${command("password_encryption", "'scram-sha-256'", source)} Then set every password again (\\password in psql).`
        }
      ]
)

export const all: ReadonlyArray<Check> = [
  fsync,
  fullPageWrites,
  synchronousCommit,
  autovacuum,
  idleInTransaction,
  timeouts,
  readOnly,
  keepAlives,
  wal,
  archiver,
  checksums,
  passwords,
  lockWaits,
  ioTiming
]
