import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Binaries from "../../src/testing/internal/binaries.js"
import * as Processes from "../../src/testing/internal/processes.js"
import { nothingRemains, remains, temporary, unlinkedPackage } from "../support/Remains.js"
import { eventually } from "../support/TestPg.js"

const limit = 60_000

interface Server {
  readonly pid: number
  readonly dataDir: string
}

/** Runs the program in a process group of its own, with its temporary files in `directory`. */
const start = (directory: string, parameters: ReadonlyArray<string>, account?: Binaries.Account) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(
        process.execPath,
        ["--import", "tsx", fileURLToPath(new URL("programs/server.ts", import.meta.url)), ...parameters],
        {
          ...account,
          env: { ...process.env, TMPDIR: directory, TSX_DISABLE_CACHE: "1" },
          detached: true,
          stdio: "pipe"
        }
      )
      let output = ""
      const collect = (data: unknown) => {
        output += data
      }
      child.stdout.on("data", collect)
      child.stderr.on("data", collect)
      const exit = new Promise<number | NodeJS.Signals | null>((resolve) =>
        child.once("close", (code, signal) => resolve(code ?? signal))
      )
      return { child, output: () => output, exit: Effect.promise(() => exit) }
    }),
    ({ child, exit }) =>
      Effect.zipRight(
        Effect.sync(() => child.kill("SIGKILL")),
        exit
      )
  )
/** What the program prints when its server answers. */
const serverOf = (output: () => string) =>
  eventually(
    Effect.sync(() => /^\{.*\}$/m.exec(output())?.[0]),
    (line) => line !== undefined,
    { message: "the program did not start its server" }
  ).pipe(Effect.map((line): Server => JSON.parse(line!)))

describe("a program with an EmbeddedPostgres", () => {
  it.scopedLive(
    "leaves nothing when the program returns, or is told to end by SIGINT or SIGTERM, and shuts down in order",
    () =>
      Effect.gen(function* () {
        for (const signal of [undefined, "SIGINT", "SIGTERM"] as const) {
          const directory = yield* temporary
          const { child, exit, output } = yield* start(directory, [signal ? "runMain" : "return"])
          const { pid } = yield* serverOf(output)
          const family = signal ? Processes.family(pid).map(({ pid }) => pid) : [pid]
          // To the whole group, as a terminal does on Ctrl-C: the server must not be hit before the program is done.
          if (signal) process.kill(-child.pid!, signal)
          const code = yield* exit
          assert.include(output(), "answers", `${signal}`)
          assert.strictEqual(code, 0, output())
          assert.deepStrictEqual(yield* remains(directory, family), { files: [], processes: [] }, signal)
        }
      }),
    limit
  )

  it.scopedLive(
    "leaves nothing when the program ends without closing its scope, even by SIGKILL",
    () =>
      Effect.gen(function* () {
        const ends = [
          { how: "exit", code: 7 },
          { how: "throw", code: 1 },
          { how: "bare", signal: "SIGINT", code: "SIGINT" },
          { how: "bare", signal: "SIGKILL", code: "SIGKILL" },
          { how: "paused", signal: "SIGKILL", code: "SIGKILL" }
        ] as const
        const end = (way: (typeof ends)[number]) =>
          Effect.gen(function* () {
            const directory = yield* temporary
            const { child, exit, output } = yield* start(directory, [way.how])
            const { pid } = yield* serverOf(output)
            const family = Processes.family(pid).map(({ pid }) => pid)
            if ("signal" in way) process.kill(-child.pid!, way.signal)
            assert.strictEqual(yield* exit, way.code, `${way.how} ${output()}`)
            yield* nothingRemains(directory, [pid, ...family])
          })
        yield* Effect.forEach(ends, end, { concurrency: 2, discard: true })
      }),
    limit
  )

  it.scopedLive(
    "leaves nothing when the program is killed while the server's directory is being made",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const { child, exit } = yield* start(directory, ["bare"])
        yield* eventually(
          Effect.sync(() =>
            Fs.readdirSync(directory).some((name) => Fs.existsSync(Path.join(directory, name, "data")))
          ),
          (there) => there
        )
        child.kill("SIGKILL")
        yield* exit
        yield* nothingRemains(directory, [])
      }),
    limit
  )

  it.scopedLive(
    "runs for an ordinary user, from a package that this user cannot write to",
    (context) =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const account = yield* Binaries.account
        const binaries = yield* unlinkedPackage(directory)
        const own = Path.join(directory, "tmp")
        Fs.mkdirSync(own)
        if (account) {
          Fs.chownSync(own, account.uid, account.gid)
          // Root's other account may not be able to read a project that lies below root's home.
          const readable = yield* Effect.option(
            Binaries.run(
              process.execPath,
              ["-e", `fs.accessSync(${JSON.stringify(fileURLToPath(import.meta.url))})`],
              account
            )
          )
          if (readable._tag === "None") return context.skip("the project is not readable for an ordinary user")
        } else {
          Fs.chmodSync(Path.join(binaries, "native", "lib"), 0o555)
        }
        const { child, exit, output } = yield* start(own, ["runMain", binaries], account)
        const { dataDir } = yield* serverOf(output)
        assert.isTrue(Fs.existsSync(Path.join(dataDir, "..", "native", "bin", "postgres")))
        child.kill("SIGTERM")
        assert.strictEqual(yield* exit, 0, output())
        assert.deepStrictEqual(
          Fs.readdirSync(own).filter((name) => name.startsWith("effect-pg-")),
          []
        )
        if (!account) Fs.chmodSync(Path.join(binaries, "native", "lib"), 0o755)
      }),
    limit
  )
})
