/** The command as a process of its own: signals, terminals, and readers that leave. */
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process"
import * as Path from "node:path"
import { assert, layer, it as plain } from "@effect/vitest"
import { Deferred, Effect, Redacted } from "effect"
import { root } from "../support/root.js"
import * as TestPg from "../support/TestPg.js"

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

const main = ["--import", "tsx", Path.join(root, "src", "operations", "cli", "main.ts")]

/** Killed with the scope, if it is still there. */
const started = (program: string, args: ReadonlyArray<string>, environment: Record<string, string> = {}) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const ended = yield* Deferred.make<Ended>()
      const { DATABASE_URL: _, NO_COLOR: __, ...inherited } = process.env
      const child: ChildProcessWithoutNullStreams = spawn(program, args, {
        cwd: root,
        env: { ...inherited, TERM: "xterm", ...environment }
      })
      const written = { stdout: "", stderr: "" }
      for (const stream of ["stdout", "stderr"] as const)
        child[stream].on("data", (chunk: Buffer) => {
          written[stream] += chunk
        })
      child.on("close", (code) => Deferred.unsafeDone(ended, Effect.succeed({ code, ...written })))
      return {
        child,
        ended: Deferred.await(ended),
        /** Until it has written this, or has ended. */
        wrote: (stream: "stdout" | "stderr", text: string) =>
          TestPg.eventually(
            Effect.sync(() => written[stream].includes(text) || child.exitCode !== null),
            (met) => met,
            { limit: "60 seconds", message: `${text} was not written` }
          )
      }
    }),
    ({ child, ended }) =>
      Effect.zipRight(
        Effect.sync(() => child.kill("SIGKILL")),
        ended
      )
  )

const command = (args: ReadonlyArray<string>, environment: Record<string, string> = {}) =>
  started(process.execPath, [...main, ...args], environment)

/** `script` gives its command a terminal, and passes on what it is told, and the exit code. Of util-linux. */
const hasTerminals = (() => {
  try {
    return (
      process.platform === "linux" && execFileSync("script", ["--version"], { encoding: "utf8" }).includes("util-linux")
    )
  } catch {
    return false
  }
})()

const enter = "\u001b[?1049h\u001b[?25l"
const leave = "\u001b[?25h\u001b[?1049l"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("the command as a process", (it) => {
  const onTerminal = hasTerminals ? it.scoped : it.scoped.skip
  onTerminal("gives the terminal back, whether it is left by q or by Ctrl-C", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const line = [process.execPath, ...main, "watch"].map((word) => `'${word}'`).join(" ")
      const left = (key: string) =>
        Effect.gen(function* () {
          const watching = yield* started("script", ["-qec", line, "/dev/null"], { DATABASE_URL: Redacted.value(url) })
          yield* watching.wrote("stdout", "Replication")
          watching.child.stdin.write(key)
          return yield* watching.ended
        })
      const [quit, cut] = yield* Effect.all([left("q"), left("\u0003")], { concurrency: 2 })
      for (const { stdout } of [quit, cut]) {
        assert.include(stdout, enter)
        assert.include(stdout, "\u001b[1mPostgreSQL 18")
        assert.strictEqual(stdout.split(leave).length, 2)
        assert.isTrue(stdout.trimEnd().endsWith(leave), JSON.stringify(stdout.slice(-80)))
      }
      assert.deepStrictEqual([quit.code, cut.code], [0, 130])
    })
  )

  it.scoped("ends quietly when nobody reads any more", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const watching = yield* command(["watch", "--interval", "0.1"], { DATABASE_URL: Redacted.value(url) })
      yield* watching.wrote("stdout", "sessions")
      watching.child.stdout.destroy()
      const { code, stderr } = yield* watching.ended
      assert.strictEqual(stderr, "")
      assert.strictEqual(code, 130)
    })
  )
})

plain.scopedLive("examples/doctor.ts looks at its database, and starts", () =>
  Effect.gen(function* () {
    const { ended } = yield* started(process.execPath, ["--import", "tsx", Path.join(root, "examples", "doctor.ts")])
    const { code, stdout } = yield* ended
    assert.match(stdout, /^PostgreSQL 18[^\n]* 0 not checked\n[\s\S]*critical, pool: 4 instances[\s\S]*starting\n$/)
    assert.strictEqual(code, 0)
  })
)
