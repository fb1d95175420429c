/**
 * Backups that have been restored.
 *
 * A logical backup is one database as `pg_dump` writes it, with a manifest that says what is in it: rows of every table, on
 * request a checksum of each, sequences, the number of constraints and indexes, all from the very snapshot that was
 * dumped. `verify` restores it into a scratch database, compares, and drops that; `restore` does the same, and gives the
 * scratch database its name when it has proved good. A backup is written under another name, flushed and renamed, so what
 * has a backup's name is whole.
 *
 * For every moment in between, and for whole servers: `BaseBackup`. Both kinds stand in one directory; `list`, `verify`,
 * `prune` and `cleanup` are for both.
 *
 * @example
 * ```ts
 * import { NodeContext } from "@effect/platform-node"
 * import { Effect, Redacted } from "effect"
 * import { Backup } from "effect-pg-resilience"
 *
 * const url = Redacted.make("postgresql://backup@db.example.com/shop")
 *
 * const nightly = Effect.gen(function* () {
 *   const { name } = yield* Backup.create({ url, directory: "/backups", checksums: true })
 *   yield* Backup.verify({ url, directory: "/backups", name })
 *   yield* Backup.prune({ directory: "/backups" })
 * }).pipe(Effect.provide(NodeContext.layer))
 * ```
 */
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import type * as Path from "@effect/platform/Path"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as database from "./internal/backup/database.js"
import * as dump from "./internal/backup/dump.js"
import type * as errors from "./internal/backup/errors.js"
import { type Logical, type Manifest, subjectOf, type Verified } from "./internal/backup/manifest.js"
import * as options from "./internal/backup/options.js"
import * as progress from "./internal/backup/progress.js"
import * as recover from "./internal/backup/recover.js"
import * as restores from "./internal/backup/restore.js"
import * as retention from "./internal/backup/retention.js"
import * as store from "./internal/backup/store.js"
import * as targets from "./internal/backup/target.js"

export {
  AlreadyExistsError,
  BackupDamagedError,
  BackupFilesError,
  BackupNotFoundError,
  RecoveryFailedError,
  TargetTooEarlyError,
  ToolFailedError,
  ToolMissingError,
  ToolVersionError,
  UnsupportedError,
  WalMissingError
} from "./internal/backup/errors.js"

/** What the options are where nothing is said. */
export const defaults = {
  ...options.defaults,
  lockTimeout: "1 minute",
  retention: { keepLast: 3, keepDaily: 7, keepWeekly: 4, keepMonthly: 12 }
} as const

/** One step of a backup or a restore. */
export type Progress = progress.Progress

/** A step as a line for a person. */
export const describeProgress: (progress: Progress) => string = progress.describe

/** A backup in the directory. */
export type Entry = store.Entry
export type { Logical, Manifest, Verified }

/** What the platform must bring: `NodeContext.layer` of `@effect/platform-node` does. */
export type Requirements = FileSystem.FileSystem | Path.Path | CommandExecutor.CommandExecutor

export interface CreateOptions extends options.Common {
  /** `directory` is written and restored by several processes, `custom` is one file. Default `directory`. */
  readonly format?: "custom" | "directory" | undefined
  /** Tables dumped at once, each on a connection of its own: 1 to 64; with `custom` 1. Default 2, or 1. */
  readonly jobs?: number | undefined
  /** 0 (none) to 9 (small and slow). Default: that of `pg_dump`, which compresses moderately. */
  readonly compress?: number | undefined
  /**
   * A checksum of each table, so that `verify` sees changed values too and not just missing rows. Takes about as long as
   * the dump, once more on one connection of the server; without it each table is only counted. Default false.
   */
  readonly checksums?: boolean | undefined
  /** How long to wait for a table that somebody has locked, say an ALTER TABLE, before giving up. Default 1 minute. */
  readonly lockTimeout?: Duration.DurationInput | undefined
}

const createRule = validate.struct(
  {
    ...options.common,
    format: validate.defaulted(validate.literal("custom", "directory"), defaults.format),
    jobs: validate.optional(options.jobs),
    compress: validate.optional(validate.integer({ min: 0, max: 9 })),
    checksums: validate.defaulted(validate.boolean, defaults.checksums),
    lockTimeout: validate.defaulted(
      validate.duration({ min: 1, max: validate.maxMillis, whole: true }),
      defaults.lockTimeout
    )
  },
  {
    exact: true,
    relation: ({ format, jobs }) =>
      format === "custom" && jobs !== undefined && jobs > 1
        ? [validate.fault("jobs", jobs, "1 with the custom format, which one process writes")]
        : []
  }
)

export interface Created {
  readonly name: string
  readonly path: string
  readonly manifest: Logical
}

/**
 * Backs one database up, the one of the URL, while others work in it. `pg_dump` must be of the server's major version or
 * newer. Roles and tablespaces go into `globals.sql`, without passwords. Interruption ends the tools and leaves nothing.
 */
export const create = (
  given: CreateOptions
): Effect.Effect<Created, PgError.PgError | errors.ToolError | errors.BackupFilesError, Requirements> =>
  Effect.flatMap(validate.decode(createRule)(given), (decoded) =>
    dump.create({
      ...decoded,
      jobs: decoded.jobs ?? (decoded.format === "custom" ? 1 : defaults.jobs)
    })
  ).pipe(Effect.withSpan("Backup.create"))

const placeRule = validate.struct(options.place, { exact: true })

/** The whole backups of the directory, oldest first. What is no backup of this library is passed over. */
export const list = (
  given: options.Place = {}
): Effect.Effect<
  ReadonlyArray<Entry>,
  PgError.InvalidOptionsError | errors.BackupFilesError,
  FileSystem.FileSystem | Path.Path
> =>
  Effect.flatMap(validate.decode(placeRule)(given), ({ directory }) => store.list(directory)).pipe(
    Effect.withSpan("Backup.list")
  )

export interface VerifyOptions extends options.Common {
  /** A backup's name, or `latest`: the newest logical one of the URL's database. */
  readonly name: string
  /** Tables and indexes restored at once, 1 to 64. Default 2. */
  readonly jobs?: number | undefined
  /** A database to connect to while others are made and renamed. Default `postgres`. */
  readonly maintenanceDatabase?: string | undefined
}

const restoring = {
  ...options.common,
  name: options.backupName,
  jobs: validate.defaulted(options.jobs, defaults.jobs),
  maintenanceDatabase: validate.defaulted(options.identifier, defaults.maintenanceDatabase)
}

const verifyRule = validate.struct(restoring, { exact: true })

export interface Rehearsed {
  readonly name: string
  /** How long it took until it was restored and compared. */
  readonly seconds: number
}

type RestoreError =
  | PgError.PgError
  | errors.ToolError
  | errors.BackupFilesError
  | errors.BackupNotFoundError
  | errors.BackupDamagedError

/**
 * Restores a logical backup into a scratch database of the URL's server, compares it with the manifest, and drops it. Needs
 * CREATEDB, and the room. The answer is kept beside the backup. Fails with `BackupDamagedError` that names what differs.
 */
export const verify = (given: VerifyOptions): Effect.Effect<Rehearsed, RestoreError, Requirements> =>
  Effect.gen(function* () {
    const decoded = yield* validate.decode(verifyRule)(given)
    const { entry, seconds } = yield* restores.rehearse(decoded.name, false, decoded, Effect.void, () => Effect.void)
    return { name: entry.name, seconds }
  }).pipe(Effect.withSpan("Backup.verify"))

export interface VerifyBaseOptions extends options.Place {
  /** A base backup's name, or `latest`: the newest one. */
  readonly name: string
  /** Where the copy is made, which takes the server's size. Default: the system's temporary directory. */
  readonly scratchDirectory?: string | undefined
  /** See `BaseBackup.RecoverOptions`. Default `postgres`. */
  readonly account?: string | undefined
  readonly binDirectory?: string | undefined
  readonly onProgress?: options.Common["onProgress"]
}

const verifyBaseRule = validate.struct(
  {
    ...options.place,
    name: options.backupName,
    scratchDirectory: validate.optional(validate.text),
    account: validate.defaulted(validate.text, "postgres"),
    binDirectory: validate.optional(validate.text),
    onProgress: options.common.onProgress
  },
  { exact: true }
)

/** Restores a base backup into a directory of its own, checks each file, starts the server on it, and removes it. */
export const verifyBase = (
  given: VerifyBaseOptions
): Effect.Effect<Rehearsed, PgError.InvalidOptionsError | errors.RecoverError, Requirements> =>
  Effect.gen(function* () {
    const decoded = yield* validate.decode(verifyBaseRule)(given)
    const { backup, seconds } = yield* recover.rehearse(decoded)
    return { name: backup, seconds } satisfies Rehearsed
  }).pipe(Effect.withSpan("Backup.verifyBase"))

export interface RestoreOptions extends VerifyOptions {
  /** The database that it becomes. It must not exist, unless `swap`. */
  readonly into: string
  /**
   * Takes the place of a database of that name, which is kept as `<name>_before_<time>`. Both are renamed in one transaction;
   * the connections to the old one are ended. Default false.
   */
  readonly swap?: boolean | undefined
  /** Restores owners and privileges; their roles must exist. Default true. */
  readonly owners?: boolean | undefined
}

const restoreRule = validate.struct(
  {
    ...restoring,
    into: options.identifier,
    swap: validate.defaulted(validate.boolean, defaults.swap),
    owners: validate.defaulted(validate.boolean, defaults.owners)
  },
  {
    exact: true,
    relation: ({ into, maintenanceDatabase }) =>
      into !== undefined && into === maintenanceDatabase
        ? [validate.fault("into", into, "another database than the maintenance database, which cannot be renamed")]
        : []
  }
)

export interface Restored extends Rehearsed {
  readonly database: string
  /** What the database that was there is called now; undefined: there was none. Drop it when nobody misses anything. */
  readonly previous: string | undefined
}

/**
 * Restores a logical backup into a scratch database, compares it with the manifest, and only then gives it its name. Until
 * that last step, whatever happens and whenever it is interrupted, the database in whose place it comes is untouched.
 */
export const restore = (
  given: RestoreOptions
): Effect.Effect<Restored, RestoreError | errors.AlreadyExistsError, Requirements> =>
  Effect.gen(function* () {
    const decoded = yield* validate.decode(restoreRule)(given)
    const { into, onProgress, owners, swap } = decoded
    const before = swap
      ? Effect.void
      : Effect.flatMap(database.exists(into), (there) => (there ? database.alreadyExists(into) : Effect.void))
    const { entry, result, seconds } = yield* restores.rehearse(
      decoded.name,
      owners,
      decoded,
      before,
      (scratch, entry, now) =>
        Effect.gen(function* () {
          yield* onProgress(progress.said("swap", into))
          yield* database.applyProperties(scratch, entry.manifest.database, owners)
          return yield* database.settleName(scratch, into, swap, now)
        })
    )
    return { name: entry.name, seconds, database: into, previous: result }
  }).pipe(Effect.withSpan("Backup.restore"))

/** How many backups to keep: see `defaults.retention`. */
export type Retention = retention.Retention

/** Those of the rules that are on. */
interface Rules {
  readonly keepLast?: number | undefined
  readonly keepDaily?: number | undefined
  readonly keepWeekly?: number | undefined
  readonly keepMonthly?: number | undefined
}

export interface PruneOptions extends options.Place, Rules {
  /** Say what would go, and let it stay. Default false. */
  readonly dryRun?: boolean | undefined
}

const count = validate.optional(validate.integer({ max: 10_000 }))

const pruneRule = validate.struct(
  {
    ...options.place,
    keepLast: count,
    keepDaily: count,
    keepWeekly: count,
    keepMonthly: count,
    dryRun: validate.defaulted(validate.boolean, false)
  },
  { exact: true }
)

export type Decision = retention.Decision

/** The rules as given, those that are not given being off; `defaults.retention` where none is given. */
const rulesOf = ({ keepDaily, keepLast, keepMonthly, keepWeekly }: Rules): Retention => {
  const given = [keepLast, keepDaily, keepWeekly, keepMonthly]
  if (given.every((rule) => rule === undefined)) return defaults.retention
  return {
    keepLast: keepLast ?? 0,
    keepDaily: keepDaily ?? 0,
    keepWeekly: keepWeekly ?? 0,
    keepMonthly: keepMonthly ?? 0
  }
}

/**
 * Removes backups that no rule keeps, of each database and of the server by itself. Kept whatever the rules say are the newest
 * good one, those that are being restored, and everything that is not a backup of this library. Rules that are not given
 * are off; where none is, `defaults.retention` holds. Returns what became of each.
 */
export const prune = (
  given: PruneOptions = {}
): Effect.Effect<ReadonlyArray<Decision>, PgError.InvalidOptionsError | errors.BackupFilesError, Requirements> =>
  Effect.gen(function* () {
    const { directory, dryRun, ...rules } = yield* validate.decode(pruneRule)(given)
    const entries = yield* store.list(directory)
    const candidates = yield* Effect.forEach(entries, ({ manifest, name, verified }) =>
      Effect.map(store.inUse(directory, name), (inUse) => ({
        name,
        subject: `${manifest.kind} ${subjectOf(manifest)} ${manifest.server.host}:${manifest.server.port}`,
        at: manifest.startedAt.getTime(),
        good: verified === undefined || verified.faults.length === 0,
        inUse
      }))
    )
    return yield* Effect.forEach(retention.decide(candidates, rulesOf(rules)), (decision) =>
      decision.keep || dryRun
        ? Effect.succeed(decision)
        : Effect.map(store.remove(directory, decision.name), (removed) =>
            removed ? decision : { ...decision, keep: true, reasons: ["in use"] }
          )
    )
  }).pipe(Effect.withSpan("Backup.prune"))

export interface CleanupOptions extends options.Place {
  /** Where scratch databases may have been left. Default: only files are looked at. */
  readonly url?: options.Common["url"] | undefined
  readonly maintenanceDatabase?: string | undefined
  readonly dryRun?: boolean | undefined
}

const cleanupRule = validate.struct(
  {
    ...options.place,
    url: validate.optional(options.common.url),
    maintenanceDatabase: validate.defaulted(options.identifier, defaults.maintenanceDatabase),
    dryRun: validate.defaulted(validate.boolean, false)
  },
  { exact: true }
)

export interface Cleaned {
  /** Files and directories that crashed runs left. */
  readonly files: store.Leftovers
  /** Scratch databases likewise. */
  readonly databases: store.Leftovers
}

/**
 * Removes what runs that were killed have left: unfinished backups, locks, scratch databases. What a living process is at
 * stays. `create` and `restore` need no cleanup before them, and it may be interrupted and run again.
 */
export const cleanup = (
  given: CleanupOptions = {}
): Effect.Effect<Cleaned, PgError.PgError | errors.BackupFilesError, Requirements> =>
  Effect.gen(function* () {
    const { directory, dryRun, maintenanceDatabase, url } = yield* validate.decode(cleanupRule)(given)
    return {
      files: yield* store.cleanup(directory, dryRun),
      databases:
        url === undefined
          ? { removed: [], kept: [] }
          : yield* database.on(targets.on(url, maintenanceDatabase), database.cleanup(dryRun))
    }
  }).pipe(Effect.withSpan("Backup.cleanup"))
