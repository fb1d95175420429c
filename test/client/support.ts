/** Clients of the layer under test, told apart on the server by their `application_name`. */
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, ExecutionStrategy, Exit, Layer, Logger, LogLevel, type Redacted, Scope } from "effect"
import { PgError, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"

/** A session as the server sees it. */
export interface Session {
  readonly pid: number
  readonly state: string
  readonly query: string
}

let count = 0

/**
 * A client of the file's server, or of wherever `url` leads, closed with the scope, or before by `close`. Says nothing,
 * unless told from which level on.
 */
export const clientOf = (options: ResilientPg.Options = {}, level: LogLevel.LogLevel = LogLevel.None) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const applicationName = `client_${++count}`
    const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.sequential)
    const context = yield* Layer.buildWithScope(
      ResilientPg.layer({ url: server.url, applicationName, ...options }),
      scope
    ).pipe(Logger.withMinimumLogLevel(level))
    const sql = Context.get(context, PgClient.PgClient)
    const { listen, pool, ready } = Context.get(context, ResilientPg.ResilientPg)
    /** Past any pool and proxy: the sessions of this client on the server. */
    const sessions = TestPg.control<Session>(
      "SELECT pid, state, query FROM pg_stat_activity WHERE application_name = $1 ORDER BY backend_start, pid",
      [applicationName]
    )
    return {
      applicationName,
      context,
      sql,
      pool,
      ready,
      listen,
      sessions,
      /** The server process behind the next connection of the pool. */
      pid: Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) => row!.pid),
      close: Scope.close(scope, Exit.void)
    }
  })

/** A proxy before the file's server, whole again after each test, and the URL that leads through it. */
export const proxied = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.EmbeddedPostgres
  const proxy = yield* FaultProxy.make({ upstream: server.config })
  return { proxy, url: proxy.url(server.url) }
})

/** The `PgError` that an effect of the client fails with. */
export const failure = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<PgError.PgError, A, R> =>
  Effect.map(Effect.flip(self), (error) => {
    const found = PgError.isPgError(error) ? error : (error as { readonly cause?: unknown }).cause
    if (PgError.isPgError(found)) return found
    throw new Error("not an error of the client", { cause: error })
  })

/** A connection kept from the pool until `release`, or the end of the scope. */
export const hold = (sql: PgClient.PgClient) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.sequential)
    const connection = yield* Scope.extend(sql.reserve, scope)
    return { connection, release: Scope.close(scope, Exit.void) }
  })

/** An advisory lock, which each database has its own of, in the hands of a connection outside of the pools under test. */
export const advisoryLock = (key: number, url?: Redacted.Redacted) =>
  Effect.gen(function* () {
    const { sql } = yield* clientOf({ maxConnections: 1, ...(url && { url }) })
    const { connection } = yield* hold(sql)
    yield* connection.execute(`SELECT pg_advisory_lock(${key})`, [], undefined)
    return { release: connection.execute(`SELECT pg_advisory_unlock(${key})`, [], undefined) }
  })

/** How many server processes wait for a lock in a statement that begins so. */
export const waitingForLock = (beginning: string) =>
  Effect.map(
    TestPg.control(
      "SELECT FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Lock' AND starts_with(query, $1)",
      [beginning]
    ),
    ({ length }) => length
  )

/** How many server processes execute this statement. */
export const executing = (query: string) =>
  Effect.map(
    TestPg.control("SELECT FROM pg_stat_activity WHERE state = 'active' AND query = $1", [query]),
    ({ length }) => length
  )

/** What the server has logged of transaction control that came at the wrong place, in this test file. */
export const misplaced = Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, (server) =>
  Effect.map(server.log, (log) =>
    Array.from(
      log.matchAll(/savepoint "\w+" does not exist|SAVEPOINT can only be used.*|there is no transaction in progress/g),
      ([words]) => words
    )
  )
)
