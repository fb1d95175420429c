/** `backup archive-settings`, `backup base`, `backup recover`: the whole server, and moments in between. */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as BaseBackup from "../BaseBackup.js"
import * as common from "./backupShared.js"
import { json, print, UsageError, url } from "./shared.js"

const archiveSettings = Command.make(
  "archive-settings",
  {
    archive: Options.text("archive").pipe(
      Options.withDescription(
        "Directory for the WAL, as the server sees it: an absolute path, best on another machine's disk"
      )
    ),
    timeout: Options.integer("archive-timeout").pipe(
      Options.withDescription("Seconds after which a segment is archived though it is not full (default: 300)"),
      Options.optional
    ),
    json
  },
  ({ archive, json, timeout }) =>
    Effect.gen(function* () {
      const archiveTimeout = Option.map(timeout, (value) => `${value} seconds` as const)
      const result = yield* BaseBackup.archiveSettings({
        archive,
        archiveTimeout: Option.getOrUndefined(archiveTimeout)
      })
      yield* print(json, result.settings, () => result.statements.join("\n"))
      yield* Console.error(
        "Run these as a superuser, then restart the server: archive_mode and wal_level do not change without."
      )
    }).pipe(common.answering)
).pipe(Command.withDescription("Print the server's settings for an archive of its WAL"))

const base = Command.make(
  "base",
  {
    url,
    directory: common.directory,
    spread: Options.boolean("spread-checkpoint").pipe(
      Options.withDescription("Wait for a checkpoint that spares the disks, instead of asking for one now")
    ),
    maintenanceDatabase: common.maintenanceDatabase,
    binDirectory: common.binDirectory,
    quiet: common.quiet,
    json
  },
  ({ binDirectory, directory, json, maintenanceDatabase, quiet, spread, url }) =>
    Effect.gen(function* () {
      const { archiving, manifest, name, path } = yield* BaseBackup.create({
        url,
        directory,
        checkpoint: spread ? "spread" : "fast",
        maintenanceDatabase,
        binDirectory: common.orUndefined(binDirectory),
        onProgress: common.progress(quiet)
      })
      yield* print(json, { name, path, archiving, manifest }, () =>
        [
          `${name}: ${common.bytes(manifest.bytes)}, checked, WAL from ${manifest.startLsn} to ${manifest.endLsn}`,
          `It is in ${path}`
        ].join("\n")
      )
      if (archiving.mode === "off") {
        yield* Console.error(
          "The server does not archive its WAL: this backup can only be recovered to its own end. See backup archive-settings."
        )
      } else if (archiving.failing) {
        yield* Console.error(
          "The server's archiving FAILS at this moment: its log says why. What is not archived can be lost."
        )
      }
    }).pipe(common.answering)
).pipe(Command.withDescription("Back up the whole server, to recover it to any moment after with the archived WAL"))

const text = (name: string, description: string) =>
  Options.text(name).pipe(Options.withDescription(description), Options.optional)

const targets = {
  time: text("to-time", 'The last transaction committed by then: "2026-11-30 14:29:59+01"; the offset is needed'),
  lsn: text("to-lsn", "Everything written before that position, as pg_current_wal_lsn() shows it"),
  restorePoint: text("to-restore-point", "A name that was given with pg_create_restore_point"),
  end: Options.boolean("to-end").pipe(Options.withDescription("The end of all WAL"))
}

const recover = Command.make(
  "recover",
  {
    ...targets,
    dataDirectory: Options.text("data-directory").pipe(
      Options.withDescription("The data directory to make: an absolute path, not there yet, or empty")
    ),
    archive: Options.text("archive").pipe(Options.withDescription("The archive of the WAL: an absolute path")),
    pgWal: text("pg-wal", "The lost server's own pg_wal, where it could be saved: what had not been archived yet"),
    name: Options.text("name").pipe(
      Options.withDescription("The base backup (default: the newest that ends before the target)"),
      Options.withDefault("latest")
    ),
    timeline: text("timeline", "latest, current (that of the backup) or a number (default: latest)"),
    port: Options.integer("port").pipe(
      Options.withDescription("Start the recovered server there, on localhost (default: it is left stopped)"),
      Options.optional
    ),
    directory: common.directory,
    account: common.account,
    binDirectory: common.binDirectory,
    quiet: common.quiet,
    json
  },
  (given) =>
    Effect.gen(function* () {
      const wanted: ReadonlyArray<BaseBackup.Target> = [
        ...Option.toArray(Option.map(given.time, (time) => ({ time }))),
        ...Option.toArray(Option.map(given.lsn, (lsn) => ({ lsn }))),
        ...Option.toArray(Option.map(given.restorePoint, (restorePoint) => ({ restorePoint }))),
        ...(given.end ? (["latest"] as const) : [])
      ]
      const [target] = wanted
      if (target === undefined || wanted.length > 1) {
        return yield* new UsageError({
          message: "Say where to stop, once: --to-time, --to-lsn, --to-restore-point or --to-end"
        })
      }
      const timeline = Option.map(given.timeline, (text) => (/^\d+$/.test(text) ? Number(text) : text))
      const recovered = yield* BaseBackup.recover({
        directory: given.directory,
        name: given.name,
        archive: [given.archive, ...Option.toArray(given.pgWal)],
        dataDirectory: given.dataDirectory,
        target,
        timeline: Option.getOrUndefined(timeline) as BaseBackup.RecoverOptions["timeline"],
        port: common.orUndefined(given.port),
        account: given.account,
        binDirectory: common.orUndefined(given.binDirectory),
        onProgress: common.progress(given.quiet)
      })
      const { backup, dataDirectory, lastTransactionAt, port, stopped, timeline: begun } = recovered
      yield* print(given.json, recovered, () =>
        [
          `Recovered from ${backup} in ${common.seconds(recovered.seconds)}, timeline ${begun}${stopped === undefined ? "" : `: stopped ${stopped}`}`,
          `The last transaction in it was committed at ${lastTransactionAt?.toISOString() ?? "a time before the backup"}`,
          port === undefined
            ? `${dataDirectory} is ready to be started`
            : `${dataDirectory} is served on localhost:${port}, without archiving`
        ].join("\n")
      )
    }).pipe(common.answering)
).pipe(Command.withDescription("Make a data directory as the server was at a moment: base backup and archived WAL"))

export const commands = [base, recover, archiveSettings] as const
