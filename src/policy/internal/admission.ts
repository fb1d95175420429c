/**
 * The cell that holds a breaker's state, and the queue of those who wait for it to change. Everything but the waiting is
 * synchronous, so that no two fibers ever see a state half changed.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as MutableRef from "effect/MutableRef"
import * as breaker from "./breaker.js"
import { neutral, type Verdict } from "./verdict.js"

/** A caller in the queue: it has a permit as soon as it is its turn, and `wake` has it look again. */
interface Waiter {
  readonly clock: Clock.Clock
  permit: number | undefined
  wake: () => void
}

/** As `Effect.uninterruptibleMask` hands it out. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export interface Options {
  readonly config: breaker.Config
  readonly now: number
  /** A number from 0 to 1. */
  readonly jitter: () => number
  /** Called after each change of generation. */
  readonly onChange: (before: breaker.Machine, after: breaker.Machine) => void
}

/** Milliseconds since the epoch by a clock that nobody sets back, so that no outage lasts longer for it. */
export const unsafeNow = (clock: Clock.Clock): number => Number(clock.unsafeCurrentTimeNanos() / 1_000_000n)

export const make = ({ config, jitter, now, onChange }: Options) => {
  const cell = MutableRef.make(breaker.make(now))
  const waiters = new Set<Waiter>()

  const become = (after: breaker.Machine): void => {
    const before = cell.current
    cell.current = after
    if (after.generation !== before.generation) onChange(before, after)
  }

  const next = (now: number): breaker.Admission => {
    const [admission, after] = breaker.admit(cell.current, now, config)
    become(after)
    return admission
  }

  /** Of those on one clock, whoever waits longest keeps the alarm for all: they wait for the same. */
  const keepers = () => {
    const byClock = new Map<Clock.Clock, Waiter>()
    for (const waiter of waiters) if (!byClock.has(waiter.clock)) byClock.set(waiter.clock, waiter)
    return byClock
  }

  const first = (clock: Clock.Clock): Waiter | undefined => {
    for (const waiter of waiters) if (waiter.clock === clock) return waiter
    return undefined
  }

  const leave = (waiter: Waiter): void => {
    const kept = first(waiter.clock) === waiter
    waiters.delete(waiter)
    if (kept) first(waiter.clock)?.wake()
  }

  /** Until when nobody is admitted unless something happens. */
  const nextAt = () => breaker.nextAdmissionAt(cell.current, config) ?? Number.POSITIVE_INFINITY

  /** Hands out permits, oldest caller first, until there are none. */
  const serve = (now: number): void => {
    for (const waiter of waiters) {
      const admission = next(now)
      if (admission._tag === "Refused") return
      waiter.permit = admission.permit
      waiter.wake()
      leave(waiter)
    }
  }

  /** One who does not wait comes after those who do. */
  const admit = (now: number): breaker.Admission => {
    serve(now)
    return next(now)
  }

  const send = (event: breaker.Event, now: number): void => {
    const at = nextAt()
    become(breaker.transition(cell.current, event, now, config))
    serve(now)
    // An alarm that is early rings for nothing, and is set again; one that is late is set anew.
    if (nextAt() < at) for (const waiter of keepers().values()) waiter.wake()
  }

  /** Whether this verdict changes nothing, whenever it comes. */
  const idle = (permit: number, verdict: Verdict): boolean =>
    permit !== cell.current.generation || (verdict._tag === "Success" && breaker.ignoresSuccess(cell.current, config))

  const settle = (permit: number, verdict: Verdict, now: number, durationMs: number): void => {
    if (idle(permit, verdict)) return
    send(breaker.Event.Settle({ permit, verdict, durationMs, jitter: jitter() }), now)
  }

  /** Wakes the waiter at a time. A daemon: children are interrupted with their parent, even where that cannot be. */
  const alarm = (waiter: Waiter, ms: number) =>
    Effect.sleep(ms).pipe(Effect.zipRight(Effect.sync(() => waiter.wake())), Effect.interruptible, Effect.forkDaemon)

  const turn = (waiter: Waiter, clock: Clock.Clock): Effect.Effect<number> =>
    Effect.suspend(() => {
      const now = unsafeNow(clock)
      serve(now)
      if (waiter.permit !== undefined) return Effect.succeed(waiter.permit)
      const due = () => (first(clock) === waiter ? nextAt() : Number.POSITIVE_INFINITY)
      const at = due()
      const woken = Effect.async<void>((resume) => {
        waiter.wake = () => resume(Effect.void)
        if (waiter.permit !== undefined || due() < at || unsafeNow(clock) >= at) waiter.wake()
      })
      return Effect.zipRight(
        Number.isFinite(at)
          ? Effect.acquireUseRelease(
              alarm(waiter, at - now),
              () => woken,
              (timer) => Fiber.interruptFork(timer)
            )
          : woken,
        turn(waiter, clock)
      )
    })

  const awaitTurn = (restore: Restore): Effect.Effect<number> =>
    Effect.clockWith((clock) =>
      Effect.suspend(() => {
        const waiter: Waiter = { clock, permit: undefined, wake: () => {} }
        waiters.add(waiter)
        return Effect.onError(restore(turn(waiter, clock)), () =>
          Effect.sync(() => {
            leave(waiter)
            if (waiter.permit !== undefined) settle(waiter.permit, neutral, unsafeNow(clock), 0)
          })
        )
      })
    )

  return { cell, waiters, admit, idle, settle, send, awaitTurn }
}
