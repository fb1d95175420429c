/**
 * Names of attributes on metrics and spans, and of span events. The names of metrics are in Metrics.ts.
 *
 * Those under `db`, `error` and `server` are OpenTelemetry's semantic conventions for database clients, the rest is ours.
 */

/** `postgresql`. */
export const SYSTEM_NAME = "db.system.name"
/** The database. */
export const NAMESPACE = "db.namespace"
/** The name of the `Operation`, or the statement's command. */
export const OPERATION_NAME = "db.operation.name"
/** SQLSTATE, where the server answered. */
export const RESPONSE_STATUS_CODE = "db.response.status_code"
/** The tag of a `PgError`. */
export const ERROR_TYPE = "error.type"
export const SERVER_ADDRESS = "server.address"
/** Left out when it is 5432. */
export const SERVER_PORT = "server.port"
export const POOL_NAME = "db.client.connection.pool.name"
/** What the name of a health check's pool adds to that of the workload's. */
export const probeEnd = "/health"
/** `idle`, `used`. */
export const CONNECTION_STATE = "db.client.connection.state"

/** The event of a failed attempt, on the span of its statement or transaction. */
export const ATTEMPT_FAILED = "pgresilience.attempt.failed"
/** Which attempt it was: 1 for the first. */
export const ATTEMPT_NUMBER = "pgresilience.attempt.number"
/** Seconds until the next attempt; absent where there is none. */
export const ATTEMPT_DELAY = "pgresilience.attempt.delay"
