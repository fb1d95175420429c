/** The report: what it says, that it needs nothing else, and that nothing in it is taken for markup. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Data, Effect } from "effect"
import { LoadTest } from "effect-pg-resilience"
import * as Format from "../../src/operations/internal/load/format.js"
import * as Plot from "../../src/operations/internal/load/plot.js"
import * as Progress from "../../src/operations/internal/load/progress.js"
import * as Chromium from "../support/chromium.js"

const hostile = `<script>alert("x")</script><img src='http://example.com/x' onerror=alert(1)>&`

class Hostile extends Data.TaggedError(hostile)<{ readonly message: string }> {}

const sampled = (result: LoadTest.Result): LoadTest.Result => ({
  ...result,
  samples: [
    { at: 0, pool: { max: 10, total: 3, idle: 0, used: 3, connecting: 0, waiting: 40 }, breaker: "Closed" },
    { at: 5, pool: { max: 10, total: 3, idle: 1, used: 2, connecting: 0, waiting: 0 }, breaker: "Open" }
  ]
})

const one = Effect.map(
  LoadTest.run({
    scenario: {
      "a <b>": { effect: Effect.yieldNow(), weight: 9 },
      fails: new Hostile({ message: hostile })
    },
    rate: 5000,
    operations: 500,
    seed: 1,
    thresholds: ["p99<10m", "errors<1%"],
    label: hostile
  }),
  sampled
)

describe("the report", () => {
  it.live("escapes whatever comes from outside, and asks for nothing", () =>
    Effect.gen(function* () {
      const result = yield* one
      const html = LoadTest.html(result, { ...result, label: hostile })
      assert.notInclude(html, "<script")
      assert.notInclude(html, "<img")
      assert.notInclude(html, "<b>")
      assert.include(html, "&lt;script&gt;alert(&quot;x&quot;)")
      const tags = html.replace(/="[^"]*"/g, "=")
      assert.notMatch(tags, /<(link|iframe|object|base|form)\b|<[^>]*\b(src|href|action)=|url\(|@import/i)
      assert.include(html, "default-src 'none'")
    })
  )

  it.live("says in words and tables what it draws", () =>
    Effect.gen(function* () {
      const html = LoadTest.html(yield* one)
      for (const id of ["percentiles", "throughput", "latency", "errors", "pool", "breaker"]) {
        assert.match(html, new RegExp(`aria-labelledby="${id}-title ${id}-words"`))
        assert.match(html, new RegExp(`<desc id="${id}-words">[^<]+</desc>`))
      }
      assert.strictEqual(html.match(/<figure>/g)?.length, html.match(/<details>/g)?.length)
      assert.include(html, "Closed from 0 on; Open from 5 ms on")
      assert.include(html, "up to 3 were used; up to 40 fibers waited")
      assert.include(html, "Failed: 1 of 2 thresholds")
      assert.notInclude(html, "NaN")
      assert.notInclude(html, "undefined")
    })
  )

  it.live("stands for a test of which nothing came", () =>
    Effect.gen(function* () {
      const test = yield* LoadTest.make({ scenario: { a: Effect.void }, thresholds: ["p99<1s"] })
      const result = yield* test.result
      const html = LoadTest.html(result)
      assert.include(html, "Stopped before its end")
      assert.notInclude(html, "NaN")
      assert.notInclude(html, "Infinity")
      assert.notInclude(LoadTest.summary(result), "NaN")
      assert.include(LoadTest.summary(result), "nothing was measured")
    })
  )
})

const axisIs = ({ from, ticks, to }: Plot.Axis) => [from, to, ticks.map(([at]) => at)]

describe("axes", () => {
  it("end at round numbers", () => {
    const plain = (value: number) => String(value)
    assert.deepStrictEqual(axisIs(Plot.linear(17, 1, plain)), [0, 20, [0, 5, 10, 15, 20]])
    assert.deepStrictEqual(axisIs(Plot.linear(0, 4, plain)), [0, 4, [0, 1, 2, 3, 4]])
    assert.deepStrictEqual(axisIs(Plot.logarithmic(0.3, 700, plain)), [0.1, 1000, [0.1, 1, 10, 100, 1000]])
    assert.deepStrictEqual(axisIs(Plot.logarithmic(10, 10, plain)), [10, 100, [10, 100]])
    assert.deepStrictEqual(axisIs(Plot.overTime(8000, plain)), [0, 8000, [0, 2000, 4000, 6000, 8000]])
    assert.deepStrictEqual(axisIs(Plot.overTime(0, plain)), [0, 1, [0]])
    assert.isAtMost(Plot.overTime(40 * 86_400_000, plain).ticks.length, 8)
  })
})

describe("numbers for people", () => {
  it("have the unit that suits them", () => {
    assert.deepStrictEqual(
      [0, 0.0004, 0.83, 1.5, 12.345, 123.4, 999.4, 999.7, 1520, 119_999, 200_000, 7_500_000, Number.NaN].map(
        Format.milliseconds
      ),
      [
        ...["0 µs", "0 µs", "830 µs", "1.5 ms", "12.3 ms", "123 ms", "999 ms", "1 s", "1.52 s", "120 s"],
        ...["3 min 20 s", "2 h 5 min", "–"]
      ]
    )
    assert.deepStrictEqual([0, 0.00001, 0.001, 0.0123, 0.5].map(Format.share), [
      "0 %",
      "< 0.01 %",
      "0.1 %",
      "1.23 %",
      "50 %"
    ])
    assert.deepStrictEqual(
      [Format.change(100, 150), Format.change(100, 99.5), Format.change(10, 10), Format.change(0, 1)],
      ["+50 %", "−0.5 %", "±0 %", undefined]
    )
  })
})

describe("the progress bar", () => {
  const known = {
    warmUp: 0,
    expected: Number.POSITIVE_INFINITY,
    end: Number.POSITIVE_INFINITY,
    failed: 0,
    p99: Number.NaN
  }

  it("estimates by the bound that is reached first", () => {
    const byCount = Progress.of({ ...known, elapsed: 1000, done: 250, expected: 1000 })
    assert.deepInclude(byCount, { fraction: 0.25, etaMs: 3000, rate: 250 })
    const byTime = Progress.of({ ...known, elapsed: 1000, done: 250, expected: 1000, end: 2000 })
    assert.deepInclude(byTime, { fraction: 0.5, etaMs: 1000 })
    const nothingYet = Progress.of({ ...known, elapsed: 1000, done: 0, expected: 1000 })
    assert.deepInclude(nothingYet, { fraction: 0, etaMs: undefined })
  })

  it("fits its line", () => {
    const progress = Progress.of({ ...known, elapsed: 61_000, done: 2500, expected: 5000, failed: 3, p99: 12.34 })
    assert.strictEqual(
      Progress.line(progress, 200, true),
      `${"█".repeat(10)}${"░".repeat(10)} 50 % · 61 s left · 2,500 of 5,000 · 41/s · p99 12.3 ms · 3 failed · 61 s`
    )
    assert.lengthOf(Progress.line(progress, 40, true), 40)
  })
})

layer(Chromium.layer, { excludeTestServices: true, timeout: "60 seconds" })(
  `the report in a browser${Chromium.word}`,
  (it) => {
    it.scoped.skipIf(Chromium.path === undefined)("shows its plots, light and dark, on a screen and on a phone", () =>
      Effect.gen(function* () {
        const html = LoadTest.html(yield* one)
        const grounds = yield* Effect.forEach(["light", "dark"] as const, (colorScheme) =>
          Effect.gen(function* () {
            const viewport = { width: colorScheme === "light" ? 1280 : 390, height: 800 }
            const { complaints, page, requests } = yield* Chromium.page({ colorScheme, viewport })
            yield* Effect.promise(() => page.setContent(html))
            assert.deepStrictEqual(complaints, [])
            assert.deepStrictEqual(requests, [])
            assert.strictEqual(yield* Effect.promise(() => page.getByRole("img").count()), 6)
            assert.strictEqual(yield* Effect.promise(() => page.getByRole("img", { name: "Throughput" }).count()), 1)
            const seen = yield* Effect.promise(() =>
              page.evaluate(
                "({ over: document.documentElement.scrollWidth - innerWidth, ground: getComputedStyle(document.body).backgroundColor })"
              )
            )
            const { ground, over } = seen as { readonly ground: string; readonly over: number }
            assert.isAtMost(over, 0)
            return ground
          })
        )
        assert.notStrictEqual(grounds[0], grounds[1])
      })
    )
  }
)
