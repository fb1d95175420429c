import { assert, describe, it } from "@effect/vitest"
import { grown, median, quantile, ratio } from "./statistics.js"

describe("statistics of the benchmark", () => {
  it("takes the middle one, or the mean of the middle two", () => {
    assert.strictEqual(median([3, 1, 2]), 2)
    assert.strictEqual(median([4, 1, 2, 3]), 2.5)
    assert.strictEqual(median([Infinity, 5, Infinity]), Infinity)
    assert.isNaN(median([]))
  })

  it("has one in a hundred above p99", () => {
    const sorted = Array.from({ length: 1000 }, (_, n) => n + 1)
    assert.strictEqual(quantile(sorted, 0.5), 501)
    assert.strictEqual(sorted.filter((value) => value > quantile(sorted, 0.99)).length, 9)
    assert.strictEqual(quantile(sorted, 1), 1000)
    assert.isNaN(quantile([], 0.5))
  })

  it("compares round by round, so that a slow round of both does not count", () => {
    assert.deepStrictEqual(ratio([200, 20, 300], [100, 10, 100]), { median: 2, low: 2, high: 3 })
  })

  it("adds up what grew between collections", () => {
    assert.strictEqual(grown(100, [], 130), 30)
    const collections = [
      { before: 150, after: 110 },
      { before: 210, after: 90 }
    ]
    assert.strictEqual(grown(100, collections, 95), 50 + 100 + 5)
  })
})
