/** `backup`: take backups, restore them, and see that they can be restored. */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Backup from "../Backup.js"
import * as BaseBackup from "../BaseBackup.js"
import { subjectOf } from "../internal/backup/manifest.js"
import * as base from "./backupBase.js"
import * as common from "./backupShared.js"
import { json, print, UsageError, url } from "./shared.js"

const create = Command.make(
  "create",
  {
    url,
    directory: common.directory,
    format: Options.choice("format", ["directory", "custom"]).pipe(
      Options.withDescription("directory is written and restored by several processes, custom is one file"),
      Options.withDefault(Backup.defaults.format)
    ),
    jobs: common.jobs,
    compress: Options.integer("compress").pipe(
      Options.withDescription("0 (none) to 9 (small and slow); default: that of pg_dump"),
      Options.optional
    ),
    checksums: Options.boolean("checksums").pipe(
      Options.withDescription("A checksum of every table, so that verify sees changed values, not just missing rows")
    ),
    binDirectory: common.binDirectory,
    quiet: common.quiet,
    json
  },
  ({ binDirectory, checksums, compress, directory, format, jobs, json, quiet, url }) =>
    Effect.gen(function* () {
      const { manifest, name, path } = yield* Backup.create({
        url,
        directory,
        format,
        checksums,
        jobs: common.orUndefined(jobs),
        compress: common.orUndefined(compress),
        binDirectory: common.orUndefined(binDirectory),
        onProgress: common.progress(quiet)
      })
      const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0)
      const took = (manifest.finishedAt.getTime() - manifest.startedAt.getTime()) / 1000
      yield* print(json, { name, path, manifest }, () =>
        [
          `${name}: ${manifest.content.tables.length} tables, ${common.bytes(bytes)}, in ${common.seconds(took)}`,
          `It is in ${path}. Whether it can be restored: backup verify --directory ${directory} ${name}`
        ].join("\n")
      )
    }).pipe(common.answering)
).pipe(Command.withDescription("Back up one database with pg_dump, on one snapshot, with a manifest of what is in it"))

const verdict = ({ verified }: Backup.Entry) =>
  verified === undefined
    ? "never restored"
    : verified.faults.length === 0
      ? `good, restored in ${common.seconds(verified.seconds)} on ${verified.at.toISOString().slice(0, 10)}`
      : `NOT GOOD: ${verified.faults[0]}`

const list = Command.make("list", { directory: common.directory, json }, ({ directory, json }) =>
  Effect.gen(function* () {
    const entries = yield* Backup.list({ directory })
    const rows = entries.map((entry) => ({
      name: entry.name,
      kind: entry.manifest.kind,
      database: entry.manifest.kind === "logical" ? entry.manifest.database.name : null,
      server: `${entry.manifest.server.host}:${entry.manifest.server.port}`,
      startedAt: entry.manifest.startedAt.toISOString(),
      finishedAt: entry.manifest.finishedAt.toISOString(),
      bytes: entry.bytes,
      verified: entry.verified ?? null
    }))
    yield* print(json, rows, () =>
      rows.length === 0
        ? `There are no backups in ${directory}`
        : common.table([
            ["NAME", "OF", "SIZE", "VERIFIED"],
            ...entries.map((entry) => [
              entry.name,
              subjectOf(entry.manifest),
              common.bytes(entry.bytes),
              verdict(entry)
            ])
          ])
    )
  }).pipe(common.answering)
).pipe(Command.withDescription("The backups that there are, and when each was restored last"))

const scratchDirectory = Options.text("scratch-directory").pipe(
  Options.withDescription("Where a base backup is copied to (default: the system's temporary directory)"),
  Options.optional
)

const verify = Command.make(
  "verify",
  {
    url: Options.optional(url),
    directory: common.directory,
    base: Options.boolean("base").pipe(Options.withDescription("latest means the latest base backup")),
    jobs: common.jobs,
    maintenanceDatabase: common.maintenanceDatabase,
    scratchDirectory,
    account: common.account,
    binDirectory: common.binDirectory,
    quiet: common.quiet,
    json,
    name: common.name
  },
  (given) =>
    Effect.gen(function* () {
      const { directory, json, name } = given
      const entries = yield* Backup.list({ directory })
      const isBase =
        name === "latest" ? given.base : entries.some((entry) => entry.name === name && entry.manifest.kind === "base")
      const shared = {
        directory,
        name,
        binDirectory: common.orUndefined(given.binDirectory),
        onProgress: common.progress(given.quiet)
      }
      if (!isBase && Option.isNone(given.url)) {
        return yield* new UsageError({
          message: "Say where to restore it, on a scratch database that is dropped again: --url, or DATABASE_URL"
        })
      }
      const { name: found, seconds } = isBase
        ? yield* Backup.verifyBase({
            ...shared,
            account: given.account,
            scratchDirectory: common.orUndefined(given.scratchDirectory)
          })
        : yield* Backup.verify({
            ...shared,
            url: Option.getOrThrow(given.url),
            maintenanceDatabase: given.maintenanceDatabase,
            jobs: common.orUndefined(given.jobs)
          })
      yield* print(json, { name: found, seconds, faults: [] }, () =>
        isBase
          ? `${found} is good: copied, checked file by file, and a server started on it, in ${common.seconds(seconds)}`
          : `${found} is good: restored and compared with what was backed up, in ${common.seconds(seconds)}`
      )
    }).pipe(common.answering)
).pipe(
  Command.withDescription("Restore a backup into a scratch place, compare it, and drop it: the only proof there is")
)

const restore = Command.make(
  "restore",
  {
    url,
    directory: common.directory,
    into: Options.text("into").pipe(Options.withDescription("The database that it becomes, on the URL's server")),
    swap: Options.boolean("swap").pipe(
      Options.withDescription("Take the place of the database of that name, which is kept under another one")
    ),
    noOwners: Options.boolean("no-owners").pipe(Options.withDescription("Everything belongs to the role of the URL")),
    jobs: common.jobs,
    maintenanceDatabase: common.maintenanceDatabase,
    binDirectory: common.binDirectory,
    quiet: common.quiet,
    json,
    name: common.name
  },
  ({ binDirectory, directory, into, jobs, json, maintenanceDatabase, name, noOwners, quiet, swap, url }) =>
    Effect.gen(function* () {
      const restored = yield* Backup.restore({
        url,
        directory,
        name,
        into,
        swap,
        maintenanceDatabase,
        owners: !noOwners,
        jobs: common.orUndefined(jobs),
        binDirectory: common.orUndefined(binDirectory),
        onProgress: common.progress(quiet)
      })
      yield* print(json, restored, () =>
        [
          `${restored.name} is restored as ${into}, compared with what was backed up, in ${common.seconds(restored.seconds)}`,
          ...(restored.previous === undefined
            ? []
            : [`What was there is now called ${restored.previous}: drop it when nobody misses anything`])
        ].join("\n")
      )
    }).pipe(common.answering)
).pipe(Command.withDescription("Restore a database beside the others, compare it, and only then give it its name"))

const keep = (name: string, of: string, standard: number) =>
  Options.integer(`keep-${name}`).pipe(
    Options.withDescription(`${of} (default, where no rule is given: ${standard})`),
    Options.optional
  )

const { keepDaily, keepLast, keepMonthly, keepWeekly } = Backup.defaults.retention

const prune = Command.make(
  "prune",
  {
    directory: common.directory,
    last: keep("last", "Keep so many of the newest", keepLast),
    daily: keep("daily", "Keep the newest of so many days", keepDaily),
    weekly: keep("weekly", "Keep the newest of so many weeks", keepWeekly),
    monthly: keep("monthly", "Keep the newest of so many months", keepMonthly),
    archive: Options.text("archive").pipe(
      Options.withDescription("Remove WAL there that no base backup needs any more"),
      Options.optional
    ),
    dryRun: common.dryRun,
    json
  },
  ({ archive, daily, directory, dryRun, json, last, monthly, weekly }) =>
    Effect.gen(function* () {
      const decisions = yield* Backup.prune({
        directory,
        dryRun,
        keepLast: common.orUndefined(last),
        keepDaily: common.orUndefined(daily),
        keepWeekly: common.orUndefined(weekly),
        keepMonthly: common.orUndefined(monthly)
      })
      const wal = Option.isNone(archive)
        ? []
        : yield* BaseBackup.pruneArchive({ directory, archive: archive.value, dryRun })
      yield* print(json, { dryRun, decisions, wal }, () =>
        [
          ...(decisions.length === 0
            ? [`There are no backups in ${directory}`]
            : [
                common.table(
                  decisions.map(({ keep, name, reasons }) => [
                    keep ? "keep" : dryRun ? "would remove" : "removed",
                    name,
                    reasons.join(", ")
                  ])
                )
              ]),
          ...(Option.isNone(archive) ? [] : [`${dryRun ? "would remove" : "removed"} ${wal.length} files of WAL`])
        ].join("\n")
      )
    }).pipe(common.answering)
).pipe(Command.withDescription("Remove backups that no rule keeps; never the newest good one, nor one in use"))

const cleanup = Command.make(
  "cleanup",
  {
    url: Options.optional(url),
    directory: common.directory,
    maintenanceDatabase: common.maintenanceDatabase,
    dryRun: common.dryRun,
    json
  },
  ({ directory, dryRun, json, maintenanceDatabase, url }) =>
    Effect.gen(function* () {
      const cleaned = yield* Backup.cleanup({ directory, dryRun, maintenanceDatabase, url: common.orUndefined(url) })
      yield* print(json, { dryRun, ...cleaned }, () => {
        const [removed, kept] = (["removed", "kept"] as const).map((what) => [
          ...cleaned.files[what],
          ...cleaned.databases[what].map((name) => `database ${name}`)
        ])
        const lines = [
          ...removed!.map((name) => `${dryRun ? "would remove" : "removed"} ${name}`),
          ...kept!.map((name) => `kept ${name}: somebody is at it`)
        ]
        return lines.length === 0 ? "Nothing was left behind" : lines.join("\n")
      })
    }).pipe(common.answering)
).pipe(Command.withDescription("Remove what killed runs have left: unfinished backups, locks, scratch databases"))

export const backup = Command.make("backup").pipe(
  Command.withDescription("Take backups, restore them, and see that they can be restored"),
  Command.withSubcommands([create, list, verify, restore, prune, cleanup, ...base.commands])
)
