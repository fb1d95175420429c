/**
 * The session that a run works on: a client of its own, beside the program's pool, with one connection that has the lock and
 * does all the work. So nothing is done without the lock, and when the session ends, however it ends, the lock is free.
 */
import type { SqlClient } from "@effect/sql/SqlClient"
import * as Sql from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as PgError from "../../../error/PgError.js"
import * as ResilientPg from "../../../ResilientPg.js"
import * as lock from "./lock.js"
import { type Ask, askBy } from "./tables.js"

export interface Session {
  readonly connection: Connection
  /** On that connection. */
  readonly ask: Ask
  /** What migrations find in their environment. */
  readonly services: Context.Context<PgClient.PgClient | SqlClient>
  readonly client: PgClient.PgClient
}

/** A client like the program's, for a run: one connection, nothing shared, and no limits that are meant for queries. */
const optionsFor = (client: PgClient.PgClient): ResilientPg.Options => {
  const options = ResilientPg.optionsOf(client)
  return {
    ...options,
    poolName: "migrations",
    applicationName: `${options.applicationName ?? "effect-pg-resilience"} migrations`,
    minConnections: 0,
    maxConnections: 1,
    maxUses: "infinity",
    connectionTTL: "infinity",
    leakThreshold: "infinity",
    slowQueryThreshold: "infinity",
    closeGrace: 0,
    serverTimeouts: undefined,
    requireOnStart: false,
    retry: undefined,
    breaker: false,
    lanes: false,
    preparedStatements: false,
    timeouts: false
  }
}

/** With a client of its own, and a connection of that, until the scope closes. */
export const open = (program: PgClient.PgClient): Effect.Effect<Session, PgError.PgError, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(ResilientPg.layer(optionsFor(program)))
    const client = Context.get(context, PgClient.PgClient)
    const connection = yield* client.reserve
    const ask = askBy((sql, params) => connection.execute(sql, params, undefined))
    return { connection, ask, services: context, client }
  }).pipe(Effect.mapError((error) => PgError.fromSqlError(error)))

export interface LockOptions {
  readonly key: string
  readonly waitForLock: number
  /** Milliseconds; `Infinity` for none. */
  readonly idleTimeout: number
}

/**
 * What makes the server notice that its client is gone: when it sits there (keep-alive, 25 seconds), when it works (asked every
 * second), when it has answered and nobody takes the answer. And what ends a transaction in which nothing happens any more.
 * Settings that a server does not have yet are left out. Source: PostgreSQL manual, sections 19.3.2 and 19.11.1.
 */
const settings = (idleTimeout: number): Readonly<Record<string, string>> => ({
  tcp_keepalives_idle: "10",
  tcp_keepalives_interval: "5",
  tcp_keepalives_count: "3",
  tcp_user_timeout: "30000",
  idle_in_transaction_session_timeout: Number.isFinite(idleTimeout) ? String(Math.ceil(idleTimeout)) : "0"
})

const set = (ask: Ask, values: Readonly<Record<string, string>>) =>
  ask(
    `SELECT set_config(name, value, false) FROM json_each_text($1) AS given (name, value) JOIN pg_settings USING (name)`,
    [JSON.stringify(values)]
  )

/** `open`, with the lock. */
export const locked = (program: PgClient.PgClient, { idleTimeout, key, waitForLock }: LockOptions) =>
  Effect.gen(function* () {
    const session = yield* open(program)
    yield* set(session.ask, settings(idleTimeout))
    // Only some systems can tell that a client is gone while its statement runs: the others refuse.
    yield* Effect.catchIf(
      set(session.ask, { client_connection_check_interval: "1000" }),
      ({ sqlState }) => sqlState?.startsWith("22") === true,
      () => Effect.void
    )
    const other = askBy((sql, params) => program.unsafe(sql, params).withoutTransform)
    yield* lock.sessionKept(session.ask, other)
    yield* lock.take(session.ask, key, waitForLock)
    yield* lock.stillHeld(session.ask, key)
    return session
  })

/** The fiber's statements on one connection: those of the client, its transactions being savepoints. */
export const onConnection =
  (services: Context.Context<never>, connection: Connection | undefined) =>
  <A, E>(self: Effect.Effect<A, E, any>): Effect.Effect<A, E> =>
    Effect.mapInputContext(self, (around: Context.Context<any>) => {
      const inside = Context.omit(Sql.TransactionConnection)(Context.merge(around, services))
      return connection === undefined ? inside : Context.add(inside, Sql.TransactionConnection, [connection, 0])
    }) as Effect.Effect<A, E>
