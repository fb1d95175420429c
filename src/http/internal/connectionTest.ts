/** What a server says of itself when it is asked, on the connection of the health checks. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as HealthMonitor from "../../health/HealthMonitor.js"
import type * as HealthProbe from "../../health/HealthProbe.js"
import * as answers from "./answers.js"

/**
 * One row, as text, whatever parsers the program has for other types. What `pg_stat_database` counts every role may see,
 * unlike the rows of `pg_stat_activity`. Settings that an older server does not know are none.
 */
const question = `SELECT
  pg_catalog.current_setting('server_version') AS version,
  COALESCE((SELECT s.ssl FROM pg_catalog.pg_stat_ssl s WHERE s.pid = pg_catalog.pg_backend_pid()), false)::text AS tls,
  pg_catalog.pg_is_in_recovery()::text AS in_recovery,
  (pg_catalog.current_setting('transaction_read_only') = 'on')::text AS read_only,
  (SELECT COALESCE(pg_catalog.sum(d.numbackends), 0) FROM pg_catalog.pg_stat_database d)::text AS connections,
  pg_catalog.current_setting('max_connections') AS max_connections,
  (COALESCE(pg_catalog.current_setting('superuser_reserved_connections', true)::int, 0)
    + COALESCE(pg_catalog.current_setting('reserved_connections', true)::int, 0))::text AS reserved`

const Yes = Schema.transformLiterals(["true", true], ["false", false])

const Row = Schema.Struct({
  version: Schema.String,
  tls: Yes,
  in_recovery: Yes,
  read_only: Yes,
  connections: Schema.NumberFromString,
  max_connections: Schema.NumberFromString,
  reserved: Schema.NumberFromString
})

const decode = Schema.decodeUnknown(Row)

/** The row, and then the time of a round trip on what is by now an open connection. */
export const facts = (ask: HealthProbe.Ask) =>
  Effect.gen(function* () {
    const [row] = yield* ask(question)
    const server = yield* Effect.orDie(decode(row))
    const [latency] = yield* Effect.timed(ask("SELECT 1"))
    return { server, latencyMs: Duration.toMillis(latency) }
  })

export const test = ({ ask }: HealthMonitor.HealthMonitor["Type"]) =>
  Effect.gen(function* () {
    const began = yield* Clock.currentTimeMillis
    return yield* Effect.matchEffect(facts(ask), {
      onFailure: ({ _tag, message }) =>
        Effect.flatMap(Clock.currentTimeMillis, (at) =>
          Effect.fail(new answers.ConnectionFailed({ at, error: _tag, message, afterMs: at - began }))
        ),
      onSuccess: ({ latencyMs, server }) =>
        Effect.map(
          Clock.currentTimeMillis,
          (at): answers.Connection => ({
            at,
            latencyMs,
            version: server.version,
            tls: server.tls,
            inRecovery: server.in_recovery,
            readOnly: server.read_only,
            connections: server.connections,
            maxConnections: server.max_connections,
            reserved: server.reserved
          })
        )
    })
  }).pipe(Effect.withTracerEnabled(false))
