import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as limits from "../../src/http/internal/limits.js"

describe("a window", () => {
  it("has room again to the millisecond when what was first taken is past", () => {
    const window = limits.makeWindow(2, 60_000)
    window.take(0)
    assert.strictEqual(window.wait(10), 0)
    window.take(10_000)
    assert.strictEqual(window.wait(10_000), 50_000)
    assert.strictEqual(window.wait(59_999), 1)
    assert.strictEqual(window.wait(60_000), 0)
    window.take(60_000)
    assert.strictEqual(window.wait(60_000), 10_000)
  })

  it("never admits more than its number in any stretch of its length", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 100 }),
        (max, steps) => {
          const window = limits.makeWindow(max, 100)
          const admitted: Array<number> = []
          let now = 0
          for (const step of steps) {
            now += step
            const within = admitted.filter((at) => at > now - 100).length
            // Exactly where there is room, and the wait ends exactly when there is.
            assert.strictEqual(window.wait(now) === 0, within < max)
            const wait = window.wait(now)
            if (wait > 0) {
              assert.isAbove(window.wait(now + wait - 1), 0)
              assert.strictEqual(window.wait(now + wait), 0)
            } else {
              window.take(now)
              admitted.push(now)
            }
          }
        }
      )
    )
  })

  it("is kept apart for each caller, for as many as are remembered", () => {
    const windows = limits.makeWindows(1, 1000, 3)
    windows.take("a", 0)
    assert.strictEqual(windows.wait("a", 0), 1000)
    assert.strictEqual(windows.wait("b", 0), 0)
    for (let n = 0; n < 10_000; n++) windows.take(`caller ${n}`, 1)
    assert.strictEqual(windows.size(), 3)
    assert.strictEqual(windows.wait("a", 2), 0)
    assert.strictEqual(windows.wait("caller 9999", 2), 999)
  })
})
