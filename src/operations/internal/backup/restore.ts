/** A logical backup, restored into a scratch database and compared with its manifest; then named, or dropped. */

import * as Path from "@effect/platform/Path"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Transaction from "../../../client/Transaction.js"
import * as content from "./content.js"
import * as database from "./database.js"
import { BackupDamagedError, ToolFailedError } from "./errors.js"
import type { Logical } from "./manifest.js"
import { type Progress, said, tableOf } from "./progress.js"
import * as store from "./store.js"
import * as targets from "./target.js"
import * as tools from "./tools.js"

export interface Options {
  readonly url: targets.Target
  readonly directory: string
  readonly binDirectory?: string | undefined
  readonly jobs: number
  readonly maintenanceDatabase: string
  readonly onProgress: (progress: Progress) => Effect.Effect<void>
}

export interface LogicalEntry extends store.Entry {
  readonly manifest: Logical
}

/** `latest` is the newest one of the URL's database: a directory may hold those of several. */
const wantedBy =
  (name: string, database: string) =>
  (entry: store.Entry): boolean =>
    isLogical(entry) && (name !== "latest" || entry.manifest.database.name === database)

export const isLogical = (entry: store.Entry): entry is LogicalEntry => entry.manifest.kind === "logical"

const damaged = (name: string, faults: ReadonlyArray<string>) => {
  const more = faults.length > 3 ? `, and ${faults.length - 3} more` : ""
  return new BackupDamagedError({
    message: `The backup ${name} is not good: ${faults.slice(0, 3).join("; ")}${more}. Use another one`,
    name,
    faults
  })
}

/** What is in the database that the client is connected to, by the same means as when it was backed up. */
const described = (checksums: boolean, onProgress: Options["onProgress"]) =>
  Effect.gen(function* () {
    yield* content.settle
    const sequences = yield* content.sequences
    return {
      content: yield* content.describe(sequences, checksums, onProgress),
      invalidIndexes: yield* content.invalidIndexes
    }
  }).pipe((body) =>
    Transaction.run(body, {
      name: "backup-compare",
      isolation: "repeatable read",
      readOnly: true,
      timeout: "infinity",
      retry: false
    })
  )

const hint = (error: ToolFailedError) =>
  /role ".*" does not exist|must be member of role|must be able to SET ROLE/.test(error.output)
    ? new ToolFailedError({
        tool: error.tool,
        exitCode: error.exitCode,
        output: error.output,
        message: `${error.message}. Make the roles first, from the backup's globals.sql, and restore as a superuser; or restore without owners (--no-owners)`
      })
    : error

const restored = (entry: LogicalEntry, scratch: string, owners: boolean, options: Options) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    const { manifest } = entry
    const { binDirectory, jobs, onProgress, url } = options
    yield* onProgress(said("verify", `${manifest.files.length} files`))
    const broken = yield* store.check(entry)
    if (broken.length > 0) return broken
    const tool = yield* tools.find("pg_restore", {
      directory: binDirectory,
      fit: "atLeast",
      needed: manifest.toolVersion,
      why: "to read this backup"
    })
    const target = targets.on(url, scratch)
    let done = 0
    const total = manifest.content.tables.length
    const parameters = [
      `--dbname=${scratch}`,
      ...["--exit-on-error", "--no-password", "--verbose", `--jobs=${jobs}`],
      ...(owners ? [] : ["--no-owner", "--no-privileges", "--no-subscriptions"]),
      path.join(entry.path, manifest.dump.path)
    ]
    yield* tools
      .run(tool, parameters, {
        target,
        onLine: (line) => {
          const table = tableOf(line)
          if (table === undefined) return Effect.void
          return onProgress({ ...said("restore", table), done: ++done, total, unit: "tables" })
        }
      })
      .pipe(Effect.mapError(hint))
    const checksums = manifest.content.tables.some(({ checksum }) => checksum !== undefined)
    // Its connections are closed before the database is renamed or dropped.
    const found = yield* database.on(
      target,
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* onProgress(said("compare", "statistics"))
        // Without it the first queries on a restored database have plans for empty tables.
        yield* sql.unsafe("ANALYZE")
        return yield* described(checksums, onProgress)
      })
    )
    return content.compare(manifest.content, found.content, found.invalidIndexes)
  })

/**
 * Restores into a scratch database and compares; then `finish` may give it a name, and what still has the scratch name is
 * dropped. A backup that turns out bad is marked so, and fails with `BackupDamagedError`.
 */
export const rehearse = <A, E, R>(
  name: string,
  owners: boolean,
  options: Options,
  before: Effect.Effect<void, E, R>,
  finish: (scratch: string, entry: LogicalEntry, now: Date) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function* () {
    const began = yield* Clock.currentTimeMillis
    const entry = (yield* store.use(
      options.directory,
      name,
      wantedBy(name, options.url.database),
      name === "latest" ? `logical backup of the database ${options.url.database}` : "logical backup"
    )) as LogicalEntry
    yield* before
    const scratch = yield* database.scratch(entry.manifest.database, new Date(began))
    const faults = yield* restored(entry, scratch, owners, options)
    const now = new Date(yield* Clock.currentTimeMillis)
    const seconds = (now.getTime() - began) / 1000
    yield* store.markVerified(entry, { at: now, faults, seconds })
    if (faults.length > 0) return yield* damaged(entry.name, faults)
    return { entry, seconds, result: yield* finish(scratch, entry, now) }
  }).pipe(Effect.scoped, (self) => database.on(targets.on(options.url, options.maintenanceDatabase), self))
