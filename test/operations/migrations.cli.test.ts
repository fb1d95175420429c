/** `migrate` as it is typed: what it prints, where, and how it ends. */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { stripVTControlCharacters } from "node:util"
import * as CliConfig from "@effect/cli/CliConfig"
import { NodeContext } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { ConfigProvider, Console, Effect, Exit, Layer, Logger, LogLevel, Redacted } from "effect"
import { run } from "../../src/operations/cli/app.js"
import { next } from "../../src/operations/cli/internal/migrateCreate.js"
import { exitCodeOf, explain } from "../../src/operations/cli/shared.js"
import * as Remains from "../support/Remains.js"
import { root } from "../support/root.js"
import * as TestPg from "../support/TestPg.js"
import { applied, fresh, traces } from "./migrationsSupport.js"

/** One command line in this process: its exit code, and what it wrote. */
const migrate = (url: Redacted.Redacted, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const written = { out: "", err: "" }
    const current = yield* Console.consoleWith(Effect.succeed)
    const line = (to: keyof typeof written) => (text: string) =>
      Effect.sync(() => {
        written[to] += `${text}\n`
      })
    const exit = yield* Effect.exit(
      run(["node", "effect-pg-resilience", "migrate", ...args]).pipe(
        Effect.tapError(explain),
        Effect.withConsole({ ...current, log: line("out"), error: line("err") }),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["DATABASE_URL", Redacted.value(url)]]))),
        Effect.provide(Layer.merge(NodeContext.layer, CliConfig.layer({ showBuiltIns: false }))),
        Logger.withMinimumLogLevel(LogLevel.None)
      )
    )
    return { code: Exit.isSuccess(exit) ? 0 : exitCodeOf(exit.cause), ...written }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("migrate", (it) => {
  it.scoped("creates, shows, applies and undoes migrations; stdout is the result, or one JSON document", () =>
    Effect.gen(function* () {
      const { url } = yield* fresh()
      const directory = Path.join(yield* Remains.temporary, "migrations")
      const on = (command: string, ...args: ReadonlyArray<string>) =>
        migrate(url, command, "--directory", directory, ...args)
      const put = (file: string, text: string) => Fs.writeFileSync(Path.join(directory, file), text)

      assert.strictEqual((yield* on("create", "--kind", "sql", "first")).out, `${directory}/0001_first.sql\n`)
      put("0001_first.sql", "INSERT INTO trace VALUES ('first')")
      put("0001_first.down.sql", "DELETE FROM trace")
      assert.strictEqual((yield* on("create", "second")).out, `${directory}/0002_second.sql\n`)
      assert.strictEqual((yield* on("create", "no.name")).code, 2)

      const plan = yield* on("plan")
      assert.include(plan.out, "-- 1_first up, in a transaction\nINSERT INTO trace VALUES ('first');\n")
      assert.deepStrictEqual(yield* traces(url), [])
      assert.strictEqual((yield* on("status")).out, "1_first   pending\n2_second  pending\n")
      const up = yield* on("up", "--json")
      assert.strictEqual(up.code, 0)
      const report = JSON.parse(up.out)
      assert.deepInclude(report.done[0], { id: 1, name: "first", direction: "up" })
      assert.lengthOf(report.done, 2)
      assert.strictEqual((yield* on("up")).out, "Nothing to do\n")
      assert.match((yield* on("status")).out, /1_first +applied +\S+Z +as it was applied\n/)
      assert.strictEqual((yield* on("rollback", "2")).code, 1) // the second has no down
      put("0002_second.down.sql", "")
      assert.match((yield* on("down")).out, /^2_second undone/)
      assert.match((yield* on("plan", "--to", "0")).out, /-- 1_first down, in a transaction\nDELETE FROM trace;/)
      assert.match((yield* on("to", "0")).out, /^1_first undone/)
      assert.deepStrictEqual(yield* applied(url), [])
    })
  )

  it.scoped("says no with 1, what is wrong with the command line with 2, and what could not be done with 3", () =>
    Effect.gen(function* () {
      const { url } = yield* fresh()
      const directory = yield* Remains.temporary
      const on = (command: string, ...args: ReadonlyArray<string>) =>
        migrate(url, command, "--directory", directory, ...args)
      const put = (text: string) => Fs.writeFileSync(Path.join(directory, "1_one.sql"), text)
      const codes = (...lines: ReadonlyArray<ReadonlyArray<string>>) =>
        Effect.forEach(lines, ([command, ...args]) => Effect.map(on(command!, ...args), ({ code }) => code))

      put("-- transaction: false\nINSERT INTO trace VALUES ('one'); SELECT nothing")
      const failed = yield* on("up", "--json")
      assert.strictEqual(failed.code, 3)
      assert.deepInclude(JSON.parse(failed.out).error, { tag: "MigrationFailed", id: 1, state: "halfDone" })
      assert.match(failed.err, /Migration 1_one \(up\) failed: 1_one\.sql, line 2/)
      const status = yield* on("status", "--json")
      assert.strictEqual(status.code, 1)
      assert.strictEqual(JSON.parse(status.out).migrations[0].state, "unfinished")
      assert.deepStrictEqual(
        yield* codes(["up"], ["resolve", "1"], ["resolve", "1", "--applied"], ["up"], ["resolve", "1", "--applied"]),
        [1, 2, 0, 0, 2]
      )
      put("-- transaction: false\nSELECT 1")
      const edited = yield* on("up")
      assert.strictEqual(edited.code, 1)
      assert.strictEqual(edited.out, "")
      assert.match(edited.err, /1_one was edited.*migrate accept 1/)
      assert.deepStrictEqual(
        yield* codes(["up", "--allow-edited"], ["accept", "1"], ["up"], ["accept", "7"], ["to", "7"], ["to", "x"]),
        [0, 0, 0, 2, 2, 2]
      )
      const duration = yield* on("up", "--lock-timeout", "soon")
      assert.strictEqual(duration.code, 2)
      assert.match(stripVTControlCharacters(duration.err + duration.out), /--lock-timeout is "soon"/)
      assert.deepStrictEqual(
        yield* codes(["plan", "--to", "0", "--rollback", "1"], ["rollback", "0"], ["up", "--table", "a.b.c"]),
        [2, 2, 2]
      )
      const nowhere = yield* migrate(url, "up", "--directory", Path.join(directory, "nowhere"))
      assert.strictEqual(nowhere.code, 3)
      assert.match(nowhere.err, /There is no folder with migrations at .*nowhere/)
    })
  )

  it.scoped("runs TypeScript under a loader; interrupted, it says so, ends with 130, and leaves nothing", () =>
    Effect.gen(function* () {
      const { control, url } = yield* fresh()
      const directory = yield* Remains.temporary
      const text = `
        import * as SqlClient from "@effect/sql/SqlClient"
        import * as Effect from "effect/Effect"
        const slow: string = "SELECT pg_sleep(600)"
        export default Effect.flatMap(SqlClient.SqlClient, (sql) =>
          Effect.zipRight(sql\`INSERT INTO trace VALUES ('one')\`, sql.unsafe(slow)))
      `
      Fs.writeFileSync(Path.join(directory, "1_slow.ts"), text)
      Fs.symlinkSync(Path.join(root, "node_modules"), Path.join(directory, "node_modules"))
      const main = Path.join(root, "src/operations/cli/main.ts")
      let err = ""
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(process.execPath, ["--import", "tsx", main, "migrate", "up", "--json", "--directory", directory], {
            cwd: root,
            env: { ...process.env, DATABASE_URL: Redacted.value(url), NO_COLOR: "1" }
          })
        ),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      child.stderr.on("data", (chunk) => (err += chunk))
      const sessions = control(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%migrations'"
      )
      yield* TestPg.eventually(sessions, (all) => all.some(({ query }) => query.includes("pg_sleep")))
      const code = yield* Effect.async<number | null>((resume) => {
        child.once("close", (code) => resume(Effect.succeed(code)))
        child.kill("SIGINT")
      })
      assert.strictEqual(code, 130, err)
      assert.match(err, /Migration 1_slow was interrupted: it is rolled back/)
      yield* TestPg.eventually(sessions, ({ length }) => length === 0)
      assert.deepStrictEqual(yield* traces(url), [])
      assert.deepStrictEqual(yield* applied(url), [])
    })
  )

  it.effect("counts on from what is there, in its manner", () =>
    Effect.sync(() => {
      assert.deepStrictEqual(next([]), { id: "0001", kind: "ts" })
      assert.deepStrictEqual(next(["0009_a.ts", "0010_b.mjs", "0010_b.down.sql", "x"]), { id: "0011", kind: "js" })
      assert.deepStrictEqual(next(["9_a.sql"]), { id: "10", kind: "sql" })
    })
  )
})
