import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as trend from "../../../src/health/internal/trend.js"

/** A minute between values, at a time like today's. */
const minutely = (values: ReadonlyArray<number>) => values.map((value, i) => ({ at: 1.8e12 + i * 60_000, value }))

describe("trend", () => {
  it("tells how long a pool lasts that fills steadily", () => {
    assert.approximately(trend.secondsUntil(minutely([0.1, 0.2, 0.3, 0.4]), 1)!, 360, 1e-6)
  })

  it("says nothing of what falls, stands still, is scattered or was seen too rarely", () => {
    for (const values of [
      [0.4, 0.3, 0.2, 0.1],
      [0.5, 0.5, 0.5, 0.5],
      [0.1, 0.9, 0, 0.8, 0.1, 0.9],
      [0.1, 0.2, 0.3]
    ]) {
      assert.isUndefined(trend.secondsUntil(minutely(values), 1), String(values))
    }
  })

  it("has no time left when the latest value is there", () => {
    assert.strictEqual(trend.secondsUntil(minutely([0.2, 1]), 1), 0)
  })

  it("finds the line that points were taken from, whatever else is in between", () =>
    fc.assert(
      fc.property(
        fc.double({ min: -100, max: 100, noNaN: true }),
        fc.double({ min: -10, max: 10, noNaN: true }),
        fc.integer({ min: 4, max: 50 }),
        (start, perMinute, count) => {
          const points = minutely(Array.from({ length: count }, (_, i) => start + perMinute * i))
          const line = trend.line([...points.slice(0, 2), { at: 1.8e12, value: Number.NaN }, ...points.slice(2)])!
          assert.approximately(line.perSecond, perMinute / 60, 1e-6)
          assert.approximately(line.start, start, 1e-5)
        }
      )
    ))

  it("is total", () =>
    fc.assert(
      fc.property(fc.array(fc.record({ at: fc.double(), value: fc.double() })), fc.double(), (points, limit) => {
        const seconds = trend.secondsUntil(points, limit)
        assert.isTrue(seconds === undefined || (Number.isFinite(seconds) && seconds >= 0))
        const drift = trend.drift(points, 1)
        assert.isTrue(drift === undefined || drift >= 1)
      })
    ))

  it("sees a latency that creeps up, but not one that is small all the same", () => {
    assert.approximately(trend.drift(minutely([10, 20, 30, 40]), 5)!, 4, 1e-9)
    assert.strictEqual(trend.drift(minutely([0.1, 0.2, 0.3, 0.4]), 5), 1)
    assert.strictEqual(trend.drift(minutely([40, 30, 20, 10]), 5), 1)
  })

  it("calls it a storm when every connection is opened twice a minute, and never below ten", () => {
    assert.isFalse(trend.isStorm(19.9, 10))
    assert.isTrue(trend.isStorm(20, 10))
    assert.isFalse(trend.isStorm(9, 1))
    assert.isTrue(trend.isStorm(10, 1))
  })
})
