/**
 * When operations begin. A pace hands out turns, each with the moment at which it is due; whoever is free takes the next.
 *
 * Closed: each fiber has turns of its own, the next one due when the one before has ended. Open: arrivals at a rate, due at
 * moments that nothing delays; if nobody is free by then, the turn is late, and its response time counts from when it was
 * due. All times are milliseconds from the beginning of the test, the warm-up included.
 */
import { PCGRandom } from "effect/Utils"

/** How the gaps between arrivals are: all alike, or as those of independent clients, exponentially distributed. */
export type Arrivals = "constant" | "poisson"

interface Common {
  /** What begins before is not measured, and not counted against a number of operations. */
  readonly warmUp: number
  /** Nothing begins from here on; `Infinity` for no end. */
  readonly end: number
  /** The load rises over so long: fibers start one after the other, arrivals come faster and faster. */
  readonly ramp: number
}

export interface Closed extends Common {
  readonly concurrency: number
  /** For each fiber; `Infinity` for no bound. */
  readonly operations: number
  readonly thinkTime: number
}

export interface Open extends Common {
  /** Arrivals a second, once the ramp is over. */
  readonly rate: number
  /** In all; `Infinity` for no bound. */
  readonly operations: number
  readonly arrivals: Arrivals
  readonly seed: number
}

export interface Pace {
  /** The next turn of a worker that is free from `now` on: when it is due, or undefined when it may go home. */
  readonly next: (worker: number, now: number) => number | undefined
  /** Turns that were due before the end and have not been taken by `now`: of those, how many. */
  readonly left: (now: number) => number
}

export const closed = ({ concurrency, end, operations, ramp, thinkTime, warmUp }: Closed): Pace => {
  const remaining = new Float64Array(concurrency).fill(operations)
  const started = new Uint8Array(concurrency)
  return {
    next: (worker, now) => {
      const due = started[worker] === 0 ? Math.max(now, (ramp * worker) / concurrency) : now + thinkTime
      started[worker] = 1
      if (due >= end || !(remaining[worker]! > 0)) return undefined
      if (due >= warmUp) remaining[worker]! -= 1
      return due
    },
    left: () => 0
  }
}

/**
 * When the `n`-th arrival is due at a rate that rises evenly over the ramp. The expected number by the time `t` is
 * rate · t² / (2 · ramp) within the ramp, and a straight line after it; this is its inverse. With `n` the sum of gaps that are
 * exponentially distributed with mean 1, it makes a Poisson process of that rate.
 */
export const dueAt = (n: number, rate: number, ramp: number): number => {
  const perMilli = rate / 1000
  const within = (perMilli * ramp) / 2
  return n < within ? Math.sqrt((2 * ramp * n) / perMilli) : ramp + (n - within) / perMilli
}

/** How many arrivals are to be expected by `at`: the inverse of `dueAt`. */
export const dueBy = (at: number, rate: number, ramp: number): number => {
  const perMilli = rate / 1000
  return at < ramp ? (perMilli * at * at) / (2 * ramp) : (perMilli * ramp) / 2 + perMilli * (at - ramp)
}

/** So many that were never begun are counted one by one; more are estimated, to a part in a thousand, by the rate. */
const counted = 1_000_000

export const open = ({ arrivals, end, operations, ramp, rate, seed, warmUp }: Open): Pace => {
  const random = new PCGRandom(seed)
  // The first of evenly spaced arrivals is due at once.
  const gap = arrivals === "constant" ? () => 1 : () => -Math.log(1 - random.number())
  let position = arrivals === "constant" ? 0 : gap()
  let measured = 0
  const take = () => {
    const due = dueAt(position, rate, ramp)
    if (due >= end || measured >= operations) return undefined
    position += gap()
    if (due >= warmUp) measured += 1
    return due
  }
  return {
    next: (_, now) => (now >= end ? undefined : take()),
    left: (now) => {
      const most = dueBy(Math.min(now, end), rate, ramp) - Math.max(position, dueBy(warmUp, rate, ramp))
      if (most > counted) return Math.min(Math.floor(most), operations - measured)
      let count = 0
      for (let due = take(); due !== undefined && due <= now; due = take()) if (due >= warmUp) count += 1
      return count
    }
  }
}
