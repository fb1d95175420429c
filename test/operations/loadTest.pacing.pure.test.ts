import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Pacing from "../../src/operations/internal/load/pacing.js"

const forever = { warmUp: 0, end: Number.POSITIVE_INFINITY, ramp: 0 }

/** All that one worker is given which is always free. */
const dues = (pace: Pacing.Pace, most = 10_000) => {
  const all: Array<number> = []
  for (let due = pace.next(0, 0); due !== undefined && all.length < most; due = pace.next(0, 0)) all.push(due)
  return all
}

const open = (options: Partial<Pacing.Open> = {}) =>
  Pacing.open({
    ...forever,
    rate: 100,
    operations: Number.POSITIVE_INFINITY,
    arrivals: "constant",
    seed: 1,
    ...options
  })

describe("arrivals", () => {
  it("come evenly at a constant rate, until their number is reached", () => {
    assert.deepStrictEqual(dues(open({ operations: 5 })), [0, 10, 20, 30, 40])
  })

  it("end before the end, not at it", () => {
    assert.deepStrictEqual(dues(open({ end: 30 })), [0, 10, 20])
  })

  it("do not count what comes while it warms up", () => {
    assert.deepStrictEqual(dues(open({ operations: 2, warmUp: 25 })), [0, 10, 20, 30, 40])
  })

  it("come as many as half the rate says while the load rises, and at the rate afterwards", () => {
    const all = dues(open({ ramp: 2000, end: 4000 }))
    assert.strictEqual(all.filter((due) => due < 2000).length, 100)
    assert.strictEqual(all.filter((due) => due >= 2000).length, 200)
    // in the middle of the ramp half the rate: 50 a second
    assert.closeTo(all.filter((due) => due >= 900 && due < 1100).length, 10, 1)
  })

  it("are due at moments that never go back, and agree with the integral of the rate", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.1, max: 1e5, noNaN: true }),
        fc.integer({ min: 0, max: 60_000 }),
        fc.integer({ min: 0, max: 100_000 }),
        (rate, ramp, n) => {
          const at = Pacing.dueAt(n, rate, ramp)
          assert.isAtLeast(Pacing.dueAt(n + 1, rate, ramp), at)
          assert.closeTo(Pacing.dueBy(at, rate, ramp), n, 1e-6 * Math.max(1, n))
          // the area under the rate, as a triangle and a rectangle
          const height = rate / 1000
          const area = at < ramp ? (at * height * (at / ramp)) / 2 : (ramp * height) / 2 + (at - ramp) * height
          assert.closeTo(area, n, 1e-6 * Math.max(1, n))
        }
      )
    )
  })

  it("of independent clients have exponential gaps, the same for the same seed", () => {
    const all = dues(open({ arrivals: "poisson", seed: 7 }), 10_000)
    assert.deepStrictEqual(all, dues(open({ arrivals: "poisson", seed: 7 }), 10_000))
    assert.notDeepEqual(all, dues(open({ arrivals: "poisson", seed: 8 }), 10_000))
    const gaps = all.slice(1).map((due, n) => due - all[n]!)
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length
    assert.closeTo(mean, 10, 0.5)
    // of an exponential distribution 1/e are longer than the mean, and the deviation is the mean
    assert.closeTo(gaps.filter((gap) => gap > 10).length / gaps.length, 1 / Math.E, 0.02)
    const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length
    assert.closeTo(Math.sqrt(variance), 10, 0.7)
  })

  it("that nobody was free to take before the end are counted", () => {
    const pace = open({ end: 100, warmUp: 20 })
    assert.strictEqual(pace.next(0, 0), 0)
    assert.strictEqual(pace.next(0, 50), 10)
    assert.isUndefined(pace.next(0, 100))
    assert.strictEqual(pace.left(100), 8)
    assert.strictEqual(pace.left(100), 0)
  })

  it("that nobody took are counted at once, however many", () => {
    const flood = { rate: 1_000_000, end: 86_400_000, warmUp: 1000 }
    assert.closeTo(open(flood).left(86_400_000), 86_399e6, 2)
    assert.closeTo(open({ ...flood, arrivals: "poisson" }).left(43_200_000), 43_199e6, 2)
    assert.strictEqual(open({ ...flood, operations: 5 }).left(86_400_000), 5)
  })

  it("that are not due yet when the test is stopped are nobody's loss", () => {
    const pace = open({ end: 1000 })
    pace.next(0, 0)
    assert.strictEqual(pace.left(35), 3)
  })
})

describe("fibers of a closed test", () => {
  const closed = (options: Partial<Pacing.Closed> = {}) =>
    Pacing.closed({ ...forever, concurrency: 4, operations: Number.POSITIVE_INFINITY, thinkTime: 0, ...options })

  it("have turns of their own, each due at once", () => {
    const pace = closed({ operations: 2 })
    assert.deepStrictEqual([pace.next(0, 0), pace.next(0, 7), pace.next(0, 9)], [0, 7, undefined])
    assert.strictEqual(pace.next(1, 9), 9)
  })

  it("start one after the other while the load rises", () => {
    const pace = closed({ ramp: 1000 })
    assert.deepStrictEqual(
      [0, 1, 2, 3].map((worker) => pace.next(worker, 0)),
      [0, 250, 500, 750]
    )
    assert.strictEqual(pace.next(3, 751), 751)
  })

  it("think before each turn but the first", () => {
    const pace = closed({ thinkTime: 100 })
    assert.deepStrictEqual([pace.next(0, 0), pace.next(0, 10), pace.next(0, 130)], [0, 110, 230])
  })

  it("begin nothing from the end on, and count nothing before the warm-up is over", () => {
    const pace = closed({ operations: 1, warmUp: 50, end: 100 })
    assert.deepStrictEqual(
      [pace.next(0, 0), pace.next(0, 49), pace.next(0, 50), pace.next(0, 60)],
      [0, 49, 50, undefined]
    )
    assert.isUndefined(pace.next(1, 100))
  })
})
