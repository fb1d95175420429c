/** Migrations outside a transaction: what is cut off is reported, what is half built is named, and nothing runs twice. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Ref, Schedule } from "effect"
import { Migrations } from "effect-pg-resilience"
import { hold } from "../client/support.js"
import * as TestPg from "../support/TestPg.js"
import { applied, fresh, once, record, sql, step, titles, traced, traces } from "./migrationsSupport.js"

const outside = (...texts: ReadonlyArray<string>) => Migrations.define(sql(...texts), { transaction: false })
const index = "CREATE UNIQUE INDEX CONCURRENTLY orders_id ON orders (id)"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Migrations outside a transaction", (it) => {
  it.scoped("build an index concurrently, and undo it so", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      yield* control("CREATE TABLE orders AS SELECT 1 AS id")
      const down = sql("DROP INDEX CONCURRENTLY orders_id")
      const options = { loader: record({ "1_index": Migrations.define(sql(index), { down, transaction: false }) }) }
      assert.deepStrictEqual(titles((yield* on(Migrations.up(options))).done), ["up 1_index"])
      assert.deepStrictEqual(yield* control("SELECT to_regclass('orders_id') IS NOT NULL AS there"), [{ there: true }])
      assert.deepStrictEqual(titles((yield* on(Migrations.rollback(options, 1))).done), ["down 1_index"])
      assert.deepStrictEqual(yield* control("SELECT to_regclass('orders_id') IS NOT NULL AS there"), [{ there: false }])
      assert.deepStrictEqual(yield* applied(url), [])
      assert.deepStrictEqual(yield* control("SELECT FROM effect_sql_migrations_state"), [])
    })
  )

  it.scoped("name the index that one has left half built, and refuse to go on until that is resolved", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      yield* control("CREATE TABLE orders AS SELECT 1 AS id FROM generate_series(1, 2)")
      const options = { loader: record({ "1_index": outside(index), "2_two": step("two") }) }
      const failed = yield* Effect.flip(on(Migrations.up(options)))
      assert(failed instanceof Migrations.MigrationFailed)
      assert.strictEqual(failed.state, "halfDone")
      const invalid = [
        { index: "public.orders_id", table: "orders", drop: "DROP INDEX CONCURRENTLY public.orders_id;" }
      ]
      assert.deepStrictEqual(failed.invalidIndexes, invalid)
      assert.deepStrictEqual(titles(failed.left), ["up 2_two"])

      const refused = yield* Effect.flip(on(Migrations.up(options)))
      assert(refused instanceof Migrations.MigrationUnfinished)
      assert.deepStrictEqual(refused.invalidIndexes, invalid)
      assert.match(refused.message, /DROP INDEX CONCURRENTLY public\.orders_id; .*resolve 1 --applied/s)
      assert.deepStrictEqual(
        (yield* on(Migrations.status(options))).map(({ state }) => state),
        ["unfinished", "pending"]
      )
      // Nothing else works, either.
      for (const other of [Migrations.to(options, 0), Migrations.rollback(options, 1)]) {
        assert.strictEqual((yield* Effect.flip(on(other)))._tag, "MigrationUnfinished")
      }
      assert.strictEqual((yield* Effect.flip(on(Migrations.plan(options))))._tag, "MigrationUnfinished")

      yield* control(invalid[0]!.drop)
      yield* control("TRUNCATE orders")
      yield* on(Migrations.resolve(options, 1, "notApplied"))
      assert.lengthOf((yield* on(Migrations.up(options))).done, 2)
      assert.deepStrictEqual(yield* traces(url), ["two a", "two b"])
    })
  )

  it.scoped("are not taken in by IF NOT EXISTS, to which an invalid index is one", () =>
    Effect.gen(function* () {
      const { control, on } = yield* fresh()
      yield* control("CREATE TABLE orders AS SELECT 1 AS id FROM generate_series(1, 2)")
      const careless = index.replace("CONCURRENTLY", "CONCURRENTLY IF NOT EXISTS")
      const options = { loader: record({ "1_index": outside(careless) }) }
      yield* Effect.flip(on(Migrations.up(options)))
      yield* control("TRUNCATE orders")
      yield* on(Migrations.resolve(options, 1, "notApplied"))
      const error = yield* Effect.flip(on(Migrations.up(options)))
      assert(error instanceof Migrations.MigrationFailed)
      assert.match(error.message, /invalid index/)
      assert.deepInclude(error, { state: "halfDone" })
    })
  )

  it.scoped("that fail before they have done anything are as new", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const error = yield* Effect.flip(
        on(Migrations.up({ loader: record({ "1_one": outside("INSERT INTO nowhere VALUES (1)") }) }))
      )
      assert(error instanceof Migrations.MigrationFailed)
      assert.strictEqual(error.state, "rolledBack")
      assert.lengthOf((yield* on(Migrations.up({ loader: record({ "1_one": step("one", false) }) }))).done, 1)
      assert.deepStrictEqual(yield* traces(url), ["one a", "one b"])
    })
  )

  it.scoped("are not tried again where a procedure has committed a part before it met a lock", () =>
    Effect.gen(function* () {
      const { client, control, on, url } = yield* fresh()
      yield* control("CREATE TABLE busy ()")
      const { connection } = yield* hold(client.sql)
      yield* connection.execute("BEGIN; LOCK TABLE busy", [], undefined)
      const body = "DO $$ BEGIN INSERT INTO trace VALUES ('one'); COMMIT; LOCK TABLE busy; END $$"
      const options = { loader: record({ "1_one": outside(body) }), lockTimeout: 10, retry: Schedule.recurs(5) }
      const error = yield* Effect.flip(on(Migrations.up(options)))
      assert(error instanceof Migrations.MigrationFailed)
      assert.strictEqual(error.state, "halfDone")
      assert.deepStrictEqual(yield* traces(url), ["one"])
    })
  )

  it.scoped("that fail half-way stay so, whichever way they went, until somebody says what is there", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const half = (what: string) => sql(`INSERT INTO trace VALUES ('${what}')`, "SELECT nothing")
      const up = { loader: record({ "1_one": Migrations.define(half("up"), { transaction: false }) }) }
      const failed = yield* Effect.flip(on(Migrations.up(up)))
      assert(failed instanceof Migrations.MigrationFailed)
      assert.strictEqual(failed.state, "halfDone")
      assert.strictEqual((yield* Effect.flip(on(Migrations.up(up))))._tag, "MigrationUnfinished")
      yield* on(Migrations.resolve(up, 1, "applied"))
      assert.deepStrictEqual(yield* applied(url), ["1_one"])

      const down = {
        loader: record({ "1_one": Migrations.define(Effect.void, { down: half("down"), transaction: false }) })
      }
      for (const as of ["applied", "notApplied"] as const) {
        assert.strictEqual((yield* Effect.flip(on(Migrations.rollback(down, 1))))._tag, "MigrationFailed")
        const unfinished = yield* Effect.flip(on(Migrations.up(down)))
        assert(unfinished instanceof Migrations.MigrationUnfinished)
        assert.strictEqual(unfinished.direction, "down")
        yield* on(Migrations.resolve(down, 1, as))
        assert.deepStrictEqual(yield* applied(url), as === "applied" ? ["1_one"] : [])
      }
      assert.deepStrictEqual(yield* traces(url), ["up", "down", "down"])
      assert.deepStrictEqual(
        (yield* on(Migrations.status(down))).map(({ state }) => state),
        ["pending"]
      )
    })
  )

  it.scoped("have transactions of their own where they ask for them, on the session that has the lock", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const batches = Effect.gen(function* () {
        const client = yield* SqlClient.SqlClient
        const pid = Effect.map(client<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) => row!.pid)
        const mine = yield* pid
        for (const batch of ["a", "b"]) {
          yield* client.withTransaction(
            Effect.zipRight(
              traced(batch),
              Effect.map(pid, (pid) => assert.strictEqual(pid, mine))
            )
          )
        }
        yield* Effect.ignore(client.withTransaction(Effect.zipRight(traced("c"), Effect.fail("no"))))
        yield* client.withTransaction(
          Effect.zipRight(
            traced("d"),
            Effect.ignore(client.withTransaction(Effect.zipRight(traced("e"), Effect.fail("no"))))
          )
        )
      })
      yield* on(Migrations.up({ loader: record({ "1_batches": Migrations.define(batches, { transaction: false }) }) }))
      assert.deepStrictEqual(yield* traces(url), ["a", "b", "d"])
    })
  )

  it.scoped("whose session is lost while they run are reported as unfinished, not begun again", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const runs = yield* Ref.make(0)
      const suicidal = Effect.zipRight(
        Ref.update(runs, (n) => n + 1),
        sql("INSERT INTO trace VALUES ('one')", "SELECT pg_terminate_backend(pg_backend_pid())")
      )
      const options = {
        loader: record({ "1_one": Migrations.define(suicidal, { transaction: false }) }),
        retry: Schedule.recurs(3)
      }
      const error = yield* Effect.flip(on(Migrations.up(options)))
      assert.strictEqual(error._tag, "MigrationUnfinished")
      assert.strictEqual(
        (yield* Effect.flip(on(Migrations.up({ ...options, retry: once }))))._tag,
        "MigrationUnfinished"
      )
      assert.strictEqual(yield* Ref.get(runs), 1)
      assert.deepStrictEqual(yield* traces(url), ["one"])
    })
  )
})
