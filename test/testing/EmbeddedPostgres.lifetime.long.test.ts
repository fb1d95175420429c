import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Processes from "../../src/testing/internal/processes.js"
import { remains, temporary, unlinkedPackage } from "../support/Remains.js"
import * as Tcp from "../support/Tcp.js"
import { eventually } from "../support/TestPg.js"
import * as Wire from "../support/wire.js"

const limit = 60_000

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
          yield* Fiber.interrupt(starting)
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

  it.scoped("keeps real time for a program under TestClock", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.make()
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      yield* proxy.latency({ delay: 10 })
      const client = yield* Tcp.connect(proxy.port)
      client.socket.write(Wire.request("SSLRequest"))
      yield* eventually(
        Effect.sync(() => client.received().toString()),
        (answer) => answer === "N"
      )
      yield* server.setting("work_mem", "1MB")
      yield* server.crash
      yield* server.start
      yield* server.pause
      yield* server.resume
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )

  it.scopedLive("can be stopped and started where nothing can be interrupted, as in a finalizer", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.make()
      const outage = Effect.acquireRelease(server.stop(), () => Effect.orDie(server.start))
      const program = yield* Effect.fork(Effect.scoped(Effect.zipRight(outage, Effect.never)))
      yield* eventually(server.state, (state) => state === "Stopped")
      yield* Fiber.interrupt(program)
      assert.deepStrictEqual(yield* server.query("SELECT 1 AS one"), [{ one: 1 }])
      yield* Effect.uninterruptible(server.setting("work_mem", "2MB"))
    })
  )
})
