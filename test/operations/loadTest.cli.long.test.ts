/** The command `load`: as a user runs it, in a process of its own, and what it refuses, in this one. */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { NodeContext } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Cause, ConfigProvider, type Console, Duration, Effect, Either, Exit, Redacted } from "effect"
import { LoadTest } from "effect-pg-resilience"
import { run } from "../../src/operations/cli/app.js"
import { duration, mixOf } from "../../src/operations/cli/loadArguments.js"
import { exitCodeOf } from "../../src/operations/cli/shared.js"
import { root } from "../support/root.js"
import * as TestPg from "../support/TestPg.js"

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A process of this project, until the scope closes. It ends by itself, or says after a minute and a half what it has written. */
const running = (env: Record<string, string>, file: string, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const { DATABASE_URL: _, ...inherited } = process.env
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["--import", "tsx", Path.join(root, file), ...args], {
          cwd: root,
          env: { ...inherited, ...env, NO_COLOR: "1" }
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    let stdout = ""
    let stderr = ""
    child.stdout.on("data", (chunk) => (stdout += chunk))
    child.stderr.on("data", (chunk) => (stderr += chunk))
    const closed = new Promise<Ended>((resolve) => child.on("close", (code) => resolve({ code, stdout, stderr })))
    const ended = Effect.promise(() => closed).pipe(
      Effect.timeoutFailCause({
        duration: "90 seconds",
        onTimeout: () => Cause.die(new Error(`${file} does not end:\n${stdout}${stderr}`))
      })
    )
    return { child, ended }
  })

/** `load` in a process of its own. */
const start = (url: Redacted.Redacted, ...args: ReadonlyArray<string>) =>
  running({ DATABASE_URL: Redacted.value(url) }, "src/operations/cli/main.ts", "load", ...args)

const load = (url: Redacted.Redacted, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(start(url, ...args), ({ ended }) => ended)

/** `load` in this process: what it printed, what it failed with, and the exit code of that. */
const within = (url: Redacted.Redacted, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const printed = { stdout: "", stderr: "" }
    const told = (to: keyof typeof printed) => (line: unknown) =>
      Effect.sync(() => {
        printed[to] += `${line}\n`
      })
    const console: Console.Console = { ...(yield* Effect.console), log: told("stdout"), error: told("stderr") }
    const exit = yield* run(["node", "effect-pg-resilience", "load", "--quiet", ...args]).pipe(
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["DATABASE_URL", Redacted.value(url)]]))),
      Effect.provide(NodeContext.layer),
      Effect.withConsole(console),
      Effect.exit
    )
    const cause = Exit.isFailure(exit) ? exit.cause : Cause.empty
    const code = Exit.isSuccess(exit) ? 0 : exitCodeOf(cause)
    return { ...printed, code, message: JSON.stringify(Cause.failures(cause)) + Cause.pretty(cause) }
  })

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "load-test-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

const tables = (url: Redacted.Redacted) =>
  Effect.map(
    TestPg.control<{ name: string }>(
      "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
      [],
      url
    ),
    (rows) => rows.map(({ name }) => name)
  )

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("load", (it) => {
  it.scoped("measures, stores, reports and compares", () =>
    Effect.gen(function* () {
      const { config, url } = yield* TestPg.database
      const path = yield* folder
      const [saved, report] = [Path.join(path, "result.json"), Path.join(path, "report.html")]
      const size = ["--concurrency", "5", "--operations", "20", "--rows", "50"]

      const first = yield* load(
        url,
        ...size,
        "--mix",
        "read=1,write=1",
        "--json",
        "--save",
        saved,
        "--threshold",
        "errors<1"
      )
      assert.strictEqual(first.code, 0, first.stderr)
      const result = Either.getOrThrow(LoadTest.decode(first.stdout))
      assert.deepInclude(result.total, { succeeded: 100, failed: 0 })
      assert.deepStrictEqual(Either.getOrThrow(LoadTest.decode(Fs.readFileSync(saved, "utf8"))), result)
      const place = `${config.host}:${config.port}/${config.database}`
      assert.include(first.stderr, `Connecting to ${place} as ${config.username}\n`)
      assert.include(first.stderr, "5 fibers, 20 operations each; read 1, write 1; seed ")

      const second = yield* within(url, ...size, "--compare", saved, "--html", report, "--threshold", "p99<1us")
      assert.strictEqual(second.code, 1)
      assert.match(second.stdout, /FAILED {2}p99<1us {2}\(.*\)/)
      assert.include(
        second.stdout,
        "not the same test: operations of the scenario: read=1,write=1 before, read=70,write=20,transaction=10 now"
      )
      assert.match(second.stdout, /all p99 .* (better|worse)/)
      assert.match(second.message, /1 of 1 thresholds failed: p99<1us \(/)
      assert.include(Fs.readFileSync(report, "utf8"), `<h1>Load test of ${place}</h1>`)

      for (const { stderr, stdout } of [first, second])
        assert.notInclude(stderr + stdout, Redacted.value(config.password))
      assert.deepStrictEqual(yield* tables(url), [])
    })
  )

  it.scoped("runs a scenario of one's own, and counts what fails in it by its tag", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { code, message, stdout } = yield* within(
        url,
        ...["--scenario", "test/operations/programs/loadScenario.ts", "--rate", "200", "--operations", "40"],
        ...["--arrivals", "poisson", "--seed", "7", "--pool-max", "3"]
      )
      assert.strictEqual(code, 0, message)
      assert.match(stdout, /× collide: UniqueViolation: /)
      assert.include(
        stdout,
        "200 a second (poisson), 40 operations, at most 1,000 under way; count 3, collide 1; seed 7"
      )
      assert.match(stdout, /of 3 connections used/)
      assert.deepStrictEqual(yield* tables(url), [])
    })
  )

  it.scoped("on Ctrl-C tells what it has measured, drops its table and ends with 130", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { child, ended } = yield* start(url, "--duration", "1h", "--mix", "write=1", "--rows", "10", "--json")
      const written = Effect.flatMap(tables(url), ([table]) =>
        table === undefined
          ? Effect.succeed(0)
          : Effect.map(
              TestPg.control<{ sum: string | null }>(`SELECT sum(value) AS sum FROM ${table}`, [], url),
              ([row]) => Number(row!.sum)
            )
      )
      yield* TestPg.eventually(written, (count) => count > 0, { message: "nothing was written" })
      child.kill("SIGINT")
      const { code, stderr, stdout } = yield* ended
      assert.strictEqual(code, 130, stderr)
      // One JSON document, although there were log lines: writes were interrupted.
      const result = Either.getOrThrow(LoadTest.decode(stdout))
      assert.include(stderr, "was interrupted")
      assert.isFalse(result.complete)
      assert.isAbove(result.total.succeeded, 0)
      assert.isAtMost(result.unfinished, 50)
      assert.deepStrictEqual(yield* tables(url), [])
    })
  )

  it.scoped("refuses a command line that is wrong, with 2, and does nothing", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const path = yield* folder
      const other = Path.join(path, "other.json")
      const broken = Path.join(path, "broken.mjs")
      const empty = Path.join(path, "empty.mjs")
      Fs.writeFileSync(other, '{"version":1}')
      Fs.writeFileSync(broken, "export default = 1")
      Fs.writeFileSync(empty, "export const scenario = {}")
      const cases: ReadonlyArray<readonly [said: string, ...args: ReadonlyArray<string>]> = [
        ["is not a threshold", "--threshold", "p99 under 1s"],
        ["names no operation of this test, which has read, write, transaction", "--threshold", "raed:p99<1s"],
        ["names no operation of this test, which has read", "--mix", "read=1", "--threshold", "write:p99<1s"],
        ["load.concurrency is 0", "--concurrency", "0"],
        ["without a rate", "--arrivals", "poisson"],
        ["is not a time", "--duration", "30"],
        ["is not a weight", "--mix", "reads=1"],
        ["all weights are 0", "--mix", "read=0"],
        ["mix.rows is 1", "--rows", "1"],
        ["maxConnections is 0", "--pool-max", "0"],
        ["no folder", "--save", Path.join(path, "nowhere", "result.json")],
        ["cannot be read", "--compare", Path.join(path, "missing.json")],
        ["not the result of a load test", "--compare", other],
        ["could not be loaded", "--scenario", Path.join(path, "missing.mjs")],
        ["could not be loaded", "--scenario", broken],
        ["has no scenario", "--scenario", empty],
        ["have no place beside --scenario", "--scenario", empty, "--mix", "read=1"]
      ]
      for (const [said, ...args] of cases) {
        const { code, message } = yield* within(url, ...args)
        assert.include(message, said, args.join(" "))
        assert.strictEqual(code, 2, args.join(" "))
      }
      assert.deepStrictEqual(yield* tables(url), [])
    })
  )

  it.scoped("ends with 3 where it is not let in, without the password", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const wrong = new URL(Redacted.value(url))
      wrong.password = "hidden"
      const { code, message } = yield* within(Redacted.make(wrong.href))
      assert.strictEqual(code, 3)
      assert.include(message, "AuthenticationError")
      assert.notInclude(message, "hidden")
    })
  )

  it.scoped("has an example that is what it says", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const report = Path.join(yield* folder, "report.html")
      const env = { DATABASE_URL: Redacted.value(url), REPORT: report }
      const { code, stderr, stdout } = yield* (yield* running(env, "examples/load-test.ts")).ended
      // Whether the shop is quick enough is this machine's business; that it says so is the example's.
      assert.strictEqual(code, /^FAILED/m.test(stdout) ? 1 : 0, stdout + stderr)
      assert.match(stdout, /^the shop\n100 a second \(poisson\), 2 s, [^\n]*; look 9, buy 1; seed \d+$/m)
      assert.match(stdout, /^(ok|FAILED) +errors<0\.1% /m)
      assert.include(Fs.readFileSync(report, "utf8"), "Load test of the shop")
      assert.deepStrictEqual(yield* tables(url), [])
    })
  )

  it("reads times and weights", () => {
    const millis = (text: string) => Duration.toMillis(Either.getOrThrow(duration(text)))
    assert.deepStrictEqual(["500ms", "1.5s", "2 m", "1h"].map(millis), [500, 1500, 120_000, 3_600_000])
    for (const text of ["", "5", "s", "-1s", "5 days", "1s 2s"]) assert.isTrue(Either.isLeft(duration(text)), text)
    assert.deepStrictEqual(Either.getOrThrow(mixOf("read=70, write=0.5")), { read: 70, write: 0.5 })
    for (const text of ["", "read", "read=", "read=-1", "read=1,read=2", "other=1", "read=1,", "read=0,write=0"]) {
      assert.isTrue(Either.isLeft(mixOf(text)), text)
    }
  })
})
