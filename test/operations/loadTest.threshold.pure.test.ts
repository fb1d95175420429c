import { assert, describe, it } from "@effect/vitest"
import { Either } from "effect"
import * as Threshold from "../../src/operations/internal/load/threshold.js"

const parsed = (text: string) => Either.getOrThrow(Threshold.parse(text))
const refused = (text: string) => Either.getOrThrow(Either.flip(Threshold.parse(text)))

const measured: Threshold.Measured = {
  count: 1000,
  errors: 1,
  rate: 1234.5,
  delayed: 20,
  unstarted: 0,
  latency: { min: 0.5, mean: 4, max: 900, percentile: (percent) => percent }
}
const holds = (text: string, of: Partial<Threshold.Measured> = {}) =>
  Threshold.judge(parsed(text), { ...measured, ...of })

describe("a threshold", () => {
  it("is read with its metric, its comparator and its unit", () => {
    assert.deepInclude(parsed("p99<200ms"), {
      metric: { _tag: "Percentile", percent: 99 },
      comparator: "<",
      limit: 200
    })
    assert.deepInclude(parsed("p99.9 <= 1.5s"), {
      metric: { _tag: "Percentile", percent: 99.9 },
      comparator: "<=",
      limit: 1500
    })
    assert.deepInclude(parsed("mean<800us"), { metric: { _tag: "Mean" }, limit: 0.8 })
    assert.deepInclude(parsed("max<2m"), { metric: { _tag: "Max" }, limit: 120_000 })
    assert.deepInclude(parsed("errors<0.1%"), { metric: { _tag: "Count", of: "errors", share: true }, limit: 0.001 })
    assert.deepInclude(parsed("errors<5"), { metric: { _tag: "Count", of: "errors", share: false }, limit: 5 })
    assert.deepInclude(parsed("rate>1000/s"), { metric: { _tag: "Rate" }, comparator: ">", limit: 1000 })
    assert.deepInclude(parsed("rate>=1000"), { metric: { _tag: "Rate" }, comparator: ">=", limit: 1000 })
    assert.deepInclude(parsed("read:p50<3ms"), { operation: "read", limit: 3 })
    assert.deepInclude(parsed("shop: read:p50<3ms"), { operation: "shop: read" })
  })

  it("that is malformed is refused, with the grammar", () => {
    const texts = [
      "",
      "p99",
      "p99<",
      "p99<200",
      "p101<1s",
      "p0<1s",
      "p99=1s",
      "p99<-1s",
      "p99<1h",
      "p99<200%",
      "errors<1s",
      "errors<1/s",
      "rate>10%",
      "rate>1s",
      "latency<1s",
      "p99<200ms p50<1s",
      ":p99<1s",
      "p99<1e3ms"
    ]
    for (const text of texts) {
      const error = refused(text)
      assert.strictEqual(error._tag, "InvalidThresholdError")
      assert.include(error.message, JSON.stringify(text))
      assert.include(error.message, "[operation:]metric comparator value")
    }
  })

  it("may name only an operation that there is, and no count of the whole test for it", () => {
    const parse = Threshold.parseFor(["read", "write"])
    assert.isTrue(Either.isRight(parse("read:p99<1s")))
    assert.isTrue(Either.isRight(parse("delayed<5")))
    const unknown = Either.getOrThrow(Either.flip(parse("raed:p99<1s")))
    assert.include(unknown.message, "read, write")
    const whole = Either.getOrThrow(Either.flip(parse("read:delayed<5")))
    assert.include(whole.message, "whole test")
  })

  it("holds up to its limit, and says what was measured", () => {
    assert.deepStrictEqual(holds("p99<100ms"), { threshold: "p99<100ms", ok: true, actual: 99, found: "99 ms" })
    assert.isFalse(holds("p99<99ms").ok)
    assert.isTrue(holds("p99<=99ms").ok)
    assert.isFalse(holds("max<900ms").ok)
    assert.isTrue(holds("min>400us").ok)
    assert.isTrue(holds("mean>=4ms").ok)
    assert.deepInclude(holds("rate>2000/s"), { ok: false, found: "1,235/s" })
    assert.deepInclude(holds("errors<0.1%"), { ok: false, found: "0.1 %" })
    assert.isTrue(holds("errors<0.2%").ok)
    assert.deepInclude(holds("errors<1"), { ok: false, found: "1" })
    assert.isTrue(holds("errors<1", { errors: 0 }).ok)
    assert.deepInclude(holds("delayed<1%"), { ok: false, found: "2 %" })
    assert.deepInclude(holds("unstarted<50%", { count: 500, unstarted: 500 }), { ok: false, actual: 0.5 })
  })

  it("that nothing was measured for does not hold", () => {
    const nothing = { ...measured, count: 0, errors: 0, delayed: 0, latency: undefined }
    for (const text of ["p99<1s", "errors<1", "errors<1%", "rate<5", "max<1s"]) {
      assert.deepInclude(holds(text, nothing), { ok: false, actual: null, found: "nothing was measured" })
    }
    // all failed: the share of errors is known, a latency is not
    const failed = { errors: 1000, latency: undefined }
    assert.deepInclude(holds("p99<1s", failed), { ok: false, actual: null })
    assert.deepInclude(holds("errors<1%", failed), { ok: false, actual: 1 })
  })
})
