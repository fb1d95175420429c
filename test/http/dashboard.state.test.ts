import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Alerts from "../../src/health/Alerts.js"
import * as backoff from "../../src/http/dashboard/backoff.js"
import * as format from "../../src/http/dashboard/format.js"
import * as State from "../../src/http/dashboard/state.js"
import * as words from "../../src/http/dashboard/words.js"
import * as Model from "../../src/http/Model.js"
import { alert, breaker, change, hello, report, start, tick } from "./dashboardMessages.js"

/** What the page knows after these messages, each of which the API may send. */
const told = (...messages: ReadonlyArray<State.Message>): State.State => {
  const known = messages.reduce<State.State | undefined>(
    (state, message) => State.apply(state, Schema.encodeSync(Model.Message)(Schema.decodeSync(Model.Message)(message))),
    undefined
  )
  assert.isDefined(known)
  return known
}

describe("what the dashboard knows", () => {
  it("begins with Hello, and is replaced by the next one whole", () => {
    assert.isUndefined(State.apply(undefined, { _tag: "Tick", tick: tick(start) }))
    const event = change(start - 10, "Closed", "Open")
    const first = hello({ reports: [report(start - 1_000)], events: [event], alerts: [alert(1)] })
    const before = told(
      first,
      { _tag: "Tick", tick: tick(start + 1_000) },
      { _tag: "Notice", notice: { _tag: "Raised", at: start, alert: alert(2) } }
    )
    assert.lengthOf(before.ticks, 2)
    assert.lengthOf(before.alerts, 2)
    assert.deepStrictEqual(State.apply(before, first), told(first))
  })

  it("stays bounded, whatever comes and however long", () => {
    let state = told(hello())
    for (let n = 1; n <= 3_000; n++) {
      const at = start + n * 250
      const messages: ReadonlyArray<State.Message> = [
        { _tag: "Tick", tick: tick(at, { errors: { ConnectionError: 1 } }) },
        { _tag: "Report", report: report(at) },
        { _tag: "Event", event: change(at, "Closed", "Open") },
        { _tag: "Notice", notice: { _tag: "Raised", at, alert: alert(n) } }
      ]
      for (const message of messages) state = State.apply(state, message) ?? state
    }
    assert.lengthOf(state.ticks, State.kept.ticks)
    assert.lengthOf(state.reports, State.kept.reports)
    assert.lengthOf(state.news, State.kept.news)
    assert.lengthOf(state.alerts, State.kept.alerts)
    assert.isAtMost(State.timeline(state).length, State.kept.news + 2)
  })

  it("forgets ticks that are older than five minutes", () => {
    const state = told(hello(), { _tag: "Tick", tick: tick(start + State.span + 1) })
    assert.deepStrictEqual(
      state.ticks.map(({ at }) => at),
      [start + State.span + 1]
    )
  })

  it("shows a moment once: told twice, or told again by a clock that was set back", () => {
    const event: State.Message = { _tag: "Event", event: change(start, "Closed", "Open") }
    const state = told(
      hello({ reports: [report(start)] }),
      { _tag: "Report", report: report(start, { score: 50 }) },
      event,
      event,
      { _tag: "Tick", tick: tick(start + 2_000) },
      { _tag: "Tick", tick: tick(start + 1_000) }
    )
    assert.deepStrictEqual(
      state.reports.map(({ score }) => score),
      [50]
    )
    assert.lengthOf(state.news, 1)
    assert.deepStrictEqual(
      state.ticks.map(({ at }) => at),
      [start, start + 1_000]
    )
  })

  it("keeps the alerts that stand, each once", () => {
    const raised: State.Message = { _tag: "Notice", notice: { _tag: "Raised", at: start, alert: alert(1) } }
    const resolved: State.Message = { _tag: "Notice", notice: { _tag: "Resolved", at: start + 5, alert: alert(1) } }
    assert.lengthOf(told(hello({ alerts: [alert(1)] }), raised).alerts, 1)
    assert.lengthOf(told(hello({ alerts: [alert(1), alert(2)] }), resolved).alerts, 1)
  })

  it("draws the past by the reports, and from the first tick on by the ticks", () => {
    const reports = [start - State.span - 1, start - 60_000, start + 500].map((at) => report(at))
    const state = told(hello({ reports: reports.slice(0, 2), tick: tick(start, { seconds: 0, operations: 0 }) }), {
      _tag: "Tick",
      tick: tick(start + 1_000, { seconds: 2, operations: 10, errors: { ConnectionError: 3, ReadOnlyError: 1 } })
    })
    const [past, first, second] = State.samples(told(hello({ reports }), { _tag: "Tick", tick: tick(start + 1_000) }))
    assert.deepInclude(past, { at: start - 60_000, p50: 4, perSecond: 10 })
    assert.deepInclude(first, { at: start, p50: 1 })
    assert.deepInclude(second, { at: start + 1_000 })
    assert.deepInclude(State.samples(state)[1], { at: start, perSecond: Number.NaN, p50: Number.NaN })
    assert.deepInclude(State.samples(state)[2], { perSecond: 5, errors: 2 })
  })

  it("tells the breaker's states of the last five minutes without a gap or an overlap", () => {
    const events = [
      change(start - State.span - 5_000, "Closed", "Open"),
      change(start - 60_000, "Open", "HalfOpen"),
      change(start - 50_000, "HalfOpen", "Closed")
    ]
    assert.deepStrictEqual(
      State.timeline(told(hello({ events, tick: tick(start, { breaker: breaker("Closed", start - 50_000) }) }))),
      [
        { state: "Open", from: start - State.span, to: start - 60_000 },
        { state: "HalfOpen", from: start - 60_000, to: start - 50_000 },
        { state: "Closed", from: start - 50_000, to: start }
      ]
    )
    assert.deepStrictEqual(
      State.timeline(
        told(hello({ events: events.slice(2), tick: tick(start, { breaker: breaker("Open", start - 10_000) }) }))
      ),
      [
        { state: "HalfOpen", from: start - State.span, to: start - 50_000 },
        { state: "Closed", from: start - 50_000, to: start - 10_000 },
        { state: "Open", from: start - 10_000, to: start }
      ]
    )
    assert.deepStrictEqual(State.timeline(told(hello())), [{ state: "Closed", from: start - State.span, to: start }])
  })

  it("counts errors by tag, of the ticks and of the last report's window", () => {
    const window = { ...report(start).window, errors: { DeadlockError: 2, ConnectionError: 1 } }
    const state = told(
      hello({ reports: [report(start, { window })], tick: tick(start, { errors: { ConnectionError: 2 } }) }),
      { _tag: "Tick", tick: tick(start + 1_000, { errors: { ConnectionError: 3 } }) }
    )
    assert.deepStrictEqual(State.failures(state), [
      { tag: "ConnectionError", inWindow: 1, seen: 5 },
      { tag: "DeadlockError", inWindow: 2, seen: 0 }
    ])
    assert.deepStrictEqual(State.failures(told(hello({ tick: tick(start, { errors: { ReadOnlyError: 1 } }) }))), [
      { tag: "ReadOnlyError", inWindow: undefined, seen: 1 }
    ])
  })
})

describe("what the dashboard says aloud", () => {
  it("is what changed, and nothing while nothing changes", () => {
    const calm = told(hello({ reports: [report(start)] }))
    assert.isUndefined(
      words.changes(calm, told(hello({ reports: [report(start)] }), { _tag: "Tick", tick: tick(start + 1) }))
    )
    const trouble = told(hello({ reports: [report(start, { status: "unhealthy", score: 10 })], alerts: [alert(1)] }), {
      _tag: "Tick",
      tick: tick(start + 1, { breaker: breaker("Open", start) })
    })
    assert.strictEqual(
      words.changes(calm, trouble),
      "Unhealthy, score 10. Circuit breaker open. Alert, warning: Slow 1."
    )
    assert.strictEqual(words.changes(trouble, calm), "Healthy, score 100. Circuit breaker closed. Alert over: Slow 1.")
  })

  it("knows the unit of what each standard rule of the alerts looks at", () => {
    assert.deepStrictEqual(
      words.alertUnits,
      Object.fromEntries(Alerts.rules.map(({ measure, name }) => [name, Alerts.units[measure]]))
    )
    const said = (rule: string, value: number | null) => words.alert({ ...alert(1), rule, value, threshold: 0.8 })
    assert.deepStrictEqual(
      [said("pool-utilization", 0.925), said("pool-exhaustion", null), said("health-check-failed", 1), said("mine", 2)],
      ["93 %, limit 80 %", "∞, limit 0.8 ms", "", "2, limit 0.8"]
    )
  })

  it("has figures as people read them", () => {
    assert.deepStrictEqual([0, 0.254, 7.26, 41.3, 1240].map(format.number), ["0", "0.25", "7.3", "41", "1,240"])
    assert.deepStrictEqual([0.42, 999, 1234, Number.NaN].map(format.ms), ["0.42 ms", "999 ms", "1.23 s", "–"])
    assert.deepStrictEqual([400, 59_000, 60_000, 75_000, 7_500_000, 200_000_000].map(format.duration), [
      ...["0 s", "59 s", "1 min", "1 min 15 s", "2 h 5 min", "2 days"]
    ])
    assert.deepStrictEqual(
      [0, 7, 11, 50, 51, 0.013].map((value) => format.roundUp(value, 0.01)),
      [0.01, 10, 20, 50, 100, 0.02]
    )
  })
})

describe("the dashboard's tries to connect", () => {
  it("come after half a second, doubled up to five, and never later than that", () => {
    assert.deepStrictEqual(
      [0, 1, 2, 3, 4, 1_000].map((n) => backoff.delay(n, 0)),
      [500, 1_000, 2_000, 4_000, 5_000, 5_000]
    )
    assert.deepStrictEqual(
      [0, 4].map((n) => backoff.delay(n, 1)),
      [400, 4_000]
    )
  })
})
