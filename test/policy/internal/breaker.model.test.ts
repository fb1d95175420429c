import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import type * as PgError from "../../../src/error/PgError.js"
import * as breaker from "../../../src/policy/internal/breaker.js"
import { neutral, success, Verdict } from "../../../src/policy/internal/verdict.js"

const off = Number.POSITIVE_INFINITY

interface Call {
  readonly at: number
  readonly tag: PgError.Tag | undefined
  readonly slow: boolean
}

/**
 * The breaker as its documentation tells it. It keeps every call since it was closed, and every permit that is out, and
 * counts them anew for each question: slow, and with nothing to keep in step.
 */
class Model {
  state: breaker.State["_tag"] = "Closed"
  generation = 0
  trips = 0
  calls: Array<Call> = []
  cause: ReadonlyArray<PgError.Tag> = []
  openings = 0
  until = 0
  lastProbeAt = 0
  probes: Array<"out" | "succeeded"> = []

  constructor(readonly config: breaker.Config) {}

  private enter(state: breaker.State["_tag"]) {
    this.state = state
    this.generation++
    this.calls = []
    this.probes = []
    this.cause = []
    if (state === "Closed") this.openings = 0
  }

  private open(now: number, cause: ReadonlyArray<PgError.Tag>, jitter: number) {
    this.enter("Open")
    this.trips++
    this.openings++
    this.cause = cause
    const { maxResetMs, resetMs } = this.config
    let longest = resetMs
    for (let i = 1; i < this.openings; i++) longest = Math.min(maxResetMs, longest * 2)
    const half = longest / 2
    this.until = now + (this.openings === 1 ? resetMs : Math.max(resetMs, Math.round(half + jitter * half)))
  }

  private halfOpen(now: number) {
    this.enter("HalfOpen")
    this.lastProbeAt = now
  }

  get out() {
    return this.probes.filter((probe) => probe === "out").length
  }

  get succeeded() {
    return this.probes.length - this.out
  }

  /** A permit, or for how long there is none; `undefined`: nobody knows. */
  admit(now: number): { readonly permit: number } | { readonly wait: number | undefined } {
    const { probes, resetMs } = this.config
    if (this.state === "ForcedOpen") return { wait: undefined }
    if (this.state === "Open") {
      if (now < this.until) return { wait: this.until - now }
      this.halfOpen(now)
    }
    if (this.state === "HalfOpen") {
      if (this.out >= probes) {
        const silence = now - this.lastProbeAt
        let pause = 1_000
        for (let beyond = probes; beyond < this.out; beyond++) pause *= 2
        if (silence >= resetMs) this.halfOpen(now)
        else if (silence < pause) return { wait: Math.min(1_000, resetMs - silence, pause - silence) }
      }
      this.probes.push("out")
      this.lastProbeAt = now
    }
    return { permit: this.generation }
  }

  failuresInARow(now: number) {
    const sinceSuccess = this.calls.slice(this.calls.findLastIndex(({ tag }) => tag === undefined) + 1)
    return sinceSuccess.filter(({ at }) => at > now - this.config.windowMs)
  }

  callsInWindow(now: number) {
    const tenth = (at: number) => Math.floor(at / (this.config.windowMs / 10))
    return this.calls.filter(({ at }) => tenth(at) > tenth(now) - 10)
  }

  private judge(now: number, jitter: number) {
    const { failureRate, failureThreshold, minimumCalls, slowCallRate } = this.config
    const tags = (calls: ReadonlyArray<Call>) => calls.flatMap(({ tag }) => tag ?? [])
    const inARow = this.failuresInARow(now)
    const calls = this.callsInWindow(now)
    const enough = calls.length >= minimumCalls
    if (inARow.length >= failureThreshold) return this.open(now, tags(inARow), jitter)
    if (enough && tags(calls).length / calls.length >= failureRate) return this.open(now, tags(calls), jitter)
    if (enough && calls.filter(({ slow }) => slow).length / calls.length >= slowCallRate) this.open(now, [], jitter)
  }

  settle(permit: number, verdict: Verdict, durationMs: number, now: number, jitter: number) {
    if (permit !== this.generation) return
    const tag = verdict._tag === "Failure" ? verdict.tag : undefined
    const slow = durationMs > this.config.slowCallMs
    if (this.state === "Closed" && verdict._tag !== "Neutral") {
      this.calls.push({ at: now, tag, slow })
      this.judge(now, jitter)
    }
    if (this.state === "HalfOpen" && permit === this.generation) {
      const failed = tag !== undefined || (verdict._tag === "Success" && slow && this.config.slowCallRate !== off)
      if (failed) return this.open(now, tag === undefined ? [] : [tag], jitter)
      this.probes.splice(this.probes.indexOf("out"), 1)
      if (verdict._tag === "Success") this.probes.push("succeeded")
      if (this.succeeded >= this.config.successes) this.enter("Closed")
    }
  }

  recovered(now: number) {
    const byConnections = this.cause.length > 0 && !this.cause.includes("ResourceError")
    if (this.state === "Open" && byConnections) this.halfOpen(now)
    if (this.state !== "Closed") return
    this.generation++
    this.calls = this.calls.filter(({ tag }) => tag === undefined || tag === "ResourceError")
  }

  force(state: "ForcedOpen" | "ForcedClosed") {
    if (this.state !== state) this.enter(state)
  }

  reset() {
    this.enter("Closed")
  }
}

const threshold = fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 1, max: 5 }) }, fc.constant(off))
const rate = fc.oneof({ weight: 3, arbitrary: fc.constant(off) }, fc.constantFrom(0.1, 0.3, 0.5, 0.75, 1))

const configs: fc.Arbitrary<breaker.Config> = fc
  .record({
    failureThreshold: threshold,
    windowMs: fc.constantFrom(100, 60, 1_000),
    failureRate: rate,
    slowCallRate: rate,
    slowCallMs: fc.constant(10),
    minimumCalls: fc.integer({ min: 1, max: 8 }),
    resetMs: fc.constantFrom(1, 50, 3_000),
    growth: fc.integer({ min: 1, max: 10 }),
    probes: fc.integer({ min: 1, max: 3 }),
    successes: fc.integer({ min: 1, max: 3 })
  })
  .map(({ growth, ...config }) => ({ ...config, maxResetMs: config.resetMs * growth }))

const tag = fc.constantFrom<PgError.Tag>("ConnectionError", "ServerUnavailableError", "ResourceError")
const verdict: fc.Arbitrary<Verdict> = fc.oneof(
  { weight: 5, arbitrary: tag.map((tag) => Verdict.Failure({ tag })) },
  { weight: 3, arbitrary: fc.constant(success) },
  { weight: 1, arbitrary: fc.constant(neutral) }
)

/** Which of the permits that are out: most often a recent one, so that generations meet and miss. */
const pick = fc.nat({ max: 1_000 })
const jitter = fc.double({ min: 0, max: 1, noNaN: true })

type Step =
  | { readonly do: "admit" }
  | { readonly do: "pass"; readonly part: "one" | "second" | "edge" | "reset" | "tenth" | "window" }
  | {
      readonly do: "settle"
      readonly pick: number
      readonly verdict: Verdict
      readonly ms: number
      readonly jitter: number
    }
  | { readonly do: "report"; readonly pick: number; readonly tag: PgError.Tag; readonly jitter: number }
  | { readonly do: "recovered" | "forceOpen" | "forceClosed" | "reset" }

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 40, arbitrary: fc.constant<Step>({ do: "admit" }) },
  {
    weight: 40,
    arbitrary: fc.record<Step & { do: "settle" }>({
      do: fc.constant("settle"),
      pick,
      verdict,
      ms: fc.constantFrom(0, 10, 11),
      jitter
    })
  },
  {
    weight: 25,
    arbitrary: fc.record<Step & { do: "pass" }>({
      do: fc.constant("pass"),
      part: fc.constantFrom("one", "second", "edge", "reset", "tenth", "window")
    })
  },
  { weight: 4, arbitrary: fc.record<Step & { do: "report" }>({ do: fc.constant("report"), pick, tag, jitter }) },
  { weight: 4, arbitrary: fc.constant<Step>({ do: "recovered" }) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ do: "forceOpen" }, { do: "forceClosed" }, { do: "reset" }) }
)

const run = (config: breaker.Config, steps: ReadonlyArray<Step>, reached: Set<string>) => {
  const model = new Model(config)
  let machine = breaker.make(0)
  let now = 0
  const out: Array<number> = []
  const settled: Array<number> = []
  const on = (event: breaker.Event) => {
    machine = breaker.transition(machine, event, now, config)
  }
  const millisOf = {
    one: 1,
    second: 1_000,
    edge: config.resetMs - 1,
    reset: config.resetMs,
    tenth: config.windowMs / 10,
    window: config.windowMs
  }

  for (const step of steps) {
    switch (step.do) {
      case "pass":
        now += millisOf[step.part]
        break
      case "admit": {
        const [admission, next] = breaker.admit(machine, now, config)
        machine = next
        const expected = model.admit(now)
        assert.deepStrictEqual(
          admission._tag === "Admitted" ? { permit: admission.permit } : { wait: admission.retryAfterMs },
          expected
        )
        if (admission._tag === "Admitted") out.unshift(admission.permit)
        break
      }
      case "settle": {
        const [permit] = out.splice(step.pick % Math.max(1, out.length), 1)
        if (permit === undefined) break
        const unchanged = step.verdict === success && breaker.ignoresSuccess(machine, config)
        const before = machine
        on(breaker.Event.Settle({ permit, verdict: step.verdict, durationMs: step.ms, jitter: step.jitter }))
        if (unchanged) assert.strictEqual(machine, before)
        model.settle(permit, step.verdict, step.ms, now, step.jitter)
        if (step.verdict === neutral) settled.unshift(permit)
        break
      }
      case "report": {
        const permit = settled[step.pick % Math.max(1, settled.length)]
        // A probe that was settled has given its place back: only calls of a closed circuit are reported here.
        if (permit === undefined || model.state !== "Closed") break
        on(breaker.Event.Report({ permit, tag: step.tag, jitter: step.jitter }))
        model.settle(permit, Verdict.Failure({ tag: step.tag }), 0, now, step.jitter)
        break
      }
      case "recovered":
        on(breaker.Event.Recovered())
        model.recovered(now)
        break
      case "forceOpen":
        on(breaker.Event.ForceOpen())
        model.force("ForcedOpen")
        break
      case "forceClosed":
        on(breaker.Event.ForceClosed())
        model.force("ForcedClosed")
        break
      case "reset":
        on(breaker.Event.Reset())
        model.reset()
        break
    }
    const { state } = machine
    reached.add(`${state._tag} by ${machine.reason}`)
    assert.deepStrictEqual(
      { state: state._tag, generation: machine.generation, trips: machine.trips },
      { state: model.state, generation: model.generation, trips: model.trips }
    )
    if (state._tag === "Open") {
      assert.deepStrictEqual([state.until, new Set(state.cause)], [model.until, new Set(model.cause)])
      assert.strictEqual(new Set(state.cause).size, state.cause.length)
    }
    if (state._tag === "HalfOpen") {
      assert.deepStrictEqual([state.probing, state.successes], [model.out, model.succeeded])
      // No permit is ever lost: every place taken is held by a permit that is out.
      assert.strictEqual(state.probing, out.filter((permit) => permit === machine.generation).length)
      // Slow ones are passed after 1, 2, 4, … seconds, for as long as that is less than the reset timeout.
      assert.isAtMost(state.probing, config.probes + Math.max(0, Math.ceil(Math.log2(config.resetMs / 1_000))))
      if (state.probing > config.probes) reached.add("HalfOpen, past slow probes")
    }
    if (state._tag === "Closed" && config.failureThreshold !== off && config.failureRate === off) {
      assert.isAtLeast(breaker.failureCount(machine, now, config), model.failuresInARow(now).length)
    }
    if (state._tag !== "ForcedOpen") {
      const [later] = breaker.admit(machine, now + config.maxResetMs, config)
      assert.strictEqual(later._tag, "Admitted", "stuck")
    }
  }
}

describe("breaker against a model", () => {
  it("agrees with it on every admission, state, generation and cause, over random histories", () => {
    const reached = new Set<string>()
    fc.assert(
      fc.property(configs, fc.array(step, { minLength: 1, maxLength: 80, size: "max" }), (config, steps) =>
        run(config, steps, reached)
      ),
      { numRuns: 3_000 }
    )
    // The histories were worth something: every way into every state has been taken.
    assert.sameMembers(Array.from(reached), [
      "Closed by created",
      "Closed by probesSucceeded",
      "Closed by reset",
      "Open by consecutiveFailures",
      "Open by failureRate",
      "Open by slowCallRate",
      "Open by probeFailed",
      "HalfOpen by resetTimeout",
      "HalfOpen by recovered",
      "HalfOpen by probesSilent",
      "HalfOpen, past slow probes",
      "ForcedOpen by forced",
      "ForcedClosed by forced"
    ])
  })
})
