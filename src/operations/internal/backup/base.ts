/** A base backup: `pg_basebackup`, and what its own manifest says. */

import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as database from "./database.js"
import { BackupDamagedError, UnsupportedError } from "./errors.js"
import { type Base, format, nameOf } from "./manifest.js"
import { copiedOf, type Progress, said } from "./progress.js"
import * as store from "./store.js"
import * as targets from "./target.js"
import * as tools from "./tools.js"

export interface Options {
  readonly url: targets.Target
  readonly directory: string
  readonly binDirectory?: string | undefined
  readonly checkpoint: "fast" | "spread"
  readonly maintenanceDatabase: string
  readonly onProgress: (progress: Progress) => Effect.Effect<void>
}

export const dataPath = "data"

/** Of `backup_manifest`, what tells where recovery begins and ends. Source: manual, chapter 76. */
const OwnManifest = Schema.parseJson(
  Schema.Struct({
    "WAL-Ranges": Schema.NonEmptyArray(
      Schema.Struct({ Timeline: Schema.Int, "Start-LSN": Schema.String, "End-LSN": Schema.String })
    )
  })
)

/** How the server archives. */
export interface Archiving {
  /** `archive_mode`: on, always or off. */
  readonly mode: string
  /** The longest time that a commit may wait for its segment to be archived, in seconds; 0: until the segment is full. */
  readonly timeoutSeconds: number
  readonly archived: number
  readonly failed: number
  readonly lastArchivedAt: Date | null
  /** After the last success. */
  readonly failing: boolean
}

export const archiving = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql.unsafe<Archiving>(`
    SELECT current_setting('archive_mode') AS mode,
      (SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout') AS "timeoutSeconds",
      archived_count::int AS archived, failed_count::int AS failed, last_archived_time AS "lastArchivedAt",
      last_failed_time IS NOT NULL AND (last_archived_time IS NULL OR last_failed_time > last_archived_time) AS failing
    FROM pg_stat_archiver`)
  return row!
})

const facts = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql.unsafe<{ segmentBytes: number; tablespaces: ReadonlyArray<string> }>(`
    SELECT (SELECT (setting::bigint * CASE unit WHEN '8kB' THEN 8192 ELSE 1 END)::int FROM pg_settings WHERE name = 'wal_segment_size')
             AS "segmentBytes",
      array(SELECT spcname::text FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1) AS tablespaces`)
  return row!
})

export const damaged = (name: string, faults: ReadonlyArray<string>) =>
  new BackupDamagedError({
    message: `The base backup ${name} is not good: ${faults.slice(0, 3).join("; ")}. Use another one`,
    name,
    faults
  })

const serverTime = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql.unsafe<{ now: Date }>("SELECT clock_timestamp() AS now")
  return row!.now
})

/** Checks a data directory that was copied by `pg_basebackup`, file by file, and its WAL. */
export const verify = (data: string, major: number, binDirectory: string | undefined, name: string) =>
  Effect.gen(function* () {
    const tool = yield* tools.find("pg_verifybackup", {
      directory: binDirectory,
      fit: "same",
      needed: major,
      why: "to check this backup"
    })
    yield* tools.run(tool, ["--exit-on-error", data])
  }).pipe(Effect.catchTag("ToolFailedError", ({ output }) => Effect.fail(damaged(name, [output]))))

export const create = (options: Options) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    const fs = yield* FileSystem.FileSystem
    const { binDirectory, onProgress, url } = options
    const version = yield* database.version
    const major = database.major(version)
    const { segmentBytes, tablespaces } = yield* facts
    if (tablespaces.length > 0) {
      return yield* new UnsupportedError({
        message: `The server has tablespaces outside of its data directory (${tablespaces.join(", ")}), which base backups of this library do not hold: use pg_basebackup with --tablespace-mapping, or a logical backup`
      })
    }
    const tool = yield* tools.find("pg_basebackup", {
      directory: binDirectory,
      fit: "same",
      needed: major,
      why: "for this server"
    })
    const startedAt = new Date(yield* Clock.currentTimeMillis)
    const name = nameOf("base", startedAt)
    return yield* store
      .create(options.directory, name, (working) =>
        Effect.gen(function* () {
          const data = path.join(working, dataPath)
          yield* onProgress(said("copy", "waiting for a checkpoint"))
          const parameters = [
            `--pgdata=${data}`,
            ...["--format=plain", "--wal-method=stream", `--checkpoint=${options.checkpoint}`],
            ...["--manifest-checksums=SHA256", "--no-password", "--progress", "--verbose", `--label=${name}`]
          ]
          yield* tools.run(tool, parameters, {
            target: url,
            onLine: (line) => {
              const copied = copiedOf(line)
              return copied === undefined ? Effect.void : onProgress({ ...said("copy", ""), ...copied, unit: "bytes" })
            }
          })
          // By the clock that the targets of recoveries go by.
          const finishedAt = yield* serverTime
          yield* onProgress(said("verify", "every file against its checksum"))
          yield* verify(data, major, binDirectory, name)
          const own = path.join(data, "backup_manifest")
          const ranges = yield* Effect.flatMap(fs.readFileString(own), Schema.decode(OwnManifest)).pipe(
            Effect.catchTag("ParseError", (error) =>
              Effect.fail(damaged(name, [`its backup_manifest cannot be read (${error.message})`]))
            )
          )
          const { 0: first } = ranges["WAL-Ranges"]
          const last = ranges["WAL-Ranges"].at(-1)!
          yield* onProgress(said("publish", name))
          const bytes = (yield* store.walk(data)).reduce((sum, file) => sum + file.bytes, 0)
          return {
            format,
            version: 1,
            kind: "base",
            name,
            startedAt,
            finishedAt,
            server: { version, host: url.host, port: url.port },
            tool: tool.banner,
            toolVersion: tool.version,
            // It has the checksum of every other one.
            files: [
              {
                path: `${dataPath}/backup_manifest`,
                bytes: Number((yield* fs.stat(own)).size),
                sha256: yield* store.hash(own)
              }
            ],
            role: url.username,
            timeline: last.Timeline,
            startLsn: first["Start-LSN"],
            endLsn: last["End-LSN"],
            bytes,
            segmentBytes
          } satisfies Base
        })
      )
      .pipe(Effect.zipWith(archiving, (backup, archiving) => ({ ...backup, archiving })))
  }).pipe((self) => database.on(targets.on(options.url, options.maintenanceDatabase), self))
