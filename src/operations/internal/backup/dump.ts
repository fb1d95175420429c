/** A logical backup: `pg_dump` on a snapshot that we hold, and what that snapshot shows. */

import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Transaction from "../../../client/Transaction.js"
import * as content from "./content.js"
import * as database from "./database.js"
import { format, type Logical, nameOf } from "./manifest.js"
import { type Progress, said, tableOf } from "./progress.js"
import * as store from "./store.js"
import type { Target } from "./target.js"
import * as tools from "./tools.js"

interface Options {
  readonly url: Target
  readonly directory: string
  readonly binDirectory?: string | undefined
  readonly format: "custom" | "directory"
  readonly jobs: number
  readonly compress?: number | undefined
  readonly checksums: boolean
  readonly lockTimeout: number
  readonly onProgress: (progress: Progress) => Effect.Effect<void>
}

const parameters = ({ compress, format, jobs, lockTimeout }: Options, snapshot: string, file: string) => [
  `--format=${format}`,
  ...(format === "directory" ? [`--jobs=${jobs}`] : []),
  ...(compress === undefined ? [] : [`--compress=${compress}`]),
  `--snapshot=${snapshot}`,
  `--lock-wait-timeout=${lockTimeout}`,
  `--file=${file}`,
  "--no-password",
  "--verbose"
]

/** A name with `=` in it would be read as a connection string, so it is made one. Source: manual, 34.1.1.1. */
export const conninfo = (database: string): string => `dbname='${database.replaceAll(/[\\']/g, "\\$&")}'`

const facts = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql.unsafe<{ snapshot: string; lsn: string; tables: number }>(`
    SELECT pg_export_snapshot() AS snapshot,
      (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS lsn,
      (SELECT count(*)::int FROM pg_class WHERE relkind = 'r' AND relpersistence <> 't'
       AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema')) AS tables`)
  return row!
})

export const create = (options: Options) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    const fs = yield* FileSystem.FileSystem
    const { binDirectory: directory, onProgress, url } = options
    const version = yield* database.version
    const needed = { directory, fit: "atLeast", needed: database.major(version), why: "for this server" } as const
    const pgDump = yield* tools.find("pg_dump", needed)
    const pgDumpAll = yield* tools.find("pg_dumpall", needed)
    const startedAt = new Date(yield* Clock.currentTimeMillis)
    const name = nameOf(url.database, startedAt)
    const dumpPath = options.format === "custom" ? "dump.custom" : "dump"

    const write = (working: string) =>
      Effect.gen(function* () {
        yield* content.settle
        // The first statement of the transaction that needs a snapshot takes the one that is exported.
        const { lsn, snapshot, tables } = yield* facts
        const sequences = yield* content.sequences
        let done = 0
        const dump = tools.run(pgDump, parameters(options, snapshot, path.join(working, dumpPath)), {
          target: url,
          onLine: (line) => {
            const table = tableOf(line)
            if (table === undefined) return Effect.void
            return onProgress({ ...said("dump", table), done: ++done, total: tables, unit: "tables" })
          }
        })
        const described = content.describe(sequences, options.checksums, onProgress)
        const [, found, properties] = yield* Effect.all([dump, described, content.database], { concurrency: 2 })
        return { content: found, database: properties, lsn }
      }).pipe((body) =>
        Transaction.run(body, {
          name: "backup-snapshot",
          isolation: "repeatable read",
          readOnly: true,
          timeout: "infinity",
          retry: false
        })
      )

    return yield* store.create(options.directory, name, (working) =>
      Effect.gen(function* () {
        const found = yield* write(working)
        yield* onProgress(said("globals", "roles and tablespaces, without passwords"))
        const globals = [
          "--globals-only",
          "--no-role-passwords",
          "--no-password",
          `--database=${conninfo(url.database)}`
        ]
        const written = yield* tools.run(pgDumpAll, globals, { target: url })
        yield* fs.writeFileString(path.join(working, "globals.sql"), written, { mode: 0o600 })
        yield* onProgress(said("publish", name))
        return {
          format,
          version: 1,
          kind: "logical",
          name,
          startedAt,
          finishedAt: new Date(yield* Clock.currentTimeMillis),
          server: { version, host: url.host, port: url.port },
          tool: pgDump.banner,
          toolVersion: pgDump.version,
          dump: { format: options.format, path: dumpPath },
          files: yield* store.inventory(working),
          ...found
        } satisfies Logical
      })
    )
  }).pipe((self) => database.on(options.url, self))
