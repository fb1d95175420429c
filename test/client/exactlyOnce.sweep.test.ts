/** What is left of transactions that happened exactly once: nothing, soon, at little cost; and the ledger's own table. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Layer, Logger, Redacted } from "effect"
import { Operation, ResilientPg, Transaction } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { commit, ledgered } from "./exactly.js"
import { clientOf, proxied } from "./support.js"

const deletes = FaultProxy.query(/^DELETE FROM .*= ANY/)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("The ledger", (it) => {
  it.scoped("forgets what was acknowledged, within seconds and in batches", () =>
    Effect.gen(function* () {
      const { insert, ledger, messages, once } = yield* ledgered()
      yield* Effect.forEach(Arr.range(1, 100), (n) => once(insert(n)), { concurrency: 8, discard: true })
      yield* TestPg.eventually(ledger, Arr.isEmptyArray, { limit: "10 seconds" })
      const statements = messages.filter(deletes).length
      assert.isAtMost(statements, 10, `${statements} statements for 100 tokens`)
    })
  )

  it.scoped("is empty when the layer has closed, a slow deletion included", () =>
    Effect.gen(function* () {
      const { close, insert, ledger, once } = yield* ledgered()
      yield* Effect.forEach(Arr.range(1, 20), (n) => once(insert(n)), { concurrency: 4, discard: true })
      yield* close
      assert.deepStrictEqual(yield* ledger, [])
    })
  )

  it.scoped("loses what is older than its retention: of fences, and of programs that ended", () =>
    Effect.gen(function* () {
      const { insert, once, url } = yield* ledgered({ ledger: { retention: "1 hour" } })
      yield* TestPg.control(
        `INSERT INTO effect_pg_ledger
         SELECT gen_random_uuid(), 'fence', now() - n * interval '1 minute' FROM generate_series(1, 2500) AS n`,
        [],
        url
      )
      yield* TestPg.control(
        "INSERT INTO effect_pg_ledger_keys SELECT n::text, NULL, '1', now() - interval '1 second' FROM generate_series(1, 5) n",
        [],
        url
      )
      yield* once(insert(1))
      const left = TestPg.control<{ young: boolean }>(
        "SELECT created_at > now() - interval '1 hour' AS young FROM effect_pg_ledger",
        [],
        url
      )
      const rows = yield* TestPg.eventually(left, (rows) => rows.every(({ young }) => young))
      assert.isAtLeast(rows.length, 58)
      yield* TestPg.eventually(TestPg.control("SELECT FROM effect_pg_ledger_keys", [], url), Arr.isEmptyReadonlyArray)
    })
  )

  it.scoped("is swept when the server is back, with a few words in the log at most", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { proxy } = yield* proxied
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      const context = yield* Effect.provide(
        Layer.build(ResilientPg.layer({ url: proxy.url(url) })),
        Logger.replace(Logger.defaultLogger, logger)
      )
      const left = TestPg.control("SELECT FROM effect_pg_ledger", [], url)
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* Transaction.createLedger
        const write = Transaction.run(sql`CREATE TABLE IF NOT EXISTS kept ()`, { exactlyOnce: true })
        yield* write
        yield* proxy.refuse
        yield* proxy.reset
        // The deletion waits for a connection.
        yield* TestPg.eventually(ResilientPg.pool, ({ waiting }) => waiting > 0)
        assert.lengthOf(yield* left, 1)
        yield* proxy.accept
        yield* write
        yield* TestPg.eventually(left, Arr.isEmptyReadonlyArray)
      }).pipe(Effect.provide(context))
      assert.isAtMost(lines.length, 12, lines.join("\n"))
      assert.notInclude(lines.join("\n"), "Outcome unknown")
    })
  )

  it.scoped("what can not be deleted now goes later, and what is lost in between is nobody's unknown outcome", () =>
    Effect.gen(function* () {
      const { insert, ledger, once, proxy } = yield* ledgered()
      const lost = yield* proxy.cut({ on: deletes, when: "before" })
      yield* once(insert(1))
      yield* lost.happened()
      yield* TestPg.eventually(ledger, Arr.isEmptyArray)
      const refused = yield* proxy.swallowReply({ on: deletes })
      yield* once(insert(2))
      yield* refused.happened()
      yield* TestPg.eventually(ledger, Arr.isEmptyArray)
    })
  )

  it.scoped("does not hold up closing while the server is away", () =>
    Effect.gen(function* () {
      const { close, insert, once, pool, proxy } = yield* ledgered({ closeGrace: "100 millis" })
      yield* once(insert(1))
      yield* proxy.refuse
      yield* proxy.reset
      yield* TestPg.eventually(pool, ({ total }) => total === 0)
      const closing = yield* Effect.fork(close)
      // The wait for a connection alone would be 30 seconds.
      const exit = yield* Effect.timeoutOption(Fiber.await(closing), "10 seconds")
      assert.strictEqual(exit._tag, "Some")
    })
  )

  it.scoped("is created by five clients at once, and again", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const clients = yield* Effect.replicateEffect(clientOf({ url }), 5)
      const create = Effect.forEach(clients, ({ context }) => Effect.provide(Transaction.createLedger, context), {
        concurrency: "unbounded"
      })
      yield* create
      yield* create
      const tables = yield* TestPg.control<{ relname: string; relpersistence: string }>(
        "SELECT relname, relpersistence FROM pg_class WHERE relkind = 'r' AND relname LIKE 'effect_pg%' ORDER BY 1",
        [],
        url
      )
      assert.deepStrictEqual(tables, [
        { relname: "effect_pg_ledger", relpersistence: "p" },
        { relname: "effect_pg_ledger_keys", relpersistence: "p" }
      ])
    })
  )

  it.scoped("has whatever names it is given, and settles under them", () =>
    Effect.gen(function* () {
      const schema = 'My "own" schema'
      const table = `Ledger's "Table"`
      const fixture = yield* ledgered({ ledger: { schema, table } })
      const { insert, kept, once, proxy, runs, url } = fixture
      yield* proxy.swallowReply({ on: commit })
      const applied = yield* once(insert(1))
      yield* proxy.cut({ on: commit, when: "before" })
      const anew = yield* once(insert(2))
      assert.deepStrictEqual(yield* kept, [
        { id: applied, n: 1 },
        { id: anew, n: 2 }
      ])
      assert.strictEqual(yield* runs, 3)
      // By a client of the same options.
      yield* Effect.provide(Transaction.createLedger, fixture.context)
      const [found] = yield* TestPg.control(
        "SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = $2",
        [schema, table],
        url
      )
      assert.isDefined(found)
    })
  )

  it.scoped("needs no right to create anything where it is there, and says what it lacks where it is not", () =>
    Effect.gen(function* () {
      const { name, url } = yield* TestPg.database
      const role = `lowly_${name}`
      yield* Effect.acquireRelease(TestPg.control(`CREATE ROLE ${role} LOGIN PASSWORD 'lowly'`, [], url), () =>
        Effect.zipRight(TestPg.control(`DROP OWNED BY ${role}`, [], url), TestPg.control(`DROP ROLE ${role}`, [], url))
      )
      const address = new URL(Redacted.value(url))
      address.username = role
      address.password = "lowly"
      const lowly = yield* clientOf({ url: Redacted.make(address.href) })
      const owner = yield* clientOf({ url })
      const create = Effect.provide(Transaction.createLedger, lowly.context)
      const error = yield* Effect.flip(create)
      assert.deepInclude(error, { _tag: "AuthorizationError", outcome: "NotApplied" })
      yield* Effect.provide(Transaction.createLedger, owner.context)
      yield* create
      // It lacks the right to leave its token.
      const write = Transaction.run(lowly.sql`SELECT set_config('a.b', 'c', true)`, { exactlyOnce: true })
      const refused = yield* Effect.flip(Effect.provide(write, lowly.context))
      assert.deepInclude(refused, { _tag: "AuthorizationError", phase: "Begin", outcome: "NotApplied" })
      yield* TestPg.control(`GRANT SELECT, INSERT, DELETE ON effect_pg_ledger TO ${role}`, [], url)
      yield* Effect.provide(write, lowly.context)
      yield* TestPg.eventually(TestPg.control("SELECT FROM effect_pg_ledger", [], url), Arr.isEmptyReadonlyArray)
    })
  )

  it.scoped("without its table it says how to create it, and nothing is applied", () =>
    Effect.gen(function* () {
      const { context, direct, insert, kept, once, sql } = yield* ledgered()
      yield* direct.sql`DROP TABLE effect_pg_ledger`
      const error = yield* Effect.flip(once(insert(7)))
      assert.include(error.message, "Transaction.createLedger")
      assert.strictEqual(error.outcome, "NotApplied")
      const single = yield* Effect.flip(
        sql`INSERT INTO kept (n) VALUES (7)`.pipe(Operation.named("keep", { exactlyOnce: true }))
      )
      assert.include(single.message, "Transaction.createLedger")
      assert.deepStrictEqual(yield* kept, [])
      yield* Effect.provide(Transaction.createLedger, context)
      yield* once(insert(7))
      assert.lengthOf(yield* kept, 1)
    })
  )
})
