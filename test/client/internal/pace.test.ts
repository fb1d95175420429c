/** What is known of how long statements take, with a clock of the test's own. */
import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { Array as Arr } from "effect"
import { vi } from "vitest"
import { Pace, Paces, tickMillis } from "../../../src/client/internal/pace.js"

const runs = (pace: Pace, count: number, millis: number, long = false) => {
  for (let n = 0; n < count; n++) pace.ran(millis, long)
}

describe("Pace", () => {
  it("knows nothing of a text before its eighth run", () => {
    const pace = new Pace()
    runs(pace, 7, 0.1)
    assert.isUndefined(pace.expected)
    pace.ran(0.1, false)
    assert.closeTo(pace.expected!, 0.1, 1e-9)
  })

  it("expects the average of the first runs, and later of the last ones", () => {
    const pace = new Pace()
    for (const millis of [1, 2, 3, 4, 5, 6, 7, 8]) pace.ran(millis, false)
    assert.closeTo(pace.expected!, 4.5, 1e-9)
    runs(pace, 200, 0.1)
    assert.closeTo(pace.expected!, 0.1, 0.01)
  })

  it("takes for long what is mostly so, whatever it was before", () => {
    for (const before of [0, 8, 100, 10_000]) {
      const pace = new Pace()
      runs(pace, before, 0.1)
      runs(pace, 8, 20, true)
      assert.isUndefined(pace.expected, `${before} short runs before`)
    }
  })

  it("takes for short a text with one long run in a hundred, and for long one with one in ten", () => {
    const [rare, often] = [100, 10].map((every) => {
      const pace = new Pace()
      runs(pace, 100, 0.1)
      return Arr.makeBy(2_000, (n) => {
        pace.ran(0.1, n % every === 0)
        return pace.expected !== undefined
      })
    })
    assert.isTrue(rare!.every((short) => short))
    assert.isFalse(often!.slice(-100).some((short) => short))
  })

  it("takes 95 of 100 for the mark, as near as an average of the last 64 tells", () => {
    // Evenly spread: the average swings around its mark by one run's weight at most.
    const kept = (every: number) => {
      const pace = new Pace()
      runs(pace, 200, 0.1)
      return Arr.makeBy(5_000, (n) => {
        pace.ran(0.1, n % every === 0)
        return pace.expected !== undefined
      }).every((short) => short)
    }
    assert.isTrue(kept(25))
    assert.isFalse(kept(16))
  })

  it("is short again only when long runs have become much rarer than those it lost that by", () => {
    const pace = new Pace()
    runs(pace, 100, 0.1)
    let lostAfter = 0
    while (pace.expected !== undefined) {
      pace.ran(20, true)
      lostAfter++
    }
    assert.strictEqual(lostAfter, 4)
    let regainedAfter = 0
    while (pace.expected === undefined) {
      pace.ran(0.1, false)
      regainedAfter++
    }
    // (63/64)ⁿ of 6 %, until 2.5 % are left.
    assert.isAtLeast(regainedAfter, 50)
    assert.isAtMost(regainedAfter, 70)
  })

  it("never takes a text for short of which one run in 25 is long, once it has become long", () => {
    const pace = new Pace()
    runs(pace, 20, 20, true)
    for (let n = 0; n < 5_000; n++) {
      pace.ran(0.1, n % 25 === 0)
      if (n > 500) assert.isUndefined(pace.expected)
    }
  })
})

/** Time that the test moves: the event loop idles, or is busy, and goes round or not. */
const world = () => {
  let turned: Array<() => void> = []
  const turn = () => {
    for (const then of turned) then()
    turned = []
  }
  const paces = new Paces((then) => turned.push(then))
  const pace = paces.of("SELECT 1")
  const utilization = vi.spyOn(performance, "eventLoopUtilization")
  let idle = 0
  const set = () => utilization.mockImplementation(() => ({ idle, active: 0, utilization: 0 }))
  set()
  return {
    paces,
    pace,
    /** The event loop waits for so many milliseconds. */
    idles: (millis: number) => {
      turn()
      idle += millis
      vi.advanceTimersByTime(millis)
    },
    /** It is busy, but goes round. */
    works: (millis: number) => {
      turn()
      vi.advanceTimersByTime(millis)
    },
    /** So many statements one after the other, each of which takes so long on the way and so long at the server. */
    learn(count: number, way: number, server: number) {
      for (let n = 0; n < count; n++) {
        const sent = paces.begin()
        this.idles(way + server)
        paces.end()
        paces.ran(pace, way + server, sent, undefined)
      }
    }
  }
}

describe("Paces", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }))
  afterEach(() => {
    vi.useRealTimers()
    vi.restoreAllMocks()
  })

  it("counts what is above the fastest answer", () => {
    const w = world()
    w.learn(1, 2, 0)
    w.learn(7, 2, 0.5)
    // The first one is the way itself; the others were half a millisecond longer.
    assert.closeTo(w.pace.expected!, 0.44, 0.02)
  })

  it("takes the way for as long as it has become, in time", () => {
    const w = world()
    w.learn(8, 0.2, 0)
    // The network is slower now, the server is not.
    w.learn(10_000, 3, 0)
    assert.closeTo(w.pace.expected!, 0, 0.05)
  })

  it("takes the way for shorter at once", () => {
    const w = world()
    w.learn(100, 4, 0)
    assert.closeTo(w.pace.expected!, 0, 1e-9)
    w.learn(1, 0.5, 0)
    w.learn(100, 0.5, 0.7)
    assert.closeTo(w.pace.expected!, 0.7, 0.1)
  })

  it("counts nothing of the time in which the event loop was busy", () => {
    const w = world()
    w.learn(8, 0.5, 0.1)
    for (let n = 0; n < 100; n++) {
      const sent = w.paces.begin()
      w.idles(0.6)
      w.works(4)
      w.paces.end()
      w.paces.ran(w.pace, 4.6, sent, undefined)
    }
    assert.isAtMost(w.pace.expected!, 0.15)
  })

  it("takes nothing for long as long as the event loop has not gone round for it twice", () => {
    const w = world()
    w.learn(8, 0.5, 0.1)
    const sent = w.paces.begin()
    // It stands still for a minute: one tick at most comes of that.
    w.works(tickMillis)
    assert.isFalse(w.paces.isLong(sent))
    w.paces.end()
    w.paces.ran(w.pace, 60_000, sent, undefined)
    w.learn(100, 0.5, 0.1)
    assert.isDefined(w.pace.expected)
  })

  it("takes for long what is unanswered although the event loop has gone round, however busy", () => {
    const w = world()
    w.learn(8, 0.5, 0.1)
    const sent = w.paces.begin()
    w.works(4 * tickMillis)
    assert.isTrue(w.paces.isLong(sent))
    for (let n = 0; n < 4; n++) {
      const again = w.paces.begin()
      w.works(4 * tickMillis)
      w.paces.end()
      w.paces.ran(w.pace, 4 * tickMillis, again, undefined)
    }
    assert.isUndefined(w.pace.expected)
  })

  it("takes nothing for long that has not been under way for as long as the way takes", () => {
    const w = world()
    w.learn(20, 100, 0)
    const sent = w.paces.begin()
    w.idles(100)
    assert.isFalse(w.paces.isLong(sent))
    w.idles(4 * tickMillis)
    assert.isTrue(w.paces.isLong(sent))
  })

  it("counts of one behind another only what came after the other's answer", () => {
    const w = world()
    w.learn(8, 0.5, 0.1)
    const other = w.paces.of("SELECT 2")
    for (let n = 0; n < 8; n++) {
      const sent = w.paces.begin()
      w.idles(6 * tickMillis)
      const before = w.paces.mark()
      w.idles(0.2)
      w.paces.end()
      w.paces.ran(other, 6 * tickMillis + 0.2, sent, before)
    }
    assert.closeTo(other.expected!, 0.2, 0.01)
    // An answer from before it was sent is none of its time.
    const before = w.paces.mark()
    w.idles(6 * tickMillis)
    const sent = w.paces.begin()
    w.idles(0.6)
    w.paces.end()
    w.paces.ran(other, 0.6, sent, before)
    assert.isAtMost(other.expected!, 0.2)
  })

  it("learns of what was given up only that it was long", () => {
    const w = world()
    for (let n = 0; n < 20; n++) {
      const sent = w.paces.begin()
      w.idles(0.1)
      w.paces.end()
      w.paces.failed(w.pace, sent, undefined)
    }
    assert.isUndefined(w.pace.expected)
    w.learn(8, 0.5, 0.1)
    assert.isDefined(w.pace.expected)
    for (let n = 0; n < 4; n++) {
      const sent = w.paces.begin()
      w.idles(4 * tickMillis)
      w.paces.end()
      w.paces.failed(w.pace, sent, undefined)
    }
    assert.isUndefined(w.pace.expected)
  })

  it("has no timer while nothing is under way", () => {
    const w = world()
    assert.strictEqual(vi.getTimerCount(), 0)
    w.paces.begin()
    w.paces.begin()
    assert.strictEqual(vi.getTimerCount(), 1)
    w.paces.end()
    w.works(10 * tickMillis)
    assert.strictEqual(vi.getTimerCount(), 1)
    w.paces.end()
    w.works(2 * tickMillis)
    assert.strictEqual(vi.getTimerCount(), 0)
    const sent = w.paces.begin()
    assert.isFalse(w.paces.isLong(sent))
    w.works(4 * tickMillis)
    assert.isTrue(w.paces.isLong(sent))
  })

  it("knows a text again, and forgets those that have not come for long", () => {
    const paces = new Paces()
    const pace = paces.of("SELECT 1")
    assert.strictEqual(paces.of("SELECT 1"), pace)
    for (let n = 0; n < 2_000; n++) paces.of(`SELECT ${n} AS other`)
    assert.notStrictEqual(paces.of("SELECT 1"), pace)
  })
})
