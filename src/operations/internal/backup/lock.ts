/**
 * Who is at work in a directory of backups. A lock is a file that names a process; it is never waited for.
 *
 * A lock of this machine is alive while that process is; process ids are given out again, so the time when the process
 * began counts too. A lock of another machine (or container) on a shared file system is alive while it is touched.
 */

import * as Os from "node:os"
import process from "node:process"
import * as Command from "@effect/platform/Command"
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

const Owner = Schema.parseJson(Schema.Struct({ pid: Schema.Int, began: Schema.String, host: Schema.String }))
type Owner = typeof Owner.Type

/** Milliseconds between two touches, and after which a lock of another machine is dead. */
export const heartbeat = { every: 30_000, dead: 15 * 60_000 } as const

/** The 22nd field of /proc/…/stat: ticks since the machine started. The second may hold anything, but no last `)`. */
export const beganOf = (stat: string): string | undefined => stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]

/** When a process began, in whatever form the system tells it; undefined: there is no such process. */
const began = (
  pid: number
): Effect.Effect<string | undefined, never, FileSystem.FileSystem | CommandExecutor.CommandExecutor> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    if (yield* Effect.orElseSucceed(fs.exists("/proc/self/stat"), () => false)) {
      return yield* Effect.orElseSucceed(Effect.map(fs.readFileString(`/proc/${pid}/stat`), beganOf), () => undefined)
    }
    const line = yield* Effect.orElseSucceed(
      Command.string(Command.make("ps", "-o", "lstart=", "-p", `${pid}`)),
      () => ""
    )
    return line.trim() || undefined
  })

/** A pure decision. `touched` is milliseconds since the epoch; `running`: when the process of that id began, if there is one. */
export const isAlive = (
  owner: Owner | undefined,
  here: string,
  running: string | undefined,
  touched: number,
  now: number
): boolean => {
  // Another machine's, or one that is being written: only time tells.
  if (owner === undefined || owner.host !== here) return now - touched < heartbeat.dead
  return running !== undefined && running === owner.began
}

/** Whether whoever made the lock is still at work. A lock that is gone is not alive. */
export const alive = (
  lock: string
): Effect.Effect<boolean, PlatformError, FileSystem.FileSystem | CommandExecutor.CommandExecutor> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const gone = <A>(self: Effect.Effect<A, PlatformError>) =>
      Effect.catchIf(
        Effect.asSome(self),
        (error) => error._tag === "SystemError" && error.reason === "NotFound",
        () => Effect.succeedNone
      )
    const text = yield* gone(fs.readFileString(lock))
    const info = yield* gone(fs.stat(lock))
    if (Option.isNone(text) || Option.isNone(info)) return false
    const owner = Option.getOrUndefined(Schema.decodeOption(Owner)(text.value))
    const touched = Option.match(info.value.mtime, { onNone: () => 0, onSome: (at) => at.getTime() })
    const now = yield* Clock.currentTimeMillis
    const running = owner === undefined ? undefined : yield* began(owner.pid)
    return isAlive(owner, Os.hostname(), running, touched, now)
  })

/** Makes a lock that is removed with the scope. Fails where there is one of that name. */
export const acquire = (
  lock: string
): Effect.Effect<void, PlatformError, FileSystem.FileSystem | CommandExecutor.CommandExecutor | Scope.Scope> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const owner = { pid: process.pid, began: (yield* began(process.pid)) ?? "", host: Os.hostname() }
    yield* Effect.acquireRelease(fs.writeFileString(lock, JSON.stringify(owner), { flag: "wx", mode: 0o600 }), () =>
      Effect.catchAll(fs.remove(lock, { force: true }), (error) =>
        Effect.logWarning(`The lock ${lock} could not be removed; the next cleanup will (${error.message})`)
      )
    )
    yield* Effect.flatMap(Clock.currentTimeMillis, (now) => fs.utimes(lock, new Date(now), new Date(now))).pipe(
      Effect.catchAll((error) => Effect.logWarning(`The lock ${lock} could not be touched (${error.message})`)),
      Effect.delay(heartbeat.every),
      Effect.forever,
      Effect.forkScoped
    )
  })
