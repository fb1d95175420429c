/**
 * A load test at work: workers that take turns of a pace, run an operation each, and tell the recorder.
 *
 * Workers are as many as may be under way at once, and live as long as the test, so that a million operations need no more
 * fibers than one. At a rate they take arrivals ahead and sleep until each is due. All times are the `Clock`'s of the calling
 * fiber, in nanoseconds that nobody sets back: the live one measures, and `TestClock` drives.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import { PCGRandom } from "effect/Utils"
import type { Prepared } from "./options.js"
import type * as Pacing from "./pacing.js"
import type * as Recorder from "./recorder.js"

export interface Plan<R> {
  readonly operations: ReadonlyArray<Prepared<R>>
  readonly pace: Pacing.Pace
  readonly recorder: Recorder.Recorder
  readonly workers: number
  /** What is taken is due at its time, whoever is free: the kinds of operations are drawn in the order of arrivals. */
  readonly open: boolean
  readonly seed: number
  readonly warmUp: number
  /** Nothing begins from here on; `Infinity` for no end. */
  readonly end: number
  readonly grace: number
}

/** So late, in milliseconds, an operation may begin by timers that keep milliseconds, and a program that has other things to do. */
const slack = 10

/** Milliseconds since `start`, to the nanosecond. */
export const elapsed = (clock: Clock.Clock, start: bigint): number =>
  Number(clock.unsafeCurrentTimeNanos() - start) / 1_000_000

/** Draws operations by their weights. */
const chooser = (weights: ReadonlyArray<number>) => {
  let sum = 0
  const upTo = weights.map((weight) => (sum += weight))
  return (random: PCGRandom): number => {
    if (upTo.length === 1) return 0
    const drawn = random.number() * sum
    return Math.max(
      0,
      upTo.findIndex((limit) => drawn < limit)
    )
  }
}

/** Runs until nothing is left to begin and everything has ended, or the grace is over. */
export const run = <R>(plan: Plan<R>, clock: Clock.Clock, start: bigint): Effect.Effect<void, never, R> => {
  const { end, grace, open, operations, pace, recorder, seed, warmUp, workers } = plan
  const now = () => elapsed(clock, start)
  const choose = chooser(operations.map(({ weight }) => weight))
  const shared = new PCGRandom(seed, 0)
  let inFlight = 0
  /** The last moment at which everybody was busy. */
  let full = Number.NEGATIVE_INFINITY
  const freed = (at: number) => {
    if (inFlight === workers) full = at
    inFlight -= 1
  }

  const punctuality = (due: number, started: number): Recorder.Punctuality =>
    started <= due ? "onTime" : full >= due ? "delayed" : started - due > slack ? "behind" : "onTime"

  const worker = (index: number) => {
    const random = open ? shared : new PCGRandom(seed, index + 1)
    let more = true
    const once = (operation: number, due: number) =>
      Effect.suspend(() => {
        const started = now()
        const { effect } = operations[operation]!
        inFlight += 1
        const measured = due >= warmUp
        // A fiber of a closed test is due whenever it begins: nobody is waiting for it.
        const intended = open ? due : started
        if (measured) recorder.begin(operation, punctuality(intended, started))
        return Effect.map(Effect.exit(effect), (exit) => {
          const ended = now()
          freed(ended)
          if (measured) recorder.end(operation, intended, started, ended, exit)
        })
      })
    const turn: Effect.Effect<unknown, never, R> = Effect.suspend(() => {
      const taken = now()
      const due = pace.next(index, taken)
      if (due === undefined) {
        more = false
        return Effect.void
      }
      const operation = choose(random)
      // In whole milliseconds, which timers keep: the fraction is waited for by nobody.
      const wait = Math.floor(due - taken)
      const begin = once(operation, due)
      return wait > 0 ? Effect.zipRight(Effect.sleep(wait), begin) : begin
    })
    return Effect.whileLoop({ while: () => more, body: () => turn, step: () => {} }).pipe(
      Effect.withRandom(Random.make(`${seed}/${index}`))
    )
  }

  const all = Effect.forEach(
    Array.from({ length: workers }, (_, index) => index),
    worker,
    {
      concurrency: "unbounded",
      discard: true
    }
  )
  if (end === Number.POSITIVE_INFINITY) return all
  return Effect.flatMap(Effect.timeoutOption(all, Math.ceil(end - now()) + grace), (ended) =>
    Effect.sync(() => {
      if (Option.isNone(ended)) recorder.abandon()
    })
  )
}
