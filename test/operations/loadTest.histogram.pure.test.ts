import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Histogram from "../../src/operations/internal/load/histogram.js"

/** Microseconds from 0 to some hours, as dense at the short end as at the long one. */
const latency = fc
  .tuple(fc.integer({ min: 0, max: 34 }), fc.double({ min: 0, max: 1, noNaN: true }))
  .map(([power, share]) => Math.floor(share * 2 ** power))
const latencies = fc.array(latency, { minLength: 1, maxLength: 400 })
const percent = fc.oneof(fc.constantFrom(0, 50, 90, 99, 99.9, 100), fc.double({ min: 0, max: 100, noNaN: true }))

const of = (values: ReadonlyArray<number>, bits = Histogram.precise) => {
  const histogram = Histogram.make(bits)
  for (const value of values) Histogram.record(histogram, value)
  return histogram
}

/** By sorting, without a histogram. */
const exact = (values: ReadonlyArray<number>, percent: number) => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((percent * sorted.length) / 100 - 1e-9) - 1)]!
}

describe("the histogram", () => {
  it("puts every value into a bucket that holds it and is narrower than a thousandth of it", () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (any) => {
        const value = Math.abs(any) % 2 ** 42
        const [low, high] = Histogram.boundsOf(10, Histogram.indexOf(10, value))
        assert.isTrue(low <= value && value <= high, `${value} is not in ${low} to ${high}`)
        assert.isAtMost(high - low, value / 1000)
      })
    )
  })

  it("has buckets without a gap or an overlap", () => {
    for (const bits of [1, 4, 10]) {
      for (let index = 1; index < 20 * 2 ** bits; index++) {
        assert.strictEqual(Histogram.boundsOf(bits, index)[0], Histogram.boundsOf(bits, index - 1)[1] + 1)
      }
    }
  })

  it("knows percentiles as sorting knows them, to a thousandth", () => {
    fc.assert(
      fc.property(latencies, percent, (values, percent) => {
        const truth = exact(values, percent)
        const told = Histogram.percentile(of(values), percent)
        assert.isAtLeast(told, truth)
        assert.isAtMost(told - truth, truth / 1000)
      })
    )
  })

  it("takes 999 of 1,000 for 99.9 percent, and not one more", () => {
    const histogram = of(Array.from({ length: 1000 }, (_, n) => n + 1))
    assert.strictEqual(Histogram.percentile(histogram, 99.9), 999)
    assert.strictEqual(Histogram.percentile(histogram, 99.91), 1000)
    assert.strictEqual(Histogram.percentile(histogram, 50), 500)
    assert.strictEqual(Histogram.mean(histogram), 500.5)
  })

  it("is the same whether values were recorded at one place or merged from two", () => {
    fc.assert(
      fc.property(latencies, latencies, fc.constantFrom(4, 10), (some, others, bits) => {
        const merged = of(some, bits)
        Histogram.merge(merged, of(others, bits))
        assert.deepStrictEqual(Histogram.encode(merged), Histogram.encode(of([...some, ...others], bits)))
        assert.strictEqual(merged.total, some.length + others.length)
      })
    )
  })

  it("comes back from JSON as it was", () => {
    fc.assert(
      fc.property(latencies, percent, (values, percent) => {
        const before = of(values)
        const encoded: Histogram.Encoded = JSON.parse(JSON.stringify(Histogram.encode(before)))
        assert.isUndefined(Histogram.faultOf(encoded))
        const after = Histogram.decode(encoded)
        assert.deepStrictEqual(Histogram.encode(after), encoded)
        assert.strictEqual(after.total, values.length)
        assert.strictEqual(Histogram.percentile(after, percent), Histogram.percentile(before, percent))
      })
    )
  })

  it("refuses data that is no histogram", () => {
    const good = Histogram.encode(of([1, 2, 3]))
    assert.isUndefined(Histogram.faultOf(good))
    const bad: ReadonlyArray<Partial<Histogram.Encoded>> = [
      { bits: 0 },
      { bits: 99 },
      { counts: [1] },
      { counts: [1, -1] },
      { counts: [0.5, 1] },
      { counts: [1e9, 1] },
      { min: 5 },
      { sum: Number.NaN }
    ]
    for (const part of bad) assert.isString(Histogram.faultOf({ ...good, ...part }), JSON.stringify(part))
  })

  it("holds no more for a million values than for the range that they cover", () => {
    const histogram = Histogram.make()
    for (let n = 0; n < 1_000_000; n++) Histogram.record(histogram, (n * 7919) % 1_000_000)
    assert.strictEqual(histogram.total, 1_000_000)
    assert.isAtMost(histogram.counts.byteLength, 100_000)
  })

  it("counts what is beyond its range, and knows how long it was", () => {
    const histogram = of([2 ** 50, -1])
    assert.deepInclude(histogram, { total: 2, max: 2 ** 50, min: 0 })
    assert.strictEqual(Histogram.percentile(histogram, 0), 0)
    assert.isNaN(Histogram.percentile(Histogram.make(), 50))
  })
})
