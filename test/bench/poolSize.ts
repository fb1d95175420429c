/** How many connections it takes to read as much as the bare client does with ten of them, a millisecond away. */
import { Console, Effect, type Redacted } from "effect"
import { makers } from "./contenders.js"
import { delayed } from "./delay.js"
import { bare, everything } from "./names.js"
import { rows, shown, spread } from "./report.js"
import { alternate, type Plan, type Tell } from "./rounds.js"
import { median, ratio, type Spread } from "./statistics.js"
import { once } from "./throughput.js"
import { connections, pieces } from "./work.js"

const sizes = [1, 2, 3, 4, 6, 8, 10, 15, 20, 30] as const
const workers = 100

/** Of what the bare client reaches: a little less, so that chance alone does not ask for the next size. */
const share = 0.95

/** Warm: its connections are open, its statements prepared. */
const open = (name: string, url: Redacted.Redacted, connections: number) =>
  Effect.tap(makers[name]!({ url, connections }), ({ drive }) =>
    Effect.promise(() => drive(workers, "read", pieces(1_000)))
  )

/** Those of one size, in times of what the bare client with its ten reads in the same round, which it does in turn with them. */
const compared = (names: ReadonlyArray<string>, url: Redacted.Redacted, size: number, plan: Plan) =>
  Effect.scoped(
    Effect.gen(function* () {
      const standard = yield* open(bare, url, connections)
      const contenders = yield* Effect.forEach(names, (name) => open(name, url, size))
      const all = new Map([["", standard], ...contenders.map((contender) => [contender.name, contender] as const)])
      const rounds = yield* alternate([...all.keys()], { rounds: plan.few, warm: Math.min(1, plan.warm) }, (name) =>
        Effect.promise(() => once(all.get(name)!, workers, "read", plan.round))
      )
      const rates = (name: string) => rounds.get(name)!.map(({ perSecond }) => perSecond!)
      return {
        standard: rates(""),
        times: new Map(names.map((name): [string, Spread] => [name, ratio(rates(name), rates(""))]))
      }
    })
  )

export const poolSize = (url: Redacted.Redacted, plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const far = yield* delayed(url)
    const names = [bare, everything]
    const needed = new Map<string, number>()
    const standard: Array<number> = []
    const seen: Array<ReadonlyArray<string>> = []
    for (const size of sizes) {
      const searching = names.filter((name) => !needed.has(name))
      if (searching.length === 0) break
      const { standard: rates, times } = yield* compared(searching, far, size, plan)
      standard.push(...rates)
      seen.push([String(size), ...names.map((name) => (times.has(name) ? spread(times.get(name)!) : "–"))])
      for (const [name, { median }] of times) if (median >= share) needed.set(name, size)
    }
    const target = shown(Math.round(share * median(standard)))
    yield* tell({
      id: "size",
      title: `Connections for ${target} point reads a second, ${workers} fibers, 1 ms of added round trip`,
      figures: ["size"],
      rounds: new Map(names.map((name) => [name, [{ size: needed.get(name) ?? Infinity }]]))
    })
    const what = `times ${bare} with ${connections} (lowest to highest)`
    yield* Console.log(`${rows(["connections", ...names.map((name) => `${name}, ${what}`)], 0, seen)}\n`)
  })
