/**
 * Whether the server is there, as far as its connections tell. Suspicion comes with one connection that is lost or silent;
 * absence lasts from then, or from a failure to connect, until somebody has shown that the server answers.
 *
 * 1. Who has not answered after the last suspicion is not trusted.
 * 2. After a failure to connect, back is who has answered a question, not who has only greeted: there are servers, and
 *    proxies, that greet and hang up.
 * 3. After each setback connecting begins again with one connection at a time.
 *
 * All times are milliseconds of the live clock.
 */
import type * as PgError from "../../error/PgError.js"

/** From a loss, or a failure to connect, until the server is known to be there. */
export interface Away {
  readonly since: number
  /** What connecting failed with last. */
  readonly cause: PgError.PgError | undefined
  readonly failures: number
  /** When the last failure was seen; `since` if there was none. */
  readonly failedAt: number
}

/** What a connection tells by its age. `answeredAt`: when it was last idle at the server, its set-up included. */
export interface Age {
  readonly openedAt: number
  readonly answeredAt: number
}

export interface Options {
  /** The largest number of connections that slow start leads to. */
  readonly max: number
  /** While this is so, a loss is no news. */
  readonly closing: () => boolean
  /** A connection attempt failed, or (`undefined`) one succeeded after the server had been lost; seconds away. */
  readonly told: (lost: PgError.PgError | undefined, awaySeconds: number) => void
  readonly now?: (() => number) | undefined
}

/** Lost at this age at most, and without an answer to anything since its set-up, a connection is a failure to connect. */
export const infancy = 2_000

const probeDelay = { first: 50, cap: 1_000 }

/** Before the prober's next try: none after a loss, then 50 ms doubling up to 1 s, of each at least half. `random`: 0 to 1. */
export const pause = (failures: number, random: number): number =>
  failures === 0 ? 0 : Math.min(probeDelay.cap, probeDelay.first * 2 ** Math.min(failures - 1, 10)) * (0.5 + random / 2)

export const make = ({ closing, max, now = () => performance.now(), told }: Options) => {
  let generation = 0
  let suspectedAt = 0
  let atOnce = 1
  let away: Away | undefined

  const raise = () => {
    generation++
    suspectedAt = now()
  }

  const leave = (): Away => {
    const since = now()
    return { since, cause: undefined, failures: 0, failedAt: since }
  }

  const distrust = () => {
    if (closing()) return
    raise()
    atOnce = 1
    away ??= leave()
  }

  const back = () => {
    if (away === undefined) return
    const { failures, since } = away
    away = undefined
    told(undefined, failures === 0 ? 0 : (now() - since) / 1000)
  }

  return {
    /** Counts the suspicions. */
    get generation(): number {
      return generation
    },
    /** Undefined: the server is there, as far as we know. */
    get away(): Away | undefined {
      return away
    },
    /** How many connections may be opened at the same time: slow start. */
    get atOnce(): number {
      return atOnce
    },
    trusts: (answeredAt: number): boolean => answeredAt > suspectedAt,
    /** Nobody is trusted without a new answer, although the server is there. */
    raise,
    /** The server may be gone. */
    distrust,

    /** One more for each that came: when all of a round have come, the next one is twice as large. */
    opened: () => {
      atOnce = Math.min(max, atOnce + 1)
    },

    failed: (error: PgError.PgError) => {
      const gone = error._tag === "ConnectionError" || error._tag === "ServerUnavailableError"
      if (gone && away === undefined) distrust()
      atOnce = 1
      const { failures, since } = away ?? leave()
      away = { since, cause: error, failures: failures + 1, failedAt: now() }
      told(error, (away.failedAt - since) / 1000)
    },

    /**
     * A connection is lost, or silent. True: this is a failure to connect, to be told by `failed`, for it came lately and
     * has answered nothing. Of several that came before the last failure, none is; and the first one may be chance, and
     * whoever waits can wait for the next one.
     */
    lost: ({ answeredAt, openedAt }: Age): boolean => {
      const at = now()
      const stillborn =
        answeredAt <= openedAt &&
        at - openedAt < infancy &&
        openedAt > (away === undefined ? Number.NEGATIVE_INFINITY : away.failedAt)
      distrust()
      if (!stillborn || away === undefined) return false
      if (away.failures > 0) return true
      away = { ...away, failures: 1, failedAt: at }
      return false
    },

    /** A new connection is there, and no failure makes us ask for more. */
    back,

    /** A connection is well. It proves something only if it came after the last failure, and was asked since. */
    answered: ({ answeredAt, openedAt }: Age) => {
      if (away !== undefined && openedAt > away.failedAt && answeredAt > openedAt) back()
    }
  }
}

export type Absence = ReturnType<typeof make>
