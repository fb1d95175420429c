/** Base backups and the archive, on a real server. */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { Backup, BaseBackup } from "effect-pg-resilience"
import * as InstalledPostgres from "../support/InstalledPostgres.js"
import * as TestPg from "../support/TestPg.js"
import { Scene, shared } from "./backupScene.js"

const suite =
  InstalledPostgres.missing === undefined ? "base backups and archives" : `base backups (${InstalledPostgres.missing})`

layer(shared, { excludeTestServices: true, timeout: "60 seconds" })(suite, (it_) => {
  const it =
    InstalledPostgres.missing === undefined ? it_ : ({ scoped: it_.scoped.skip, effect: it_.effect.skip } as typeof it_)

  it.effect("loses no more than 15 minutes by default: the server closes a segment after 5", () =>
    Effect.gen(function* () {
      const { archive, server } = yield* Scene
      const { settings, statements } = yield* BaseBackup.archiveSettings({ archive })
      const setting = (statement: string) =>
        Effect.zipRight(server.query(statement), server.query("SELECT pg_reload_conf()"))
      const timeout = server.query<{ seconds: number }>(
        "SELECT setting::int AS seconds FROM pg_settings WHERE name = 'archive_timeout'"
      )
      yield* setting(statements.find((statement) => statement.includes("archive_timeout"))!)
      const [row] = yield* TestPg.eventually(timeout, ([row]) => row!.seconds !== 1)
      assert.strictEqual(row!.seconds, 300)
      assert.isBelow(row!.seconds, 15 * 60)
      assert.strictEqual(settings["archive_mode"], "on")
      yield* setting("ALTER SYSTEM SET archive_timeout = '1s'")
      const wrong = yield* Effect.flip(BaseBackup.archiveSettings({ archive: "relative", archiveTimeout: 0 }))
      assert.match(wrong.message, /archive is "relative".*archiveTimeout is 0/)
    })
  )

  it.effect("never overwrites what was archived, and takes the same content for done", () =>
    Effect.gen(function* () {
      const { archive, server } = yield* Scene
      const { settings } = yield* BaseBackup.archiveSettings({ archive })
      const segment = Path.join(server.directory, "segment")
      const name = "00000009000000000000000A"
      const archiveIt = (content: string) => {
        Fs.writeFileSync(segment, content)
        // as the server replaces them
        const command = settings["archive_command"]!.replace(/%(.)/g, (_, letter) =>
          letter === "p" ? segment : letter === "f" ? name : letter
        )
        return spawnSync("/bin/sh", ["-c", command], { encoding: "utf8" }).status
      }
      assert.strictEqual(archiveIt("first"), 0)
      assert.strictEqual(archiveIt("first"), 0)
      assert.notStrictEqual(archiveIt("other"), 0)
      assert.notStrictEqual(archiveIt("fi"), 0)
      assert.strictEqual(Fs.readFileSync(Path.join(archive, name), "utf8"), "first")
      for (const file of [name, `.${name}.partial`]) Fs.rmSync(Path.join(archive, file))
    })
  )

  it.scoped("is rehearsed from a base backup, which shows damage, and leaves nothing, interrupted or not", () =>
    Effect.gen(function* () {
      const { archive, backups, server } = yield* Scene
      const { name, path } = yield* BaseBackup.create({ url: server.url, directory: backups })
      const scratchDirectory = Path.join(server.directory, "scratch")
      Fs.mkdirSync(scratchDirectory)
      const verify = Backup.verifyBase({ directory: backups, name: "latest", scratchDirectory })
      assert.strictEqual((yield* verify).name, name)
      assert.deepEqual((yield* Backup.list({ directory: backups }))[0]!.verified!.faults, [])

      // interrupted while the server recovers
      const dataDirectory = Path.join(server.directory, "interrupted")
      const recovering = yield* Deferred.make<void>()
      const [last] = yield* server.query<{ file: string }>("SELECT pg_walfile_name(pg_switch_wal()) AS file")
      yield* TestPg.eventually(
        Effect.sync(() => Fs.existsSync(Path.join(archive, last!.file))),
        (there) => there
      )
      const recovery = yield* Effect.fork(
        BaseBackup.recover({
          directory: backups,
          archive: [archive],
          dataDirectory,
          target: "latest",
          onProgress: ({ message }) =>
            message.startsWith("segment")
              ? Effect.zipRight(Deferred.succeed(recovering, void 0), Effect.never)
              : Effect.void
        })
      )
      yield* Effect.raceFirst(Deferred.await(recovering), Fiber.join(recovery))
      assert.isTrue(Fs.existsSync(`${dataDirectory}.partial/postmaster.pid`))
      yield* Fiber.interrupt(recovery)
      const processes = spawnSync("ps", ["-eo", "args"], { encoding: "utf8" }).stdout
      assert.notInclude(processes, `${dataDirectory}.partial`)
      assert.isEmpty(Fs.readdirSync(server.directory).filter((file) => file.startsWith("interrupted")))

      // one bit, in the middle of a table
      const [table] = yield* server.query<{ file: string }>("SELECT pg_relation_filepath('filler') AS file")
      const file = Path.join(path, "data", table!.file)
      const bytes = Fs.readFileSync(file)
      bytes[bytes.length >> 1]! ^= 1
      Fs.writeFileSync(file, bytes)
      const error = yield* Effect.flip(verify)
      assert.strictEqual(error._tag, "BackupDamagedError")
      assert.match(error.message, new RegExp(`checksum mismatch.*${Path.basename(file)}`))
      assert.deepEqual(Fs.readdirSync(scratchDirectory), [])

      // a good one takes its place, and its WAL is not needed any more
      const next = yield* BaseBackup.create({ url: server.url, directory: backups })
      const decisions = yield* Backup.prune({ directory: backups, keepLast: 5 })
      assert.deepEqual(decisions, [
        { name: next.name, keep: true, reasons: ["last", "newest"] },
        { name, keep: false, reasons: [] }
      ])
      const old = yield* BaseBackup.pruneArchive({ directory: backups, archive })
      assert.isAbove(old.length, 0)
      assert.isEmpty(Fs.readdirSync(archive).filter((file) => old.includes(file)))
      Fs.rmSync(next.path, { recursive: true })
      assert.deepEqual(yield* BaseBackup.pruneArchive({ directory: backups, archive }), [])
    })
  )
})
