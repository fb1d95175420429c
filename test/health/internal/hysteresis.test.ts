import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as hysteresis from "../../../src/health/internal/hysteresis.js"

const follow = (scores: ReadonlyArray<number>) => {
  let status: hysteresis.Status | undefined
  return scores.map((score) => {
    status = hysteresis.next(status, score)
    return status
  })
}

describe("hysteresis", () => {
  it("loses a status below one score, and gains it again from a higher one on", () => {
    assert.deepStrictEqual(follow([100, 75, 74, 84, 85]), ["healthy", "healthy", "degraded", "degraded", "healthy"])
    assert.deepStrictEqual(follow([45, 44, 54, 55, 85]), ["degraded", "unhealthy", "unhealthy", "degraded", "healthy"])
  })

  it("falls and rises by two at once where the score does", () => {
    assert.deepStrictEqual(follow([100, 0, 100]), ["healthy", "unhealthy", "healthy"])
  })

  it("does not tremble with a score that stays within a step", () =>
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 75, max: 84 }), { minLength: 1 }), (scores) => {
        assert.strictEqual(new Set(follow(scores)).size, 1)
        assert.strictEqual(new Set(follow([0, 60, ...scores]).slice(2)).size, 1)
      })
    ))
})
