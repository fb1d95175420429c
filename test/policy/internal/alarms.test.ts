import { assert, describe, it, vi } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as alarms from "../../../src/policy/internal/alarms.js"

/** Timers that keep the process alive. */
const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length

const rung = (millis: number) => new Promise<number>((ring) => alarms.set(millis, () => ring(performance.now())))

const faked = <A>(use: () => A): A => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] })
  try {
    return use()
  } finally {
    vi.useRealTimers()
  }
}

describe("alarms", () => {
  it("ring each at its time unless cancelled, whatever else is set and cancelled", () => {
    const step = fc.record({
      wait: fc.integer({ min: 0, max: 20 }),
      millis: fc.double({ min: -5, max: 50, noNaN: true }),
      cancel: fc.option(fc.nat({ max: 30 }), { nil: undefined })
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) =>
        faked(() => {
          const set: Array<{ readonly alarm: alarms.Alarm; readonly due: number; rang: number | undefined }> = []
          const cancelled = new Set<unknown>()
          for (const { cancel, millis, wait } of steps) {
            for (let i = 0; i < wait; i++) {
              vi.advanceTimersByTime(1)
              const now = performance.now()
              const late = set.filter((one) => one.rang === undefined && !cancelled.has(one) && one.due + 1 < now)
              assert.lengthOf(late, 0)
            }
            const due = performance.now() + millis
            const one: (typeof set)[number] = {
              alarm: alarms.set(millis, () => (one.rang ??= performance.now())),
              due,
              rang: undefined
            }
            set.push(one)
            const other = cancel === undefined ? undefined : set[cancel]
            if (other === undefined) continue
            if (other.rang === undefined) cancelled.add(other)
            alarms.cancel(other.alarm)
          }
          vi.advanceTimersByTime(100)
          for (const one of set) {
            if (cancelled.has(one)) assert.isUndefined(one.rang)
            else assert.isAtLeast(one.rang ?? -1, one.due)
          }
          assert.strictEqual(vi.getTimerCount(), 0)
        })
      ),
      { seed: 20_260, numRuns: 300 }
    )
  })

  it("share one timer, and keep the process alive only while something is set", () => {
    const before = timers()
    const set = Array.from({ length: 1_000 }, (_, i) => alarms.set(60_000 - i, () => {}))
    assert.strictEqual(timers(), before + 1)
    for (const alarm of set) alarms.cancel(alarm)
    assert.strictEqual(timers(), before)
    alarms.cancel(alarms.set(70_000, () => {}))
    assert.strictEqual(timers(), before)
  })

  it("ring never early, and soon", async () => {
    const late = await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const due = performance.now() + i / 7
        return (await rung(i / 7)) - due
      })
    )
    assert.isAtLeast(Math.min(...late), 0)
    // The machine may have been busy: most of them.
    assert.isAtMost(late.sort((a, b) => a - b)[100]!, 20)
  })

  it("ring once all the time has passed that a timer cannot be set for at once", () =>
    faked(() => {
      let rang = 0
      alarms.set(3 * 2 ** 31, () => rang++)
      vi.advanceTimersByTime(3 * 2 ** 31 - 1)
      assert.strictEqual(rang, 0)
      vi.advanceTimersByTime(1)
      assert.strictEqual(rang, 1)
    }))

  it("ring by the timers of a test and, when it has put them back, by the real ones", async () => {
    alarms.cancel(alarms.set(60_000, () => {}))
    let rang = false
    faked(() => {
      alarms.set(50_000, () => {
        rang = true
      })
      vi.advanceTimersByTime(49_999)
      assert.isFalse(rang)
      vi.advanceTimersByTime(1)
      assert.isTrue(rang)
      alarms.cancel(alarms.set(1, () => {}))
    })
    await rung(5)
  })

  it("ring when a test makes their timer fire, and leaves the clock alone", () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    try {
      let rang = false
      alarms.set(50_000, () => {
        rang = true
      })
      vi.advanceTimersByTime(50_000)
      assert.isTrue(rang)
    } finally {
      vi.useRealTimers()
    }
  })

  it("may set and cancel others as they ring", () =>
    faked(() => {
      const rang: Array<string> = []
      let third: alarms.Alarm | undefined
      alarms.set(10, () => {
        rang.push("first")
        alarms.cancel(third!)
        alarms.set(5, () => rang.push("second"))
      })
      third = alarms.set(12, () => rang.push("third"))
      vi.advanceTimersByTime(100)
      assert.deepStrictEqual(rang, ["first", "second"])
    }))
})
