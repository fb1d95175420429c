/** One run at a time: a session lock of the server's, which goes with the session, however that ends. */
import { createHash } from "node:crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { MigrationsLocked, SessionNotKept } from "./errors.js"
import type { Ask } from "./tables.js"

/** The advisory lock's key: the same for everybody who migrates by that table, in one database. */
export const keyOf = (table: string): string =>
  createHash("sha256").update(`effect-pg-resilience/migrations/${table}`).digest().readBigInt64BE(0).toString()

/** How `pg_locks` shows a key of 64 bits. Source: PostgreSQL manual, section "pg_locks". */
const isLock = (key: string) => `locktype = 'advisory' AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = ${key}`

/**
 * How often a lock that is taken is asked for: after 50 ms, growing by half up to a second, ±20 %. Asked for again and again and
 * not waited for in the server, because a statement that waits has a snapshot, and CREATE INDEX CONCURRENTLY of whoever has
 * the lock would wait for that.
 */
export const asking = Schedule.exponential("50 millis", 1.5).pipe(
  Schedule.union(Schedule.spaced("1 second")),
  Schedule.jittered
)

/** Of another role's session the server shows little. */
interface Holder {
  readonly pid: number
  readonly name: string | null
  readonly address: string | null
  readonly since: Date | null
}

const described = ({ address, name, pid, since }: Holder) =>
  [
    `process ${pid}`,
    ...(name === null ? [] : [`"${name}"`]),
    ...(address === null ? [] : [`from ${address}`]),
    ...(since === null ? [] : [`connected since ${since.toISOString()}`])
  ].join(", ")

const holderOf = (ask: Ask, key: string) =>
  Effect.map(
    ask<Holder>(`SELECT a.pid, a.application_name AS name, host(a.client_addr) AS address, a.backend_start AS since
  FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.granted AND ${isLock(key)}`),
    ([holder]) => holder && described(holder)
  )

const held = (ask: Ask, key: string) =>
  Effect.map(
    ask<{ held: boolean }>(
      `SELECT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND granted AND ${isLock(key)}) AS held`
    ),
    ([row]) => row!.held
  )

/** Takes the lock, for as long as the session lasts. `limit`: milliseconds. */
export const take = (ask: Ask, key: string, limit: number) => {
  const attempt = Effect.flatMap(ask<{ taken: boolean }>("SELECT pg_try_advisory_lock($1) AS taken", [key]), ([row]) =>
    row!.taken ? Effect.void : Effect.fail("taken" as const)
  )
  const waiting = Effect.flatMap(holderOf(ask, key), (holder) =>
    Effect.logInfo(`Another program migrates${holder === undefined ? "" : `: ${holder}`}; waiting for its end`)
  )
  const locked = Effect.flatMap(holderOf(ask, key), (holder) =>
    Effect.fail(new MigrationsLocked({ holder, waited: Duration.format(Duration.millis(limit)) }))
  )
  const waited = Effect.retry(attempt, { schedule: asking, while: (error) => error === "taken" }).pipe(
    Effect.interruptible,
    Effect.timeoutOption(limit),
    Effect.map(Option.isSome)
  )
  return Effect.catchAll(attempt, (error) =>
    error !== "taken"
      ? Effect.fail(error)
      : Effect.zipRight(waiting, waited).pipe(
          Effect.catchAll((error) => (error === "taken" ? Effect.succeed(false) : Effect.fail(error))),
          Effect.flatMap((taken) => (taken ? Effect.void : locked))
        )
  )
}

const notKept = new SessionNotKept({
  message:
    "Behind this pooler each transaction gets another session of the server, so that no lock can be kept from one migration to " +
    "the next. Nothing was done. Give migrations a connection that goes to the server itself, or to a pooler in session mode"
})

/**
 * Fails where sessions are shared: the server process that answers on this connection answers on another, too, or is another one
 * the next time. PgBouncer in transaction mode hands out the session used last, or the next one with `server_round_robin`.
 * `other`: on the program's own pool, which has a connection open.
 */
export const sessionKept = (ask: Ask, other: Ask) =>
  Effect.gen(function* () {
    const pid = (ask: Ask) => Effect.map(ask<{ pid: number }>("SELECT pg_backend_pid() AS pid"), ([row]) => row!.pid)
    const mine = yield* pid(ask)
    const others = yield* Effect.zip(pid(other), pid(other))
    if (others.includes(mine) || (yield* pid(ask)) !== mine) return yield* Effect.fail(notKept)
  })

/** Fails where the lock is not there any more, although nobody gave it back. */
export const stillHeld = (ask: Ask, key: string) =>
  Effect.flatMap(held(ask, key), (held) => (held ? Effect.void : Effect.fail(notKept)))
