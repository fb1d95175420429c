/** Checks of what is going on at this moment: transactions, sessions, and who waits for whom. */
import { type Check, check, clean, count, each, levelOf, ok, percent, type Said, sessionOf, span } from "./check.js"

const terminate = (pid: number) => `SELECT pg_terminate_backend(${pid})`

const isIdleInTransaction = (state: string | null) => state?.startsWith("idle in transaction") === true

const longTransactions = check("long-transactions", ["sessions"], ({ sessions }, { thresholds }) =>
  each(
    sessions
      .filter(({ state, transaction_seconds }) => transaction_seconds !== null && !isIdleInTransaction(state))
      .map((session) => ({ ...session, seconds: session.transaction_seconds ?? 0 }))
      .filter(({ seconds }) => levelOf(seconds, thresholds.transactionSeconds) !== "ok")
      .sort((a, b) => b.seconds - a.seconds),
    (session): Said => ({
      severity: levelOf(session.seconds, thresholds.transactionSeconds),
      title: "A transaction has been at work for long",
      found: `${sessionOf(session)}, for ${span(session.seconds)}. VACUUM removes nothing that was deleted since it began.`,
      advice: `If it is not meant to be: SELECT pg_cancel_backend(${session.pid}); then give such work a deadline, or do it in parts.`
    }),
    ok("No transaction is old", `None has been at work for ${span(thresholds.transactionSeconds.warning)}.`)
  )
)

const idleInTransaction = check("idle-in-transaction", ["sessions"], ({ sessions }, { thresholds }) =>
  each(
    sessions
      .filter(({ state }) => isIdleInTransaction(state))
      .map((session) => ({ ...session, seconds: session.state_seconds ?? 0 }))
      .filter(({ seconds }) => levelOf(seconds, thresholds.idleInTransactionSeconds) !== "ok")
      .sort((a, b) => b.seconds - a.seconds),
    (session): Said => ({
      severity: levelOf(session.seconds, thresholds.idleInTransactionSeconds),
      title: "A session does nothing inside a transaction",
      found: `${sessionOf(session)}, for ${span(session.seconds)}. It keeps its locks, and VACUUM from removing dead rows.`,
      advice: `${terminate(session.pid)}; find what waits inside a transaction (a call to another service?), and set idle_in_transaction_session_timeout.`
    }),
    ok("No session idles in a transaction", `None for ${span(thresholds.idleInTransactionSeconds.warning)}.`)
  )
)

const preparedTransactions = check("prepared-transactions", ["prepared"], ({ prepared }, { facts, thresholds }) =>
  each(
    prepared.filter(({ seconds }) => levelOf(seconds, thresholds.preparedSeconds) !== "ok"),
    ({ command, database, gid, owner, seconds }): Said => ({
      severity: levelOf(seconds, thresholds.preparedSeconds),
      title: "A prepared transaction was never finished",
      found: `${clean(gid)} of ${clean(owner)} in ${clean(database)}, for ${span(seconds)}. It keeps its locks, also over restarts, and VACUUM from removing dead rows.`,
      advice: `${database === facts.server.database ? "A" : `In ${clean(database)}, a`}s its transaction manager decides: COMMIT PREPARED ${clean(command)}, or ROLLBACK PREPARED ${clean(command)}.`
    }),
    ok(
      "No prepared transaction is old",
      prepared.length === 0 ? "There are none." : `${count(prepared.length, "transaction")}, none of them old.`
    )
  )
)

const idleSessions = check("idle-sessions", ["sessions", "settings"], ({ sessions, settings }, { thresholds }) => {
  const max = Number(settings.get("max_connections")?.setting ?? 0)
  const seconds = thresholds.idleSessionSeconds
  const idle = sessions.filter(({ state, state_seconds }) => state === "idle" && (state_seconds ?? 0) >= seconds)
  const byApplication = new Map<string, number>()
  for (const { application, role } of idle) {
    const who = clean(application === "" ? `role ${role ?? "?"}` : `"${application}"`)
    byApplication.set(who, (byApplication.get(who) ?? 0) + 1)
  }
  const most = [...byApplication].sort((a, b) => b[1] - a[1]).slice(0, 3)
  const level = levelOf(idle.length / Math.max(1, max), thresholds.idleShare)
  const found = `${count(idle.length, "session")} of ${max} idle for over ${span(seconds)}`
  return [
    level === "ok"
      ? ok("Few sessions are idle", `${found}.`)
      : {
          severity: level,
          title: "Idle sessions take the server's connections",
          found: `${found} (${percent(idle.length / Math.max(1, max))}), most of ${most.map(([who, n]) => `${who}: ${n}`).join(", ")}.`,
          advice:
            "Lower `minConnections` and `idleTimeout` of their pools, use fewer instances or a pooler; or set idle_session_timeout for their roles."
        }
  ]
})

const blocked = check("blocked", ["sessions"], ({ sessions }, { thresholds }) => {
  const byPid = new Map(sessions.map((session) => [session.pid, session]))
  const waiting = sessions
    .filter(({ lock_seconds }) => lock_seconds !== null)
    .map((session) => ({ ...session, seconds: session.lock_seconds ?? 0 }))
    .filter(({ seconds }) => levelOf(seconds, thresholds.blockedSeconds) !== "ok")
    .sort((a, b) => b.seconds - a.seconds)
  /** At the head of the queue: who blocks, and waits for nobody. */
  const heads = (pid: number, seen: ReadonlySet<number> = new Set()): ReadonlyArray<number> => {
    if (seen.has(pid)) return []
    const by = byPid.get(pid)?.blocked_by ?? []
    return by.length === 0 ? [pid] : by.flatMap((next) => heads(next, new Set([...seen, pid])))
  }
  const describe = (pid: number) => {
    const head = byPid.get(pid)
    // 0 is a prepared transaction, of which no process is left.
    if (pid === 0) return "a prepared transaction (SELECT gid FROM pg_prepared_xacts)"
    return head === undefined ? `pid ${pid}` : `${sessionOf(head)}, ${head.state ?? "in an unknown state"}`
  }
  return each(
    waiting,
    (session): Said => {
      const culprits = [...new Set(session.blocked_by.flatMap((pid) => heads(pid)))]
      const [culprit] = culprits.filter((pid) => pid !== 0)
      return {
        severity: levelOf(session.seconds, thresholds.blockedSeconds),
        title: "A session waits for a lock",
        found: `${sessionOf(session)}, for ${span(session.seconds)}, because of ${culprits.map(describe).join(" and ") || "one that is gone by now"}.`,
        advice:
          culprit === undefined
            ? "Finish the prepared transaction (COMMIT PREPARED or ROLLBACK PREPARED), or look again."
            : `If the one in front may be ended: ${terminate(culprit)}; then make its transaction shorter, or set lock_timeout for those who wait.`
      }
    },
    ok("Nobody waits for a lock", `None for ${span(thresholds.blockedSeconds.warning)}.`)
  )
})

export const all: ReadonlyArray<Check> = [
  blocked,
  idleInTransaction,
  longTransactions,
  preparedTransactions,
  idleSessions
]
