/** The ways to run a transaction that are compared: what is called for each, and on which client. */
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, type Redacted, Schedule } from "effect"
import { ResilientPg, RetryPolicy, Transaction } from "effect-pg-resilience"
import type { Isolation } from "./model.js"
import { Refused } from "./workloads.js"

/** `R`: what `client` provides beside `SqlClient`. */
export interface How<R> {
  readonly name: string
  readonly isolation: Isolation
  readonly run: <A, E, R1>(effect: Effect.Effect<A, E, R1>) => Effect.Effect<A, unknown, R | R1>
  /** Before the work, on the client: tables that this way needs. */
  readonly prepare?: Effect.Effect<unknown, unknown, R> | undefined
  readonly client: (url: Redacted.Redacted) => Layer.Layer<R, unknown>
}

const quick = RetryPolicy.backoff({ retries: 6, first: "5 millis", factor: 2, cap: "100 millis" })

/** Far more than a transaction takes, and so little that what is never answered does not stop a test. */
const timeout = "3 seconds"

/** `Transaction.run` with these options, on a client that retries sooner than by default, as the server is near. */
export const resilient = (
  name: string,
  isolation: Isolation,
  options: Transaction.Options = {},
  layer: ResilientPg.Options = {}
): How<SqlClient.SqlClient | Transaction.Transactor> => ({
  name,
  isolation,
  run: (effect) => Transaction.run(effect, { isolation, timeout, ...options }),
  client: (url) => ResilientPg.layer({ url, retry: RetryPolicy.make(RetryPolicy.whileUnavailable(quick)), ...layer })
})

/**
 * `Transaction.run` with `exactlyOnce`, whatever the server does within a minute, and repeated as far as that is safe.
 * Faults without end are no reason here to leave the server alone.
 */
export const exactlyOnce = (
  mode: "ledger" | "xid",
  isolation: Isolation
): How<SqlClient.SqlClient | Transaction.Transactor> => ({
  ...resilient(
    `exactlyOnce: "${mode}"`,
    isolation,
    { exactlyOnce: mode, retry: true, timeout: "60 seconds" },
    { breaker: { failureThreshold: "infinity" } }
  ),
  prepare: mode === "ledger" ? Transaction.createLedger : Effect.void
})

const bareRetries = Schedule.intersect(Schedule.spaced("20 millis"), Schedule.recurs(10))

/**
 * `sql.withTransaction` of the bare client, and a retry around it as programs write it: whatever failed is tried again, but
 * for what the program itself refused. That client reports a failed COMMIT as a defect, so the retry takes these, too.
 */
export const bare = (isolation: Isolation): How<SqlClient.SqlClient> => ({
  name: "PgClient and a retry",
  isolation,
  run: (effect) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) => {
      const begin = sql.unsafe(`SET TRANSACTION ISOLATION LEVEL ${isolation}`)
      return sql
        .withTransaction(Effect.zipRight(begin, effect))
        .pipe(
          Effect.sandbox,
          Effect.retry({ schedule: bareRetries, while: (cause) => !Refused.in(cause) }),
          Effect.unsandbox
        )
    }),
  client: (url) => Layer.orDie(PgClient.layer({ url }))
})
