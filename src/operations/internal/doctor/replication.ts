/** Checks of standbys, and of what keeps the log for them. */
import { type Check, check, clean, count, each, levelOf, ok, type Said, size, span } from "./check.js"
import type { Levels, Thresholds } from "./thresholds.js"

const worse = (...levels: ReadonlyArray<"ok" | "warning" | "critical">) =>
  levels.includes("critical") ? "critical" : levels.includes("warning") ? "warning" : "ok"

const lagLevel = (
  { lag_bytes, lag_seconds }: { readonly lag_bytes: number | null; readonly lag_seconds: number | null },
  { lagBytes, lagSeconds }: Thresholds
) => {
  const level = (value: number | null, levels: Levels) => (value === null ? "ok" : levelOf(value, levels))
  return worse(level(lag_bytes, lagBytes), level(lag_seconds, lagSeconds))
}

const standby = check("standby", ["standby"], ({ standby }, { facts, thresholds }): ReadonlyArray<Said> => {
  if (!facts.server.standby) return [ok("This is a primary", "It takes writes.")]
  const { lag_bytes, lag_seconds, paused, receiving } = standby
  const behind = `${size(lag_bytes ?? 0)} received and not replayed, the last transaction replayed ${span(lag_seconds ?? 0)} behind`
  const role: Said = {
    severity: "info",
    title: "This is a standby",
    found: `It takes no writes (25006); ${behind}.`,
    advice:
      "For a program that writes, connect to the primary, by an address that follows it through failovers (a DNS name, a proxy, the platform's)."
  }
  if (paused)
    return [
      {
        severity: "warning",
        title: "The standby's replay is paused",
        found: `${behind}; it grows staler, and keeps the log that it does not replay.`,
        advice: "SELECT pg_wal_replay_resume()."
      },
      role
    ]
  if (!receiving)
    return [
      {
        severity: "warning",
        title: "The standby receives nothing",
        found: "No WAL receiver runs: the primary is away, refuses this standby, or it restores from an archive.",
        advice:
          "Look at primary_conninfo and in the server's log; a slot that was lost means that the standby must be made anew (pg_basebackup)."
      },
      role
    ]
  const level = lagLevel(standby, thresholds)
  return level === "ok"
    ? [role]
    : [
        {
          severity: level,
          title: "The standby is behind",
          found: `${behind}.`,
          advice:
            "Look at the standby's disk and at long queries on it (max_standby_streaming_delay); read what must be fresh from the primary."
        },
        role
      ]
})

const replicas = check("replicas", ["replicas", "settings"], ({ replicas, settings }, { thresholds }) => {
  const findings: Array<Said> = []
  const synchronous = settings.get("synchronous_standby_names")?.setting ?? ""
  if (synchronous !== "" && !replicas.some((_) => _.synchronous === "sync" || _.synchronous === "quorum"))
    findings.push({
      severity: "critical",
      title: "No synchronous standby is connected",
      found: `synchronous_standby_names asks for ${clean(synchronous)}, and none is there: every commit waits for one, without end.`,
      advice:
        "Bring the standby back; or, if writes matter more than a second copy: ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()."
    })
  for (const replica of replicas) {
    const level = lagLevel(replica, thresholds)
    if (level === "ok") continue
    findings.push({
      severity: level,
      title: "A standby is behind",
      found: `${clean(replica.name)} (${replica.state}) has ${size(replica.lag_bytes ?? 0)} left to replay, ${span(replica.lag_seconds ?? 0)} behind.`,
      advice: "Look at its disk, its network, and at long queries on it: SELECT * FROM pg_stat_replication."
    })
  }
  if (findings.length > 0) return findings
  return [
    replicas.length === 0
      ? ok("No standby is connected", "Neither one that should be, nor another.")
      : ok("The standbys keep up", `${count(replicas.length, "standby").replace("standbys", "standbys")} connected.`)
  ]
})

const slots = check("replication-slots", ["slots", "settings"], ({ settings, slots }, { thresholds }) => {
  const unlimited = settings.get("max_slot_wal_keep_size")?.setting === "-1"
  const judged = slots.flatMap((slot): ReadonlyArray<Said> => {
    const { active, command, kept_bytes, type, wal_status } = slot
    const name = `The ${type} slot ${clean(slot.name)}`
    const drop = `SELECT pg_drop_replication_slot(${command})`
    if (wal_status === "lost")
      return [
        {
          severity: "critical",
          title: "A replication slot is lost",
          found: `${name} needs a log that is no longer there: its consumer can never go on.`,
          advice: `${drop}, and make the consumer anew.`
        }
      ]
    const kept = kept_bytes ?? 0
    const level = levelOf(kept, thresholds.slotBytes)
    if (active && level === "ok") return []
    return [
      {
        severity: active ? level : worse(level, "warning"),
        title: active ? "A replication slot is behind" : "A replication slot has no consumer",
        found: `${name} keeps ${size(kept)} of the log${active ? "" : " for nobody"}${unlimited ? ", and may until the disk is full (max_slot_wal_keep_size is -1)" : ""}.`,
        advice: active
          ? "Look at its consumer: it does not confirm what it has read."
          : `Bring its consumer back, or, if it is gone for good: ${drop}.`
      } as Said
    ]
  })
  return each(
    judged,
    (said) => said,
    ok(
      "Replication slots keep up",
      slots.length === 0 ? "There are none." : `${count(slots.length, "slot")}, all in use.`
    )
  )
})

export const all: ReadonlyArray<Check> = [standby, replicas, slots]
