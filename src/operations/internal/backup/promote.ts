/** The recovering server: started on a data directory, listened to until it has been promoted, and stopped. */

import process from "node:process"
import * as Command from "@effect/platform/Command"
import * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Pg from "pg"
import * as archive from "./archive.js"
import { files, RecoveryFailedError, TargetTooEarlyError, ToolFailedError, WalMissingError } from "./errors.js"
import type { Base } from "./manifest.js"
import { type Progress, said } from "./progress.js"
import * as recovery from "./recovery.js"
import * as tools from "./tools.js"

export interface Options {
  readonly directory: string
  readonly name: string
  readonly archive: ReadonlyArray<string>
  readonly dataDirectory: string
  readonly target: recovery.Target
  /** Of a target in time. */
  readonly time: Date | undefined
  readonly timeline: number | "latest" | "current"
  readonly port?: number | undefined
  readonly account: string
  readonly binDirectory?: string | undefined
  readonly onProgress: (progress: Progress) => Effect.Effect<void>
}

/** PostgreSQL refuses to run as root: root runs it under another account. */
export const prefixOf = (account: string): ReadonlyArray<string> =>
  process.getuid?.() === 0 ? ["setpriv", `--reuid=${account}`, `--regid=${account}`, "--init-groups", "--"] : []

/** Gives what was written to that account. */
export const own = (account: string, directory: string) =>
  process.getuid?.() === 0 ? tools.run({ name: "chown", path: "chown" }, ["-R", `${account}:`, directory]) : Effect.void

const lastLines = (log: ReadonlyArray<string>) => log.slice(-15).join("\n")

const failure = (said_: recovery.Said, log: ReadonlyArray<string>, options: Options, name: string) => {
  const wanted = recovery.describeTarget(options.target)
  const where = [
    said_.segment === undefined ? "" : `the last segment found was ${said_.segment}`,
    said_.lastTransaction === undefined ? "" : `the last transaction was of ${said_.lastTransaction}`
  ].filter((text) => text !== "")
  switch (recovery.ending(said_)) {
    case "tooEarly":
      return new TargetTooEarlyError({
        message: `${wanted} lies before the end of the base backup ${name}: take an older base backup, or a later target`,
        name
      })
    case "walMissing":
      return new WalMissingError({
        message: `The WAL ended before ${wanted}${where.length === 0 ? "" : ` (${where.join(", ")})`}: look for later segments in the lost server's pg_wal and give that directory too (--pg-wal), or recover to an earlier target or to the latest${
          typeof options.target === "object" && "restorePoint" in options.target
            ? "; a base backup that is newer than the restore point cannot reach it, then name an older one"
            : ""
        }`,
        segment: undefined
      })
    case "failed":
      return new RecoveryFailedError({
        message: `The recovering server ended: ${said_.fatal ?? log.at(-1) ?? "it said nothing"}`,
        log: lastLines(log)
      })
  }
}

interface Row {
  readonly recovering: boolean
  readonly timeline: number
  readonly last: Date | null
}

/** One statement over the private socket. */
const ask = (socket: string, role: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const client = new Pg.Client({
        host: socket,
        port: 5432,
        user: role,
        database: "postgres",
        connectionTimeoutMillis: 5_000
      })
      client.on("error", () => {}) // the query's own failure tells
      return client
    }),
    (client) =>
      Effect.tryPromise(async () => {
        await client.connect()
        const { rows } = await client.query<Row>(
          `SELECT pg_is_in_recovery() AS recovering, timeline_id AS timeline, pg_last_xact_replay_timestamp() AS last
           FROM pg_control_checkpoint()`
        )
        return rows[0]!
      }),
    (client) => Effect.ignore(Effect.tryPromise(() => client.end()))
  )

/** Runs the server until it has been promoted, then stops it. */
export const promote = (
  working: string,
  postgres: tools.Tool,
  options: Options,
  entry: { name: string; manifest: Base }
) =>
  Effect.gen(function* () {
    const executor = yield* CommandExecutor.CommandExecutor
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const { account, onProgress, target, timeline } = options
    // In the system's temporary directory, as a socket's path may have 107 bytes.
    const privately = yield* fs.makeTempDirectoryScoped({ prefix: "recover-" })
    const hba = path.join(privately, "pg_hba.conf")
    yield* fs.writeFileString(hba, "local all all trust\n", { mode: 0o600 })
    yield* own(account, privately)
    const given: ReadonlyArray<readonly [string, string]> = [
      ...recovery.settings(target, timeline),
      ["restore_command", archive.restoreCommand(options.archive)],
      ["listen_addresses", ""],
      ["unix_socket_directories", privately],
      ["port", "5432"],
      ["hba_file", hba],
      ["ssl", "off"],
      ["archive_mode", "off"],
      // Nobody looks in, so the settings of the lost machine need not be matched.
      ["hot_standby", "off"],
      ["external_pid_file", ""],
      ["logging_collector", "off"],
      ["log_destination", "stderr"],
      ["log_line_prefix", ""],
      ["log_min_messages", "warning"],
      ["lc_messages", "C"],
      ["log_timezone", "UTC"]
    ]
    const [program, ...words] = [
      ...prefixOf(account),
      postgres.path,
      "-D",
      working,
      ...given.flatMap(([name, value]) => ["-c", `${name}=${value}`])
    ]
    const failed = (error: { readonly message: string }) =>
      new ToolFailedError({
        message: `postgres could not be run: ${error.message}`,
        tool: "postgres",
        exitCode: undefined,
        output: error.message
      })
    const child = yield* Effect.mapError(
      executor.start(
        Command.make(program!, ...words).pipe(
          Command.env(tools.environment(), { extendEnv: false }),
          Command.stdin(Stream.empty)
        )
      ),
      failed
    )
    // Before the scope would: a smart shutdown waits for clients, a fast one does not.
    const stop = Effect.ignore(Effect.whenEffect(child.kill("SIGINT"), child.isRunning))
    yield* Effect.addFinalizer(() => stop)

    const log: Array<string> = []
    let heard = recovery.nothingSaid
    const ready = yield* Deferred.make<void>()
    const listening = Stream.decodeText(child.stderr).pipe(
      Stream.splitLines,
      Stream.runForEach((line) =>
        Effect.gen(function* () {
          log.push(line)
          if (log.length > 200) log.shift()
          const before = heard
          heard = recovery.hear(heard, line)
          if (heard.segment !== before.segment) yield* onProgress(said("recover", `segment ${heard.segment}`))
          if (/database system is ready to accept connections/.test(line)) yield* Deferred.succeed(ready, void 0)
        })
      ),
      Effect.mapError(failed)
    )
    const ended = Effect.flatMap(listening, () =>
      Effect.suspend(() => Effect.fail(failure(heard, log, options, entry.name)))
    )
    const promoted = Effect.zipRight(
      Deferred.await(ready),
      Effect.mapError(
        ask(privately, entry.manifest.role),
        (error) =>
          new RecoveryFailedError({
            message: `The recovered server cannot be asked: ${error.cause instanceof Error ? error.cause.message : String(error.cause)}`,
            log: lastLines(log)
          })
      )
    )
    const row = yield* Effect.raceFirst(promoted, ended)
    if (row.recovering) {
      return yield* new RecoveryFailedError({ message: "The server is up, but still recovers", log: lastLines(log) })
    }
    yield* onProgress(said("recover", `promoted, timeline ${row.timeline}`))
    yield* stop
    return { ...row, stopped: heard.stopping }
  }).pipe(Effect.scoped, files("write", options.dataDirectory))
