/** Rounds of contenders in alternation, and what a round needs around it. */
import { Console, Effect } from "effect"
import type { Figures, Measured, Rounds } from "./report.js"

/** How long and how often. Times in milliseconds. */
export interface Plan {
  readonly rounds: number
  /** Before them, not counted. */
  readonly warm: number
  /** Of a round of throughput. */
  readonly round: number
  /** Rounds of what takes seconds or needs a pool of its own. */
  readonly few: number
  /** Every workload with every number of fibers, near and far. */
  readonly full: boolean
}

export const usual: Plan = { rounds: 9, warm: 2, round: 500, few: 3, full: false }

/** Whether all of it works. Its figures say little. */
export const quick: Plan = { rounds: 1, warm: 0, round: 100, few: 1, full: false }

/** Who is told of what has been measured, at once: what comes later may fail. */
export type Tell = (measured: Measured) => Effect.Effect<void>

/** What is counted in bytes begins without the garbage of the one before, which is another's. */
export const collect = (): void => {
  if (globalThis.gc === undefined) throw new Error("Node needs --expose-gc here, as `npm run bench` gives it")
  globalThis.gc()
}

/** By contender, its rounds. Each begins with another one: none has always the same one before it. */
export const alternate = <E, R>(
  names: ReadonlyArray<string>,
  { rounds, warm }: { readonly rounds: number; readonly warm: number },
  once: (name: string) => Effect.Effect<Figures, E, R>
): Effect.Effect<Rounds, E, R> =>
  Effect.gen(function* () {
    const all = new Map<string, Array<Figures>>(names.map((name) => [name, []]))
    for (let round = -warm; round < rounds; round++) {
      const first = (round + warm) % names.length
      for (const name of [...names.slice(first), ...names.slice(0, first)]) {
        const figures = yield* once(name)
        if (round >= 0) all.get(name)!.push(figures)
      }
    }
    return all
  })

/** A section that fails, or takes too long, is said to, and the others go on. */
export const bounded = <E, R>(name: string, minutes: number, section: Effect.Effect<void, E, R>) =>
  section.pipe(
    Effect.timeout(`${minutes} minutes`),
    Effect.catchAllCause((cause) => Console.log(`### ${name}: not measured to its end\n\n${cause}\n`))
  )
