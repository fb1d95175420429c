/**
 * How a `HealthMonitor` asks the database whether it is there.
 *
 * A probe that waits in the workload's queue finds a full pool, not a lost server. `dedicated` has a connection of its own,
 * kept open between checks; `fromPool` is for those who have none to spare.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as Scope from "effect/Scope"
import { defaults } from "../config/ResilienceConfig.js"
import type * as PgError from "../error/PgError.js"
import * as operation from "../policy/internal/operation.js"
import * as Operation from "../policy/Operation.js"
import * as ResilientPg from "../ResilientPg.js"
import { probeEnd } from "../telemetry/names.js"

/** All must be interruptible: the monitor bounds them in time. */
export interface HealthProbe {
  /** Before the round trip, and not measured: what opens a connection, or finds out whether an idle one still answers. */
  readonly prepare?: Effect.Effect<void, PgError.PgError> | undefined
  /** One round trip. */
  readonly ping: Effect.Effect<void, PgError.PgError>
  /** A query that makes the server look something up. */
  readonly query?: Effect.Effect<void, PgError.PgError> | undefined
  /** The rows of one statement on the probe's connection, named as the server names them. */
  readonly ask?: Ask | undefined
}

/** For statements that only read: nothing else keeps them from writing. */
export type Ask = (sql: string) => Effect.Effect<ReadonlyArray<Readonly<Record<string, unknown>>>, PgError.PgError>

/** The name of its statements in metrics and errors. */
export const operationName = "health-check"

/** A probe's pool is named after the workload's: `<pool>/health`. */
export const poolName = (of: string): string => `${of}${probeEnd}`

/** Two lookups by key in shared catalogs, whatever the size of the database. */
const lookup = `SELECT d.datname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
  WHERE d.datname = pg_catalog.current_database()`

const asking =
  (client: PgClient.PgClient): Ask =>
  (sql) =>
    client
      .withoutTransforms()
      .unsafe<Record<string, unknown>>(sql)
      .pipe(Operation.named(operationName, { readOnly: true, timeout: "infinity" }))

/**
 * On a connection of the workload's pool: it waits while that has none to give, and that is measured, too. `ping` goes past
 * the circuit breaker, and fails with the last failure after `within`: a little less than the monitor's limit, which knows
 * no reason. Has no `query`; with a client, `ask` goes the way of the workload's queries.
 */
export const fromPool = (
  pg: ResilientPg.ResilientPg["Type"],
  within: Duration.DurationInput,
  client?: PgClient.PgClient
): HealthProbe => ({
  ping: pg.ready({ within }),
  ask: client && asking(client)
})

/**
 * On one connection beside the pool, opened by the first check, with the workload's own options (see `ResilientPg.optionsOf`)
 * but no policies: what is wrong is told at once, by its answers and by no line in the log. Connecting fails after `within`
 * at the latest: a little less than the monitor's limit, which knows no reason. Its figures are those of a pool
 * named `poolName(…)`, and left out of the classic metrics. Closed with the scope.
 */
export const dedicated = (
  options: ResilientPg.Options,
  within: Duration.DurationInput | "infinity" = "infinity"
): Effect.Effect<HealthProbe, PgError.PgError, Scope.Scope> =>
  Effect.map(
    Effect.provide(
      ResilientPg.make({
        ...options,
        minConnections: 0,
        maxConnections: 1,
        maxWaiting: 10,
        idleTimeout: "infinity",
        // The one connection is never in use by others: who waits for it waits for the server.
        acquireTimeout: "infinity",
        connectTimeout: Math.max(
          1,
          Math.min(operation.toMillis(options.connectTimeout ?? defaults.connectTimeout), operation.toMillis(within))
        ),
        closeGrace: 0,
        poolName: poolName(options.poolName ?? "pool"),
        requireOnStart: false,
        retry: false,
        breaker: false
      }),
      Reactivity.layer
    ).pipe(Logger.withMinimumLogLevel(LogLevel.None)),
    (context) => {
      const ask = asking(Context.get(context, PgClient.PgClient))
      const ping = Effect.asVoid(ask("SELECT 1"))
      return { prepare: ping, ping, query: Effect.asVoid(ask(lookup)), ask }
    }
  )
