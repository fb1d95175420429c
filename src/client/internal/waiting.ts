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
import type { Cargo } from "./lanes.js"
import { Line } from "./line.js"
import type { Restore } from "./stages.js"
import { suspended } from "./suspension.js"

export interface Options<E> {
  /** How long they wait: milliseconds of each one's clock, `Infinity` for no limit. */
  readonly limit: number
  /** Runs once after so many milliseconds of a clock, unless what it returns is called before. */
  readonly alarm: (clock: Clock.Clock, millis: number, due: () => void) => () => void
  /** What a wait fails with whose time is up. Asked when that one has left the queue. */
  readonly late: () => E
  /** Somebody is served after so many seconds. */
  readonly waited: (seconds: number) => void
}

/** Told once of how a wait ended. */
export interface Turn<A, E> {
  /** Of one that may share a connection. */
  readonly cargo?: Cargo | undefined
  readonly served: (given: A) => void
  readonly failed: (error: E) => void
}

export interface Waiting<A, E> {
  readonly size: number
  /**
   * Joins the queue. `joined` is called when the place in it is taken, and may serve it at once. Gives what leaves the queue:
   * from then on nothing is told; of no effect on one who was told.
   */
  readonly unsafeWait: (turn: Turn<A, E>, clock: Clock.Clock, joined: () => void) => () => void
  /**
   * Waits for a turn. `joined` is called when the place in the queue is taken, and may serve it at once. To be run in an
   * uninterruptible region, with what restores the caller's interruptibility for the wait.
   */
  readonly wait: (restore: Restore, clock: Clock.Clock, joined: () => void) => Effect.Effect<A, E>
  /** Whether whoever came first may share a connection. */
  readonly firstCargo: () => Cargo | undefined
  /** Gives one to whoever came first; it is asked for only if somebody waits. */
  readonly serve: (give: (turn: Turn<A, E>) => A) => void
  /** Ends all waits. */
  readonly failAll: (error: E) => void
}

interface Waiter<A, E> {
  /** Live clock, milliseconds. */
  readonly since: number
  readonly clock: Clock.Clock
  /** Milliseconds of its clock. */
  readonly expiresAt: number
  readonly turn: Turn<A, E>
}

export const make = <A extends { readonly release: () => void }, E>(options: Options<E>): Waiting<A, E> => {
  const waiters = new Line<Waiter<A, E>>()
  const alarms = new Map<Clock.Clock, () => void>()

  const arm = (clock: Clock.Clock): void => {
    if (options.limit === Number.POSITIVE_INFINITY || alarms.has(clock)) return
    const first = waiters.find((waiter) => waiter.clock === clock)
    if (first === undefined) return
    const ring = () => {
      alarms.delete(clock)
      expire(clock)
      arm(clock)
    }
    alarms.set(clock, options.alarm(clock, first.expiresAt - clock.unsafeCurrentTimeMillis(), ring))
  }

  const expire = (clock: Clock.Clock) => {
    const now = clock.unsafeCurrentTimeMillis()
    // One at a time: whoever is told may bring in others, and what they are told counts those that are left.
    const late = ({ clock: at, expiresAt }: Waiter<A, E>) => at === clock && expiresAt <= now
    for (let waiter = waiters.remove(late); waiter !== undefined; waiter = waiters.remove(late)) {
      waiter.turn.failed(options.late())
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

  const unsafeWait: Waiting<A, E>["unsafeWait"] = (turn, clock, joined) => {
    const place = waiters.join({
      since: performance.now(),
      clock,
      expiresAt: clock.unsafeCurrentTimeMillis() + options.limit,
      turn
    })
    joined()
    arm(clock)
    return () => {
      waiters.leave(place)
      disarm()
    }
  }

  return {
    get size() {
      return waiters.size
    },
    unsafeWait,
    wait: (restore, clock, joined) =>
      Effect.suspend(() => {
        let given: A | undefined
        let leave = () => {}
        const turn = suspended<A, E>((resume) => {
          const served = (a: A) => {
            given = a
            resume(Effect.succeed(a))
          }
          leave = unsafeWait({ served, failed: (error) => resume(Effect.fail(error)) }, clock, joined)
        })
        return Effect.onExit(restore(turn), (exit) =>
          Exit.isSuccess(exit)
            ? Effect.void
            : Effect.sync(() => {
                leave()
                given?.release()
              })
        )
      }),
    firstCargo: () => waiters.first()?.turn.cargo,
    serve: (give) => {
      const waiter = waiters.next()
      if (waiter === undefined) return
      options.waited((performance.now() - waiter.since) / 1000)
      waiter.turn.served(give(waiter.turn))
      disarm()
    },
    failAll: (error) => {
      for (let left = waiters.size; left > 0; left--) waiters.next()?.turn.failed(error)
    }
  }
}
