/** What a recovery is told, and what it says: pure. */
import * as Option from "effect/Option"
import { literal } from "./archive.js"
import type { Base } from "./manifest.js"
import * as wal from "./wal.js"

/** Where to stop. */
export type Target =
  /** With the last transaction that was committed at that time, or before. With its offset; microseconds count. */
  | { readonly time: string }
  /** Before whatever was written at that position or later: what `pg_current_wal_lsn()` said after a COMMIT holds that COMMIT. */
  | { readonly lsn: string }
  /** At a name that was given with `pg_create_restore_point`. */
  | { readonly restorePoint: string }
  /** At the end of all WAL. */
  | "latest"
  /** As early as the base backup allows: its own end. */
  | "immediate"

/** As the server reads it: while it reads its settings, it knows no names of time zones, not even `Z`. */
const serverTime = (time: string): string =>
  time
    .trim()
    .replace(/[Tt]/, " ")
    .replace(/\s*[Zz]$/, "+00")

/** The server's settings for it. Source: manual, 20.5.6 "Recovery Target". */
export const settings = (
  target: Target,
  timeline: number | "latest" | "current"
): ReadonlyArray<readonly [name: string, value: string]> => {
  const common = [
    ["recovery_target_action", "promote"],
    ["recovery_target_timeline", String(timeline)]
  ] as const
  if (target === "latest") return common
  if (target === "immediate") return [...common, ["recovery_target", "immediate"]]
  if ("time" in target) return [...common, ["recovery_target_time", serverTime(target.time)]]
  if ("restorePoint" in target) return [...common, ["recovery_target_name", target.restorePoint]]
  return [...common, ["recovery_target_lsn", target.lsn], ["recovery_target_inclusive", "off"]]
}

export const describeTarget = (target: Target): string => {
  if (target === "latest") return "the end of the WAL"
  if (target === "immediate") return "the end of the base backup"
  if ("time" in target) return `the time ${target.time}`
  return "lsn" in target ? `the position ${target.lsn}` : `the restore point ${target.restorePoint}`
}

/** Whether a base backup ends before the target, as it must. `time` is the target's, where it is one. */
export const reaches = (base: Base, target: Target, time: Date | undefined): boolean => {
  if (time !== undefined) return base.finishedAt.getTime() <= time.getTime()
  if (target === "latest" || target === "immediate" || !("lsn" in target)) return true
  const [end, wanted] = [wal.position(base.endLsn), wal.position(target.lsn)]
  return Option.isSome(end) && Option.isSome(wanted) && end.value <= wanted.value
}

/** What the server has said so far. */
export interface Said {
  /** The last segment that was read from the archive. */
  readonly segment: string | undefined
  /** The server's own time of the last transaction that was applied. */
  readonly lastTransaction: string | undefined
  /** Where it stopped. */
  readonly stopping: string | undefined
  readonly consistent: boolean
  readonly fatal: string | undefined
}

export const nothingSaid: Said = {
  segment: undefined,
  lastTransaction: undefined,
  stopping: undefined,
  consistent: false,
  fatal: undefined
}

/** Reads one line of the server's log. Source: the messages of access/transam/xlogrecovery.c. */
export const hear = (said: Said, line: string): Said => {
  const segment = /restored log file "([^"]+)" from archive/.exec(line)?.[1]
  const last = /last completed transaction was at log time (.+)$/.exec(line)?.[1]
  const stopping = /recovery stopping (.+)$/.exec(line)?.[1]
  const fatal = /(?:FATAL|PANIC): +(.+)$/.exec(line)?.[1]
  return {
    segment: segment !== undefined && /^[0-9A-F]{24}$/.test(segment) ? segment : said.segment,
    lastTransaction: last ?? said.lastTransaction,
    stopping: stopping ?? said.stopping,
    consistent: said.consistent || /consistent recovery state reached/.test(line),
    // what asks too early is told so, and is not the server's end
    fatal:
      fatal === undefined || /the database system is|not yet accepting/.test(fatal) ? said.fatal : (said.fatal ?? fatal)
  }
}

export type Ending = "tooEarly" | "walMissing" | "failed"

/** What became of a recovery that ended without a server. */
export const ending = ({ fatal }: Said): Ending => {
  if (fatal === undefined) return "failed"
  if (/requested recovery stop point is before consistent recovery point/.test(fatal)) return "tooEarly"
  return /recovery ended before configured recovery target was reached|WAL ends before end of online backup|WAL ends before consistent recovery point|could not locate required checkpoint record|could not find redo location/.test(
    fatal
  )
    ? "walMissing"
    : "failed"
}

/** The settings of a data directory that came without, because its server kept them elsewhere, as Debian's do. */
export const plainConfiguration = (controlData: string): string => {
  const value = (label: string) => new RegExp(`^${label} setting: +(\\S+)$`, "m").exec(controlData)?.[1]
  const kept = [
    ["max_connections", value("max_connections")],
    ["max_worker_processes", value("max_worker_processes")],
    ["max_wal_senders", value("max_wal_senders")],
    ["max_prepared_transactions", value("max_prepared_xacts")],
    ["max_locks_per_transaction", value("max_locks_per_xact")]
  ]
  return [
    "# The base backup held no postgresql.conf: its server kept it elsewhere. Copy it from there before going back to work.",
    ...kept.flatMap(([name, value]) => (value === undefined ? [] : [`${name} = ${value}`]))
  ]
    .join("\n")
    .concat("\n")
}

/** Nobody but those who have a password, from this machine. */
export const plainAuthentication = `# The base backup held no pg_hba.conf: its server kept it elsewhere. Copy it from there before going back to work.
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
`

/** For postgresql.conf. */
export const line = (name: string, value: string): string => `${name} = ${literal(value)}`
