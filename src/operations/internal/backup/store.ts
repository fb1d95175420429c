/**
 * A directory of backups.
 *
 * `<name>/` is a whole backup: its manifest, its files, all on disk. What is being written or removed is `.partial-<name>/`,
 * beside `.partial-<name>.lock` by which one sees whether somebody is still at it; `.using-<name>-<id>.lock` keeps a backup
 * that is being restored from being removed. A backup enters and leaves the list by one `rename`, so there is no half of one.
 */

import { createHash } from "node:crypto"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { BackupNotFoundError, files } from "./errors.js"
import * as lock from "./lock.js"
import * as manifests from "./manifest.js"

const partial = (name: string) => `.partial-${name}`
const lockOf = (name: string) => `${partial(name)}.lock`
const using = (name: string, id: string) => `.using-${name}-${id}.lock`

export const manifestFile = "manifest.json"
export const verifiedFile = "verified.json"

/** A backup that is there. */
export interface Entry {
  readonly name: string
  readonly path: string
  readonly manifest: manifests.Manifest
  /** The last time that somebody restored it to see whether it is good. */
  readonly verified: manifests.Verified | undefined
  /** Of all its files. */
  readonly bytes: number
}

/** All files below a directory, relative to it, sorted. Links are not followed. */
export const walk = (directory: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const names = yield* fs.readDirectory(directory, { recursive: true })
    const found: Array<{ readonly path: string; readonly bytes: number }> = []
    for (const name of names.sort()) {
      const info = yield* fs.stat(path.join(directory, name))
      if (info.type === "File") found.push({ path: name, bytes: Number(info.size) })
    }
    return found
  })

/** SHA-256 of a file, in hexadecimal. */
export const hash = (file: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const sum = createHash("sha256")
    yield* Stream.runForEach(fs.stream(file, { chunkSize: 256 * 1024 }), (chunk) =>
      Effect.sync(() => sum.update(chunk))
    )
    return sum.digest("hex")
  })

/** To the disk: what a file, or the list of a directory, holds. */
export const sync = (file: string) =>
  Effect.scoped(
    Effect.flatMap(FileSystem.FileSystem, (fs) => Effect.flatMap(fs.open(file, { flag: "r" }), (_) => _.sync))
  )

/** All files of a directory, each with its sum. */
export const inventory = (directory: string) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    const found = yield* walk(directory)
    return yield* Effect.forEach(found, (file) =>
      Effect.map(hash(path.join(directory, file.path)), (sha256) => ({ ...file, sha256 }))
    )
  })

/** What differs from the manifest, in words: a file that is missing, shorter, changed. */
export const check = (entry: Entry) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const faults: Array<string> = []
    for (const file of entry.manifest.files) {
      const at = path.join(entry.path, file.path)
      if (!(yield* fs.exists(at))) faults.push(`file ${file.path} is missing`)
      else if (Number((yield* fs.stat(at)).size) !== file.bytes) faults.push(`file ${file.path} has another size`)
      else if ((yield* hash(at)) !== file.sha256) faults.push(`file ${file.path} has another checksum`)
    }
    return faults
  }).pipe(files("read", entry.path))

/** Writes a file so that it is there with all of its content, or not at all, whenever the machine stops. */
export const writeWhole = (file: string, content: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const temporary = path.join(path.dirname(file), `.${path.basename(file)}.partial`)
    yield* fs.writeFileString(temporary, content, { mode: 0o600 })
    yield* sync(temporary)
    yield* fs.rename(temporary, file)
    yield* sync(path.dirname(file))
  })

/** The directory, made for this account alone where it is missing: backups hold everything that the database holds. */
const ensure = (directory: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) =>
    Effect.unlessEffect(fs.makeDirectory(directory, { recursive: true, mode: 0o700 }), fs.exists(directory))
  )

/**
 * Writes a backup: `write` fills the directory that it is given and returns the manifest, then all of it goes to the disk
 * and gets its name. Whatever else happens, an interruption included, nothing is left.
 */
export const create = <M extends manifests.Manifest, E, R>(
  directory: string,
  name: string,
  write: (path: string) => Effect.Effect<M, E, R>
) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    yield* ensure(directory)
    const working = path.join(directory, partial(name))
    const final = path.join(directory, name)
    yield* lock.acquire(path.join(directory, lockOf(name)))
    return yield* Effect.acquireUseRelease(
      fs.makeDirectory(working, { mode: 0o700 }),
      () =>
        Effect.gen(function* () {
          const manifest = yield* write(working)
          for (const file of yield* walk(working)) yield* sync(path.join(working, file.path))
          // made by us, so it can be written
          yield* writeWhole(path.join(working, manifestFile), yield* Effect.orDie(manifests.encode(manifest)))
          for (const child of yield* fs.readDirectory(working)) {
            const at = path.join(working, child)
            if ((yield* fs.stat(at)).type === "Directory") yield* sync(at)
          }
          // The name and what it stands for come together, or neither does.
          yield* Effect.uninterruptible(fs.rename(working, final))
          yield* sync(directory)
          return { name, path: final, manifest }
        }),
      (_, exit) =>
        Exit.isSuccess(exit)
          ? Effect.void
          : Effect.catchAll(fs.remove(working, { recursive: true, force: true }), (error) =>
              Effect.logWarning(`${working} could not be removed; the next cleanup will (${error.message})`)
            )
    )
  }).pipe(Effect.scoped, files("write", directory))

const entry = (directory: string, name: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const at = path.join(directory, name)
    const read = (file: string) => Effect.option(fs.readFileString(path.join(at, file)))
    const text = yield* read(manifestFile)
    if (Option.isNone(text)) return Option.none<Entry>()
    const manifest = yield* Effect.either(manifests.decode(text.value))
    // Somebody else's manifest, or a copy under another name: none of ours.
    if (Either.isLeft(manifest) || manifest.right.name !== name) return Option.none<Entry>()
    const verified = yield* read(verifiedFile).pipe(
      Effect.flatten,
      Effect.flatMap(manifests.decodeVerified),
      Effect.option
    )
    const { right } = manifest
    const bytes = right.kind === "base" ? right.bytes : right.files.reduce((sum, file) => sum + file.bytes, 0)
    return Option.some<Entry>({ name, path: at, manifest: right, verified: Option.getOrUndefined(verified), bytes })
  })

/** The backups, oldest first. A directory that is not there has none. */
export const list = (directory: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    if (!(yield* fs.exists(directory))) return []
    const names = (yield* fs.readDirectory(directory)).filter((name) => !name.startsWith("."))
    const found = yield* Effect.forEach(names, (name) => entry(directory, name))
    return found
      .flatMap((_) => (Option.isSome(_) ? [_.value] : []))
      .sort((a, b) => a.manifest.startedAt.getTime() - b.manifest.startedAt.getTime())
  }).pipe(files("read", directory))

/** One by its name, or the newest of those that `wanted` is true of for `latest`. */
export const find = (
  directory: string,
  name: string,
  wanted: (entry: Entry) => boolean = () => true,
  what = "backup"
) =>
  Effect.gen(function* () {
    const all = yield* list(directory)
    const found = name === "latest" ? all.filter(wanted).at(-1) : all.find((_) => _.name === name)
    if (found !== undefined && wanted(found)) return found
    const names = all.filter(wanted).map((_) => _.name)
    return yield* new BackupNotFoundError({
      message: `There is no ${what} ${name === "latest" ? "" : `${name} `}in ${directory}: ${
        names.length === 0 ? "it holds none" : `it holds ${names.slice(-5).join(", ")}`
      }`,
      name,
      directory
    })
  })

/** Finds a backup, and keeps it from being removed until the scope closes. */
export const use = (directory: string, name: string, wanted?: (entry: Entry) => boolean, what?: string) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    const { name: found } = yield* find(directory, name, wanted, what)
    // First the lock, then a second look: a removal does it the other way round, and one of both sees the other.
    yield* lock.acquire(path.join(directory, using(found, crypto.randomUUID()))).pipe(files("write", directory))
    return yield* find(directory, found, wanted, what)
  })

/** Whether somebody restores it at this moment. */
export const inUse = (directory: string, name: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const locks = (yield* fs.readDirectory(directory)).filter((_) => _.startsWith(`.using-${name}-`))
    return yield* Effect.exists(locks, (_) => lock.alive(path.join(directory, _)))
  }).pipe(files("read", directory))

/** Removes a backup; false where it has come into use. */
export const remove = (directory: string, name: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const working = path.join(directory, partial(name))
    const final = path.join(directory, name)
    yield* lock.acquire(path.join(directory, lockOf(name)))
    const taken = yield* Effect.uninterruptible(
      Effect.gen(function* () {
        yield* fs.rename(final, working)
        const busy = yield* inUse(directory, name)
        if (busy) yield* fs.rename(working, final)
        return busy
      })
    )
    if (!taken) yield* fs.remove(working, { recursive: true })
    yield* sync(directory)
    return !taken
  }).pipe(Effect.scoped, files("remove", directory))

/** Keeps how a rehearsal ended beside the backup. */
export const markVerified = (entry: Entry, verified: manifests.Verified) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    yield* writeWhole(path.join(entry.path, verifiedFile), yield* Effect.orDie(manifests.encodeVerified(verified)))
  }).pipe(files("write", entry.path))

/** What was left by processes that are gone, and what still is somebody's. */
export interface Leftovers {
  readonly removed: ReadonlyArray<string>
  /** Being written or used by a living process. */
  readonly kept: ReadonlyArray<string>
}

/** Removes what crashed runs left. Interrupted, it may simply be run again: each directory goes before its lock. */
export const cleanup = (directory: string, dryRun: boolean) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const removed: Array<string> = []
    const kept: Array<string> = []
    if (!(yield* fs.exists(directory))) return { removed, kept }
    const names = (yield* fs.readDirectory(directory)).sort()
    const locks = names.filter((_) => /^\.(partial|using)-.+\.lock$/.test(_))
    const orphans = names.filter(
      (_) => _.startsWith(".partial-") && !_.endsWith(".lock") && !locks.includes(`${_}.lock`)
    )
    for (const name of [...orphans, ...locks]) {
      const isLock = name.endsWith(".lock")
      if (isLock && (yield* lock.alive(path.join(directory, name)))) {
        kept.push(name)
        continue
      }
      const work = name.startsWith(".partial-") && isLock ? [name.slice(0, -".lock".length), name] : [name]
      for (const one of work) {
        if (!(yield* fs.exists(path.join(directory, one)))) continue
        if (!dryRun) yield* fs.remove(path.join(directory, one), { recursive: true, force: true })
        removed.push(one)
      }
    }
    return { removed, kept }
  }).pipe(files("clean up", directory))
