/** The connections of a command: few, and without patience. What is wrong is told at once. */
import type { SqlError } from "@effect/sql/SqlError"
import type * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as ResilientPg from "../../../ResilientPg.js"

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
