/**
 * A nightly backup that is worth its name: taken, restored, compared; and old ones removed. Run it from cron, or as a job of
 * the cluster. It exits with 1 when the backup is no good, so that whoever started it hears of it.
 *
 *   DATABASE_URL=postgres://… BACKUP_DIRECTORY=/backups npx tsx examples/backup.ts
 *
 * It needs PostgreSQL's own programs, pg_dump, pg_dumpall and pg_restore, of the server's version or newer. The role needs the right
 * to read everything and CREATEDB, for the database that the backup is restored into and that is dropped again.
 */
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Config, Effect } from "effect"
import { Backup } from "effect-pg-resilience"

const nightly = Effect.gen(function* () {
  const url = yield* Config.redacted("DATABASE_URL")
  const directory = yield* Config.withDefault(Config.string("BACKUP_DIRECTORY"), Backup.defaults.directory)

  yield* Backup.cleanup({ directory, url })
  const { manifest, name } = yield* Backup.create({ url, directory, checksums: true })
  yield* Effect.log(`${name}: ${manifest.content.tables.length} tables`)

  const { seconds } = yield* Backup.verify({ url, directory, name })
  yield* Effect.log(`restored and compared in ${seconds} s`)

  const decisions = yield* Backup.prune({ directory, keepLast: 3, keepDaily: 7, keepWeekly: 4 })
  yield* Effect.log(`${decisions.filter(({ keep }) => keep).length} backups are kept`)
}).pipe(
  Effect.tapErrorTag("BackupDamagedError", ({ faults }) => Effect.logError("no good", faults)),
  Effect.tapErrorTag("ToolVersionError", ({ message }) => Effect.logError(message)),
  Effect.provide(NodeContext.layer)
)

NodeRuntime.runMain(nightly)
