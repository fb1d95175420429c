/** The tester on a real server: what it does to a database, and what it sees of pool and breaker. */

import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Logger, type Redacted, Scope } from "effect"
import { LoadTest, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"

const client = (url: Redacted.Redacted, options: Partial<ResilientPg.Options> = {}) =>
  ResilientPg.layer({ url, maxConnections: 5, ...options })

const tables = (url: Redacted.Redacted) =>
  Effect.map(
    TestPg.control<{ table: string }>(
      "SELECT relnamespace::regnamespace || '.' || relname AS table FROM pg_class WHERE relname LIKE 'effect_pg_load_%' AND relkind = 'r'",
      [],
      url
    ),
    (rows) => rows.map(({ table }) => table)
  )

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("LoadTest on PostgreSQL", (it) => {
  it.scoped("runs the built-in mix on a table of its own, and every write is in it", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control("CREATE TABLE mine AS SELECT 1 AS one", [], url)
      const result = yield* Effect.gen(function* () {
        const scenario = yield* LoadTest.mix({ read: 50, write: 30, transaction: 20, rows: 100 })
        const [table] = yield* tables(url)
        assert.match(table!, /^public\.effect_pg_load_[0-9a-f]{16}$/)
        const result = yield* LoadTest.run({ scenario, concurrency: 20, operations: 25, sampleEvery: "10 millis" })
        const [stored] = yield* TestPg.control<{ sum: string; moved: string }>(
          `SELECT sum(value) AS sum FROM ${table}`,
          [],
          url
        )
        const writes = result.operations.find(({ name }) => name === "write")!
        // transactions take as much as they give
        assert.strictEqual(Number(stored!.sum), writes.succeeded)
        return result
      }).pipe(Effect.scoped, Effect.provide(client(url)))

      assert.deepStrictEqual(
        result.operations.map(({ name, weight }) => [name, weight]),
        [
          ["read", 50],
          ["write", 30],
          ["transaction", 20]
        ]
      )
      assert.deepInclude(result.total, { succeeded: 500, failed: 0 })
      for (const { response, succeeded } of result.operations) {
        assert.isAbove(succeeded, 50)
        assert.isAbove(response!.min, 0)
      }
      assert.strictEqual(
        result.timeline.reduce((sum, { succeeded }) => sum + succeeded, 0),
        500
      )
      assert.isTrue(result.samples.some(({ pool }) => pool?.used === 5 && pool.waiting > 0))
      assert.isTrue(result.samples.every(({ breaker }) => breaker === "Closed"))
      assert.deepStrictEqual(yield* tables(url), [])
      assert.lengthOf(yield* TestPg.control("SELECT * FROM mine", [], url), 1)
    })
  )

  it.scoped("drops its table when it is interrupted", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const begun = yield* Deferred.make<void>()
      const fiber = yield* Effect.gen(function* () {
        const scenario = yield* LoadTest.mix({ rows: 50 })
        return yield* LoadTest.run({
          scenario: { ...scenario, told: Deferred.succeed(begun, undefined) },
          concurrency: 10,
          duration: "10 minutes"
        })
      }).pipe(Effect.scoped, Effect.provide(client(url)), Effect.fork)
      yield* Deferred.await(begun)
      assert.lengthOf(yield* tables(url), 1)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      assert.deepStrictEqual(yield* tables(url), [])
    })
  )

  it.scoped("makes its table where the role makes its own, and says so where there is no such place", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control('CREATE SCHEMA "Of mine"', [], url)
      const place = (search_path: string) =>
        Effect.gen(function* () {
          yield* LoadTest.mix({ rows: 2 })
          return yield* tables(url)
        }).pipe(Effect.scoped, Effect.provide(client(url, { parameters: { search_path } })))
      const [table] = yield* place('"Of mine"')
      assert.match(table!, /^"Of mine"\.effect_pg_load_/)
      const error = yield* Effect.flip(place("nowhere"))
      assert.strictEqual(error._tag, "InvalidOptionsError")
      assert.include(error.message, "search_path")
    })
  )

  it.scoped("refuses weights and rows out of range, and makes nothing", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const refused = (options: LoadTest.MixOptions) =>
        Effect.flip(LoadTest.mix(options)).pipe(Effect.scoped, Effect.provide(client(url)))
      assert.include((yield* refused({ rows: 1, read: -1 })).message, "mix.rows is 1")
      assert.include((yield* refused({ read: 0, write: 0 })).message, "a weight above 0")
      assert.deepStrictEqual(yield* tables(url), [])
    })
  )

  it.scoped("sees the circuit open when the server is gone, and goes on", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.make({ settings: { fsync: false } })
      const crashed = yield* Deferred.make<void>()
      const result = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        // Once, by whoever is the tenth: the others meet a server that is gone.
        let count = 0
        const operation = Effect.suspend((): Effect.Effect<unknown, unknown> => {
          count += 1
          return count === 10
            ? Effect.zipRight(Effect.orDie(server.crash), Deferred.succeed(crashed, undefined))
            : count < 10
              ? sql`SELECT 1`
              : Effect.zipRight(Deferred.await(crashed), sql`SELECT 1`)
        })
        return yield* LoadTest.run({
          scenario: { operation },
          concurrency: 10,
          operations: 20,
          thresholds: ["errors<1%"],
          sampleEvery: "10 millis"
        })
      }).pipe(Effect.provide(client(server.url, { retry: false, breaker: { resetTimeout: "1 hour" } })))
      assert.strictEqual(result.total.succeeded + result.total.failed, 200)
      assert.isAbove(result.total.failed, 100)
      assert.isTrue(result.errors.some(({ tag }) => tag === "CircuitOpenError"))
      assert.strictEqual(result.samples.at(-1)?.breaker, "Open")
      assert.isAbove(result.outcomes.NotApplied, 0)
      assert.isFalse(LoadTest.passed(result))
    })
  )

  it.scoped("says which table it left behind when it cannot drop it", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      const scope = yield* Scope.make()
      const table = yield* Effect.gen(function* () {
        // The client goes before what was made with it: nothing is left to drop it with.
        yield* LoadTest.mix({ rows: 2 }).pipe(Scope.extend(scope), Effect.provide(client(url)))
        const [table] = yield* tables(url)
        yield* Scope.close(scope, Exit.void)
        return table
      }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      assert.lengthOf(lines, 1)
      assert.include(lines[0], `The table ${table} of the load test is left behind, drop it: `)
    })
  )
})
