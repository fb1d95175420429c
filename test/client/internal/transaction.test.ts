import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Logger, LogLevel } from "effect"
import { Operation, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"

/** A client with one connection, and the network to it. */
const through = <A, E>(
  use: (
    proxy: typeof FaultProxy.FaultProxy.Service,
    sql: SqlClient.SqlClient
  ) => Effect.Effect<A, E, ResilientPg.Services>
) =>
  Effect.gen(function* () {
    const { config, url } = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.make({ upstream: config })
    return yield* Effect.flatMap(SqlClient.SqlClient, (sql) => use(proxy, sql)).pipe(
      Effect.provide(ResilientPg.layer({ url: proxy.url(url), maxConnections: 1 })),
      Logger.withMinimumLogLevel(LogLevel.None)
    )
  })

/** The network forgets the connection while a nested transaction is open, which then ends as `then` says. */
const forgotten = (
  proxy: typeof FaultProxy.FaultProxy.Service,
  sql: SqlClient.SqlClient,
  then: Effect.Effect<never, string>
) =>
  Effect.gen(function* () {
    const inside = yield* Deferred.make<void>()
    const go = yield* Deferred.make<void>()
    const nested = sql.withTransaction(Effect.all([Deferred.succeed(inside, undefined), Deferred.await(go), then]))
    const around = sql.withTransaction(Effect.zipRight(Effect.either(nested), sql`SELECT 1`))
    const fiber = yield* Effect.fork(Operation.named("around", { timeout: "1 second" })(around))
    yield* Deferred.await(inside)
    yield* proxy.blackHole({ existing: true })
    yield* Deferred.succeed(go, undefined)
    return fiber
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("A nested transaction that failed", (it) => {
  it.scoped("costs the one around it nothing, however far the server is", () =>
    through((proxy, sql) =>
      Effect.gen(function* () {
        yield* proxy.latency({ delay: "200 millis" })
        const nested = sql.withTransaction(Effect.zipRight(sql`SELECT 1 AS n`, Effect.fail("refused")))
        const rows = yield* sql.withTransaction(Effect.zipRight(Effect.flip(nested), sql`SELECT 2 AS n`))
        assert.deepStrictEqual(rows, [{ n: 2 }])
      })
    )
  )

  it.scoped("waits for the undoing of its work no longer than the deadline", () =>
    through((proxy, sql) =>
      Effect.gen(function* () {
        const fiber = yield* forgotten(proxy, sql, Effect.fail("refused"))
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.strictEqual(error._tag, "QueryTimeoutError")
        // The connection is still forgotten; its place is free again.
        assert.deepStrictEqual(yield* sql`SELECT 3 AS n`, [{ n: 3 }])
      })
    )
  )

  it.scoped("or was interrupted, gives the connection back although the undoing is not answered", () =>
    through((proxy, sql) =>
      Effect.gen(function* () {
        const fiber = yield* forgotten(proxy, sql, Effect.never)
        assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        assert.deepStrictEqual(yield* sql`SELECT 3 AS n`, [{ n: 3 }])
      })
    )
  )
})
