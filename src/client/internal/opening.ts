/**
 * Opens the pool's connections.
 *
 * 1. While the server is there the pool fills by slow start: 1, 2, 4, … at once. While it is away one prober connects, and
 *    nobody else.
 * 2. A connect is tied to no caller: whoever asked for it may leave, the connection comes to the pool.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as PgError from "../../error/PgError.js"
import { type Absence, pause } from "./absence.js"
import type { Session } from "./session.js"

export interface Options {
  /** Opens a session, ready for use. Bounded in time by itself. */
  readonly connect: Effect.Effect<Session, PgError.PgError>
  /** Runs in the background, on the live clock. */
  readonly fork: (effect: Effect.Effect<void>) => void
  /** 0 to 1. */
  readonly random: () => number
  readonly closing: () => boolean
  /** One came, after so many seconds. `done` is to be called when what it was opened for is over. */
  readonly came: (session: Session, seconds: number, done: () => void) => void
  readonly failed: (error: PgError.PgError) => void
  /** An attempt is over, and what it led to as well. */
  readonly settled: () => void
}

/** The figures of a moment. */
export interface Demand {
  readonly waiting: number
  /** Being checked, to be handed out then. */
  readonly checking: number
  readonly connecting: number
  /** The pool's connections, without those that are on their way. */
  readonly total: number
  readonly min: number
  readonly max: number
  readonly atOnce: number
}

/** How many connections to open now: for whoever waits, or for `min`; never beyond `max` or slow start. */
export const missing = ({ atOnce, checking, connecting, max, min, total, waiting }: Demand): number => {
  const wanted = Math.max(waiting - connecting - checking, min - total - connecting)
  return Math.max(0, Math.min(wanted, max - total - connecting, atOnce - connecting))
}

export const make = (options: Options, absence: Absence) => {
  let connecting = 0
  /** The absence, by its beginning, that the prober is at work for, or waits in for its time. */
  let probing: number | undefined

  const open = (done: () => void = () => {}) => {
    connecting++
    const since = performance.now()
    options.fork(
      Effect.onExit(options.connect, (exit) =>
        Effect.sync(() => {
          connecting--
          if (Exit.isSuccess(exit)) options.came(exit.value, (performance.now() - since) / 1000, done)
          else {
            done()
            for (const error of Cause.failures(exit.cause)) options.failed(error)
          }
          options.settled()
        })
      ).pipe(Effect.ignore)
    )
  }

  return {
    get connecting(): number {
      return connecting
    },
    open,

    /** To be called while the server is away, as often as one likes. `wanted`: somebody waits for it. */
    probe: (wanted: boolean) => {
      const { away } = absence
      if (away === undefined || away.since === probing) return
      // What waiting does not mend (a wrong password) is tried again only for somebody.
      if (away.cause?.transient === false && !wanted) return
      const { failures, since } = away
      probing = since
      options.fork(
        Effect.zipRight(
          Effect.sleep(pause(failures, options.random())),
          Effect.sync(() => {
            if (options.closing() || absence.away?.since !== since) return
            open(() => {
              if (probing === since) probing = undefined
            })
          })
        )
      )
    }
  }
}
