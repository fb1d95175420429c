/** A database, looked at again and again: what a sample holds, and what two of them say together. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type * as PgError from "../../../error/PgError.js"
import type * as HealthProbe from "../../../health/HealthProbe.js"
import { count, percent, size, span } from "../doctor/check.js"
import { query } from "../doctor/queries.js"
import { alarming, bar, clock, type Line, row, spark, type View } from "./line.js"

const since = (moment: string) => `EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - ${moment})::pg_catalog.float8`

const sampling = query(
  Schema.Struct({
    version: Schema.String,
    database: Schema.String,
    all: Schema.Boolean,
    standby: Schema.Boolean,
    sessions: Schema.Number,
    max: Schema.Number,
    states: Schema.NullOr(Schema.Record({ key: Schema.String, value: Schema.Number })),
    waiting: Schema.Number,
    longest: Schema.NullOr(Schema.Number),
    commits: Schema.Number,
    rollbacks: Schema.Number,
    hits: Schema.Number,
    reads: Schema.Number,
    deadlocks: Schema.Number,
    replicas: Schema.Number,
    lag_bytes: Schema.NullOr(Schema.Number)
  }),
  `SELECT pg_catalog.current_setting('server_version') AS version, d.datname AS database,
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS all, pg_catalog.pg_is_in_recovery() AS standby,
    (SELECT COALESCE(pg_catalog.sum(numbackends), 0)::int FROM pg_catalog.pg_stat_database) AS sessions,
    pg_catalog.current_setting('max_connections')::int - pg_catalog.current_setting('superuser_reserved_connections')::int
      - COALESCE(pg_catalog.current_setting('reserved_connections', true)::int, 0) AS max,
    (SELECT pg_catalog.json_object_agg(s.state, s.n) FROM (
      SELECT state, pg_catalog.count(*) AS n FROM pg_catalog.pg_stat_activity
      WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid() AND state IS NOT NULL GROUP BY state) s) AS states,
    (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_locks WHERE NOT granted) AS waiting,
    (SELECT pg_catalog.max(${since("xact_start")}) FROM pg_catalog.pg_stat_activity
      WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()) AS longest,
    d.xact_commit AS commits, d.xact_rollback AS rollbacks, d.blks_hit AS hits, d.blks_read AS reads, d.deadlocks,
    (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_stat_replication) AS replicas,
    (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
      THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
      ELSE (SELECT pg_catalog.max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn)) FROM pg_catalog.pg_stat_replication)
      END)::pg_catalog.float8 AS lag_bytes
  FROM pg_catalog.pg_stat_database d WHERE d.datname = pg_catalog.current_database()`
)

export type Row = typeof sampling extends { readonly row: Schema.Schema<infer A, any> } ? A : never

/** `at`: milliseconds since the epoch. */
export type Sample =
  | { readonly _tag: "Seen"; readonly at: number; readonly row: Row }
  | { readonly _tag: "Lost"; readonly at: number; readonly why: string }

/** What has been seen so far. */
export interface State {
  readonly latest: Sample
  readonly last: { readonly at: number; readonly row: Row } | undefined
  /** Transactions per second, oldest first. */
  readonly rates: ReadonlyArray<number>
  readonly commitsPerSecond: number
  readonly rollbacksPerSecond: number
  /** Blocks found in memory, as a share, since the sample before. */
  readonly hitShare: number | undefined
}

const remembered = 120

/** Counters that went backwards were reset: nothing is known of that time. */
export const next = (state: State | undefined, sample: Sample): State => {
  const { last, rates } = state ?? { last: undefined, rates: [] }
  const none = { commitsPerSecond: 0, rollbacksPerSecond: 0, hitShare: undefined }
  if (sample._tag === "Lost") return { ...none, latest: sample, last: undefined, rates }
  const { at, row } = sample
  if (last === undefined || at <= last.at) return { ...none, latest: sample, last: { at, row }, rates }
  const seconds = (at - last.at) / 1000
  const perSecond = (name: "commits" | "rollbacks") => Math.max(0, row[name] - last.row[name]) / seconds
  const [commitsPerSecond, rollbacksPerSecond] = [perSecond("commits"), perSecond("rollbacks")]
  const hits = row.hits - last.row.hits
  const blocks = hits + row.reads - last.row.reads
  return {
    latest: sample,
    last: { at, row },
    commitsPerSecond,
    rollbacksPerSecond,
    hitShare: blocks > 0 && hits >= 0 ? hits / blocks : undefined,
    rates: [...rates, commitsPerSecond + rollbacksPerSecond].slice(-remembered)
  }
}

const rate = (n: number) => (n >= 10 ? String(Math.round(n)) : String(Math.round(n * 10) / 10))

/** In the order in which they matter. */
const order = ["active", "idle in transaction", "idle in transaction (aborted)", "idle"]
const statesOf = ({ all, states }: Row): string =>
  all
    ? Object.entries(states ?? {})
        .sort(([a], [b]) => order.indexOf(a) - order.indexOf(b))
        .map(([state, n]) => `${state} ${n}`)
        .join(", ") || "none but this one"
    : "by state: only with pg_monitor"

/** Seconds from which on a transaction is long: what `Transaction.run` gives one by default. */
const long = 30

export const view = (state: State, name: string): View => {
  const { latest } = state
  if (latest._tag === "Lost")
    return {
      lines: () => [[["bold", name]], [], [["red", `No answer, ${clock(latest.at)}`]], [latest.why], [], ["q quits"]],
      line: `${new Date(latest.at).toISOString()} no answer: ${latest.why}`
    }
  const { at, row: seen } = latest
  const share = seen.sessions / seen.max
  const lag = seen.lag_bytes === null ? "" : `, ${size(seen.lag_bytes)} behind`
  const longest = seen.longest === null ? "none" : span(seen.longest)
  const hits = state.hitShare === undefined ? "no reads" : `${(state.hitShare * 100).toFixed(1)} % of blocks read`
  return {
    line: [
      new Date(at).toISOString(),
      `sessions ${seen.sessions}/${seen.max} (${statesOf(seen)})`,
      `commits ${rate(state.commitsPerSecond)}/s`,
      `rollbacks ${rate(state.rollbacksPerSecond)}/s`,
      `waiting ${seen.waiting}`,
      `longest transaction ${longest}`,
      `replication ${seen.standby ? "standby" : count(seen.replicas, "standby")}${lag}`
    ].join("  "),
    lines: (width): ReadonlyArray<Line> => [
      [["bold", `PostgreSQL ${seen.version}  ${name}`], `  ${clock(at)}  q quits`],
      [],
      row("Sessions", alarming(`${bar(share)} ${seen.sessions} of ${seen.max}, ${percent(share)}`, share >= 0.8)),
      row("", statesOf(seen)),
      row(
        "Transactions",
        `${rate(state.commitsPerSecond)} committed/s, `,
        alarming(`${rate(state.rollbacksPerSecond)} rolled back/s`, state.rollbacksPerSecond > state.commitsPerSecond)
      ),
      row("", ["cyan", spark(state.rates, Math.min(60, width - 15))]),
      row("Longest", alarming(seen.all ? longest : "only with pg_monitor", (seen.longest ?? 0) >= long)),
      row("Locks", alarming(`${seen.waiting} waited for`, seen.waiting > 0)),
      row("Memory", hits),
      row("Replication", seen.standby ? `a standby${lag}` : `${seen.replicas} connected${lag}`),
      row("Deadlocks", `${seen.deadlocks} since statistics began`)
    ]
  }
}

/** At once, and then at the interval, in milliseconds. A database that does not answer is asked again. */
export const samples = (ask: HealthProbe.Ask, interval: number): Stream.Stream<Sample, PgError.PgError> => {
  const decode = Schema.decodeUnknown(Schema.parseJson(Schema.Array(sampling.row)))
  const once: Effect.Effect<Sample, PgError.PgError> = ask(sampling.sql).pipe(
    // What cannot be read tells as little as no row.
    Effect.flatMap(([row]) => Effect.orElseSucceed(decode(row?.["rows"]), (): ReadonlyArray<Row> => [])),
    Effect.flatMap(([row]) =>
      Effect.map(
        Clock.currentTimeMillis,
        (at): Sample =>
          row === undefined
            ? { _tag: "Lost", at, why: "the server tells nothing of this database that can be understood" }
            : { _tag: "Seen", at, row }
      )
    ),
    // A wrong password or a database that does not exist is no better in a second.
    Effect.catchIf(
      ({ transient }) => transient,
      ({ message }) => Effect.map(Clock.currentTimeMillis, (at): Sample => ({ _tag: "Lost", at, why: message }))
    )
  )
  return Stream.repeatEffectWithSchedule(once, Schedule.fixed(interval))
}
