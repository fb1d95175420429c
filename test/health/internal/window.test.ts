import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc, Metric } from "effect"
import * as window from "../../../src/health/internal/window.js"
import * as figures from "../../../src/telemetry/internal/figures.js"
import * as Metrics from "../../../src/telemetry/Metrics.js"

const reading = (at: number, change: Partial<figures.Figures> = {}): window.Reading => ({
  at,
  figures: { ...figures.none, ...change }
})

const numbersOf = (seen: window.Window) => Object.values(seen).filter((value) => typeof value === "number")

let pools = 0
const pool = () => {
  const poolName = `window-${++pools}`
  const metrics = Metrics.forPool({ poolName, namespace: "shop", address: "db", port: 5432, min: 0, max: 8 })
  const read = (at: number) => ({ at, figures: figures.perPool(Metric.unsafeSnapshot()).get(poolName)! })
  return { metrics, read }
}

describe("window", () => {
  it("tells what happened between two readings of the registry, and nothing of what was before", () => {
    const { metrics, read } = pool()
    metrics.operation("old", 9, "ConnectionError")
    const before = read(0)
    for (let i = 0; i < 6; i++) metrics.operation("get", 0.1, undefined)
    metrics.operation("get", 1.4, "StatementTimeoutError")
    metrics.operation("put", 0.1, "UniqueViolation")
    metrics.operation("get", 0.1, "Interrupted")
    metrics.cancel("Silent")
    metrics.waited(0.25)
    metrics.waited(0.75)
    metrics.acquireTimeout()
    metrics.retry("ConnectionError")
    metrics.leak()
    metrics.connected(0.01)
    const seen = window.over([before, read(30_000)])
    assert.strictEqual(seen.seconds, 30)
    assert.strictEqual(seen.operations, 9)
    assert.approximately(seen.perSecond, 0.3, 1e-9)
    // The timeout and the silent one, of eight that ended by themselves and the silent one.
    assert.approximately(seen.errorRate, 2 / 9, 1e-9)
    assert.strictEqual(seen.slowQueries, 1)
    assert.deepStrictEqual(seen.errors, { StatementTimeoutError: 1, UniqueViolation: 1 })
    assert.deepStrictEqual(
      seen.slowest.map(({ count, operation }) => [operation, count]),
      [["get", 1]]
    )
    assert.approximately(seen.slowest[0]!.averageMs, 2100 / 8, 1e-6)
    assert.approximately(seen.averageQueryMs, 2200 / 9, 1e-6)
    assert.approximately(seen.waitMs, 500, 1e-9)
    assert.strictEqual(seen.timeouts, 2)
    assert.strictEqual(seen.timeoutsPerMinute, 2)
    assert.strictEqual(seen.openedPerMinute, 1)
    assert.strictEqual(seen.retries, 1)
    assert.strictEqual(seen.leaks, 1)
  })

  it("has the levels of the moment, and forgets those of a pool that has closed", () => {
    const { metrics, read } = pool()
    metrics.pool({ idle: 2, used: 3, pending: 4 })
    metrics.breaker("Closed", "Open")
    assert.deepInclude(read(0).figures, { idle: 2, used: 3, pending: 4, max: 8, breaker: "Open" })
    metrics.close()
    assert.deepInclude(read(0).figures, { idle: 0, used: 0, pending: 0, max: 0, breaker: undefined })
  })

  it("counts on where a counter has begun again from 0", () => {
    const readings = [100, 130, 20, 25].map((retries, i) => reading(i * 1000, { retries }))
    assert.strictEqual(window.over(readings).retries, 30 + 20 + 5)
  })

  it("is all zero without two readings, and never less than zero or not a number", () => {
    for (const readings of [[], [reading(5)], [reading(5), reading(5)]]) {
      for (const value of numbersOf(window.over(readings))) assert.strictEqual(value, 0)
    }
    const count = fc.oneof(fc.nat(), fc.constant(0))
    const any = fc.record({ at: fc.nat(), troubled: count, silent: count, retries: count, opened: count })
    fc.assert(
      fc.property(fc.array(any), (list) => {
        const seen = window.over(list.map(({ at, ...change }) => reading(at, change)))
        for (const value of numbersOf(seen)) assert.isTrue(Number.isFinite(value) && value >= 0)
        assert.isAtMost(seen.errorRate, 1)
      })
    )
  })

  it("keeps the youngest reading from before the window, and a bounded number however often it is read", () => {
    let readings: ReadonlyArray<window.Reading> = []
    for (let at = 0; at <= 600_000; at += 10) readings = window.remember(readings, reading(at, { retries: at }), 60_000)
    assert.isAtMost(readings.length, 70)
    assert.isAtMost(readings[0]!.at, 540_000)
    assert.isAtLeast(readings[0]!.at, 538_000)
    assert.strictEqual(window.over(readings).retries, 600_000 - readings[0]!.at)
  })

  it("spreads what a bucket holds evenly to find a quantile", () => {
    const histogram = {
      count: 10,
      sum: 0,
      buckets: [
        [0.1, 5],
        [0.5, 9],
        [Number.POSITIVE_INFINITY, 10]
      ] as const
    }
    assert.approximately(window.quantile(histogram, 0.25), 0.05, 1e-9)
    assert.approximately(window.quantile(histogram, 0.7), 0.3, 1e-9)
    assert.strictEqual(window.quantile(histogram, 0.99), 0.5)
    assert.strictEqual(window.quantile(figures.noHistogram, 0.5), 0)
  })
})
