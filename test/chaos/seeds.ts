/** Seeds: each random test draws one, says it when it fails, and replays from it. */
import { Config, Effect, Utils } from "effect"

/** `CHAOS_SEED`, to replay a run; else a fresh one. From 0 to 2³¹ - 1. */
export const seed = Effect.orDie(Config.withDefault(Config.integer("CHAOS_SEED"), Math.floor(Math.random() * 2 ** 31)))

/** A stream of numbers for one part of a run, the same whenever that part runs with the same seed. */
export const random = (seed: number, part: number, more = 0) => {
  const numbers = new Utils.PCGRandom(seed, part, more, 1)
  const integer = (min: number, max: number) => min + numbers.integer(max - min + 1)
  return {
    integer,
    chance: (probability: number) => numbers.number() < probability,
    /** Weights in any unit. */
    pick: <A extends string>(weights: { readonly [K in A]: number }): A => {
      const entries = Object.entries(weights) as Array<[A, number]>
      let at = numbers.number() * entries.reduce((sum, [, weight]) => sum + weight, 0)
      for (const [key, weight] of entries) {
        at -= weight
        if (at < 0) return key
      }
      return entries[0]![0]
    },
    shuffled: <A>(all: ReadonlyArray<A>): Array<A> => {
      const left = [...all]
      return all.map(() => left.splice(integer(0, left.length - 1), 1)[0]!)
    }
  }
}
