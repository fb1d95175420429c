import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Alerts from "../../../src/health/Alerts.js"
import { withThresholds } from "../../../src/health/internal/thresholds.js"

const moved = (thresholds: Alerts.Thresholds) =>
  new Map(
    withThresholds<Alerts.Measure>(Alerts.rules, thresholds, Alerts.units).map((rule) => [
      rule.name,
      [rule.raise, rule.clear] as const
    ])
  )

describe("thresholds", () => {
  it("move clear along with raise, and leave the other rules alone", () => {
    const standard = moved({})
    const found = moved({ waitMs: 2000, errorRate: 0.1, poolExhaustedInMs: 60_000, breakerOpenMs: 5_000, leaks: 2 })
    assert.deepStrictEqual(found.get("pool-wait"), [2000, 1000])
    assert.deepStrictEqual(found.get("error-rate"), [0.1, 0.06])
    assert.deepStrictEqual(found.get("pool-exhaustion"), [60_000, 120_000])
    assert.deepStrictEqual(found.get("breaker-open"), [5_000, 0])
    assert.deepStrictEqual(found.get("connection-leak"), [2, 0])
    for (const name of ["slow-queries", "health-score", "slow-ping", "breaker-change"])
      assert.deepStrictEqual(found.get(name), standard.get(name))
  })

  it("keep two rules of one measure apart", () => {
    const found = moved({ pingMs: 50 })
    assert.deepStrictEqual(found.get("slow-ping"), [50, 25])
    assert.deepStrictEqual(found.get("very-slow-ping"), [100, 75])
  })

  it("leave a score a way back, however high its threshold is", () => {
    assert.deepStrictEqual(moved({ score: 70 }).get("health-score"), [70, 80])
    assert.deepStrictEqual(moved({ score: 85 }).get("health-score"), [85, 90])
    assert.deepStrictEqual(moved({ score: 100 }).get("health-score"), [100, 100])
    assert.deepStrictEqual(moved({ score: 40 }).get("health-score"), [40, 60])
  })

  it("never put clear on the wrong side of raise", () => {
    const any = fc.record(
      {
        score: fc.integer({ min: 0, max: 100 }),
        errorRate: fc.double({ min: 0, max: 1, noNaN: true }),
        utilization: fc.double({ min: 0, max: 1, noNaN: true }),
        pingMs: fc.double({ min: 0, max: 2 ** 31, noNaN: true }),
        breakerOpenMs: fc.double({ min: 0, max: 2 ** 31, noNaN: true }),
        leaks: fc.nat(),
        poolExhaustedInMs: fc.double({ min: 0, max: 2 ** 31, noNaN: true })
      },
      { requiredKeys: [] }
    )
    fc.assert(
      fc.property(any, (thresholds) => {
        for (const { clear, measure, name, raise, when } of withThresholds<Alerts.Measure>(
          Alerts.rules,
          thresholds,
          Alerts.units
        )) {
          assert.isTrue(when === "above" ? clear <= raise : clear >= raise, name)
          assert.isTrue(Number.isFinite(clear) && clear >= 0, name)
          if (measure === "score") assert.isAtMost(clear, 100)
        }
      })
    )
  })
})
