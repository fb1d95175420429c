/** A connection lost at every step of the protocol: what was reported is what is stored. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, LogLevel } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import * as Matrix from "./steps/matrix.js"

layer(Layer.merge(TestPg.layer, Logger.minimumLogLevel(LogLevel.None)), {
  excludeTestServices: true,
  timeout: "60 seconds"
})("A connection lost at each step of the protocol", (it) => {
  it.effect(
    "leaves stored once what was acknowledged, absent what was called not applied, and unknown only what was sent for good",
    () =>
      Effect.gen(function* () {
        let cases = 0
        const violations = yield* Matrix.all(() => cases++)
        console.log(`${cases} messages lost, each in one of ${Matrix.ways} ways`)
        assert.deepStrictEqual(violations, [])
      }),
    300_000
  )

  it.scoped("loses a connection, and not its place in the pool, to a COMMIT that is never answered", () =>
    Effect.gen(function* () {
      const { config, url } = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: config })
      const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/), ending: "blackHole" })
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const fiber = yield* Effect.fork(sql.withTransaction(sql`SELECT 1`))
        yield* lost.happened()
        yield* Fiber.interrupt(fiber)
        // The network still swallows what comes on the first connection.
        yield* Effect.timeoutFail(sql`SELECT 1`, {
          duration: "20 seconds",
          onTimeout: () => new Error("the pool's only place is taken for good")
        })
        assert.strictEqual((yield* ResilientPg.pool).total, 1)
      }).pipe(Effect.provide(ResilientPg.layer({ url: proxy.url(url), maxConnections: 1 })))
    })
  )
})
