/** Base backups, an archive, and recovery to a point in time, on a real server that is destroyed. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Console, Effect, Either, Fiber, Logger, LogLevel, Queue } from "effect"
import { BaseBackup, ResilientPg } from "effect-pg-resilience"
import * as InstalledPostgres from "../support/InstalledPostgres.js"
import * as TestPg from "../support/TestPg.js"
import { Scene, shared } from "./backupScene.js"

/** One row after the other, each acknowledged before it is told. */
const writer = (told: Queue.Queue<number>, table = "log") =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    let n = 0
    yield* Effect.forever(
      Effect.gen(function* () {
        yield* sql`INSERT INTO ${sql(table)} (n) VALUES (${++n})`
        yield* Queue.offer(told, n)
      })
    )
  })

const suite =
  InstalledPostgres.missing === undefined ? "recovery to a point in time" : `recovery (${InstalledPostgres.missing})`

layer(shared, { excludeTestServices: true, timeout: "60 seconds" })(suite, (it_) => {
  const it = InstalledPostgres.missing === undefined ? it_ : ({ scoped: it_.scoped.skip } as typeof it_)

  it.scoped(
    "has exactly what was committed by then, from a backup taken under load, after the server was destroyed",
    () =>
      Effect.gen(function* () {
        const { archive, backups, server } = yield* Scene
        const { url } = server
        const told = yield* Queue.unbounded<number>()
        const load = yield* Effect.fork(Effect.provide(writer(told), ResilientPg.layer({ url })))
        yield* Queue.takeN(told, 5)

        const copied: Array<number> = []
        const backup = yield* BaseBackup.create({
          url,
          directory: backups,
          onProgress: ({ done, step }) =>
            Effect.sync(() => void (step === "copy" && done !== undefined && copied.push(done)))
        })
        assert.isAbove(copied.at(-1)!, 10_000_000)
        assert.strictEqual(backup.archiving.mode, "on")
        assert.strictEqual(backup.archiving.timeoutSeconds, 1)

        // moments that somebody may want back
        yield* Queue.takeAll(told)
        yield* Queue.takeN(told, 20)
        const [byTime] = yield* server.query<{ time: string; n: number; at: Date }>(
          `SELECT max(n) AS n, max(at) AS at, to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00' AS time FROM log`
        )
        yield* Queue.takeAll(told)
        yield* Queue.takeN(told, 20)
        yield* Fiber.interrupt(load)
        const [byLsn] = yield* server.query<{ lsn: string; n: number }>(
          "SELECT pg_current_wal_insert_lsn()::text AS lsn, max(n) AS n FROM log"
        )
        yield* server.query("SELECT pg_create_restore_point('before the mistake')")
        yield* server.query("INSERT INTO log (n) SELECT 1000000 + n FROM generate_series(1, 100) n")
        const [atEnd] = yield* server.query<{ n: number; file: string }>(
          "SELECT count(*)::int AS n, pg_walfile_name(pg_current_wal_lsn()) AS file FROM log"
        )

        // Others go on working until the server is gone. Only archive_timeout brings what they do to safety: nobody asks
        // for a switch.
        const pulses = yield* Queue.unbounded<number>()
        const pulse = yield* Effect.fork(
          Effect.provide(writer(pulses, "pulse"), ResilientPg.layer({ url })).pipe(
            Logger.withMinimumLogLevel(LogLevel.None)
          )
        )
        const archived = (file: string) =>
          TestPg.eventually(
            Effect.sync(() => Fs.readdirSync(archive)),
            (files) => files.includes(file),
            // An archiver that has failed, or slept through the news, looks again after a minute. Source: pgarch.c.
            { limit: "100 seconds", message: `${file} was not archived` }
          )
        yield* archived(atEnd!.file)
        yield* Queue.take(pulses)
        const [safe] = yield* server.query<{ n: number; file: string }>(
          "SELECT max(n) AS n, pg_walfile_name(pg_current_wal_insert_lsn()) AS file FROM pulse"
        )
        yield* archived(safe!.file)
        const destroyedAt = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        yield* server.destroy
        yield* Fiber.interrupt(pulse)
        const acknowledged = Math.max(...(yield* Queue.takeAll(pulses)))

        const recover = (name: string, target: BaseBackup.Target, more: Partial<BaseBackup.RecoverOptions> = {}) => {
          const dataDirectory = Path.join(server.directory, name)
          return Effect.zipRight(
            server.stopAtEnd(dataDirectory),
            BaseBackup.recover({ directory: backups, archive: [archive], dataDirectory, target, ...more })
          )
        }
        const rows = (port: number) =>
          server.query<{ max: number; total: number }>(
            "SELECT count(*)::int AS total, max(n) AS max FROM log",
            "postgres",
            port
          )

        // to the end: nothing that was archived is lost
        const port = yield* InstalledPostgres.freePort
        const latest = yield* recover("latest", "latest", { port })
        assert.strictEqual(latest.backup, backup.name)
        assert.deepEqual(yield* rows(port), [{ total: atEnd!.n, max: 1_000_100 }])
        // Of what others did to the last moment there is a beginning without a hole: at least up to what had been archived.
        const [kept] = yield* server.query<{ n: number; total: number; at: Date }>(
          "SELECT count(*)::int AS total, max(n) AS n, max(at) AS at FROM pulse",
          "postgres",
          port
        )
        assert.strictEqual(kept!.total, kept!.n)
        assert.isAtLeast(kept!.n, safe!.n)
        assert.isAtMost(kept!.n, acknowledged + 1)
        yield* Console.log(
          `recovery point: ${((destroyedAt - kept!.at.getTime()) / 1000).toFixed(1)} s of work were lost, with an archive_timeout of 1 s; by default it is ${BaseBackup.defaults.archiveTimeout}`,
          `\nrecovery time: ${latest.seconds.toFixed(1)} s, ${latest.copySeconds.toFixed(1)} s of them for copying ${(backup.manifest.bytes / 1e6).toFixed(0)} MB`
        )
        // it is a whole server, which takes writes, on a timeline of its own
        assert.isAbove(latest.timeline, backup.manifest.timeline)
        yield* server.query("INSERT INTO log (n) VALUES (0)", "postgres", port)

        // to a position: that commit is in, whatever was written later is not
        const lsnPort = yield* InstalledPostgres.freePort
        yield* recover("lsn", { lsn: byLsn!.lsn }, { port: lsnPort })
        assert.deepEqual(yield* rows(lsnPort), [{ total: byLsn!.n, max: byLsn!.n }])

        // to a time, in microseconds
        const timePort = yield* InstalledPostgres.freePort
        const time = yield* recover("time", { time: byTime!.time }, { port: timePort })
        const [found] = yield* rows(timePort)
        // `at` is taken within the transaction, whose commit comes later: of the last one either is right
        assert.include([byTime!.n - 1, byTime!.n], found!.max)
        assert.strictEqual(found!.total, found!.max)
        assert.match(time.stopped!, /before commit of transaction|after commit of transaction/)

        // and to a name
        const point = yield* recover("point", { restorePoint: "before the mistake" })
        assert.isUndefined(point.port)
        assert.match(point.stopped!, /at restore point "before the mistake"/)
        assert.isFalse(Fs.existsSync(Path.join(server.directory, "point.partial")))

        // what cannot be done is said, and leaves nothing
        const refused = (name: string, target: BaseBackup.Target, more: Partial<BaseBackup.RecoverOptions> = {}) =>
          Effect.gen(function* () {
            const result = yield* Effect.either(recover(name, target, more))
            assert.isTrue(Either.isLeft(result), name)
            const left = Fs.readdirSync(server.directory).filter((file) => file.startsWith(`${name}.`) || file === name)
            assert.deepEqual(left, more.dataDirectory === undefined ? [] : [name])
            return Either.getLeft(result).pipe((_) => (_._tag === "Some" ? _.value : assert.fail()))
          })
        const early = { time: new Date(backup.manifest.startedAt.getTime() - 1000).toISOString() }
        assert.strictEqual((yield* refused("early", early))._tag, "BackupNotFoundError")
        assert.strictEqual((yield* refused("early", early, { name: backup.name }))._tag, "TargetTooEarlyError")
        const future = yield* refused("future", { time: new Date(Date.now() + 3_600_000).toISOString() })
        assert.strictEqual(future._tag, "WalMissingError")
        assert.match(future.message, /the last segment found was [0-9A-F]{24}, the last transaction was of 20\d\d-/)
        const exists = yield* Effect.flip(recover("latest", "latest"))
        assert.strictEqual(exists._tag, "AlreadyExistsError")

        // a hole in the archive, which PostgreSQL alone would take for its end
        const segments = Fs.readdirSync(archive)
          .filter((file) => /^[0-9A-F]{24}$/.test(file))
          .sort()
        const hole = segments.at(-2)!
        Fs.renameSync(Path.join(archive, hole), Path.join(server.directory, hole))
        const holed = yield* refused("hole", "latest")
        assert.strictEqual(holed._tag === "WalMissingError" && holed.segment, hole)
        // found elsewhere: the directory of the lost server's WAL, say
        const salvaged = yield* recover("salvaged", "latest", { archive: [archive, server.directory] })
        assert.strictEqual(salvaged.lastTransactionAt!.getTime(), latest.lastTransactionAt!.getTime())
      })
  )
})
