/**
 * How a `HealthMonitor` asks the database whether it is there.
 *
 * A probe that waits in the workload's queue finds a full pool, not a lost server. `dedicated` has a connection of its own,
 * kept open between checks; `fromPool` is for those who have none to spare.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import type { SqlError } from "@effect/sql/SqlError"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as PgError from "../error/PgError.js"
import * as ResilientPg from "../ResilientPg.js"

/** Both must be interruptible: the monitor bounds them in time. */
export interface HealthProbe {
  /** One round trip. */
  readonly ping: Effect.Effect<void, PgError.PgError>
  /** A query that makes the server look something up. */
  readonly query?: Effect.Effect<void, PgError.PgError> | undefined
}

/** The pool's name in metrics, after the workload's own where that has one. */
export const poolName = "health"

/** Two lookups by key in shared catalogs, whatever the size of the database. */
const lookup = `SELECT d.datname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
  WHERE d.datname = pg_catalog.current_database()`

/**
 * Past the circuit breaker, but on a connection of the workload's pool: it waits while that has none to give. Has no
 * `query`. Fails with the last failure after `within`: a little less than the monitor's limit, which knows no reason.
 */
export const fromPool = (pg: ResilientPg.ResilientPg["Type"], within: Duration.DurationInput): HealthProbe => ({
  ping: pg.ready({ within })
})

/**
 * On one connection beside the pool, opened by the first check, with the workload's own options but no policies: what is
 * wrong is told at once. Its figures have a pool name of their own in the metrics. Closed with the scope.
 */
export const dedicated = (options: ResilientPg.Options): Effect.Effect<HealthProbe, PgError.PgError, Scope.Scope> =>
  Effect.map(
    Effect.provide(
      ResilientPg.make({
        ...options,
        minConnections: 0,
        maxConnections: 1,
        maxWaiting: 10,
        idleTimeout: "infinity",
        poolName: options.poolName === undefined ? poolName : `${options.poolName}/${poolName}`,
        requireOnStart: false,
        retry: false,
        breaker: false
      }),
      Reactivity.layer
    ),
    (context) => {
      const client = Context.get(context, PgClient.PgClient)
      const ask = (sql: string): Effect.Effect<void, PgError.PgError> =>
        Effect.mapError(client.unsafe(sql), (error: SqlError) => PgError.fromSqlError(error))
      return { ping: ask("SELECT 1"), query: ask(lookup) }
    }
  )
