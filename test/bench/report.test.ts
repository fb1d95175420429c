import { assert, describe, it } from "@effect/vitest"
import { bars, comparisons, others, reached } from "./bars.js"
import { bare, everything, pg } from "./names.js"
import { type Measured, shown, table } from "./report.js"

const reads: Measured = {
  id: "read/20",
  title: "Point reads, 20 fibers",
  figures: ["perSecond", "p99"],
  rounds: new Map([
    [bare, [10_000, 8_000, 9_000].map((perSecond) => ({ perSecond, p99: 6.543 }))],
    [everything, [15_000, 16_000, 18_000].map((perSecond) => ({ perSecond, p99: 12.345 }))]
  ])
}

describe("report of the benchmark", () => {
  it("shows three digits of what is small, and all of what is large", () => {
    assert.deepStrictEqual([12_345.6, 123.4, 12.345, 1.2345, 0.012345, 7, Infinity, Number.NaN].map(shown), [
      "12,346",
      "123",
      "12.3",
      "1.23",
      "0.01",
      "7",
      "not reached",
      "–"
    ])
  })

  it("makes a table with the ratios to the standard", () => {
    assert.strictEqual(
      table(reads),
      `### Point reads, 20 fibers

| contender | per second | times @effect/sql-pg (lowest to highest) | p99 ms |
| --- | ---: | ---: | ---: |
| @effect/sql-pg | 9,000 | 1.00 (1.00 to 1.00) | 6.54 |
| ours, everything on | 16,000 | 2.00 (1.50 to 2.00) | 12.3 |
`
    )
  })

  it("says of each bar whether it is reached, and of what was not measured that", () => {
    const [, , first, second] = comparisons([reads], bars).split("\n")
    assert.strictEqual(
      first,
      "| point reads a second, 20 fibers | `@effect/sql-pg` | 16,000 | 9,000 | 2.00 (1.50 to 2.00) | at least 1.5 | yes |"
    )
    assert.strictEqual(
      second,
      `| point reads a second, 20 fibers | \`${pg}\` | – | – | not measured | at least 1 | – |`
    )
  })

  it("has a bar reached by the ratio that it shows", () => {
    const spread = (median: number) => ({ median, low: median, high: median })
    assert.isTrue(reached({ atLeast: 1.5 }, spread(1.496)))
    assert.isFalse(reached({ atLeast: 1.5 }, spread(1.494)))
    assert.isTrue(reached({ atMost: 1 }, spread(1.004)))
    assert.isFalse(reached({ atMost: 1 }, spread(1.006)))
    assert.isFalse(reached({ atMost: 0.4 }, spread(Infinity)))
  })

  it("compares only what can be told apart", () => {
    const all = [...bars, ...others].map(({ against, figure, id }) => [id, figure, against].join())
    assert.strictEqual(new Set(all).size, all.length)
  })
})
