import { execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted, Scope } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as Binaries from "../../src/testing/internal/binaries.js"
import * as Processes from "../../src/testing/internal/processes.js"
import * as Tcp from "../support/Tcp.js"
import { eventually } from "../support/TestPg.js"

const limit = 60_000

/** A directory of the test's own. */
const temporary = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "lifetime-test-"))
    Fs.chmodSync(directory, 0o777)
    return directory
  }),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

/** Postmasters, backends and watchdogs that have to do with a directory, and what is in it. */
const remains = (directory: string, family: ReadonlyArray<number> = []) =>
  Effect.sync(() => ({
    files: Fs.readdirSync(directory),
    processes: Processes.list().filter(({ pid }) => family.includes(pid) || commandOf(pid).includes(directory))
  }))
const commandOf = (pid: number) => {
  try {
    return process.platform === "linux"
      ? Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8")
      : execFileSync("ps", ["-p", String(pid), "-o", "command="], { encoding: "utf8" })
  } catch {
    return ""
  }
}
const nothingRemains = (directory: string, family: ReadonlyArray<number>) =>
  eventually(remains(directory, family), ({ files, processes }) => files.length + processes.length === 0, {
    message: "something stayed behind"
  })

/** Copy of the platform's package without its links, as `npm ci --ignore-scripts` leaves it. */
const unlinkedPackage = (directory: string) =>
  Effect.gen(function* () {
    const source = yield* Binaries.locate
    const copy = Path.join(directory, "package")
    Fs.cpSync(Path.join(source, "native"), Path.join(copy, "native"), {
      recursive: true,
      filter: (path) => !Fs.lstatSync(path).isSymbolicLink()
    })
    return copy
  })

interface Server {
  readonly pid: number
  readonly dataDir: string
}

/** Runs the program in a process group of its own, with its temporary files in `directory`. */
const start = (directory: string, parameters: ReadonlyArray<string>, account?: Binaries.Account) => {
  const child = spawn(
    process.execPath,
    ["--import", "tsx", fileURLToPath(new URL("programs/server.ts", import.meta.url)), ...parameters],
    { ...account, env: { ...process.env, TMPDIR: directory, TSX_DISABLE_CACHE: "1" }, detached: true, stdio: "pipe" }
  )
  let output = ""
  child.stdout.on("data", (data) => {
    output += data
  })
  child.stderr.on("data", (data) => {
    output += data
  })
  const exit = new Promise<number | NodeJS.Signals | null>((resolve) =>
    child.once("close", (code, signal) => resolve(code ?? signal))
  )
  return { child, output: () => output, exit: Effect.promise(() => exit) }
}
/** What the program prints when its server answers. */
const serverOf = (output: () => string) =>
  eventually(
    Effect.sync(() => /^\{.*\}$/m.exec(output())?.[0]),
    (line) => line !== undefined,
    { message: "the program did not start its server" }
  ).pipe(Effect.map((line): Server => JSON.parse(line!)))

describe("EmbeddedPostgres' lifetime", () => {
  it.scopedLive(
    "ends with its scope: no process, no directory, no shared memory, also after a crash or a pause",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        for (const last of ["run", "crash", "pause", "stop"] as const) {
          const scope = yield* Scope.make()
          const server = yield* Scope.extend(EmbeddedPostgres.make({ directory }), scope)
          const family = Processes.family((yield* server.pid)!).map(({ pid }) => pid)
          const lockFile = Fs.readFileSync(Path.join(server.dataDir, "postmaster.pid"), "utf8")
          const segment = lockFile.split("\n")[6]?.trim().split(/\s+/)[1]
          if (last === "crash") yield* server.crash
          if (last === "pause") yield* server.pause
          if (last === "stop") yield* server.stop()
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(yield* remains(directory, family), { files: [], processes: [] }, last)
          if (process.platform === "linux") {
            const segments = Fs.readFileSync("/proc/sysvipc/shm", "utf8").split("\n")
            assert.isUndefined(
              segments.find((line) => line.trim().split(/\s+/)[1] === segment),
              last
            )
          }
        }
      }),
    limit
  )

  it.scopedLive(
    "runs several servers side by side, each with its own port and password",
    () =>
      Effect.gen(function* () {
        const servers = yield* Effect.all([EmbeddedPostgres.make(), EmbeddedPostgres.make({ database: "mine" })], {
          concurrency: "unbounded"
        })
        const seen = yield* Effect.forEach(servers, (server) =>
          server.query("SELECT current_database() AS name, current_setting('port')::int AS port")
        )
        const [first, second] = servers.map(({ config }) => config)
        assert.deepStrictEqual(seen, [
          [{ name: "postgres", port: first!.port }],
          [{ name: "mine", port: second!.port }]
        ])
        assert.notStrictEqual(first!.port, second!.port)
        assert.notStrictEqual(Redacted.value(first!.password), Redacted.value(second!.password))
      }),
    limit
  )

  it.scopedLive(
    "fails with the server's own words when a given port is taken, and leaves nothing",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const taken = yield* Tcp.server
        const error = yield* Effect.flip(Effect.scoped(EmbeddedPostgres.make({ directory, port: taken.port })))
        assert.strictEqual(error.operation, "start")
        assert.match(error.message, /Address already in use/)
        assert.deepStrictEqual(yield* remains(directory), { files: [], processes: [] })
      }),
    limit
  )

  it.scopedLive(
    "gives up after its start limit, and leaves nothing",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const error = yield* Effect.flip(Effect.scoped(EmbeddedPostgres.make({ directory, startTimeout: "1 millis" })))
        assert.include(error.message, "no answer after 1ms")
        assert.deepStrictEqual(yield* remains(directory), { files: [], processes: [] })
      }),
    limit
  )

  it.scopedLive(
    "names a setting that PostgreSQL does not accept, and leaves nothing",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const settings = { no_such_setting: 1 }
        const error = yield* Effect.flip(Effect.scoped(EmbeddedPostgres.make({ directory, settings })))
        assert.include(error.message, "no_such_setting")
        assert.deepStrictEqual(yield* remains(directory), { files: [], processes: [] })
      }),
    limit
  )

  it.scopedLive(
    "leaves nothing when it is interrupted while it starts",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        for (const file of ["password", "data/postmaster.pid"]) {
          const starting = yield* Effect.fork(Effect.scoped(EmbeddedPostgres.make({ directory })))
          yield* eventually(
            Effect.sync(() =>
              Fs.readdirSync(directory).some((name) => Fs.existsSync(Path.join(directory, name, file)))
            ),
            (there) => there
          )
          yield* starting.interruptAsFork(starting.id())
          yield* starting.await
          assert.deepStrictEqual(yield* remains(directory), { files: [], processes: [] }, file)
        }
      }),
    limit
  )

  it.scopedLive(
    "makes the links to shared libraries where no install script has made them, two servers at once",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const binaries = yield* unlinkedPackage(directory)
        const links = () => Fs.readdirSync(Path.join(binaries, "native", "lib"), { withFileTypes: true })
        assert.isFalse(links().some((entry) => entry.isSymbolicLink()))
        yield* Effect.all([EmbeddedPostgres.make({ binaries }), EmbeddedPostgres.make({ binaries })], {
          concurrency: "unbounded"
        })
        assert.isTrue(links().some((entry) => entry.isSymbolicLink()))
      }),
    limit
  )

  it.scopedLive(
    "says what is missing where there are no programs",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const error = yield* Effect.flip(EmbeddedPostgres.make({ binaries: Path.join(directory, "nothing") }))
        assert.strictEqual(error.operation, "binaries")
        assert.include(error.message, "PostgreSQL cannot run")
      }),
    limit
  )

  it.scopedLive(
    "leaves nothing when the program returns, or is told to end by SIGINT or SIGTERM, and shuts down in order",
    () =>
      Effect.gen(function* () {
        for (const signal of [undefined, "SIGINT", "SIGTERM"] as const) {
          const directory = yield* temporary
          const { child, exit, output } = start(directory, [signal ? "runMain" : "return"])
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
        for (const [how, signal, code] of [
          ["exit", undefined, 7],
          ["throw", undefined, 1],
          ["bare", "SIGINT", "SIGINT"],
          ["bare", "SIGKILL", "SIGKILL"],
          ["paused", "SIGKILL", "SIGKILL"]
        ] as const) {
          const directory = yield* temporary
          const { child, exit, output } = start(directory, [how])
          const { pid } = yield* serverOf(output)
          const family = Processes.family(pid).map(({ pid }) => pid)
          if (signal) child.kill(signal)
          assert.strictEqual(yield* exit, code, `${how} ${output()}`)
          yield* nothingRemains(directory, [pid, ...family])
        }
      }),
    limit
  )

  it.scopedLive(
    "leaves nothing when the program is killed while the server's directory is being made",
    () =>
      Effect.gen(function* () {
        const directory = yield* temporary
        const { child, exit } = start(directory, ["bare"])
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
        const { child, exit, output } = start(own, ["runMain", binaries], account)
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
