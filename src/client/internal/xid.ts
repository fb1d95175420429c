/**
 * Settling by the server's own transaction ids, where no table may be created: `pg_current_xact_id()` travels with BEGIN, and
 * `pg_xact_status` is asked later.
 *
 * What its words are worth:
 * 1. `aborted`, "in the future", and `in progress` in another incarnation of the server: not committed, here and now.
 * 2. `committed` is believed within one incarnation only. An id whose WAL was not flushed before a crash is handed out again
 *    after it, and so it is by a standby that was promoted: what was committed then may be somebody else.
 * 3. Incarnations are told apart by the system identifier, the timeline, and the time at which the server's statistics began:
 *    recovery from a crash throws those away (also the one after a single killed backend, which the time of the start does
 *    not show), and a clean restart keeps them, as it keeps the ids. Whoever resets them by hand loses answers, no truth.
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as PgError from "../../error/PgError.js"
import type { Held } from "./held.js"

/** Ids are 64 bits, and go as text from end to end. */
export interface Facts {
  readonly xid: string
  readonly incarnation: string
}

const incarnation = `(SELECT system_identifier::text FROM pg_control_system()) || '/' ||
  substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '/' ||
  (SELECT extract(epoch FROM stats_reset)::text FROM pg_stat_bgwriter)`

/** Behind BEGIN. */
export const begun = `; SELECT pg_current_xact_id()::text AS xid, ${incarnation} AS incarnation`

const now = `SELECT ${incarnation} AS incarnation`
const status = "SELECT pg_xact_status($1::xid8) AS status"

/** Ends the session of a transaction that is still open because its client has gone: it was never told to commit. */
const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_xid = ($1::xid8)::xid AND state LIKE 'idle in transaction%'`

/** SQLSTATE invalid_parameter_value: of `pg_xact_status`, that the id has not been given to anybody yet. */
const future = "22023"

/** `Open`: not decided yet. `Lost`: it will never be known. */
export type Answer = "Applied" | "NotApplied" | "Open" | "Lost"

/** A server's words as an answer. `status`: `pg_xact_status`'s, null for an id older than it remembers. */
export const judge = (facts: Facts, current: string, status: string | null): Answer => {
  const same = current === facts.incarnation
  const [system, timeline = ""] = facts.incarnation.split("/")
  const [currentSystem, currentTimeline = ""] = current.split("/")
  // Another cluster, or a primary that has been replaced since: what it has not committed the right one may have.
  if (system !== currentSystem || currentTimeline < timeline) return "Open"
  switch (status) {
    case "committed":
      return same ? "Applied" : "Lost"
    case "in progress":
      return same ? "Open" : "NotApplied"
    case null:
      return "Lost"
    default:
      return "NotApplied"
  }
}

/** One question, both parts of it to the same server. `on`: in a transaction of its own. */
export const ask = (
  on: <A>(use: (held: Held) => Effect.Effect<A, SqlError>) => Effect.Effect<A, PgError.PgError>,
  facts: Facts
): Effect.Effect<Answer, PgError.PgError> =>
  Effect.suspend(() => {
    let current: string | undefined
    const asked = on((held) =>
      Effect.gen(function* () {
        const one = (sql: string, params: ReadonlyArray<unknown>) =>
          Effect.map(held.execute(sql, params, undefined), ([row]) => row)
        const told = (yield* one(now, [])).incarnation as string
        current = told
        const answer = judge(facts, told, (yield* one(status, [facts.xid])).status as string | null)
        if (answer === "Open" && told === facts.incarnation) yield* one(end, [facts.xid])
        return answer
      })
    )
    // An error of the server, and the end of the transaction in which it was asked.
    return Effect.catchIf(
      asked,
      ({ sqlState }) => sqlState === future && current !== undefined,
      () => Effect.succeed(judge(facts, current!, "in the future"))
    )
  })
