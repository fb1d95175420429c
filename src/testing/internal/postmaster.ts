/** One run of the `postgres` program: from spawn to exit, and the signals in between. */

import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { type Account, environment } from "./binaries.js"
import * as Processes from "./processes.js"

/** Something that the system should have done within the limit was not done. */
export class StuckError extends Data.TaggedError("StuckError")<{ readonly message: string }> {}

/** How long signals may take to have their effect; an unloaded machine needs milliseconds. */
const limit = "30 seconds"

export interface Postmaster {
  readonly pid: number
  /** Ends when the process has ended. */
  readonly exited: Effect.Effect<void>
  /** Whether it has ended. */
  readonly ended: Effect.Effect<boolean>
}

/** Waits for a condition of the system that nothing announces. */
const until = (what: string, condition: () => boolean) =>
  Effect.sync(condition).pipe(
    Effect.repeat({ until: (met) => met, schedule: Schedule.spaced("5 millis") }),
    Effect.asVoid,
    Effect.interruptible, // the limit must end it within a finalizer, too
    Effect.timeoutFail({ duration: limit, onTimeout: () => new StuckError({ message: `${what} after ${limit}` }) })
  )

/** Spawns the server, detached so that Ctrl-C in the terminal reaches the program only; both streams go to the log. */
export const start = (options: {
  readonly program: string
  readonly dataDir: string
  readonly port: number
  readonly account: Account | undefined
  readonly log: string
  /** Called when the process has ended, however it did. */
  readonly onExit: () => void
}): Effect.Effect<Postmaster, StuckError> =>
  Effect.gen(function* () {
    const exited = yield* Deferred.make<void>()
    const child = yield* Effect.sync(() => {
      const log = Fs.openSync(options.log, "a")
      const child = spawn(options.program, ["-D", options.dataDir, "-p", String(options.port)], {
        ...options.account,
        cwd: "/",
        detached: true,
        env: environment(),
        stdio: ["ignore", log, log]
      })
      Fs.closeSync(log)
      child.once("exit", () => {
        options.onExit()
        Deferred.unsafeDone(exited, Effect.void)
      })
      child.on("error", () => {}) // told by the missing pid
      child.unref()
      return child
    })
    const { pid } = child
    if (pid === undefined) return yield* new StuckError({ message: `${options.program} could not be spawned` })
    return { pid, exited: Deferred.await(exited), ended: Deferred.isDone(exited) }
  })

/** Stops the postmaster, so that it forks no more, and then every child. Returns all of them once they stand still. */
export const pause = ({ pid }: Postmaster): Effect.Effect<ReadonlyArray<number>, StuckError> => {
  const stopped = (entries: () => ReadonlyArray<Processes.Entry>) => () => {
    const moving = entries().filter(({ stopped }) => !stopped)
    for (const { pid } of moving) Processes.signal(pid, "SIGSTOP")
    return moving.length === 0
  }
  const postmaster = () => Processes.list().filter((entry) => entry.pid === pid)
  const family = () => Processes.family(pid)
  return until("the postmaster does not stop", stopped(postmaster)).pipe(
    Effect.zipRight(until("a backend does not stop", stopped(family))),
    Effect.map(() => [pid, ...family().flatMap((entry) => (entry.pid === pid ? [] : [entry.pid]))]),
    Effect.tapError(() => resume(family().map(({ pid }) => pid)))
  )
}

/** Lets processes run again. */
export const resume = (pids: ReadonlyArray<number>): Effect.Effect<void> =>
  Effect.sync(() => {
    for (const pid of pids) Processes.signal(pid, "SIGCONT")
  })

/** SIGKILL to the postmaster and every child, as one blow: it is stopped first, so that it neither forks nor repairs. */
export const crash = (postmaster: Postmaster): Effect.Effect<void, StuckError> =>
  Effect.gen(function* () {
    if (yield* postmaster.ended) return // the pid may be somebody else's by now
    const pids = yield* pause(postmaster)
    for (const pid of pids) Processes.signal(pid, "SIGKILL")
    yield* until("killed processes are still there", () => !Processes.list().some(({ pid }) => pids.includes(pid)))
    yield* postmaster.exited
  }).pipe(Effect.uninterruptible)
