/** The commands on backups, as a shell sees them. */
import { spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { NodeContext } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Cause, type Console, Context, Deferred, Effect, Exit, Fiber, Layer, Option, Redacted } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { run } from "../../src/operations/cli/app.js"
import { exitCodeOf } from "../../src/operations/cli/shared.js"
import * as InstalledPostgres from "../support/InstalledPostgres.js"
import { root } from "../support/root.js"
import * as TestPg from "../support/TestPg.js"

class Installed extends Context.Tag("test/Installed")<Installed, InstalledPostgres.Server>() {}

const shared = Layer.scoped(
  Installed,
  InstalledPostgres.missing === undefined
    ? Effect.tap(InstalledPostgres.make(), (server) =>
        server.query("CREATE TABLE orders AS SELECT n FROM generate_series(1, 100) n")
      )
    : Effect.succeed(undefined as never)
).pipe(Layer.merge(NodeContext.layer))

/** What a command line ends with, and what it has printed. */
const command = (line: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const [stdout, stderr]: [Array<string>, Array<string>] = [[], []]
    const console = yield* Effect.console
    const recording: Console.Console = {
      ...console,
      log: (...words) => Effect.sync(() => void stdout.push(words.join(" "))),
      error: (...words) => Effect.sync(() => void stderr.push(words.join(" ")))
    }
    const exit = yield* Effect.exit(
      Effect.withConsole(run(["node", "effect-pg-resilience", "backup", ...line]), recording)
    )
    const failure = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined
    const error = String((failure as { readonly message?: string } | undefined)?.message ?? "")
    return {
      code: Exit.isSuccess(exit) ? 0 : exitCodeOf(exit.cause),
      stdout: stdout.join("\n"),
      stderr: stderr.join("\n"),
      error
    }
  })

/** Arguments of the processes of a program that name a directory. */
const running = (program: string, directory: string) =>
  Effect.sync(() =>
    spawnSync("ps", ["-eo", "args"], { encoding: "utf8" })
      .stdout.split("\n")
      .filter((line) => line.includes(`${program} `) && line.includes(directory))
  )

const suite = InstalledPostgres.missing === undefined ? "backup" : `backup (${InstalledPostgres.missing})`

layer(shared, { excludeTestServices: true, timeout: "60 seconds" })(suite, (it_) => {
  const it = InstalledPostgres.missing === undefined ? it_ : ({ scoped: it_.scoped.skip } as typeof it_)

  it.scoped("goes from create to prune, each result alone on stdout, as one JSON document where asked", () =>
    Effect.gen(function* () {
      const server = yield* Installed
      const url = `--url=${Redacted.value(server.url)}`
      const directory = `--directory=${Path.join(server.directory, "b1")}`
      const json = (line: ReadonlyArray<string>) =>
        Effect.map(command([...line, directory, "--json"]), ({ code, error, stdout }) => {
          assert.strictEqual(code, 0, error)
          return JSON.parse(stdout)
        })
      assert.deepEqual(yield* json(["list"]), [])
      const created = yield* json(["create", url, "--checksums", "--format=custom", "--compress=1"])
      assert.strictEqual(created.manifest.content.tables[0].rows, "100")
      const verified = yield* command(["verify", url, directory, "latest"])
      assert.match(verified.stdout, new RegExp(`^${created.name} is good: restored and compared`))
      assert.include(verified.stderr, "restore: 1 of 1 tables, public.orders")
      const restored = yield* json(["restore", url, "--into=copy", "--quiet", created.name])
      assert.deepInclude(restored, { name: created.name, database: "copy" })
      const exists = yield* command(["restore", url, directory, "--into=copy", "--quiet", "latest"])
      assert.deepEqual([exists.code, exists.stdout], [3, ""])
      assert.include(exists.error, "The database copy exists")
      const base = yield* json(["base", url, "--quiet"])
      assert.strictEqual(base.archiving.mode, "off")
      const listed = yield* json(["list"])
      assert.deepEqual(
        listed.map((entry: any) => [entry.name, entry.kind, entry.database, entry.verified?.faults]),
        [
          [created.name, "logical", "postgres", []],
          [base.name, "base", null, undefined]
        ]
      )
      const pruned = yield* command(["prune", directory, "--keep-last=1", "--dry-run"])
      assert.match(pruned.stdout, /keep +base-\S+ +last, newest/)
      assert.deepEqual((yield* json(["cleanup", url])).files, { removed: [], kept: [] })

      // the answer is no: exit code 1
      Fs.appendFileSync(Path.join(created.path, "dump.custom"), "x")
      const bad = yield* command(["verify", url, directory, created.name])
      assert.strictEqual(bad.code, 1)
      assert.match(bad.error, /is not good: file dump\.custom has another size/)
      assert.include((yield* command(["list", directory])).stdout, "NOT GOOD: file dump.custom has another size")
    })
  )

  it.scoped("refuses what is wrong on the command line with exit code 2, and does nothing", () =>
    Effect.gen(function* () {
      const server = yield* Installed
      const url = `--url=${Redacted.value(server.url)}`
      const none = Path.join(server.directory, "none")
      const recover = ["recover", "--archive=/a", "--data-directory=/d", `--directory=${none}`]
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
        [
          ["create", url, `--directory=${none}`, "--format=custom", "--jobs=2"],
          /jobs is 2, expected 1 with the custom format/
        ],
        [recover, /Say where to stop, once/],
        [[...recover, "--to-end", "--to-lsn=0/1"], /Say where to stop, once/],
        [
          [...recover, "--to-time=2026-11-30 14:00"],
          /target\.time is "2026-11-30 14:00", expected a time with its offset/
        ],
        [["archive-settings", "--archive=wal"], /archive is "wal", expected an absolute path/],
        [["prune", `--directory=${none}`, "--keep-last=-1"], /keepLast is -1/]
      ]
      for (const [line, expected] of wrong) {
        const { code, error, stdout } = yield* command(line)
        assert.deepEqual([code, stdout], [2, ""], line.join(" "))
        assert.match(error, expected)
      }
      assert.isFalse(Fs.existsSync(none))
      const missing = yield* command(["create", url, `--directory=${none}`, `--bin-directory=${server.directory}`])
      assert.strictEqual(missing.code, 3)
      assert.match(missing.error, /pg_dump was not found in/)
    })
  )

  it.scoped(
    "ends on Ctrl-C with exit code 130, its tools with it, and leaves nothing; the password is in no argument",
    () =>
      Effect.gen(function* () {
        const server = yield* Installed
        const directory = Path.join(server.directory, "b2")
        const locked = yield* Deferred.make<void>()
        const holder = yield* Effect.fork(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const lock = sql`LOCK TABLE orders`
            yield* sql.withTransaction(
              Effect.zipRight(Effect.zipRight(lock, Deferred.succeed(locked, void 0)), Effect.never)
            )
          }).pipe(Effect.provide(ResilientPg.layer({ url: server.url })))
        )
        yield* Deferred.await(locked)
        const child = spawn(
          process.execPath,
          [
            "--import",
            "tsx",
            Path.join(root, "src/operations/cli/main.ts"),
            "backup",
            "create",
            "--directory",
            directory
          ],
          {
            cwd: root,
            env: { ...process.env, DATABASE_URL: Redacted.value(server.url) },
            stdio: ["ignore", "pipe", "pipe"]
          }
        )
        const ended = yield* Effect.fork(
          Effect.async<readonly [code: number | null, stdout: string]>((resume) => {
            let stdout = ""
            child.stdout.on("data", (chunk) => (stdout += chunk))
            child.stderr.resume()
            child.on("close", (code) => resume(Effect.succeed([code, stdout] as const)))
          })
        )
        const dumps = server.query<{ pid: number }>(
          "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
        )
        yield* TestPg.eventually(dumps, (rows) => rows.length > 0)
        const tools = yield* running("pg_dump", directory)
        assert.lengthOf(tools, 1)
        assert.notInclude(tools[0]!, "s3cret")
        assert.lengthOf(Fs.readdirSync(directory), 2)
        child.kill("SIGINT")
        assert.deepEqual(yield* Fiber.join(ended), [130, ""])
        assert.deepEqual(yield* running("pg_dump", directory), [])
        assert.deepEqual(Fs.readdirSync(directory), [])
        yield* TestPg.eventually(dumps, (rows) => rows.length === 0)
        yield* Fiber.interrupt(holder)
      })
  )

  it.scoped("has an example that a nightly job may be made of", () =>
    Effect.gen(function* () {
      const server = yield* Installed
      const directory = Path.join(server.directory, "b3")
      yield* server.query("CREATE DATABASE shop")
      yield* server.query("CREATE TABLE orders AS SELECT n FROM generate_series(1, 100) n", "shop")
      const child = spawn(process.execPath, ["--import", "tsx", Path.join(root, "examples/backup.ts")], {
        cwd: root,
        env: {
          ...process.env,
          DATABASE_URL: Redacted.value(server.urlOf("shop")),
          BACKUP_DIRECTORY: directory,
          NO_COLOR: "1"
        },
        stdio: ["ignore", "pipe", "pipe"]
      })
      const [code, output] = yield* Effect.async<readonly [code: number | null, output: string]>((resume) => {
        let output = ""
        for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk))
        child.on("close", (code) => resume(Effect.succeed([code, output] as const)))
      })
      assert.strictEqual(code, 0, output)
      assert.match(output, /shop-\S+: 1 tables[\s\S]*restored and compared in [\d.]+ s[\s\S]*1 backups are kept/)
    })
  )
})
