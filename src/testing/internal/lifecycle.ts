/** The life of one server on its data: started, stopped, crashed, paused, and started again. One change at a time. */

import * as Fs from "node:fs/promises"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Cluster } from "./cluster.js"
import { type EmbeddedPostgresError, fail } from "./error.js"
import * as Postmaster from "./postmaster.js"
import * as Processes from "./processes.js"

/** What a server is doing; the postmaster may have ended since. */
export type Phase = Data.TaggedEnum<{
  Stopped: {}
  Running: { readonly postmaster: Postmaster.Postmaster }
  Paused: { readonly postmaster: Postmaster.Postmaster; readonly pids: ReadonlyArray<number> }
}>
const { Paused, Running, Stopped } = Data.taggedEnum<Phase>()

/** Signals of PostgreSQL's shutdown modes. Source: PostgreSQL manual, "Shutting Down the Server". */
const stopSignals = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const

export type StopMode = keyof typeof stopSignals

/** How long a fast or immediate shutdown may take, and one at the end of the scope until the processes are killed. */
const stopLimit = "60 seconds"
const closeLimit = "10 seconds"
/** Lines of the log that go into the error of a start that failed. */
const tailLines = 15

type Change = Effect.Effect<void, EmbeddedPostgresError>

export interface Lifecycle {
  readonly current: Effect.Effect<Phase>
  readonly log: Effect.Effect<string, EmbeddedPostgresError>
  readonly start: (port: number) => Change
  readonly stop: (mode: StopMode) => Change
  readonly crash: Change
  readonly pause: Change
  readonly resume: Change
  /** Signals one of the postmaster's children; false when the pid is not one. */
  readonly signal: (pid: number, name: NodeJS.Signals) => Effect.Effect<boolean>
}

/** `answers` tells on which port a server is up; it is asked until it succeeds. */
export const make = (
  cluster: Cluster,
  answers: (port: number) => Effect.Effect<unknown, Error>,
  startTimeout: Duration.DurationInput
): Effect.Effect<Lifecycle, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { account, binaries, dataDir, logFile, watchdog } = cluster
    const phase = yield* Ref.make<Phase>(Stopped())
    const turn = yield* Effect.makeSemaphore(1)

    /** The phase as it is now: a postmaster that ended by itself is a stopped server. */
    const current = Effect.gen(function* () {
      const now = yield* Ref.get(phase)
      return now._tag !== "Stopped" && (yield* now.postmaster.ended) ? Stopped() : now
    })
    const enter = (next: Phase) =>
      Effect.suspend(() => {
        watchdog.guard(next._tag === "Stopped" ? [] : next._tag === "Paused" ? next.pids : [next.postmaster.pid])
        return Ref.set(phase, next)
      })
    const change = (name: string, apply: (now: Phase) => Effect.Effect<void, unknown>): Change =>
      Effect.flatMap(current, apply).pipe(Effect.mapError(fail(name)), turn.withPermits(1))

    const log = Effect.tryPromise({ try: () => Fs.readFile(logFile, "utf8"), catch: fail("log") })
    const logged = Effect.orElseSucceed(log, () => "")

    const launch = (port: number) =>
      Effect.gen(function* () {
        const before = yield* logged
        yield* Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const postmaster = yield* Postmaster.start({
              program: binaries.postgres,
              dataDir,
              port,
              account,
              log: logFile,
              onExit: () => watchdog.guard([]) // its pid may soon be somebody else's
            })
            yield* enter(Running({ postmaster }))
            const up = answers(port).pipe(
              Effect.retry(Schedule.spaced("20 millis")),
              Effect.timeoutFail({
                duration: startTimeout,
                onTimeout: () => new Error(`no answer after ${Duration.format(startTimeout)}`)
              })
            )
            const down = Effect.zipRight(postmaster.exited, Effect.fail(new Error("the server ended")))
            // Each must be able to end the other, within a finalizer too.
            yield* restore(Effect.raceFirst(Effect.interruptible(up), Effect.interruptible(down))).pipe(
              Effect.onError(() => Effect.zipRight(Effect.ignore(Postmaster.crash(postmaster)), enter(Stopped())))
            )
          })
        ).pipe(
          Effect.catchAll(({ message }) =>
            Effect.flatMap(logged, (text) => {
              const tail = text.slice(before.length).trimEnd().split("\n").slice(-tailLines).join("\n")
              return Effect.fail(new Error(`${message}. The server's log ends:\n${tail}`))
            })
          )
        )
      })

    const resumed = (now: Phase) =>
      now._tag === "Paused"
        ? Effect.zipRight(Postmaster.resume(now.pids), enter(Running({ postmaster: now.postmaster })))
        : Effect.void

    const shutDown = (postmaster: Postmaster.Postmaster, mode: StopMode) =>
      Effect.zipRight(
        Effect.sync(() => Processes.signal(postmaster.pid, stopSignals[mode])),
        Effect.interruptible(postmaster.exited)
      )

    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        const now = yield* current
        if (now._tag === "Stopped") return
        yield* resumed(now)
        yield* Effect.timeoutOption(shutDown(now.postmaster, "immediate"), closeLimit)
        yield* Effect.ignore(Postmaster.crash(now.postmaster))
        yield* enter(Stopped())
      })
    )

    return {
      current,
      log,
      start: (port) =>
        change("start", (now) => {
          if (now._tag === "Paused") return Effect.fail(new Error("the server is paused: resume it"))
          return now._tag === "Running" ? Effect.void : launch(port)
        }),
      stop: (mode) =>
        change("stop", (now) => {
          if (now._tag === "Stopped") return Effect.void
          const ended = shutDown(now.postmaster, mode)
          const bounded = Effect.timeoutFail(ended, {
            duration: stopLimit,
            onTimeout: () => new Error(`a ${mode} shutdown did not end within ${stopLimit}`)
          })
          return resumed(now).pipe(
            Effect.zipRight(mode === "smart" ? ended : bounded),
            Effect.zipRight(enter(Stopped()))
          )
        }),
      crash: change("crash", (now) =>
        now._tag === "Stopped" ? Effect.void : Effect.zipRight(Postmaster.crash(now.postmaster), enter(Stopped()))
      ),
      pause: change("pause", (now) =>
        now._tag === "Stopped"
          ? Effect.fail(new Error("the server is stopped"))
          : Postmaster.pause(now.postmaster).pipe(
              Effect.flatMap((pids) => enter(Paused({ postmaster: now.postmaster, pids }))),
              Effect.uninterruptible
            )
      ),
      resume: change("resume", resumed),
      signal: (pid, name) =>
        Effect.map(current, (now) => {
          if (now._tag === "Stopped" || pid === now.postmaster.pid) return false
          return Processes.family(now.postmaster.pid).some((entry) => entry.pid === pid) && Processes.signal(pid, name)
        })
    }
  })
