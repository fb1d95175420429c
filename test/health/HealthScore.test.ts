import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as HealthScore from "../../src/health/HealthScore.js"

const well: HealthScore.Signals = {
  probeOk: true,
  pingMs: 1,
  queryMs: 3,
  total: 5,
  active: 2,
  idle: 3,
  waiting: 0,
  utilization: 0.2,
  waitMs: 0,
  breaker: "Closed",
  errorRate: 0,
  averageQueryMs: 2,
  slowQueries: 0,
  slowShare: 0,
  timeoutsPerMinute: 0,
  retryShare: 0,
  leaks: 0
}

const states = ["Closed", "ForcedClosed", "HalfOpen", "Open", "ForcedOpen"] as const
const anyNumber = fc.oneof(
  fc.double(),
  fc.double({ min: 0, max: 2 }),
  fc.double({ min: 0, max: 5000 }),
  fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1, -0, 0)
)
const maybe = fc.option(anyNumber, { nil: undefined })
const anySignals: fc.Arbitrary<HealthScore.Signals> = fc.record({
  probeOk: fc.boolean(),
  pingMs: maybe,
  queryMs: maybe,
  total: anyNumber,
  active: anyNumber,
  idle: anyNumber,
  waiting: anyNumber,
  utilization: anyNumber,
  waitMs: anyNumber,
  breaker: fc.constantFrom(...states),
  errorRate: anyNumber,
  averageQueryMs: anyNumber,
  slowQueries: anyNumber,
  slowShare: anyNumber,
  timeoutsPerMinute: anyNumber,
  retryShare: anyNumber,
  leaks: anyNumber
})
const judged = HealthScore.rules.flatMap(({ signal }) => (signal === "probeOk" || signal === "breaker" ? [] : [signal]))

describe("HealthScore", () => {
  it("gives a database that is well 100 points, and has nothing to explain", () => {
    assert.deepStrictEqual(HealthScore.score(well), { score: 100, deductions: [] })
  })

  it("explains each point that it takes away, the dearest signal first", () => {
    const judgement = HealthScore.score({
      ...well,
      probeOk: false,
      pingMs: undefined,
      breaker: "HalfOpen",
      errorRate: 0.13
    })
    assert.deepStrictEqual(judgement, {
      score: 10,
      deductions: [
        { signal: "probeOk", points: 60, why: "a health check that failed" },
        { signal: "breaker", points: 15, why: "the circuit breaker: HalfOpen" },
        { signal: "errorRate", points: 15, why: "attempts that failed: 13 %, over 1 %" }
      ]
    })
  })

  it("takes nothing up to a rule's beginning, half of the points half way, all at its end and beyond", () => {
    const cost = (waitMs: number) => 100 - HealthScore.score({ ...well, waitMs }).score
    assert.deepStrictEqual([0, 50, 525, 1000, 1e9].map(cost), [0, 0, 8, 15, 15])
  })

  it("is a whole number from 0 to 100, and 100 less all points, whatever the signals are", () =>
    fc.assert(
      fc.property(anySignals, (signals) => {
        const { deductions, score } = HealthScore.score(signals)
        assert.isTrue(Number.isInteger(score) && score >= 0 && score <= 100, String(score))
        assert.strictEqual(score, Math.max(0, 100 - deductions.reduce((sum, { points }) => sum + points, 0)))
        for (const { points, why } of deductions) {
          assert.isTrue(Number.isInteger(points) && points > 0)
          assert.notInclude(why, "NaN")
        }
        assert.strictEqual(new Set(deductions.map(({ signal }) => signal)).size, deductions.length)
      })
    ))

  it.each(judged)("never rises when %s gets worse", (signal) =>
    fc.assert(
      fc.property(anySignals, fc.double({ noNaN: true }), fc.double({ noNaN: true }), (signals, a, b) => {
        const better = HealthScore.score({ ...signals, [signal]: Math.min(a, b) })
        const worse = HealthScore.score({ ...signals, [signal]: Math.max(a, b) })
        assert.isAtMost(worse.score, better.score)
      })
    )
  )

  it("never rises when the health check fails, or the circuit goes from closed to half-open to open", () =>
    fc.assert(
      fc.property(anySignals, (signals) => {
        const of = (change: Partial<HealthScore.Signals>) => HealthScore.score({ ...signals, ...change }).score
        assert.isAtMost(of({ probeOk: false }), of({ probeOk: true }))
        const [closed, , halfOpen, open, forcedOpen] = states.map((breaker) => of({ breaker }))
        assert.isAtMost(halfOpen!, closed!)
        assert.isAtMost(open!, halfOpen!)
        assert.strictEqual(forcedOpen, open)
      })
    ))

  it("takes what it does not know for no trouble, and less than nothing for nothing", () =>
    fc.assert(
      fc.property(anySignals, fc.constantFrom(...judged), (signals, signal) => {
        const of = (value: number | undefined) => HealthScore.score({ ...signals, [signal]: value })
        assert.deepStrictEqual(of(Number.NaN), of(0))
        assert.deepStrictEqual(of(-5), of(0))
        assert.deepStrictEqual(of(undefined), of(0))
      })
    ))

  it("has its formula in a table with a row for every rule", () => {
    const rows = HealthScore.table.split("\n").slice(2)
    assert.strictEqual(rows.length, HealthScore.rules.length)
    assert.include(rows, "| `errorRate` | attempts that failed | from 1 %, all at 25 % | 30 |")
    assert.include(rows, "| `breaker` | the circuit breaker | HalfOpen: 15, Open: 40, ForcedOpen: 40 | 40 |")
  })
})
