import { assert, describe, it } from "@effect/vitest"
import type * as PgError from "../../../src/error/PgError.js"
import * as breaker from "../../../src/policy/internal/breaker.js"
import { neutral, success, Verdict } from "../../../src/policy/internal/verdict.js"

const { Event } = breaker

const minute = 60_000

const config: breaker.Config = {
  failureThreshold: 5,
  windowMs: minute,
  failureRate: Number.POSITIVE_INFINITY,
  slowCallRate: Number.POSITIVE_INFINITY,
  slowCallMs: 5_000,
  minimumCalls: 20,
  resetMs: 30_000,
  maxResetMs: 300_000,
  probes: 3,
  successes: 2
}

/** A machine that is driven by hand. */
const start = (overrides: Partial<breaker.Config> = {}) => {
  const rules = { ...config, ...overrides }
  let machine = breaker.make(0)
  const on = (event: breaker.Event, now: number) => {
    machine = breaker.transition(machine, event, now, rules)
  }
  const self = {
    machine: () => machine,
    tag: () => machine.state._tag,
    admit: (now: number) => {
      const [admission, next] = breaker.admit(machine, now, rules)
      machine = next
      return admission
    },
    settle: (verdict: Verdict, now: number, { durationMs = 1, jitter = 1, permit = machine.generation } = {}) =>
      on(Event.Settle({ permit, verdict, durationMs, jitter }), now),
    on,
    fail: (now: number, tag: PgError.Tag = "ConnectionError", times = 1) => {
      for (let i = 0; i < times; i++) self.settle(Verdict.Failure({ tag }), now)
    },
    /** Opens it by failures of one tag. */
    trip: (now: number, tag: PgError.Tag = "ConnectionError") => self.fail(now, tag, rules.failureThreshold),
    /** Has one probe fail, and says when the next is admitted. */
    failProbe: (now: number, jitter: number) => {
      assert.strictEqual(self.admit(now)._tag, "Admitted")
      self.settle(Verdict.Failure({ tag: "ConnectionError" }), now, { jitter })
      const { state } = machine
      return state._tag === "Open" ? state.until - now : undefined
    },
    calls: (now: number, successes: number, failures: number, durationMs = 1) => {
      for (let i = 0; i < successes; i++) self.settle(success, now, { durationMs })
      for (let i = 0; i < failures; i++) {
        self.settle(Verdict.Failure({ tag: "ResourceError" }), now, { durationMs })
      }
    }
  }
  return self
}

describe("breaker: the default rule", () => {
  it("opens on the fifth counted failure, not on the fourth", () => {
    const it = start()
    it.fail(0, "ConnectionError", 4)
    assert.strictEqual(it.tag(), "Closed")
    it.fail(0)
    assert.strictEqual(it.tag(), "Open")
    assert.strictEqual(it.machine().reason, "consecutiveFailures")
    assert.strictEqual(it.machine().trips, 1)
  })

  it("counts five failures that are within one minute to the millisecond", () => {
    const late = start()
    late.fail(0)
    late.fail(30_000, "ConnectionError", 3)
    late.fail(minute)
    assert.strictEqual(late.tag(), "Closed")
    const early = start()
    early.fail(0)
    early.fail(30_000, "ConnectionError", 3)
    early.fail(minute - 1)
    assert.strictEqual(early.tag(), "Open")
  })

  it("lets the minute roll: the oldest failure leaves, the others stay", () => {
    const it = start()
    it.fail(0)
    it.fail(50_000, "ConnectionError", 3)
    it.fail(70_000)
    assert.strictEqual(it.tag(), "Closed")
    it.fail(109_999)
    assert.strictEqual(it.tag(), "Open")
  })

  it("starts again after any success", () => {
    const it = start()
    it.fail(0, "ConnectionError", 4)
    it.settle(success, 1)
    it.fail(2, "ConnectionError", 4)
    assert.strictEqual(it.tag(), "Closed")
    it.fail(3)
    assert.strictEqual(it.tag(), "Open")
  })

  it("counts nothing for what says nothing", () => {
    const it = start()
    it.fail(0, "ConnectionError", 4)
    it.settle(neutral, 1)
    it.fail(2)
    assert.strictEqual(it.tag(), "Open")
  })

  it("stays the very same object over successes when there is nothing to forget", () => {
    const machine = breaker.make(0)
    const settled = Event.Settle({ permit: 0, verdict: success, durationMs: 60_000, jitter: 0 })
    assert.strictEqual(breaker.transition(machine, settled, 5, config), machine)
    assert.strictEqual(breaker.admit(machine, 5, config)[1], machine)
    assert.isTrue(breaker.ignoresSuccess(machine, config))
  })

  it("has nothing to forget any more after a success has forgotten it", () => {
    const it = start()
    it.fail(0)
    assert.isFalse(breaker.ignoresSuccess(it.machine(), config))
    it.settle(success, 1)
    assert.isTrue(breaker.ignoresSuccess(it.machine(), config))
  })

  it("can be switched off", () => {
    const it = start({ failureThreshold: Number.POSITIVE_INFINITY })
    it.fail(0, "ConnectionError", 1_000)
    assert.strictEqual(it.tag(), "Closed")
  })
})

describe("breaker: rates", () => {
  const off = Number.POSITIVE_INFINITY
  const failing = { failureThreshold: off, failureRate: 0.5, minimumCalls: 10 }

  it("opens when half of the calls fail, not when one call less does", () => {
    const less = start({ ...failing, minimumCalls: 11 })
    less.calls(0, 6, 5)
    assert.strictEqual(less.tag(), "Closed")
    const half = start(failing)
    half.calls(0, 5, 5)
    assert.strictEqual(half.tag(), "Open")
    assert.strictEqual(half.machine().reason, "failureRate")
  })

  it("says nothing about fewer calls than the minimum, and decides on the call that reaches it", () => {
    const it = start(failing)
    it.calls(0, 0, 9)
    assert.strictEqual(it.tag(), "Closed")
    it.calls(0, 1, 0)
    assert.strictEqual(it.tag(), "Open")
  })

  it("forgets calls in tenths of the window", () => {
    const rules = { ...config, ...failing, failureRate: 0.6, minimumCalls: 4 }
    const it = start(rules)
    it.calls(0, 0, 2)
    it.calls(59_999, 3, 0)
    assert.strictEqual(breaker.failureCount(it.machine(), 59_999, rules), 2)
    assert.strictEqual(breaker.failureCount(it.machine(), minute, rules), 0)
    // The two would make the third one open it.
    it.calls(minute, 0, 4)
    assert.strictEqual(it.tag(), "Closed")
    it.calls(minute, 0, 1)
    assert.strictEqual(it.tag(), "Open")
  })

  it("does not count what says nothing among the calls", () => {
    const it = start(failing)
    it.calls(0, 4, 5)
    for (let i = 0; i < 20; i++) it.settle(neutral, 0)
    assert.strictEqual(it.tag(), "Closed")
    it.calls(0, 0, 1)
    assert.strictEqual(it.tag(), "Open")
  })

  it("opens when half of the calls are slow, a call of the limit itself being none", () => {
    const slow = { failureThreshold: off, slowCallRate: 0.5, slowCallMs: 100, minimumCalls: 10 }
    const fast = start(slow)
    fast.calls(0, 1_000, 0, 100)
    assert.strictEqual(fast.tag(), "Closed")
    const half = start(slow)
    half.calls(0, 5, 0, 100)
    half.calls(0, 5, 0, 101)
    assert.strictEqual(half.tag(), "Open")
    assert.strictEqual(half.machine().reason, "slowCallRate")
  })

  it("works beside the default rule", () => {
    const it = start({ failureRate: 0.5, minimumCalls: 100 })
    it.calls(0, 50, 5)
    assert.strictEqual(it.machine().reason, "consecutiveFailures")
  })

  it("takes a slow probe for a failed one where slowness opens it, and for a good one elsewhere", () => {
    const slow = start({ slowCallRate: 0.5, slowCallMs: 100 })
    slow.trip(0)
    slow.admit(30_000)
    slow.settle(success, 31_000, { durationMs: 101 })
    assert.strictEqual(slow.tag(), "Open")
    const other = start()
    other.trip(0)
    other.admit(30_000)
    other.settle(success, 40_000, { durationMs: 10_000 })
    assert.strictEqual(other.tag(), "HalfOpen")
  })
})

describe("breaker: open", () => {
  it("refuses until the reset timeout has passed to the millisecond, and says how long that is", () => {
    const it = start()
    it.trip(1_000)
    assert.deepInclude(it.admit(1_000), { _tag: "Refused", retryAfterMs: 30_000 })
    assert.deepInclude(it.admit(30_999), { _tag: "Refused", retryAfterMs: 1 })
    assert.strictEqual(it.tag(), "Open")
    assert.deepInclude(it.admit(31_000), { _tag: "Admitted", permit: 2 })
    assert.strictEqual(it.tag(), "HalfOpen")
    assert.strictEqual(it.machine().reason, "resetTimeout")
  })

  it("stays open twice as long each time that probes fail, up to the cap, drawn from the upper half", () => {
    const longest = start()
    longest.trip(0)
    let now = 30_000
    const waits = Array.from({ length: 6 }, () => {
      const wait = longest.failProbe(now, 1)!
      now += wait
      return wait
    })
    assert.deepStrictEqual(waits, [60_000, 120_000, 240_000, 300_000, 300_000, 300_000])
    assert.strictEqual(longest.machine().trips, 7)
    const shortest = start()
    shortest.trip(0)
    assert.strictEqual(shortest.failProbe(30_000, 0), 30_000)
    assert.strictEqual(shortest.failProbe(60_000, 0), 60_000)
    assert.strictEqual(shortest.failProbe(120_000, 0.5), 180_000)
  })

  it("is never open for less than the reset timeout, nor for more than the cap", () => {
    const constant = { ...config, maxResetMs: config.resetMs }
    for (const jitter of [0, 0.5, 1]) assert.strictEqual(breaker.openForMs(9, jitter, constant), config.resetMs)
    assert.strictEqual(breaker.openForMs(2_000, 1, config), config.maxResetMs)
  })

  it("begins with the plain reset timeout again once it had been closed", () => {
    const it = start()
    it.trip(0)
    assert.strictEqual(it.failProbe(30_000, 1), 60_000)
    it.admit(90_000)
    it.admit(90_000)
    it.settle(success, 90_000)
    it.settle(success, 90_000)
    assert.strictEqual(it.tag(), "Closed")
    it.trip(100_000)
    assert.deepInclude(it.admit(100_000), { retryAfterMs: 30_000 })
  })
})

describe("breaker: half-open", () => {
  const halfOpen = (overrides: Partial<breaker.Config> = {}) => {
    const it = start(overrides)
    it.trip(0)
    return it
  }

  it("admits three probes at once and not a fourth, which it tells to come back in a second", () => {
    const it = halfOpen()
    const admissions = Array.from({ length: 4 }, () => it.admit(30_000)._tag)
    assert.deepStrictEqual(admissions, ["Admitted", "Admitted", "Admitted", "Refused"])
    assert.deepInclude(it.admit(30_000), { retryAfterMs: 1_000 })
    assert.deepInclude(it.admit(30_999), { retryAfterMs: 1 })
  })

  it("sends one probe past slow ones after a second, then after 2, 4, 8 and 16, and then no more", () => {
    const it = halfOpen()
    for (let i = 0; i < 3; i++) it.admit(30_000)
    let now = 30_000
    for (const seconds of [1, 2, 4, 8, 16]) {
      now += seconds * 1_000
      assert.deepInclude(it.admit(now - 1), { _tag: "Refused", retryAfterMs: 1 })
      assert.strictEqual(it.admit(now)._tag, "Admitted")
      // One, not a herd.
      assert.deepInclude(it.admit(now), { _tag: "Refused", retryAfterMs: 1_000 })
    }
    assert.deepInclude(it.machine().state, { probing: 8 })
    assert.strictEqual(it.admit(now + 29_999)._tag, "Refused")
    assert.strictEqual(it.machine().reason, "resetTimeout")
  })

  it("closes on what is sent past slow probes, and on what those say late", () => {
    const quick = halfOpen()
    for (let i = 0; i < 3; i++) quick.admit(30_000)
    quick.admit(31_000)
    quick.settle(success, 31_001)
    assert.strictEqual(quick.admit(31_999)._tag, "Refused")
    assert.strictEqual(quick.admit(32_000)._tag, "Admitted")
    quick.settle(success, 32_001)
    assert.strictEqual(quick.tag(), "Closed")
    const late = halfOpen()
    for (let i = 0; i < 3; i++) late.admit(30_000)
    late.admit(31_000)
    late.settle(success, 31_001)
    late.settle(success, 45_000, { durationMs: 15_000 })
    assert.strictEqual(late.tag(), "Closed")
    const failed = halfOpen()
    for (let i = 0; i < 3; i++) failed.admit(30_000)
    failed.admit(31_000)
    failed.settle(success, 31_001)
    failed.fail(45_000)
    assert.strictEqual(failed.tag(), "Open")
  })

  it("takes back what was sent past slow probes before it has room again", () => {
    const it = halfOpen()
    for (let i = 0; i < 3; i++) it.admit(30_000)
    it.admit(31_000)
    it.settle(neutral, 31_500)
    assert.strictEqual(it.admit(31_500)._tag, "Refused")
    it.settle(neutral, 31_500)
    assert.strictEqual(it.admit(31_500)._tag, "Admitted")
    assert.strictEqual(it.admit(31_500)._tag, "Refused")
  })

  it("closes on the second success, not on the first", () => {
    const it = halfOpen()
    it.admit(30_000)
    it.settle(success, 30_000)
    assert.strictEqual(it.tag(), "HalfOpen")
    it.admit(30_000)
    it.settle(success, 30_000)
    assert.strictEqual(it.tag(), "Closed")
    assert.strictEqual(it.machine().reason, "probesSucceeded")
  })

  it("opens again on one counted failure, whatever had succeeded, with that failure as the cause", () => {
    const it = halfOpen()
    it.admit(30_000)
    it.admit(30_000)
    it.settle(success, 30_000)
    it.fail(30_000, "ResourceError")
    assert.deepInclude(it.machine().state, { _tag: "Open", cause: ["ResourceError"] })
    assert.strictEqual(it.machine().reason, "probeFailed")
  })

  it("hands the place of a probe that says nothing to the next caller", () => {
    const it = halfOpen()
    for (let i = 0; i < 100; i++) {
      assert.strictEqual(it.admit(30_000)._tag, "Admitted")
      it.settle(neutral, 30_000)
    }
    assert.strictEqual(it.tag(), "HalfOpen")
    assert.deepInclude(it.machine().state, { probing: 0, successes: 0 })
  })

  it("sends other probes when all are silent for the reset timeout, and drops what those say later", () => {
    const it = halfOpen()
    for (let i = 0; i < 3; i++) it.admit(30_000)
    const silent = it.machine().generation
    assert.strictEqual(it.admit(60_000)._tag, "Admitted")
    assert.strictEqual(it.machine().reason, "probesSilent")
    it.settle(Verdict.Failure({ tag: "ConnectionError" }), 60_003, { permit: silent })
    it.settle(success, 60_003, { permit: silent })
    it.settle(neutral, 60_003, { permit: silent })
    assert.deepInclude(it.machine().state, { _tag: "HalfOpen", probing: 1, successes: 0 })
  })
})

describe("breaker: generations", () => {
  it("drops results of calls that were admitted before it opened", () => {
    const it = start()
    it.trip(0)
    it.admit(30_000)
    const before = it.machine()
    it.settle(success, 30_000, { permit: 0 })
    it.settle(Verdict.Failure({ tag: "ConnectionError" }), 30_000, { permit: 0 })
    assert.strictEqual(it.machine(), before)
  })

  it("drops results of probes of an earlier opening", () => {
    const it = start()
    it.trip(0)
    it.admit(30_000)
    it.admit(30_000)
    const probe = it.machine().generation
    it.fail(30_000)
    it.admit(90_000)
    it.settle(success, 90_000, { permit: probe })
    assert.deepInclude(it.machine().state, { probing: 1, successes: 0 })
    it.settle(neutral, 90_000, { permit: probe })
    assert.deepInclude(it.machine().state, { probing: 1 })
  })

  it("raises the generation with every change of state and with nothing else", () => {
    const it = start()
    const generations = [it.machine().generation]
    const then = (f: () => void) => {
      f()
      generations.push(it.machine().generation)
    }
    then(() => it.fail(0, "ConnectionError", 4))
    then(() => it.fail(0))
    then(() => it.admit(30_000))
    then(() => it.admit(30_000))
    then(() => it.settle(success, 30_000))
    then(() => it.settle(success, 30_000))
    then(() => it.on(Event.ForceOpen(), 0))
    then(() => it.on(Event.ForceOpen(), 0))
    then(() => it.on(Event.Reset(), 0))
    assert.deepStrictEqual(generations, [0, 0, 1, 2, 2, 2, 3, 4, 4, 5])
  })

  it("counts a failure that is reported after its call had settled, if its generation is the present one", () => {
    const it = start()
    const report = (permit: number) => it.on(Event.Report({ permit, tag: "ConnectionError", jitter: 0 }), 0)
    for (let i = 0; i < 4; i++) report(0)
    report(7)
    assert.strictEqual(it.tag(), "Closed")
    report(0)
    assert.strictEqual(it.tag(), "Open")
    it.on(Event.Recovered(), 1)
    report(0)
    assert.strictEqual(it.tag(), "HalfOpen")
    report(it.machine().generation)
    assert.strictEqual(it.tag(), "Open")
  })
})

describe("breaker: recovered", () => {
  const openedBy = (...tags: ReadonlyArray<PgError.Tag>) => {
    const it = start({ failureThreshold: tags.length })
    for (const tag of tags) it.fail(0, tag)
    assert.strictEqual(it.tag(), "Open")
    it.on(Event.Recovered(), 1)
    return it.tag()
  }

  it.each<PgError.Tag>(["ConnectionError", "ServerUnavailableError", "TooManyConnectionsError", "QueryTimeoutError"])(
    "makes it half-open at once when it was opened by %s",
    (tag) => {
      assert.strictEqual(openedBy(tag), "HalfOpen")
    }
  )

  it("is ignored when answers such as a full disk opened it, alone or among others", () => {
    assert.strictEqual(openedBy("ResourceError"), "Open")
    assert.strictEqual(openedBy("ConnectionError", "ResourceError", "ConnectionError"), "Open")
  })

  it("is ignored when slowness opened it", () => {
    const it = start({ slowCallRate: 1, slowCallMs: 1, minimumCalls: 1 })
    it.settle(success, 0, { durationMs: 2 })
    it.on(Event.Recovered(), 1)
    assert.strictEqual(it.tag(), "Open")
  })

  it("looks at the probe that failed last", () => {
    const it = start()
    it.trip(0, "ResourceError")
    it.admit(30_000)
    it.fail(30_000, "ConnectionError")
    it.on(Event.Recovered(), 30_001)
    assert.strictEqual(it.tag(), "HalfOpen")
    assert.strictEqual(it.machine().reason, "recovered")
  })

  it("makes a closed circuit forget lost connections, but not a full disk", () => {
    const lost = start()
    lost.fail(0, "ConnectionError", 4)
    lost.on(Event.Recovered(), 1)
    lost.fail(2, "ConnectionError", 4)
    assert.strictEqual(lost.tag(), "Closed")
    lost.fail(3)
    assert.strictEqual(lost.tag(), "Open")
    const full = start()
    full.fail(0, "ResourceError", 2)
    full.fail(0, "ServerUnavailableError")
    full.fail(0, "ResourceError")
    full.on(Event.Recovered(), 1)
    full.fail(2)
    assert.strictEqual(full.tag(), "Closed")
    full.fail(3, "ResourceError")
    assert.deepInclude(full.machine().state, { _tag: "Open", cause: ["ResourceError", "ConnectionError"] })
  })

  it("takes the calls that failed for want of a server out of the rates, and leaves the others", () => {
    const rules = { failureThreshold: Number.POSITIVE_INFINITY, failureRate: 0.5, minimumCalls: 4 }
    const it = start(rules)
    it.fail(0, "ConnectionError", 3)
    it.on(Event.Recovered(), 1)
    it.calls(1, 1, 1)
    it.calls(2, 1, 0)
    assert.strictEqual(it.tag(), "Closed")
    it.on(Event.Recovered(), 3)
    assert.strictEqual(breaker.failureCount(it.machine(), 3, { ...config, ...rules }), 1)
    it.fail(4)
    assert.deepInclude(it.machine().state, { _tag: "Open", cause: ["ResourceError", "ConnectionError"] })
  })

  it("drops what calls say that a closed circuit admitted before, and counts those after", () => {
    const it = start()
    const before = it.machine().generation
    it.on(Event.Recovered(), 1)
    const since = it.machine()
    assert.deepInclude(since, { since: 0, reason: "created", trips: 0 })
    for (let i = 0; i < 10; i++) it.settle(Verdict.Failure({ tag: "ConnectionError" }), 2, { permit: before })
    it.on(Event.Report({ permit: before, tag: "ConnectionError", jitter: 0 }), 2)
    assert.strictEqual(it.machine(), since)
    assert.isTrue(breaker.ignoresSuccess(since, config))
    it.fail(3, "ConnectionError", 5)
    assert.strictEqual(it.tag(), "Open")
  })

  it("changes nothing in any other state", () => {
    const it = start()
    for (const event of [Event.ForceOpen(), Event.ForceClosed()]) {
      it.on(event, 0)
      const before = it.machine()
      it.on(Event.Recovered(), 1)
      assert.strictEqual(it.machine(), before)
    }
    it.on(Event.Reset(), 0)
    it.trip(0)
    it.admit(30_000)
    const halfOpen = it.machine()
    it.on(Event.Recovered(), 30_001)
    assert.strictEqual(it.machine(), halfOpen)
  })
})

describe("breaker: forced", () => {
  it("refuses for ever when forced open, without naming a time", () => {
    const it = start()
    it.on(Event.ForceOpen(), 0)
    assert.deepInclude(it.admit(1e12), { _tag: "Refused", retryAfterMs: undefined })
    it.on(Event.Recovered(), 1e12)
    assert.strictEqual(it.tag(), "ForcedOpen")
  })

  it("admits for ever when forced closed, whatever fails", () => {
    const it = start({ failureRate: 0.5, minimumCalls: 1 })
    it.on(Event.ForceClosed(), 0)
    it.fail(0, "ConnectionError", 1_000)
    assert.strictEqual(it.admit(0)._tag, "Admitted")
    assert.strictEqual(it.tag(), "ForcedClosed")
    assert.isTrue(breaker.ignoresSuccess(it.machine(), config))
  })

  it("forgets everything on reset", () => {
    const it = start()
    it.fail(0, "ConnectionError", 4)
    it.on(Event.Reset(), 0)
    it.fail(0, "ConnectionError", 4)
    assert.strictEqual(it.tag(), "Closed")
    it.fail(0)
    it.on(Event.Reset(), 0)
    assert.strictEqual(it.tag(), "Closed")
    it.on(Event.ForceOpen(), 0)
    it.on(Event.Reset(), 0)
    assert.strictEqual(it.tag(), "Closed")
  })
})
