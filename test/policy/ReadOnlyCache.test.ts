import { assert, describe, it } from "@effect/vitest"
import * as textCache from "../../src/policy/internal/textCache.js"
import { inspect, limits } from "../../src/policy/ReadOnly.js"

const counting = (limits: textCache.Limits) => {
  const computed = new Map<string, number>()
  const get = textCache.make((text) => {
    computed.set(text, (computed.get(text) ?? 0) + 1)
    return { text }
  }, limits)
  return { get, computed: (text: string) => computed.get(text) ?? 0 }
}

describe("the cache of inspections", () => {
  it("computes once and gives the same object again", () => {
    const { computed, get } = counting({ texts: 10, characters: 1_000, longest: 100 })
    const first = get("a")
    assert.deepStrictEqual(first, { text: "a" })
    assert.strictEqual(get("a"), first)
    assert.strictEqual(computed("a"), 1)
  })

  it("keeps what is in use and forgets what is not", () => {
    const { computed, get } = counting({ texts: 10, characters: 1_000, longest: 100 })
    get("idle")
    for (let i = 0; i < 100; i++) {
      get("busy")
      get(`other ${i}`)
    }
    assert.strictEqual(computed("busy"), 1)
    get("idle")
    assert.strictEqual(computed("idle"), 2)
  })

  it("holds no more texts than its limit", () => {
    const { computed, get } = counting({ texts: 10, characters: 1_000, longest: 100 })
    const texts = Array.from({ length: 50 }, (_, i) => `text ${i}`)
    texts.forEach(get)
    texts.toReversed().forEach(get)
    const kept = texts.filter((text) => computed(text) === 1)
    assert.isAtLeast(kept.length, 5)
    assert.isAtMost(kept.length, 10)
  })

  it("holds no more characters than its limit", () => {
    const { computed, get } = counting({ texts: 1_000, characters: 200, longest: 100 })
    const texts = Array.from({ length: 50 }, (_, i) => String(i).padStart(20, "x"))
    texts.forEach(get)
    texts.toReversed().forEach(get)
    const kept = texts.filter((text) => computed(text) === 1)
    assert.isAtLeast(kept.length, 5)
    assert.isAtMost(kept.length, 10)
  })

  it("computes a text over its limit each time", () => {
    const { computed, get } = counting({ texts: 10, characters: 1_000, longest: 100 })
    const [longest, longer] = ["x".repeat(100), "x".repeat(101)]
    for (let i = 0; i < 3; i++) for (const text of [longest, longer]) get(text)
    assert.deepStrictEqual([computed(longest), computed(longer)], [1, 3])
  })

  it("serves inspect", () => {
    assert.strictEqual(inspect("SELECT 1 AS cached"), inspect(["SELECT 1", "AS cached"].join(" ")))
    const long = `SELECT '${"x".repeat(limits.longest)}'`
    assert.notStrictEqual(inspect(long), inspect(long))
    assert.deepStrictEqual(inspect(long), inspect(long))
  })
})
