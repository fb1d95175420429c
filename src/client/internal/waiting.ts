/**
 * The queue for a connection. Everybody waits equally long, by the clock of their own program.
 *
 * 1. Whoever waits is served in order.
 * 2. Whoever gives up (timeout, interruption) is out at once; what reached them at that very moment goes back.
 * 3. Each clock has one alarm, for whoever came first of those that wait by it, and none when nobody waits.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Restore } from "./stages.js"

export interface Options<E> {
  /** How long they wait: milliseconds of each one's clock, `Infinity` for no limit. */
  readonly limit: number
  /** Runs once after so many milliseconds of a clock, unless what it returns is called before. */
  readonly alarm: (clock: Clock.Clock, millis: number, due: () => void) => () => void
  /** How a wait ends whose time is up. Asked when that one has left the queue. */
  readonly late: () => Effect.Effect<never, E>
  /** Somebody is served after so many seconds. */
  readonly waited: (seconds: number) => void
}

export interface Waiting<A, E> {
  readonly size: number
  /**
   * Waits for a turn. `joined` is called when the place in the queue is taken, and may serve it at once. To be run in an
   * uninterruptible region, with what restores the caller's interruptibility for the wait.
   */
  readonly wait: (restore: Restore, clock: Clock.Clock, joined: () => void) => Effect.Effect<A, E>
  /** Gives one to whoever came first; it is asked for only if somebody waits. */
  readonly serve: (give: () => A) => void
  /** Ends all waits like this. */
  readonly endAll: (end: Effect.Effect<never, E>) => void
}

interface Waiter<A, E> {
  /** Live clock, milliseconds. */
  readonly since: number
  readonly clock: Clock.Clock
  /** Milliseconds of its clock. */
  readonly expiresAt: number
  given: A | undefined
  resume: (effect: Effect.Effect<A, E>) => void
}

export const make = <A extends { readonly release: () => void }, E>(options: Options<E>): Waiting<A, E> => {
  const waiters = new Set<Waiter<A, E>>()
  const alarms = new Map<Clock.Clock, () => void>()

  const arm = (clock: Clock.Clock): void => {
    if (options.limit === Number.POSITIVE_INFINITY || alarms.has(clock)) return
    for (const waiter of waiters) {
      if (waiter.clock !== clock) continue
      const ring = () => {
        alarms.delete(clock)
        expire(clock)
        arm(clock)
      }
      alarms.set(clock, options.alarm(clock, waiter.expiresAt - clock.unsafeCurrentTimeMillis(), ring))
      return
    }
  }

  const expire = (clock: Clock.Clock) => {
    const now = clock.unsafeCurrentTimeMillis()
    for (const waiter of waiters) {
      if (waiter.clock !== clock || waiter.expiresAt > now) continue
      waiters.delete(waiter)
      waiter.resume(options.late())
    }
  }

  /** Not at once, as the queue may fill again in this turn. */
  const disarm = () => {
    if (alarms.size === 0 || waiters.size > 0) return
    setImmediate(() => {
      if (waiters.size > 0) return
      for (const cancel of alarms.values()) cancel()
      alarms.clear()
    })
  }

  const forget = (waiter: Waiter<A, E>) => {
    waiters.delete(waiter)
    disarm()
    waiter.given?.release()
  }

  return {
    get size() {
      return waiters.size
    },
    wait: (restore, clock, joined) =>
      Effect.suspend(() => {
        const waiter: Waiter<A, E> = {
          since: performance.now(),
          clock,
          expiresAt: clock.unsafeCurrentTimeMillis() + options.limit,
          given: undefined,
          resume: () => {}
        }
        const turn = Effect.async<A, E>((resume) => {
          waiter.resume = resume
          waiters.add(waiter)
          joined()
          arm(clock)
        })
        return Effect.onExit(restore(turn), (exit) =>
          Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => forget(waiter))
        )
      }),
    serve: (give) => {
      for (const waiter of waiters) {
        waiters.delete(waiter)
        options.waited((performance.now() - waiter.since) / 1000)
        waiter.given = give()
        waiter.resume(Effect.succeed(waiter.given))
        return disarm()
      }
    },
    endAll: (end) => {
      for (const waiter of waiters) {
        waiters.delete(waiter)
        waiter.resume(end)
      }
    }
  }
}
