/** The connections of a command: few, and without patience. What is wrong is told at once. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as PgError from "../../../error/PgError.js"
import * as HealthProbe from "../../../health/HealthProbe.js"
import * as ResilientPg from "../../../ResilientPg.js"

/** For one answer. */
const patience = "10 seconds"

const late = {
  message: `The server did not answer within ${patience}`,
  phase: "Execute",
  outcome: "NotApplied",
  transient: true,
  attempts: 1
} as const

export const applicationName = "effect-pg-resilience"

/** One connection, no retries and no breaker. Fails when it is built with options that are none. */
export const layer = (url: Redacted.Redacted): Layer.Layer<ResilientPg.Services, SqlError> =>
  ResilientPg.layer({
    url,
    applicationName,
    maxConnections: 1,
    connectTimeout: "5 seconds",
    acquireTimeout: "10 seconds",
    closeGrace: 0,
    retry: false,
    breaker: false,
    lanes: false,
    preparedStatements: false
  })

/** One question after the other, on a connection that is opened again when it is lost. Nothing is waited for, nor logged. */
export const ask = (url: Redacted.Redacted): Effect.Effect<HealthProbe.Ask, PgError.PgError, Scope.Scope> =>
  Effect.map(
    HealthProbe.dedicated({ url, applicationName }, "5 seconds"),
    (probe) => (sql) =>
      Effect.timeoutFail(probe.ask!(sql), { duration: patience, onTimeout: () => new PgError.QueryTimeoutError(late) })
  )
