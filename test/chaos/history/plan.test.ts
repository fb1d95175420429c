/** What clients do and what happens to them: the same again for the same seed. */
import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Faults from "./faults.js"
import * as Plan from "./plan.js"

const seed = fc.integer({ min: 0, max: 2 ** 31 - 1 })
const of = <A>(count: number, make: (n: number) => A) => Array.from({ length: count }, (_, n) => make(n))

describe("Plan.transaction", () => {
  it("is the same for the same seed, and gives every write of a run a value of its own that fits in 32 bits", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 1, max: 20 }), (seed, clients) => {
        const shape = { ...Plan.defaults, seed, clients }
        const run = () =>
          of(30, (n) => of(clients, (client) => Plan.transaction(shape, Plan.kinds[client % 3]!, client, n))).flat()
        const planned = run()
        assert.deepStrictEqual(run(), planned)
        const values = planned.flatMap(({ operations }) =>
          operations.flatMap((operation) =>
            operation._tag === "Append" || operation._tag === "Write" ? [operation.value] : []
          )
        )
        assert.strictEqual(new Set(values).size, values.length)
        assert.strictEqual(new Set(planned.map(({ id }) => id)).size, planned.length)
      }),
      { numRuns: 20 }
    )
    const last = Plan.transaction({ ...Plan.defaults, seed: 1 }, "register", 7, 1_000_000)
    assert.isBelow(last.id * 8 + 8, 2 ** 31)
  })
})

describe("Faults.seeded", () => {
  it("is the same for the same seed, keeps to its weights and its gap, and has everything in the long run", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 0, max: 300 }), (seed, gap) => {
        const all = of(600, Faults.seeded(seed, Faults.everything, gap))
        assert.deepStrictEqual(of(600, Faults.seeded(seed, Faults.everything, gap)), all)
        assert.isTrue(all.every(({ after }) => after >= 0 && after <= gap))
        assert.sameMembers([...new Set(all.map(({ fault }) => fault._tag))], Object.keys(Faults.everything))
        const cuts = of(100, Faults.seeded(seed, Faults.commitCuts))
        assert.sameMembers([...new Set(cuts.map(({ fault }) => fault._tag))], ["CommitCut", "CommitReplyLost"])
      }),
      { numRuns: 10 }
    )
  })
})
