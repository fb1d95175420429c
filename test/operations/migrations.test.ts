/** Up, down, to, status; adopting a database of `PgMigrator`'s, and going back; what is refused. */
import { NodeContext } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgMigrator } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Layer, String } from "effect"
import { Migrations } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { applied, clientWith, fresh, once, record, sql, step, titles, traced, traces } from "./migrationsSupport.js"

const three = { "1_one": step("one"), "0002_two": step("two"), "3_three": step("three") }
const loader = record(three)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Migrations", (it) => {
  it.scoped("apply what is missing, in order, once; undo and apply again up to any id", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const first = yield* on(Migrations.up({ loader: record({ "1_one": step("one") }) }))
      assert.deepStrictEqual(titles(first.done), ["up 1_one"])
      assert.deepStrictEqual(titles((yield* on(Migrations.up({ loader }))).done), ["up 2_two", "up 3_three"])
      assert.deepStrictEqual(yield* on(Migrations.up({ loader })), { done: [], adopted: [] })
      const all = ["one a", "one b", "two a", "two b", "three a", "three b"]
      assert.deepStrictEqual(yield* traces(url), all)

      assert.deepStrictEqual(titles((yield* on(Migrations.rollback({ loader }, 2))).done), [
        "down 3_three",
        "down 2_two"
      ])
      assert.deepStrictEqual(yield* applied(url), ["1_one"])
      assert.deepStrictEqual(titles((yield* on(Migrations.to({ loader }, 2))).done), ["up 2_two"])
      assert.deepStrictEqual(titles((yield* on(Migrations.to({ loader }, 0))).done), ["down 2_two", "down 1_one"])
      assert.deepStrictEqual(yield* applied(url), [])
      assert.deepStrictEqual(titles((yield* on(Migrations.up({ loader }))).done), [
        "up 1_one",
        "up 2_two",
        "up 3_three"
      ])
      // More than there are is all there are.
      assert.lengthOf((yield* on(Migrations.rollback({ loader }, 99))).done, 3)
      yield* on(Layer.build(Migrations.layer({ loader })))
      assert.lengthOf(yield* applied(url), 3)
    })
  )

  it.scoped("work on a client whose names are transformed, and in a table of another schema", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh({
        transformQueryNames: String.camelToSnake,
        transformResultNames: String.snakeToCamel
      })
      yield* control("CREATE SCHEMA ops")
      const options = { loader, table: "ops.Versions" }
      yield* on(Migrations.up(options))
      assert.deepStrictEqual(yield* applied(url, 'ops."Versions"'), ["1_one", "2_two", "3_three"])
      assert.deepStrictEqual(
        (yield* on(Migrations.status(options))).map(({ state }) => state),
        ["applied", "applied", "applied"]
      )
      yield* on(Migrations.rollback(options, 1))
      assert.deepStrictEqual(yield* applied(url, 'ops."Versions"'), ["1_one", "2_two"])
    })
  )

  it.scoped("take over a database that PgMigrator has migrated, and give it back", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      const migrator = (n: number) =>
        on(
          PgMigrator.run({ loader: record(Object.fromEntries(Object.entries(three).slice(0, n))) }).pipe(
            Effect.provide(NodeContext.layer)
          )
        )
      assert.lengthOf(yield* migrator(1), 1)
      const [before] = yield* control("SELECT * FROM effect_sql_migrations")
      const loaderOfTwo = record({ "1_one": three["1_one"], "0002_two": three["0002_two"] })
      assert.deepStrictEqual(titles((yield* on(Migrations.up({ loader: loaderOfTwo }))).done), ["up 2_two"])
      assert.deepStrictEqual((yield* control("SELECT * FROM effect_sql_migrations ORDER BY 1"))[0], before)
      assert.deepStrictEqual(yield* migrator(3), [[3, "three"]])
      assert.deepStrictEqual((yield* on(Migrations.up({ loader }))).done, [])
      assert.lengthOf(yield* traces(url), 6)
    })
  )

  it.scoped("each run once when five programs start at the same time, and all of those succeed", () =>
    Effect.gen(function* () {
      const { url } = yield* fresh()
      const starter = Effect.gen(function* () {
        const { on } = yield* clientWith(url)
        return (yield* on(Migrations.up({ loader }))).done
      })
      const done = yield* Effect.all(
        Arr.makeBy(5, () => starter),
        { concurrency: "unbounded" }
      )
      assert.lengthOf(done.flat(), 3)
      assert.lengthOf(yield* traces(url), 6)
    })
  )

  it.scoped("are not run twice either beside a PgMigrator that knows nothing of them", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      yield* on(Migrations.up({ loader: record({}) }))
      yield* on(Migrations.to({ loader: record({ "1_one": step("one") }) }, 1))
      const other = Effect.gen(function* () {
        const { on } = yield* clientWith(url)
        return yield* on(Effect.provide(PgMigrator.run({ loader }), NodeContext.layer))
      })
      const ours = Effect.flatMap(clientWith(url), ({ on }) => on(Migrations.up({ loader })))
      yield* Effect.all([ours, other, ours, other], { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* applied(url), ["1_one", "2_two", "3_three"])
      assert.lengthOf(yield* traces(url), 6)
    })
  )

  it.scoped("stop at one that fails: it is rolled back, those before stay, those after are not begun", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      const failing = Effect.zipRight(traced("two"), sql("CREATE TABLE half (id int)", "SELECT nothing FROM half"))
      const broken = record({ ...three, "0002_two": failing })
      const error = yield* Effect.flip(on(Migrations.up({ loader: broken })))
      assert(error instanceof Migrations.MigrationFailed)
      assert.deepInclude(error, { id: 2, name: "two", direction: "up", state: "rolledBack" })
      assert.deepStrictEqual(titles(error.done), ["up 1_one"])
      assert.deepStrictEqual(titles(error.left), ["up 3_three"])
      assert.match(error.message, /Migration 2_two \(up\) failed: .*nothing.*rolled back.*1_one.*3_three/s)
      assert.deepStrictEqual(yield* applied(url), ["1_one"])
      assert.deepStrictEqual(yield* traces(url), ["one a", "one b"])
      assert.deepStrictEqual(yield* control("SELECT to_regclass('half') AS half"), [{ half: null }])
      assert.lengthOf((yield* on(Migrations.up({ loader }))).done, 2)
    })
  )

  it.scoped("that fail otherwise are as rolled back: a defect, COMMIT's own failure, a swallowed failure", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const swallowing = Effect.zipRight(traced("kept?"), Effect.ignore(sql("SELECT nothing")))
      const deferred = sql(
        "CREATE TABLE pair (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO pair VALUES (1), (1)"
      )
      for (const body of [Effect.zipRight(traced("kept?"), Effect.die("boom")), deferred, swallowing]) {
        const error = yield* Effect.flip(on(Migrations.up({ loader: record({ "1_one": body }), retry: once })))
        assert(error instanceof Migrations.MigrationFailed)
        assert.strictEqual(error.state, "rolledBack")
      }
      assert.deepStrictEqual(yield* traces(url), [])
      assert.deepStrictEqual(yield* applied(url), [])
    })
  )

  it.scoped("may have nested transactions, and see the program's own client wherever they ask for it", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const nested = Effect.gen(function* () {
        const client = yield* SqlClient.SqlClient
        yield* client.withTransaction(traced("kept"))
        yield* Effect.ignore(client.withTransaction(Effect.zipRight(traced("undone"), Effect.fail("no"))))
        const [before] = yield* client<{ pid: number }>`SELECT pg_backend_pid() AS pid`
        const [after] = yield* client.withTransaction(client<{ pid: number }>`SELECT pg_backend_pid() AS pid`)
        assert.deepStrictEqual(before, after)
      })
      yield* on(Migrations.up({ loader: record({ "1_nested": nested }) }))
      assert.deepStrictEqual(yield* traces(url), ["kept"])
    })
  )

  it.scoped("may leave another search_path behind, as dumps do", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const dump = sql(
        "SELECT pg_catalog.set_config('search_path', '', false)",
        "INSERT INTO public.trace VALUES ('one')"
      )
      const transaction = false
      const options = {
        loader: record({ "1_dump": dump, "2_dump": Migrations.define(dump, { down: dump, transaction }) })
      }
      assert.lengthOf((yield* on(Migrations.up(options))).done, 2)
      assert.lengthOf((yield* on(Migrations.rollback(options, 1))).done, 1)
      assert.lengthOf(yield* traces(url), 3)
    })
  )

  it.scoped("cannot end the transaction that they are given, and may have savepoints of their own", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      for (const text of ["COMMIT", "ROLLBACK", "SELECT 1; COMMIT", "begin", "PREPARE TRANSACTION 'x'"]) {
        const body = Effect.zipRight(Effect.zipRight(traced("never"), sql(text)), traced("never"))
        const error = yield* Effect.flip(on(Migrations.up({ loader: record({ "1_ends": body }) })))
        assert(error instanceof Migrations.MigrationFailed)
        assert.strictEqual(error.state, "rolledBack")
        assert.match(error.message, /begins or ends a transaction/)
      }
      assert.deepStrictEqual(yield* traces(url), [])
      const savepoints = ["SAVEPOINT a", "INSERT INTO trace VALUES ('undone')", "ROLLBACK TO SAVEPOINT a", "RELEASE a"]
      yield* on(Migrations.up({ loader: record({ "1_own": Effect.zipRight(sql(...savepoints), traced("kept")) }) }))
      assert.deepStrictEqual(yield* traces(url), ["kept"])
    })
  )

  it.scoped("refuse what cannot be undone, before anything is", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const options = { loader: record({ ...three, "0002_two": traced("two") }) }
      yield* on(Migrations.up(options))
      const error = yield* Effect.flip(on(Migrations.rollback(options, 3)))
      assert(error instanceof Migrations.MigrationIrreversible)
      assert.deepStrictEqual(error.irreversible, [{ id: 2, name: "two", reason: "no down" }])
      // A version of the program that is older than the database starts all the same, but undoes nothing that it does not know.
      const older = { loader: record({ "1_one": step("one") }) }
      assert.deepStrictEqual((yield* on(Migrations.up(older))).done, [])
      const missing = yield* Effect.flip(on(Migrations.rollback(older, 1)))
      assert(missing instanceof Migrations.MigrationIrreversible)
      assert.match(missing.message, /3_three is applied, but there is no such file/)
      assert.lengthOf(yield* applied(url), 3)
    })
  )

  it.scoped("refuse one that was left out, unless it is allowed or said to need no run", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      yield* on(Migrations.up({ loader: record({ "3_three": step("three") }) }))
      const error = yield* Effect.flip(on(Migrations.up({ loader })))
      assert(error instanceof Migrations.MigrationsSkipped)
      assert.deepStrictEqual(titles(error.skipped), ["up 1_one", "up 2_two"])
      yield* on(Migrations.resolve({ loader }, 1, "applied"))
      assert.deepStrictEqual(titles((yield* on(Migrations.up({ loader, allowSkipped: true }))).done), ["up 2_two"])
      assert.deepStrictEqual(yield* applied(url), ["1_one", "2_two", "3_three"])
      assert.deepStrictEqual(yield* traces(url), ["three a", "three b", "two a", "two b"])
    })
  )

  it.scoped("refuse one whose number another has taken, and take the new name when it is accepted", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      yield* on(Migrations.up({ loader }))
      const options = { loader: record({ "1_one": step("one"), "2_other": step("other"), "3_three": step("three") }) }
      const error = yield* Effect.flip(on(Migrations.up(options)))
      assert(error instanceof Migrations.MigrationsEdited)
      assert.deepStrictEqual(error.edited, [{ id: 2, name: "other", check: "renamed", recordedName: "two" }])
      assert.deepStrictEqual((yield* on(Migrations.up({ ...options, allowEdited: true }))).done, [])
      yield* on(Migrations.accept(options, 2))
      assert.deepStrictEqual((yield* on(Migrations.up(options))).done, [])
      assert.deepStrictEqual(yield* applied(url), ["1_one", "2_other", "3_three"])
    })
  )

  it.scoped("say all that is wrong with what they are given, and change nothing", () =>
    Effect.gen(function* () {
      const { control, on } = yield* fresh()
      const bad = yield* Effect.flip(
        on(Migrations.up({ loader, table: "a.b.c", lockTimeout: -1, waitForLock: "never" as any }))
      )
      assert.strictEqual(bad._tag, "InvalidOptionsError")
      assert.match(bad.message, /migrations\.table.*migrations\.lockTimeout.*migrations\.waitForLock/s)
      const failures = yield* Effect.all(
        [
          Migrations.rollback({ loader }, 0),
          Migrations.to({ loader }, -1),
          Migrations.to({ loader }, 7),
          Migrations.up({ loader: record({ "1_a": step("a"), "01_b": step("b") }) }),
          Migrations.up({ loader: record({ "0_a": step("a") }) }),
          Migrations.up({ loader: record({ "2147483648_a": step("a") }) }),
          Migrations.up({ loader: record({ "1_a": "no effect" as never }) }),
          Migrations.up({ loader: record({ "1_a": Object.assign(step("a"), { transaction: "no" }) }) }),
          Migrations.accept({ loader }, 1),
          Migrations.resolve({ loader }, 1, "notApplied"),
          Migrations.resolve({ loader }, 9, "applied")
        ].map((self) => Effect.map(Effect.exit(on(self as Effect.Effect<unknown, Migrations.Stopped>)), Exit.isFailure))
      )
      assert.deepStrictEqual([...new Set(failures)], [true])
      assert.deepStrictEqual(
        yield* control(
          "SELECT to_regclass('effect_sql_migrations') IS NULL OR NOT EXISTS (SELECT FROM trace) AS clean"
        ),
        [{ clean: true }]
      )
    })
  )
})
