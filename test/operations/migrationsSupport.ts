/** Migrations that leave a trace each time they run, and databases to run them on. */
import { SqlClient } from "@effect/sql"
import { type PgClient, PgMigrator } from "@effect/sql-pg"
import { Effect, Logger, LogLevel, type Redacted, Schedule } from "effect"
import { Migrations, type ResilientPg } from "effect-pg-resilience"
import { clientOf } from "../client/support.js"
import * as TestPg from "../support/TestPg.js"

export type Body = Effect.Effect<unknown, unknown, SqlClient.SqlClient>

/** Statements, one after the other, on the client that a migration is given. */
export const sql = (...texts: ReadonlyArray<string>): Effect.Effect<void, any, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.forEach(texts, (text) => sql.unsafe(text), { discard: true }))

/** Leaves a row each time it runs; `trace` has none that goes with anything else. */
export const traced = (what: string) => sql(`INSERT INTO trace VALUES ('${what}')`)

/** A migration of two statements, and back. */
export const step = (name: string, transaction = true) =>
  Migrations.define(sql(`INSERT INTO trace VALUES ('${name} a')`, `INSERT INTO trace VALUES ('${name} b')`), {
    down: sql(`INSERT INTO trace VALUES ('${name} undone')`),
    transaction
  })

export const record = (migrations: Record<string, Body>) =>
  PgMigrator.fromRecord(migrations as Parameters<typeof PgMigrator.fromRecord>[0])

/** Does not try again. */
export const once = Schedule.stop

/** A fresh database with the table of traces, and a client of it. */
export const fresh = (options: ResilientPg.Options = {}) =>
  Effect.gen(function* () {
    const { config, name, url } = yield* TestPg.database
    yield* TestPg.control("CREATE TABLE trace (what text)", [], url)
    const on = clientWith(url, options)
    return { url, name, config, ...(yield* on), control: (text: string) => TestPg.control(text, [], url) }
  })

/** Runs what needs a client on one of that database. */
export const clientWith = (url: Redacted.Redacted, options: ResilientPg.Options = {}) =>
  Effect.map(clientOf({ url, ...options }), (client) => ({
    client,
    on: <A, E, R>(self: Effect.Effect<A, E, R>) =>
      Logger.withMinimumLogLevel(Effect.provide(self, client.context), LogLevel.None) as Effect.Effect<
        A,
        E,
        Exclude<R, PgClient.PgClient | SqlClient.SqlClient>
      >
  }))

export const traces = (url: Redacted.Redacted) =>
  Effect.map(TestPg.control<{ what: string }>("SELECT what FROM trace ORDER BY ctid", [], url), (rows) =>
    rows.map(({ what }) => what)
  )

/** What the migrator's own table says. */
export const applied = (url: Redacted.Redacted, table = "effect_sql_migrations") =>
  Effect.map(
    TestPg.control<{ id: number; name: string }>(`SELECT migration_id AS id, name FROM ${table} ORDER BY 1`, [], url),
    (rows) => rows.map(({ id, name }) => `${id}_${name}`)
  )

export const titles = (all: ReadonlyArray<Migrations.Named & { readonly direction?: Migrations.Direction }>) =>
  all.map(({ direction = "up", id, name }) => `${direction} ${id}_${name}`)
