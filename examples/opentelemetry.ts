/**
 * Traces and metrics to an OpenTelemetry collector: one span per statement, one event on it for each attempt that failed,
 * and the metrics of pool, breaker and retries under their conventional names.
 *
 *   OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 npx tsx examples/opentelemetry.ts
 *
 * Without a collector there the program runs all the same. It brings a PostgreSQL of its own, whatever `DATABASE_URL` says.
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Effect, Layer } from "effect"
import { Operation, ResilientPg, Telemetry, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const order = (item: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`INSERT INTO orders (item) VALUES (${item})`
    yield* sql`UPDATE stock SET left_over = left_over - 1 WHERE item = ${item}`
  }).pipe((body) => Transaction.run(body, { name: "order" }), Effect.withSpan("shop.order", { attributes: { item } }))

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE orders (item text NOT NULL)`
  yield* sql`CREATE TABLE stock (item text PRIMARY KEY, left_over int NOT NULL)`
  yield* sql`INSERT INTO stock VALUES ('book', 10), ('pen', 10)`
  yield* Effect.forEach(["book", "pen", "book"], order, { concurrency: 2 })

  // A failed attempt, to be seen on its span: the server ends the connection in the middle of a read, and it is repeated.
  const server = yield* EmbeddedPostgres.EmbeddedPostgres
  const slow = yield* Effect.fork(
    sql`SELECT count(*) FROM orders, generate_series(1, 5000000)`.pipe(
      Operation.named("count-slowly", { readOnly: true }),
      Effect.withSpan("shop.count")
    )
  )
  yield* Effect.repeat(server.backends, {
    until: (backends) => backends.some(({ query, state }) => state === "active" && query.includes("generate_series"))
  })
  for (const { pid, query } of yield* server.backends)
    if (query.includes("generate_series")) yield* server.terminate(pid)
  yield* slow
  yield* Effect.log("done: look for shop.order and shop.count in the traces")
})

const server = EmbeddedPostgres.layer()
const client = Layer.unwrapEffect(
  Effect.map(EmbeddedPostgres.EmbeddedPostgres, ({ url }) => ResilientPg.layer({ url }))
)

program.pipe(
  Effect.provide(client.pipe(Layer.provideMerge(server))),
  Effect.provide(Telemetry.layerOtlpEnv),
  NodeRuntime.runMain
)
