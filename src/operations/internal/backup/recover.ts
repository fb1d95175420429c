/**
 * A base backup and the WAL after it, made into a data directory: copied, recovered, stopped, and only then given its name.
 * The recovering server is reachable by nobody: no network, a socket in a directory of our own, no archiving.
 */

import process from "node:process"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as base from "./base.js"
import * as database from "./database.js"
import {
  AlreadyExistsError,
  files,
  RecoveryFailedError,
  TargetTooEarlyError,
  UnsupportedError,
  WalMissingError
} from "./errors.js"
import * as lock from "./lock.js"
import type { Base } from "./manifest.js"
import { said } from "./progress.js"
import { type Options, own, prefixOf, promote } from "./promote.js"
import * as recovery from "./recovery.js"
import * as store from "./store.js"
import * as tools from "./tools.js"
import * as wal from "./wal.js"

export interface Recovered {
  readonly backup: string
  readonly dataDirectory: string
  /** Where the server listens on this machine, if it was asked to start. */
  readonly port: number | undefined
  /** The timeline that the recovery began, as each one does. */
  readonly timeline: number
  /** Commit time of the last transaction that was recovered, by the server's clock; null: none after the base backup. */
  readonly lastTransactionAt: Date | null
  /** Where it stopped, in the server's words; undefined: at the end of the WAL. */
  readonly stopped: string | undefined
  /** From the first step to the end of recovery, in seconds; `copy` of them for the copy. */
  readonly seconds: number
  readonly copySeconds: number
}

export const isBase = (entry: store.Entry): boolean => entry.manifest.kind === "base"

/** Refuses what cannot end well, before anything is copied. */
const plan = ({ archive, target, time }: Options, { manifest, name }: { name: string; manifest: Base }) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    if (!recovery.reaches(manifest, target, time)) {
      return yield* new TargetTooEarlyError({
        message: `The base backup ${name} ends at ${manifest.finishedAt.toISOString()} (${manifest.endLsn}), after ${recovery.describeTarget(target)}: take an older base backup, or a later target`,
        name
      })
    }
    if (target === "immediate") return
    const names = yield* Effect.forEach(archive, (directory) =>
      fs.readDirectory(directory).pipe(files("read the archive", directory))
    )
    const bytes = manifest.segmentBytes
    const segment = (lsn: string) =>
      wal.segmentOf(
        Option.getOrElse(wal.position(lsn), () => 0n),
        bytes
      )
    const upTo = typeof target === "object" && "lsn" in target ? segment(target.lsn) : undefined
    // A target in time may lie before a gap: the server finds out.
    if (typeof target === "object" && !("lsn" in target)) return
    const missing = wal.gap(names.flat(), { timeline: manifest.timeline, from: segment(manifest.endLsn), upTo, bytes })
    if (missing !== undefined) {
      return yield* new WalMissingError({
        message: `The WAL segment ${missing} is missing in ${archive.join(", ") || "the archive, of which none was given"}, which ${recovery.describeTarget(target)} needs: look for it in the lost server's pg_wal and give that directory too (--pg-wal), or take a target before it`,
        segment: missing
      })
    }
  })

/** The directory that is worked in, under a lock. What a run that is gone has left, its server included, is cleared away. */
const workplace = (options: Options, pgCtl: tools.Tool) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { account, dataDirectory } = options
    const exists = yield* fs.exists(dataDirectory)
    if (exists && (yield* fs.readDirectory(dataDirectory)).length > 0) {
      return yield* new AlreadyExistsError({
        message: `The data directory ${dataDirectory} exists and is not empty: name another one, or move it away`,
        what: dataDirectory
      })
    }
    const working = `${dataDirectory}.partial`
    const lockFile = `${working}.lock`
    if (yield* lock.alive(lockFile)) {
      return yield* new AlreadyExistsError({
        message: `Another recovery is writing ${dataDirectory}: wait for it, or name another data directory`,
        what: dataDirectory
      })
    }
    yield* fs.remove(lockFile, { force: true })
    yield* lock.acquire(lockFile)
    if (yield* fs.exists(working)) {
      // It fails where no server runs, as it should be.
      yield* Effect.ignore(
        tools.run(pgCtl, ["stop", "-w", "-m", "immediate", "-D", working], { prefix: prefixOf(account) })
      )
      yield* fs.remove(working, { recursive: true })
    }
    yield* Effect.acquireRelease(fs.makeDirectory(working, { mode: 0o700 }), () =>
      Effect.catchAll(fs.remove(working, { recursive: true, force: true }), (error) =>
        Effect.logWarning(`${working} could not be removed: remove it by hand (${error.message})`)
      )
    )
    return working
  }).pipe(files("write", options.dataDirectory))

/** Files that PostgreSQL needs and a base backup may lack. */
const complete = (working: string, controlData: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const missing = (name: string, content: string) =>
      Effect.unlessEffect(
        fs.writeFileString(path.join(working, name), content, { mode: 0o600 }),
        fs.exists(path.join(working, name))
      )
    yield* missing("postgresql.conf", recovery.plainConfiguration(controlData))
    yield* missing("pg_hba.conf", recovery.plainAuthentication)
    yield* missing("pg_ident.conf", "")
    yield* fs.writeFileString(path.join(working, "recovery.signal"), "", { mode: 0o600 })
  }).pipe(files("write", working))

export const recover = (options: Options) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const { account, dataDirectory, onProgress, port } = options
    const began = yield* Clock.currentTimeMillis
    const reaching = (entry: store.Entry) =>
      entry.manifest.kind === "base" &&
      (options.name !== "latest" || recovery.reaches(entry.manifest, options.target, options.time))
    const what =
      options.name === "latest"
        ? `base backup that ends before ${recovery.describeTarget(options.target)}`
        : "base backup"
    const { manifest, name, path: at } = yield* store.use(options.directory, options.name, reaching, what)
    const entry = { name, manifest: manifest as Base }
    yield* plan(options, entry)
    if (process.getuid?.() === 0) {
      yield* Effect.mapError(
        tools.run({ name: "setpriv", path: "id" }, ["-u", account]),
        () =>
          new UnsupportedError({
            message: `PostgreSQL does not run as root, and there is no account ${account} to run it under: name one with --account, or run this as the account of the server`
          })
      )
    }
    const major = database.major(entry.manifest.server.version)
    const needed = { directory: options.binDirectory, fit: "same", needed: major, why: "for this backup" } as const
    const postgres = yield* tools.find("postgres", needed)
    const pgCtl = yield* tools.find("pg_ctl", needed)
    const pgControlData = yield* tools.find("pg_controldata", needed)
    const faults = yield* store.check({ name, path: at, manifest: entry.manifest, verified: undefined, bytes: 0 })
    if (faults.length > 0) yield* Effect.fail(base.damaged(name, faults))

    const done = yield* Effect.scoped(
      Effect.gen(function* () {
        const working = yield* workplace(options, pgCtl)
        yield* onProgress(said("copy", `${name} to ${dataDirectory}`))
        yield* tools.run({ name: "cp", path: "cp" }, ["-a", `${path.join(at, base.dataPath)}/.`, working])
        const copied = yield* Clock.currentTimeMillis
        yield* onProgress(said("verify", "every file against its checksum"))
        yield* base.verify(working, major, options.binDirectory, name)
        yield* complete(working, yield* tools.run(pgControlData, ["-D", working]))
        yield* own(account, working)
        yield* fs.chmod(working, 0o700).pipe(files("write", working))
        yield* onProgress(said("recover", `to ${recovery.describeTarget(options.target)}`))
        const row = yield* promote(working, postgres, options, entry)
        yield* Effect.gen(function* () {
          if (yield* fs.exists(dataDirectory)) yield* fs.remove(dataDirectory) // it is empty
          yield* fs.rename(working, dataDirectory)
          yield* store.sync(path.dirname(dataDirectory))
        }).pipe(Effect.uninterruptible, files("write", dataDirectory))
        return { ...row, copied }
      })
    )
    const finished = yield* Clock.currentTimeMillis
    if (port !== undefined) {
      const log = path.join(dataDirectory, "recovered.log")
      const settings = `-p ${port} -c listen_addresses=localhost -c archive_mode=off`
      yield* tools
        .run(pgCtl, ["start", "-w", "-D", dataDirectory, "-l", log, "-o", settings], { prefix: prefixOf(account) })
        .pipe(
          Effect.mapError(
            ({ output }) =>
              new RecoveryFailedError({
                message: `${dataDirectory} is recovered, but the server does not start on port ${port}: ${output}. Its log is ${log}`,
                log: output
              })
          )
        )
    }
    return {
      backup: name,
      dataDirectory,
      port,
      timeline: done.timeline,
      lastTransactionAt: done.last,
      stopped: done.stopped,
      seconds: (finished - began) / 1000,
      copySeconds: (done.copied - began) / 1000
    } satisfies Recovered
  }).pipe(Effect.scoped)

/** Into a directory that goes again, as early as possible: that the server starts is what is tried. */
export const rehearse = (
  options: Pick<Options, "directory" | "name" | "account" | "binDirectory" | "onProgress"> & {
    readonly scratchDirectory?: string | undefined
  }
) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const { scratchDirectory, ...rest } = options
    const parent = yield* fs
      .makeTempDirectoryScoped({
        prefix: "verify-",
        ...(scratchDirectory === undefined ? {} : { directory: scratchDirectory })
      })
      .pipe(
        // the server's account has to get through it
        Effect.tap((at) => fs.chmod(at, 0o755)),
        files("write", scratchDirectory ?? "the temporary directory")
      )
    const entry = yield* store.find(options.directory, options.name, isBase, "base backup")
    const mark = (faults: ReadonlyArray<string>, seconds: number) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        store.markVerified(entry, { at: new Date(now), faults, seconds })
      )
    return yield* recover({
      ...rest,
      name: entry.name,
      dataDirectory: path.join(parent, "data"),
      target: "immediate",
      time: undefined,
      archive: [],
      timeline: "current"
    }).pipe(
      Effect.tap(({ seconds }) => mark([], seconds)),
      Effect.tapErrorTag("BackupDamagedError", ({ faults }) => mark(faults, 0))
    )
  }).pipe(Effect.scoped)
