/** A program of the package's user: type-checked against the packed declarations, and here against the sources. */
import { SqlClient, type SqlError } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Data, Effect, type Layer, Redacted } from "effect"
import { HealthApi, Operation, PgError, ResilientPg, RetryPolicy, Telemetry, Transaction } from "effect-pg-resilience"
import type { CircuitBreaker } from "effect-pg-resilience/CircuitBreaker"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"

class EmailTaken extends Data.TaggedError("EmailTaken")<{ readonly email: string }> {}

const config: PgClient.PgClientConfig = { url: Redacted.make("postgres://localhost/shop"), ssl: true }

/** The one-line swap: what takes the bare client's layer takes ours, and more is to be had. */
export const bare: Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, unknown> = PgClient.layer(config)
export const swapped: typeof bare = ResilientPg.layer(config)
export const more: Layer.Layer<SqlClient.SqlClient | CircuitBreaker | ResilientPg.ResilientPg, SqlError.SqlError> =
  ResilientPg.layer({ ...config, retry: RetryPolicy.web })

const insert = (email: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO users (email) VALUES (${email})`)

/** An operation has the tags for its error channel; the one that was caught is gone from it. */
export const register = (
  email: string
): Effect.Effect<
  ReadonlyArray<unknown>,
  EmailTaken | Exclude<PgError.PgError, PgError.UniqueViolation>,
  SqlClient.SqlClient
> =>
  insert(email).pipe(
    Operation.named("register", { timeout: "2 seconds" }),
    Effect.catchTag("UniqueViolation", () => Effect.fail(new EmailTaken({ email })))
  )

export const inTransaction: Effect.Effect<void, PgError.PgError, SqlClient.SqlClient | Transaction.Transactor> =
  Transaction.serializable(Effect.asVoid(Effect.all([insert("a@example.org"), insert("b@example.org")])))

/** Whoever decides by tag hears of a new one from the compiler. */
export const mayRepeat = (error: PgError.PgError): boolean => PgError.retrySafety[error._tag] === "safe"

export const program: Effect.Effect<
  void,
  EmailTaken | PgError.PgError | SqlError.SqlError | EmbeddedPostgres.EmbeddedPostgresError
> = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.EmbeddedPostgres
  yield* server.restart()
  yield* register("c@example.org").pipe(Effect.provide(ResilientPg.layer({ url: server.url })))
}).pipe(Effect.provide([EmbeddedPostgres.layer(), Telemetry.layerOtlp({ serviceName: "shop" })]))

export const proxy: unknown = FaultProxy

/** Inferred on purpose: all that a client may fail with can be named by whoever uses it. */
export const standby = Effect.gen(function* () {
  const { admin, resilience } = yield* HealthApi.client({ url: "http://localhost:9464" })
  const { inRecovery } = yield* resilience.connectionTest({})
  if (inRecovery) yield* admin.open({})
})
