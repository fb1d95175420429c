import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Timeline from "../../src/operations/internal/load/timeline.js"

const sample = (at: number, waiting = 0, breaker: Timeline.Sample["breaker"] = "Closed"): Timeline.Sample => ({
  at,
  pool: { max: 10, total: 10, idle: 0, used: 10, connecting: 0, waiting },
  breaker
})

describe("the timeline", () => {
  it("counts in pieces of a tenth of a second, gaps included", () => {
    const timeline = Timeline.make()
    Timeline.record(timeline, 5, 2)
    Timeline.record(timeline, 99.9, 4)
    Timeline.record(timeline, 250, undefined)
    assert.deepStrictEqual(Timeline.intervals(timeline, 260), [
      { at: 0, width: 100, succeeded: 2, errors: 0, p50: 2.015, p99: 4, max: 4 },
      { at: 100, width: 100, succeeded: 0, errors: 0, p50: null, p99: null, max: null },
      { at: 200, width: 60, succeeded: 0, errors: 1, p50: null, p99: null, max: null }
    ])
  })

  it("never has more pieces than its bound, and loses nothing, however long it gets", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 5e6 }), fc.boolean()), { maxLength: 500 }), (events) => {
        const timeline = Timeline.make()
        for (const [at, ok] of events) Timeline.record(timeline, at, ok ? 1 : undefined)
        const all = Timeline.intervals(timeline, 5e6)
        assert.isAtMost(all.length, Timeline.most)
        for (const interval of all) {
          const within = events.filter(([at]) => at >= interval.at && at < interval.at + timeline.width)
          assert.strictEqual(interval.succeeded, within.filter(([, ok]) => ok).length)
          assert.strictEqual(interval.errors, within.filter(([, ok]) => !ok).length)
        }
      }),
      { numRuns: 50 }
    )
  })

  it("keeps the longest latency when pieces are joined", () => {
    const timeline = Timeline.make()
    Timeline.record(timeline, 150, 777)
    Timeline.record(timeline, 10, 1)
    Timeline.record(timeline, 48_000, 1)
    const [first] = Timeline.intervals(timeline, 48_000)
    assert.deepInclude(first, { at: 0, width: 400, succeeded: 2, max: 777 })
  })
})

describe("samples of pool and breaker", () => {
  it("are all kept while there is room", () => {
    const samples = Timeline.makeSamples()
    for (let n = 0; n < Timeline.most; n++) Timeline.offer(samples, sample(n))
    assert.lengthOf(samples.all, Timeline.most)
  })

  it("never are more than their bound, and no peak gets lost", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20_000 }), fc.nat(), fc.nat(), (count, where, open) => {
        const samples = Timeline.makeSamples()
        for (let n = 0; n < count; n++) {
          const breaker = n === open % count ? "Open" : "Closed"
          Timeline.offer(samples, sample(n, n === where % count ? 99 : 0, breaker))
        }
        assert.isAtMost(samples.all.length, Timeline.most)
        assert.isTrue(samples.all.some(({ breaker }) => breaker === "Open"))
        // unless the open circuit beside it was worse
        const near = Math.abs((where % count) - (open % count)) < samples.every
        assert.isTrue(near || samples.all.some(({ pool }) => pool?.waiting === 99))
        const times = samples.all.map(({ at }) => at)
        assert.deepStrictEqual(
          times,
          [...times].sort((a, b) => a - b)
        )
      }),
      { numRuns: 50 }
    )
  })
})
