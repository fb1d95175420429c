/** The checker, checked: valid histories pass, and every planted violation is found, named, and nothing else is. */
import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Seeds from "../seeds.js"
import * as Checker from "./checker.js"
import { type Isolation, Operation, type Recorded } from "./model.js"
import { cycles } from "./plants/cycles.js"
import type { Draft, Plant } from "./plants/draft.js"
import { reads } from "./plants/reads.js"
import { stored } from "./plants/stored.js"
import { simulate } from "./simulate.js"

const seed = fc.integer({ min: 0, max: 2 ** 31 - 1 })
const levels: ReadonlyArray<Isolation> = ["read committed", "repeatable read", "serializable"]

/** A valid history with something of every kind in it, and the violation. */
const planted = ({ plant }: Plant, seed: number) => {
  const draft = structuredClone(simulate({ seed, transactions: 400 })) as Draft
  const words = plant(draft, Seeds.random(seed, -2))
  return { draft, words }
}

const found = ({ final, history }: Draft) => Checker.check(history, final).violations

describe("Checker.check, on a valid history", () => {
  it("finds nothing, at any level, in real time or not", () => {
    fc.assert(
      fc.property(
        seed,
        fc.integer({ min: 0, max: 400 }),
        fc.integer({ min: 1, max: 12 }),
        fc.constantFrom(...levels),
        fc.boolean(),
        (seed, transactions, clients, isolation, realTime) => {
          const { final, history } = simulate({ seed, transactions, clients, isolation })
          assert.deepStrictEqual(Checker.check(history, final, { realTime }).violations, [])
        }
      ),
      { numRuns: 100 }
    )
  })

  it("counts what was told, and what became of the unknown", () => {
    const { final, history } = simulate({ seed: 1, transactions: 2_000 })
    const { doubled, lost, told, unknown } = Checker.check(history, final)
    assert.strictEqual(told.ok + told.failed + told.unknown, 2_000)
    assert.strictEqual(unknown.present + unknown.absent + unknown.open, told.unknown)
    assert.deepStrictEqual({ doubled, lost }, { doubled: 0, lost: 0 })
    assert.isAbove(Math.min(told.ok, told.failed, unknown.present, unknown.absent), 50)
  })

  it("judges 100,000 transactions in seconds, their order in real time included", () => {
    const { final, history } = simulate({ seed: 2, transactions: 100_000 })
    const since = performance.now()
    assert.deepStrictEqual(Checker.check(history, final, { realTime: true }).violations, [])
    const elapsed = performance.now() - since
    console.log(`100,000 transactions judged in ${elapsed.toFixed(0)} ms`)
    assert.isBelow(elapsed, 20_000)
  })
})

describe("Checker.check, on a history with a planted violation", () => {
  for (const plant of [...stored, ...reads, ...cycles]) {
    it(`finds ${plant.name}, calls it "${plant.kind}", and finds nothing else`, () => {
      fc.assert(
        fc.property(seed, (seed) => {
          const { draft, words } = planted(plant, seed)
          const violations = found(draft)
          assert.deepStrictEqual([...new Set(violations.map(({ kind }) => kind))], [plant.kind])
          for (const word of words) {
            assert.isTrue(
              violations.some(({ message }) => message.includes(word)),
              `"${word}" in ${violations.map(({ message }) => message).join("; ")}`
            )
          }
        }),
        { numRuns: 10 }
      )
    })
  }

  for (const plant of cycles) {
    it(`accepts ${plant.name}, where the level does, and only there`, () => {
      for (const level of levels) {
        const { draft } = planted(plant, 3)
        draft.history.isolation = level
        const forbidden = levels.indexOf(level) >= levels.indexOf(plant.from)
        assert.strictEqual(found(draft).length > 0, forbidden, level)
      }
    })
  }

  it("finds a read that is older than what had ended before it began, only when asked for real time", () => {
    const { final, history } = simulate({ seed: 4, transactions: 400 })
    const at = 1_000_000
    const recorded = (id: number, invoked: number, ...operations: ReadonlyArray<Operation>): Recorded => ({
      id,
      client: id,
      invoked,
      completed: invoked + 1,
      told: "ok",
      operations
    })
    const append = recorded(at, at, Operation.Append({ list: at, value: at }))
    const lists = [...final.lists]
    lists[at] = [at]
    const violations = (invoked: number, realTime: boolean) => {
      const late = recorded(at + 1, invoked, Operation.ReadList({ list: at, values: [] }))
      const transactions = [append, ...history.transactions, late]
      return Checker.check({ ...history, transactions }, { ...final, lists }, { realTime }).violations
    }
    assert.deepStrictEqual(violations(at + 2, false), [])
    assert.deepStrictEqual(violations(at + 1, true), [], "begun when the other ended: they overlap")
    const [violation, ...more] = violations(at + 2, true)
    assert.strictEqual(violation?.kind, "real time")
    assert.include(violation?.message, `#${at} -rt-> #${at + 1}`)
    assert.deepStrictEqual(more, [])
  })

  it("counts transactions that are doubled, and those that are lost, once each", () => {
    const { final, history } = simulate({ seed: 5, transactions: 400 })
    const [first, second, third, ...rest] = final.transfers
    const transfers = [first!, second!, ...rest, { ...first!, row: 999 }, { ...first!, row: 1_000 }]
    const { doubled, lost } = Checker.check(history, { ...final, transfers })
    const wasOk = history.transactions.some(
      ({ operations, told }) =>
        told === "ok" && operations.some((operation) => operation._tag === "Transfer" && operation.id === third!.id)
    )
    assert.deepStrictEqual({ doubled, lost }, { doubled: 1, lost: wasOk ? 1 : 0 })
  })
})
