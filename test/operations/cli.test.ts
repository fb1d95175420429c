/** The command line, command by command. */
import { execFileSync } from "node:child_process"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { SqlClient } from "@effect/sql"
import { assert, describe, layer, it as plain } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Redacted, Schema } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import { HealthMonitor } from "../../src/health/HealthMonitor.js"
import { tidy } from "../../src/operations/cli/internal/help.js"
import * as Doctor from "../../src/operations/Doctor.js"
import * as Api from "../http/api.js"
import * as TestPg from "../support/TestPg.js"
import { invoke } from "./cli.js"

/** Nobody listens there, nor ever will: the port is reserved. */
const nowhere = "postgresql://app:s3cr3t@127.0.0.1:1/app"
const commands = ["doctor", "health", "report", "watch", "chaos", "pool"]

describe("the command line", () => {
  plain.effect("explains itself, without colours where there is no terminal", () =>
    Effect.gen(function* () {
      for (const args of [[], ["--help"]]) {
        const { code, stderr, stdout } = yield* invoke(args)
        assert.strictEqual(code, 0)
        assert.strictEqual(stderr, "")
        assert.notInclude(stdout, "\u001b")
        for (const name of commands) assert.match(stdout, new RegExp(`^ {2}${name}  +[A-Z]`, "m"))
        assert.notInclude(stdout, "--json")
      }
      const { stdout } = yield* invoke(["pool", "recommend", "--help"])
      assert.include(stdout, "$ effect-pg-resilience pool recommend [--url")
      assert.match((yield* invoke(["--version"])).stdout, /^\d+\.\d+\.\d+/)
    })
  )

  plain("lists commands with their options as it lists others", () => {
    const help =
      "name\n\nUSAGE\n\n$ name\n\nCOMMANDS\n\n  - a b [--x text]     Does\n\n  - c (-f, --file x) <y>...  Goes\n"
    assert.include(tidy(help, "name", ["node", "name"]), "COMMANDS\n\n  a b  Does\n  c    Goes\n")
    assert.strictEqual(tidy("anything else", "name", []), "anything else")
  })

  plain.effect.each<[ReadonlyArray<string>, RegExp]>([
    [["docter"], /doctor/],
    [["doctor", "--bogus"], /--bogus[\s\S]*Try: effect-pg-resilience doctor --help/],
    [["doctor", "--fail-on", "never mind"], /critical, warning, info, never/],
    [["doctor", "--pool-max", "0"], /^--pool-max is 0: expected a whole number, 1 or more/],
    [["doctor", "--pool-max", "many"], /many/],
    [["pool", "recommend", "--memory", "0.05"], /^--memory is 0.05: expected a number, 0.1 or more/],
    [["pool", "recommend", "--platform", "moon"], /railway/],
    [["health", "--service", "shop"], /^--service is shop: expected the URL/],
    [["health", "--service", "http://shop", "--url", nowhere], /give one of them/],
    [["watch", "--interval", "0"], /^--interval is 0: expected a number, 0.1 to 3600/],
    [["chaos", "--only", "floods"], /^--only floods: expected one of restart, /],
    [["doctor"], /^No database is given: set DATABASE_URL, or --url/],
    [["report"], /^No database is given/],
    [["watch"], /^No database is given/],
    [["doctor", "--url", "nonsense"], /expected a URL such as/]
  ])("refuses %j with 2, says why on stderr, and prints nothing else", ([args, why]) =>
    Effect.map(invoke(args), ({ code, stderr, stdout }) => {
      assert.strictEqual(stdout, "")
      assert.match(stderr, why)
      assert.strictEqual(code, 2)
      assert.notInclude(stderr, "s3cr3t")
      assert.notInclude(stderr, "\u001b")
    })
  )

  plain.effect.each<[ReadonlyArray<string>, number]>([
    [["doctor"], 3],
    [["report"], 3],
    [["pool", "recommend"], 3],
    [["health"], 1]
  ])("says in one sentence that %j finds no server", ([args, expected]) =>
    Effect.map(invoke(args, Redacted.make(nowhere)), ({ code, stderr, stdout }) => {
      assert.strictEqual(code, expected)
      const said = expected === 3 ? stderr : stdout
      assert.include(said, "nobody listens there: 127.0.0.1:1 (ECONNREFUSED)")
      if (args[0] !== "report") assert.lengthOf(stderr.split("\n"), 1)
      assert.notInclude(stdout + stderr, "s3cr3t")
      assert.notMatch(stderr, /\n +at /)
    })
  )

  plain.effect("completes in bash", () =>
    Effect.gen(function* () {
      const { code, stdout } = yield* invoke(["--completions", "bash"])
      assert.strictEqual(code, 0)
      execFileSync("bash", ["-n"], { input: stdout })
      const complete = (words: string) =>
        execFileSync(
          "bash",
          [
            "-c",
            `${stdout}\nCOMP_WORDS=(${words}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _effect-pg-resilience_bash_completions effect-pg-resilience; printf '%s\\n' "\${COMPREPLY[@]}"`
          ],
          { encoding: "utf8" }
        ).split("\n")
      assert.includeMembers(complete("effect-pg-resilience ''"), commands)
      assert.deepStrictEqual(
        complete("effect-pg-resilience doc").filter((_) => _ !== ""),
        ["doctor"]
      )
      assert.include(complete("effect-pg-resilience doctor --fail"), "--fail-on")
      assert.deepStrictEqual(complete("effect-pg-resilience doctor --fail-on cr"), ["critical", ""])
      assert.include(complete("effect-pg-resilience pool rec"), "recommend")
      assert.include(complete("effect-pg-resilience pool recommend --conc"), "--concurrency")
      assert.include((yield* invoke(["--completions", "fish"])).stdout, '-a "doctor"')
      const zsh = (yield* invoke(["--completions", "zsh"])).stdout
      // Every list of commands that it refers to is there.
      const used = [...zsh.matchAll(/:(_[\w-]+_commands)"/g)].map(([, name]) => name!)
      assert.isAtLeast(used.length, 2)
      for (const name of used) assert.include(zsh, `\n${name}() {`)
    })
  )

  plain.effect("recommends a pool without any server", () =>
    Effect.gen(function* () {
      const args = ["pool", "recommend", "--platform", "heroku", "--plan", "standard-0", "--instances", "10"]
      const { code, stdout } = yield* invoke([...args, "--concurrency", "50"])
      assert.strictEqual(code, 0)
      assert.include(stdout, "maxConnections 11 (DB_POOL_MAX)")
      assert.include(stdout, "118 connections for 10 instances")
      const json = JSON.parse((yield* invoke([...args, "--json"])).stdout)
      assert.deepInclude(json, { max: 9, limitedBy: "demand" })
    })
  )
})

const decode = Schema.decodeUnknownSync(Doctor.Report)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("the command line on a server", (it) => {
  it.scoped("examines it: worst first, with an exit code that can be chosen", () =>
    Effect.gen(function* () {
      const { name, url } = yield* TestPg.database
      const found = yield* invoke(["doctor"], url) // its fsync is off
      assert.strictEqual(found.code, 1)
      assert.strictEqual(found.stderr, "The worst finding is critical (--fail-on critical).")
      assert.include(found.stdout, `database ${name}, as postgres`)
      assert.match(
        found.stdout,
        /\n\nCRITICAL\n {2}Commits do not reach the disk \(fsync\)\n {4}.*\n {4}→ ALTER SYSTEM/
      )
      assert.isBelow(found.stdout.indexOf("\nCRITICAL"), found.stdout.indexOf("\nWARNING"))
      assert.isBelow(found.stdout.indexOf("\nWARNING"), found.stdout.indexOf("\nINFO"))
      assert.notInclude(found.stdout, "\nOK\n")
      assert.strictEqual((yield* invoke(["doctor", "--fail-on", "never"], url)).code, 0)

      const json = yield* invoke(["doctor", "--json", "--pool-max", "500"], url)
      const report = decode(JSON.parse(json.stdout))
      assert.strictEqual(report.findings.find(({ check }) => check === "pool")?.severity, "critical")
      assert.include((yield* invoke(["doctor", "--all"], url)).stdout, "\nOK\n")
    })
  )

  it.scoped("checks its health, and reports", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const health = yield* invoke(["health"], url)
      // A machine that has much to do costs points.
      assert.match(health.stdout, /^(healthy|degraded), score \d+ of 100, answers in [\d.]+ ms$/m)
      assert.strictEqual(health.code, health.stdout.startsWith("healthy") ? 0 : 1)
      const { score, status } = JSON.parse((yield* invoke(["health", "--json"], url)).stdout)
      assert.include(["healthy", "degraded"], status)
      assert.isAtMost(score, 100)

      const report = yield* invoke(["report"], url)
      assert.strictEqual(report.code, 0)
      assert.match(
        report.stdout,
        /(healthy|degraded), score \d+[\s\S]*Figures\n[\s\S]* of 37 for ordinary roles[\s\S]*critical: fsync is off/
      )
      const json = JSON.parse((yield* invoke(["report", "--json"], url)).stdout)
      assert.include(["healthy", "degraded"], json.health.status)
      assert.strictEqual(decode(json.doctor).worst, "critical")

      assert.include(
        (yield* invoke(["pool", "recommend"], url)).stdout,
        "The server takes 40 connections, of which 3 are"
      )
    })
  )

  it.scoped("watches it, a line a look where there is no terminal", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { code, stdout } = yield* invoke(["watch", "--count", "2", "--interval", "0.1"], url)
      assert.strictEqual(code, 0)
      const lines = stdout.split("\n")
      assert.lengthOf(lines, 2)
      for (const line of lines)
        assert.match(line, /^\d{4}-.*Z {2}sessions \d+\/37 \(.*commits .*replication 0 standbys/)
    })
  )

  it.scoped("goes on watching while it is away", () =>
    Effect.gen(function* () {
      const { config, url } = yield* TestPg.database
      const proxy = yield* FaultProxy.make({ upstream: config })
      yield* proxy.refuse
      const lost = yield* Deferred.make<string>()
      const found = yield* Deferred.make<string>()
      const onLine = (line: string) =>
        Deferred.unsafeDone(line.includes("no answer") ? lost : found, Effect.succeed(line))
      const watching = yield* Effect.fork(invoke(["watch", "--interval", "0.1"], proxy.url(url), onLine))
      assert.include(yield* Deferred.await(lost), "no answer: nobody listens there")
      yield* proxy.accept
      assert.include(yield* Deferred.await(found), "sessions ")
      yield* Fiber.interrupt(watching)
    })
  )

  it.scoped("asks a program that runs, and says when that is none of ours", () =>
    Effect.gen(function* () {
      const { proxy, serving } = yield* Api.world
      yield* Effect.gen(function* () {
        const url = yield* Api.origin
        const ask = (...args: ReadonlyArray<string>) => invoke([...args, "--service", `${url}/`])
        const sql = yield* SqlClient.SqlClient
        yield* sql`SELECT 1`
        const { check } = yield* HealthMonitor
        yield* check
        assert.match((yield* ask("health")).stdout, /^(healthy|degraded), score \d+ of 100/)
        const report = yield* ask("report")
        assert.match(report.stdout, /^PostgreSQL of [\s\S]*Breaker {3}Closed/)
        assert.isTrue(JSON.parse((yield* ask("report", "--json")).stdout).report.probe.ok)
        const watched = yield* ask("watch", "--count", "1")
        assert.match(watched.stdout, /Z {2}(healthy|degraded), score \d+ {2}pool \d+\/10 waiting 0 {2}breaker Closed/)

        yield* proxy.refuse
        yield* proxy.reset
        yield* check
        const lost = yield* ask("health")
        assert.strictEqual(lost.code, 1)
        assert.match(lost.stdout, /^unhealthy, score/)
        assert.strictEqual(lost.stderr, "The database is unhealthy.")
      }).pipe(Effect.provide(serving()))

      const other = yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createServer>>((resume) => {
          const server = createServer((_, response) => response.writeHead(404).end("nothing"))
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const elsewhere = `http://127.0.0.1:${(other.address() as AddressInfo).port}`
      for (const command of ["health", "report"]) {
        const { code, stderr } = yield* invoke([command, "--service", elsewhere])
        assert.strictEqual(code, 3)
        assert.include(stderr, `${elsewhere} answered with 404`)
      }
      const closed = yield* invoke(["health", "--service", "http://127.0.0.1:9"])
      assert.strictEqual(closed.code, 3)
      assert.match(closed.stderr, /^http:\/\/127\.0\.0\.1:9 cannot be asked: /)
    })
  )

  it.scoped("leaves nothing behind when it is interrupted in the middle", () =>
    Effect.gen(function* () {
      const { config, url } = yield* TestPg.database
      const proxy = yield* FaultProxy.make({ upstream: config })
      for (const args of [["doctor"], ["health"], ["report"], ["pool", "recommend"], ["watch"]]) {
        const held = yield* proxy.hold({ on: FaultProxy.query(/SELECT/) })
        const command = yield* Effect.fork(invoke(args, proxy.url(url)))
        yield* held.happened()
        yield* Fiber.interrupt(command)
        yield* held.release
        yield* TestPg.eventually(proxy.stats, ({ open }) => open === 0, { message: `${args[0]} left a connection` })
      }
    })
  )
})

describe("an interruption", () => {
  plain.effect("is the exit code of Ctrl-C", () =>
    Effect.gen(function* () {
      const { exitCodeOf } = yield* Effect.promise(() => import("../../src/operations/cli/shared.js"))
      const exit = yield* Effect.exit(Effect.interrupt)
      assert.strictEqual(Exit.isFailure(exit) && exitCodeOf(exit.cause), 130)
    })
  )
})
