/**
 * The whole server, back to any moment: base backups, an archive of WAL, and recovery to a point in time.
 *
 * A base backup is a copy of the data directory, made by `pg_basebackup` while the server works, and checked file by file.
 * The archive takes every segment of the WAL as the server finishes it, and at the latest after `archive_timeout`. Both
 * together give the server's state after any transaction since the backup; what a disaster may cost is what had not been
 * archived yet (the recovery point): with `archiveSettings`' defaults the last 5 minutes.
 *
 * `recover` runs where the recovered server shall run, as the account of that server or as root, and needs the server's
 * programs in the backup's major version. Backups stand beside those of `Backup`, which lists, verifies and prunes both.
 *
 * @example
 * ```ts
 * import { BaseBackup } from "effect-pg-resilience"
 *
 * const back = BaseBackup.recover({
 *   directory: "/backups",
 *   archive: ["/archive"],
 *   dataDirectory: "/var/lib/postgresql/recovered",
 *   target: { time: "2026-11-30 14:29:59+01" },
 *   port: 5433
 * })
 * ```
 */
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as archive from "./internal/backup/archive.js"
import * as base from "./internal/backup/base.js"
import * as database from "./internal/backup/database.js"
import type * as errors from "./internal/backup/errors.js"
import { files } from "./internal/backup/errors.js"
import type { Base } from "./internal/backup/manifest.js"
import * as options from "./internal/backup/options.js"
import * as recovering from "./internal/backup/recover.js"
import type * as recovery from "./internal/backup/recovery.js"
import * as store from "./internal/backup/store.js"
import * as targets from "./internal/backup/target.js"
import * as wal from "./internal/backup/wal.js"

export const defaults = {
  archiveTimeout: "5 minutes",
  checkpoint: "fast",
  account: "postgres",
  timeline: "latest",
  name: "latest"
} as const

/** Where to stop a recovery. */
export type Target = recovery.Target

/** How the server archives its WAL. */
export type Archiving = base.Archiving

/** What a recovery has made. */
export type Recovered = recovering.Recovered

export interface ArchiveOptions {
  /** Where the server puts finished segments: an absolute path that the server's account may write to, on another machine's disk. */
  readonly archive: string
  /**
   * A segment that is not full is archived all the same after this time, if anything was written: what a lost server may
   * cost. 1 second to 1 day, in whole seconds. Default 5 minutes. Each such segment takes 16 MB of the archive: a server
   * that always writes fills at least 4.5 GB a day at 5 minutes.
   */
  readonly archiveTimeout?: Duration.DurationInput | undefined
}

const absolute: validate.Rule<string> = validate.refined(
  "an absolute path without line breaks",
  (value): value is string => Predicate.isString(value) && /^\/[^\n\0]*$/.test(value)
)

const archiveRule = validate.struct(
  {
    archive: absolute,
    archiveTimeout: validate.defaulted(validate.duration({ min: 1_000, max: 86_400_000 }), defaults.archiveTimeout)
  },
  { exact: true }
)

export interface ArchiveSettings {
  readonly settings: Readonly<Record<string, string>>
  /** As ALTER SYSTEM, for a superuser. `archive_mode` and `wal_level` take a restart to hold, the others a reload. */
  readonly statements: ReadonlyArray<string>
}

/**
 * The server's settings for an archive in a directory. The command runs in the server's shell with `cp`, `sync`, `ln`, `cmp` and
 * `rm`: it never overwrites, and says success only when the segment is on disk. The archive's file system must know hard
 * links; where it does not, archiving fails, visibly, in `pg_stat_archiver`. Source: PostgreSQL manual, 26.3.1.
 */
export const archiveSettings = (given: ArchiveOptions): Effect.Effect<ArchiveSettings, PgError.InvalidOptionsError> =>
  Effect.map(validate.decode(archiveRule)(given), ({ archive: directory, archiveTimeout }) => {
    const settings = {
      wal_level: "replica",
      archive_mode: "on",
      archive_command: archive.command(directory),
      archive_timeout: `${Math.round(archiveTimeout / 1000)}s`
    }
    return { settings, statements: archive.statements(settings) }
  })

export interface CreateOptions extends options.Common {
  /** `fast` asks for a checkpoint now; `spread` waits for one that spares the disks, for minutes. Default `fast`. */
  readonly checkpoint?: "fast" | "spread" | undefined
  /** A database to connect to for questions. Default `postgres`. */
  readonly maintenanceDatabase?: string | undefined
}

const createRule = validate.struct(
  {
    ...options.common,
    checkpoint: validate.defaulted(validate.literal("fast", "spread"), defaults.checkpoint),
    maintenanceDatabase: validate.defaulted(options.identifier, options.defaults.maintenanceDatabase)
  },
  { exact: true }
)

export interface Created {
  readonly name: string
  readonly path: string
  readonly manifest: Base
  /** So that whoever takes a backup sees that it will end where it is when nothing is archived. */
  readonly archiving: Archiving
}

/** What the platform must bring. */
export type Requirements = FileSystem.FileSystem | Path.Path | CommandExecutor.CommandExecutor

/**
 * Takes a base backup, WAL included, checks it with `pg_verifybackup`, and gives it its name. The role needs REPLICATION, the
 * server `max_wal_senders` of 2 or more. Interruption ends `pg_basebackup` and leaves nothing.
 */
export const create = (
  given: CreateOptions
): Effect.Effect<
  Created,
  PgError.PgError | errors.ToolError | errors.BackupFilesError | errors.BackupDamagedError | errors.UnsupportedError,
  Requirements
> =>
  Effect.flatMap(validate.decode(createRule)(given), (decoded) => base.create(decoded)).pipe(
    Effect.withSpan("BaseBackup.create")
  )

/** `pg_stat_archiver`, and the settings beside it. */
export const archiving = (given: Pick<options.Common, "url">): Effect.Effect<Archiving, PgError.PgError> =>
  Effect.flatMap(validate.decode(validate.struct({ url: options.common.url }))(given), ({ url }) =>
    database.on(targets.on(url, url.database), base.archiving)
  ).pipe(Effect.withSpan("BaseBackup.archiving"))

export interface RecoverOptions extends options.Place {
  /** A base backup's name. Default `latest`: the newest that ends before the target. */
  readonly name?: string | undefined
  /** Where WAL is, looked through in this order: the archive, and the lost server's `pg_wal` where it could be saved. */
  readonly archive: ReadonlyArray<string>
  /** Made by the recovery: must not exist, or be empty. Its parent must be there. It gets its name when it is recovered. */
  readonly dataDirectory: string
  /** Where to stop. */
  readonly target: Target
  /** Which timeline to follow: the newest, that of the base backup (`current`), or a number. Default `latest`. */
  readonly timeline?: number | "latest" | "current" | undefined
  /** Start the recovered server there, on localhost, without archiving. Default: it is left stopped. */
  readonly port?: number | undefined
  /** Account that the server runs under where this program is root, as PostgreSQL refuses to. Default `postgres`. */
  readonly account?: string | undefined
  readonly binDirectory?: string | undefined
  readonly onProgress?: options.Common["onProgress"]
}

const words = validate.refined(
  "latest, immediate, or one of { time }, { lsn }, { restorePoint }",
  (value): value is "latest" | "immediate" => value === "latest" || value === "immediate"
)

const text = (expected: string, is: (value: string) => boolean) =>
  validate.refined(expected, (value): value is string => Predicate.isString(value) && is(value))

const forms = {
  time: text("a time with its offset, such as 2026-11-30 14:29:59+01", (value) => Option.isSome(options.time(value))),
  lsn: text("a position such as 0/3000060", (value) => Option.isSome(wal.position(value))),
  restorePoint: text(
    "a restore point's name of 1 to 63 bytes",
    (value) => value !== "" && Buffer.byteLength(value) <= 63
  )
}

const targetRule: validate.Rule<Target> = (value, field) => {
  const [form, ...more] = Predicate.isRecord(value) ? Object.keys(value) : []
  if (!Predicate.isRecord(value) || form === undefined || more.length > 0 || !Object.hasOwn(forms, form)) {
    return words(value, field)
  }
  return validate.map(forms[form as keyof typeof forms], () => value as unknown as Target)(
    value[form],
    `${field}.${form}`
  )
}

const paths: validate.Rule<ReadonlyArray<string>> = (value, field) =>
  Array.isArray(value)
    ? Either.all(value.map((path, n) => absolute(path, `${field}[${n}]`)))
    : Either.left([validate.fault(field, value, "an array of absolute paths")])

const recoverRule = validate.struct(
  {
    ...options.place,
    name: validate.defaulted(options.backupName, defaults.name),
    archive: paths,
    dataDirectory: absolute,
    target: targetRule,
    timeline: validate.defaulted(
      validate.refined(
        "latest, current or a number from 1",
        (value): value is number | "latest" | "current" =>
          value === "latest" || value === "current" || (Number.isSafeInteger(value) && (value as number) >= 1)
      ),
      defaults.timeline
    ),
    port: validate.optional(validate.integer({ min: 1, max: 65_535 })),
    account: validate.defaulted(validate.text, defaults.account),
    binDirectory: validate.optional(validate.text),
    onProgress: options.common.onProgress
  },
  { exact: true }
)

/**
 * Makes a data directory of a base backup and the WAL after it, up to the target: exactly the transactions that had been
 * committed by then. The server's programs must be of the backup's major version. What the base backup lacks because its
 * server kept it elsewhere (`postgresql.conf`, `pg_hba.conf` on Debian) is replaced by a minimum that lets it start.
 *
 * Interruption stops the server, if it had been started, and leaves nothing; so does every failure.
 */
export const recover = (
  given: RecoverOptions
): Effect.Effect<Recovered, PgError.InvalidOptionsError | errors.RecoverError, Requirements> =>
  Effect.flatMap(validate.decode(recoverRule)(given), (decoded) => {
    const { target } = decoded
    const time =
      typeof target === "object" && "time" in target ? Option.getOrUndefined(options.time(target.time)) : undefined
    return recovering.recover({ ...decoded, time })
  }).pipe(Effect.withSpan("BaseBackup.recover"))

/**
 * Removes from an archive what no base backup in the directory needs any more, its oldest included. Does nothing where there
 * is no base backup. Returns the files' names.
 */
export const pruneArchive = (
  given: options.Place & { readonly archive: string; readonly dryRun?: boolean | undefined }
): Effect.Effect<
  ReadonlyArray<string>,
  PgError.InvalidOptionsError | errors.BackupFilesError,
  FileSystem.FileSystem | Path.Path
> =>
  Effect.gen(function* () {
    const rule = validate.struct(
      { ...options.place, archive: absolute, dryRun: validate.defaulted(validate.boolean, false) },
      { exact: true }
    )
    const { archive, directory, dryRun } = yield* validate.decode(rule)(given)
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const starts = (yield* store.list(directory)).flatMap(({ manifest }) =>
      manifest.kind === "base"
        ? Option.toArray(Option.map(wal.position(manifest.startLsn), (at) => ({ at, bytes: manifest.segmentBytes })))
        : []
    )
    const oldest = starts.reduce<(typeof starts)[number] | undefined>(
      (least, start) => (least === undefined || start.at < least.at ? start : least),
      undefined
    )
    if (oldest === undefined) return []
    const names = yield* fs.readDirectory(archive).pipe(files("read the archive", archive))
    const old = wal.unneeded(names.sort(), wal.segmentOf(oldest.at, oldest.bytes), oldest.bytes)
    if (!dryRun) {
      yield* Effect.forEach(old, (name) => fs.remove(path.join(archive, name)), { discard: true }).pipe(
        files("remove from", archive)
      )
    }
    return old
  }).pipe(Effect.withSpan("BaseBackup.pruneArchive"))
