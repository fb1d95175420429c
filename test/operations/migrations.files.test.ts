/** Migrations out of a folder: modules and SQL, what is no migration, what was edited, and what would run. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { NodeContext } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgMigrator } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Effect, Schedule, Stream } from "effect"
import { Migrations } from "effect-pg-resilience"
import * as Remains from "../support/Remains.js"
import * as TestPg from "../support/TestPg.js"
import { applied, fresh, record, sql, step, titles, traced, traces } from "./migrationsSupport.js"

/** A folder with those files. */
const folder = (files: Readonly<Record<string, string>>) =>
  Effect.map(Remains.temporary, (directory) => {
    const put = (file: string, text: string) => Fs.writeFileSync(Path.join(directory, file), text)
    for (const [file, text] of Object.entries(files)) put(file, text)
    const options = { loader: Effect.provide(Migrations.fromDirectory(directory), NodeContext.layer) }
    return { directory, put, options, remove: (file: string) => Fs.rmSync(Path.join(directory, file)) }
  })

const module = (what: string, more = "") => `
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
const run = (text) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))
export default run("INSERT INTO trace VALUES ('${what}')")
${more}`

const files = {
  "0001_module.ts": module("one", `export const down = run("INSERT INTO trace VALUES ('one undone')")`),
  "0002_sql.sql": "INSERT INTO trace VALUES ('two; a'); -- ;\nINSERT INTO trace VALUES ($$two; b$$)",
  "0002_sql.down.sql": "INSERT INTO trace VALUES ('two undone');",
  "3_outside.sql":
    "-- An index.\n-- transaction: false\n\nCREATE INDEX CONCURRENTLY trace_what ON trace (what);\nINSERT INTO trace VALUES ('three');",
  "README.md": "no migration",
  "0001_module.d.ts": "",
  "0001_module.js.map": "",
  "seed.sql": "no migration"
}

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Migrations out of a folder", (it) => {
  it.scoped("run modules and SQL, up and down, and leave other files alone", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const { options, put } = yield* folder(files)
      assert.deepStrictEqual(titles((yield* on(Migrations.up(options))).done), [
        "up 1_module",
        "up 2_sql",
        "up 3_outside"
      ])
      assert.deepStrictEqual(yield* traces(url), ["one", "two; a", "two; b", "three"])
      assert.deepStrictEqual(
        (yield* on(Migrations.status(options))).map(({ check }) => check),
        ["matches", "matches", "matches"]
      )
      assert.strictEqual((yield* Effect.flip(on(Migrations.rollback(options, 3))))._tag, "MigrationIrreversible")
      put("3_outside.down.sql", "-- transaction: false\nDROP INDEX CONCURRENTLY trace_what")
      yield* on(Migrations.rollback(options, 3))
      assert.deepStrictEqual((yield* traces(url)).slice(4), ["two undone", "one undone"])
      assert.deepStrictEqual(yield* applied(url), [])
    })
  )

  it.scoped("tell what was edited, before anything is done, and take it when it is accepted", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const { options, put } = yield* folder(files)
      yield* on(Migrations.to(options, 2))
      // Line ends and a byte order mark are the editor's.
      put("0002_sql.sql", `\uFEFF${files["0002_sql.sql"].replaceAll("\n", "\r\n")}`)
      assert.deepStrictEqual(yield* on(Migrations.to(options, 2)), { done: [], adopted: [] })
      put("0002_sql.sql", `${files["0002_sql.sql"]} -- harmless`)
      for (const self of [Migrations.up(options), Migrations.rollback(options, 1)]) {
        const error = yield* Effect.flip(on(self))
        assert(error instanceof Migrations.MigrationsEdited)
        assert.deepStrictEqual(error.edited, [{ id: 2, name: "sql", check: "edited", recordedName: "sql" }])
      }
      assert.strictEqual((yield* Effect.flip(on(Migrations.plan(options))))._tag, "MigrationsEdited")
      assert.deepStrictEqual(yield* applied(url), ["1_module", "2_sql"])
      assert.strictEqual((yield* on(Migrations.status(options)))[1]?.check, "edited")
      assert.lengthOf((yield* on(Migrations.to({ ...options, allowEdited: true }, 2))).done, 0)
      yield* on(Migrations.accept(options, 2))
      assert.lengthOf((yield* on(Migrations.up(options))).done, 1)
    })
  )

  it.scoped("take the files of what a PgMigrator has applied as they are, say so, and notice what is edited then", () =>
    Effect.gen(function* () {
      const { control, on } = yield* fresh()
      const { directory, options, put, remove } = yield* folder({ "0001_module.ts": files["0001_module.ts"] })
      const file = Path.join(directory, "0001_module.ts")
      yield* on(
        PgMigrator.run({ loader: PgMigrator.fromGlob({ [file]: () => import(/* @vite-ignore */ file) }) }).pipe(
          Effect.provide(NodeContext.layer)
        )
      )
      const rows = control("SELECT * FROM effect_sql_migrations")
      const before = yield* rows
      const state = Effect.map(on(Migrations.status(options)), ([entry]) => [entry?.state, entry?.check])
      assert.deepStrictEqual(yield* state, ["applied", "unchecked"])
      assert.deepStrictEqual(yield* on(Migrations.up(options)), { done: [], adopted: [{ id: 1, name: "module" }] })
      assert.deepStrictEqual(yield* on(Migrations.up(options)), { done: [], adopted: [] })
      assert.deepStrictEqual(yield* state, ["applied", "adopted"])
      put("0001_module.ts", files["0001_module.ts"] + "// edited")
      assert.deepStrictEqual(yield* state, ["applied", "edited"])
      // What it was compiled to is another text, and says nothing about this one.
      remove("0001_module.ts")
      put("0001_module.js", "export default 1")
      assert.deepStrictEqual(yield* state, ["applied", "unchecked"])
      assert.deepStrictEqual(yield* rows, before)
    })
  )

  it.scoped("say which file cannot be run, and why, before anything is done", () =>
    Effect.gen(function* () {
      const { control, on } = yield* fresh()
      const refusal = (bad: Readonly<Record<string, string>>) =>
        Effect.flatMap(folder({ "1_good.sql": "INSERT INTO trace VALUES ('never')", ...bad }), ({ options }) =>
          Effect.map(Effect.flip(on(Migrations.up(options))), ({ _tag, message }) => `${_tag}: ${message}`)
        )
      assert.match(yield* refusal({ "2_bad.sql": "SELECT 1;\nCOMMIT;" }), /2_bad\.sql: line 2 is "COMMIT"/)
      assert.match(yield* refusal({ "2_bad.sql": "SELECT 1;\nSELECT 'a" }), /2_bad\.sql: line 2 begins a quotation/)
      assert.match(yield* refusal({ "2_bad.sql": "-- transaction: no\nSELECT 1" }), /neither true nor false/)
      assert.match(yield* refusal({ "2_bad.sql": "SELECT 1", "2_bad.ts": module("x") }), /same id: 2_bad, 2_bad/)
      assert.match(yield* refusal({ "2_bad.down.sql": "SELECT 1" }), /2_bad\.down\.sql: there is no file/)
      assert.match(
        yield* refusal({ "2_bad.sql": "-- transaction: false\nSELECT 1", "2_bad.down.sql": "SELECT 1" }),
        /both need/
      )
      assert.match(yield* refusal({ "2_bad.ts": "export default 1" }), /"2_bad" has a default export that is no Effect/)
      assert.match(yield* refusal({ "2_bad.ts": "export const up = 1" }), /"2_bad" has no default export/)
      assert.match(yield* refusal({ "2_bad.ts": "throw new Error('boom')" }), /2_bad\.ts cannot be imported: boom/)
      assert.match(
        yield* refusal({ "2_bad.ts": module("x", "export const transaction = 1") }),
        /`transaction` is neither true nor false/
      )
      assert.match(yield* refusal({ "2_bad.ts": module("x", "export const down = 1") }), /`down` is no Effect/)
      const nowhere = Effect.provide(Migrations.fromDirectory("/nowhere/at/all"), NodeContext.layer)
      assert.match(
        (yield* Effect.flip(on(Migrations.up({ loader: nowhere })))).message,
        /no folder .*\/nowhere\/at\/all/
      )
      assert.deepStrictEqual(yield* control("SELECT FROM trace"), [])
      // A failing statement is told by file and line.
      const failing = yield* folder({ "1_bad.sql": "INSERT INTO trace VALUES ('never');\n\nSELECT nothing" })
      const error = yield* Effect.flip(on(Migrations.up(failing.options)))
      assert.match(error.message, /1_bad\.sql, line 3: .*nothing.*42703.*rolled back/)
      assert.deepStrictEqual(yield* control("SELECT FROM trace"), [])
    })
  )

  it.scoped(
    "are shown as they would run, to the last statement that can be known, with nothing changed or locked",
    () =>
      Effect.gen(function* () {
        const { control, on, url } = yield* fresh()
        const { options } = yield* folder(files)
        const planned = yield* on(Migrations.plan(options))
        assert.deepStrictEqual(
          planned.map(({ id, incomplete, statements, transaction }) => [
            id,
            transaction,
            incomplete,
            statements.length
          ]),
          [
            [1, true, undefined, 1],
            [2, true, undefined, 2],
            [3, false, undefined, 2]
          ]
        )
        assert.strictEqual(planned[1]?.statements[1]?.sql, "INSERT INTO trace VALUES ($$two; b$$)")
        assert.deepStrictEqual(yield* control("SELECT to_regclass('effect_sql_migrations') AS there"), [
          { there: null }
        ])

        const reading = Effect.gen(function* () {
          const client = yield* SqlClient.SqlClient
          const [row] = yield* client<{ n: number }>`SELECT count(*)::int AS n FROM trace`
          yield* client`INSERT INTO trace VALUES (${`of ${row!.n}`})`
          const more = yield* Stream.runCollect(client`SELECT what FROM trace`.stream)
          yield* client`INSERT INTO trace VALUES (${more.length})`
          yield* client.withTransaction(client`SELECT nextval('never')`)
          yield* client`CREATE TABLE later (id int)`
          yield* client`SELECT * FROM later`
          yield* traced("unknown")
        })
        yield* control("INSERT INTO trace VALUES ('there')")
        const loader = record({ "1_one": Migrations.define(reading, { down: traced("undone") }), "2_two": step("two") })
        const [first, second] = yield* on(Migrations.plan({ loader }))
        assert.deepStrictEqual(
          first?.statements.map(({ params, sql }) => [sql, ...params]),
          [
            ["SELECT count(*)::int AS n FROM trace"],
            ["INSERT INTO trace VALUES ($1)", "of 1"],
            ["SELECT what FROM trace"],
            ["INSERT INTO trace VALUES ($1)", 1],
            ["SAVEPOINT effect_sql_1"],
            ["SELECT nextval('never')"],
            ["CREATE TABLE later (id int)"],
            ["SELECT * FROM later"]
          ]
        )
        assert.match(first!.incomplete!, /later/)
        assert.lengthOf(second!.statements, 2)
        assert.deepStrictEqual(yield* traces(url), ["there"])
        assert.lengthOf(yield* on(Migrations.plan({ loader }, { to: 1 })), 1)

        // Also while somebody else migrates.
        yield* on(
          Migrations.up({ loader: record({ "1_one": Migrations.define(sql("SELECT 1"), { down: traced("undone") }) }) })
        )
        const [down] = yield* on(Migrations.plan({ loader, retry: Schedule.stop }, { rollback: 1 }))
        assert.deepInclude(down, {
          direction: "down",
          statements: [{ sql: "INSERT INTO trace VALUES ('undone')", params: [] }]
        })
      })
  )
})
