/** How many connections it takes to read as much as the bare client does with ten of them, a millisecond away. */
import { Console, Effect, type Redacted } from "effect"
import { makers } from "./contenders.js"
import { delayed } from "./delay.js"
import { bare, everything } from "./names.js"
import { rows, shown } from "./report.js"
import type { Plan, Tell } from "./rounds.js"
import { median } from "./statistics.js"
import { once } from "./throughput.js"
import { connections, pieces } from "./work.js"

const sizes = [1, 2, 3, 4, 6, 8, 10, 15, 20, 30] as const
const workers = 100

/** Of what the bare client reaches: a little less, so that chance alone does not ask for the next size. */
const share = 0.95

/** Reads a second. Each pool is another one, with time to open its connections and to prepare its statements. */
const reads = (name: string, url: Redacted.Redacted, connections: number, { few, round }: Plan) =>
  Effect.scoped(
    Effect.gen(function* () {
      const contender = yield* makers[name]!({ url, connections })
      const rate = Effect.promise(() => once(contender, workers, "read", round))
      yield* Effect.promise(() => contender.drive(workers, "read", pieces(1_000)))
      return median((yield* Effect.replicateEffect(rate, few)).map(({ perSecond }) => perSecond!))
    })
  )

export const poolSize = (url: Redacted.Redacted, plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const far = yield* delayed(url)
    const target = share * (yield* reads(bare, far, connections, plan))
    const needed = new Map<string, number>()
    const rates = new Map<string, Array<number>>([bare, everything].map((name) => [name, []]))
    for (const size of sizes) {
      for (const [name, reached] of rates) {
        if (needed.has(name)) continue
        const rate = yield* reads(name, far, size, plan)
        reached.push(rate)
        if (rate >= target) needed.set(name, size)
      }
    }
    const last = Math.max(...Array.from(rates.values(), ({ length }) => length))
    const body = sizes
      .slice(0, last)
      .map((size, n) => [String(size), ...Array.from(rates.values(), (reached) => shown(reached[n] ?? Number.NaN))])
    yield* tell({
      id: "size",
      title: `Connections for ${shown(Math.round(target))} point reads a second, ${workers} fibers, 1 ms of added round trip`,
      figures: ["size"],
      rounds: new Map(Array.from(rates.keys(), (name) => [name, [{ size: needed.get(name) ?? Infinity }]]))
    })
    yield* Console.log(
      `${rows(["connections", ...Array.from(rates.keys(), (name) => `${name}, per second`)], 0, body)}\n`
    )
  })
