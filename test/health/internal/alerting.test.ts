import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as alerting from "../../../src/health/internal/alerting.js"

const second = 1000
const rule: alerting.Rule<"errorRate"> = {
  name: "error-rate",
  severity: "critical",
  measure: "errorRate",
  when: "above",
  raise: 5,
  clear: 3,
  raiseAfter: 0,
  clearAfter: 60 * second,
  cooldown: 900 * second,
  title: "Queries fail"
}

/** One observation every five seconds. What each was told, by its time in seconds. */
const follow = (
  values: ReadonlyArray<number | undefined>,
  change: Partial<alerting.Rule<"errorRate">> = {},
  every = 5
) => {
  const step = alerting.step([{ ...rule, ...change }])
  let state = alerting.initial
  const steps = values.map((errorRate, i) => {
    const at = i * every
    const [next, notices] = step(state, { errorRate }, at * second)
    state = next
    return { at, value: errorRate, notices, standing: alerting.standing(state) }
  })
  return { steps, told: steps.flatMap(({ at, notices }) => notices.map(({ _tag }) => [_tag, at] as const)) }
}

const times = <A>(count: number, value: A) => Array.from({ length: count }, () => value)

/** Figures about the thresholds, each for a while: flapping of any rhythm. */
const flapping = fc
  .array(fc.tuple(fc.constantFrom(0, 3, 4, 5, 6, 9, undefined, Number.NaN), fc.integer({ min: 1, max: 60 })), {
    minLength: 1,
    maxLength: 60
  })
  .map((runs) => runs.flatMap(([value, count]) => times(count, value)))

describe("alerting", () => {
  it("raises an alert beyond the threshold, once, and says what it saw", () => {
    const { steps, told } = follow([5, 6, 9, 9])
    assert.deepStrictEqual(told, [["Raised", 5]])
    assert.deepStrictEqual(steps.at(-1)!.standing, [
      {
        id: "error-rate-5000",
        rule: "error-rate",
        severity: "critical",
        title: "Queries fail",
        value: 6,
        threshold: 5,
        raisedAt: 5000
      }
    ])
  })

  it("resolves it after a minute's quiet on the far side of the lower threshold", () => {
    assert.deepStrictEqual(follow([6, ...times(40, 4)]).told, [["Raised", 0]])
    assert.deepStrictEqual(follow([6, ...times(12, 3)]).told, [["Raised", 0]])
    assert.deepStrictEqual(follow([6, ...times(13, 3)]).told, [
      ["Raised", 0],
      ["Resolved", 65]
    ])
    assert.deepStrictEqual(follow([6, ...times(12, 3), 4, ...times(12, 3)]).told, [["Raised", 0]])
  })

  it("waits for trouble to last where the rule says so", () => {
    assert.deepStrictEqual(follow([6, 6, 4, 6, 6, 6], { raiseAfter: 10 * second }).told, [["Raised", 25]])
  })

  it("takes what it does not know for neither trouble nor quiet", () => {
    assert.deepStrictEqual(follow([6, ...times(100, undefined), ...times(12, 0)]).told, [["Raised", 0]])
    assert.deepStrictEqual(follow([6, undefined, 6, Number.NaN, 6], { raiseAfter: 5 * second }).told, [])
  })

  it("looks below a threshold, too", () => {
    const { told } = follow([70, 69, ...times(13, 80)], { when: "below", raise: 70, clear: 80 })
    assert.deepStrictEqual(told, [
      ["Raised", 5],
      ["Resolved", 70]
    ])
  })

  it("holds a flapping alert until there has been quiet for the whole cooldown", () => {
    const once = [6, ...times(13, 0)]
    const { told } = follow([...once, ...once, ...once, ...times(168, 0)])
    assert.deepStrictEqual(told, [
      ["Raised", 0],
      ["Resolved", 65],
      ["Raised", 70],
      ["Resolved", 1045]
    ])
  })

  it("forgets after the cooldown that an alert was raised before", () => {
    const { told } = follow([6, ...times(179, 0), 6, ...times(13, 0)])
    assert.deepStrictEqual(told, [
      ["Raised", 0],
      ["Resolved", 65],
      ["Raised", 900],
      ["Resolved", 965]
    ])
  })

  it("raises at most two alerts per cooldown, however it flaps", () =>
    fc.assert(
      fc.property(flapping, fc.integer({ min: 0, max: 900 }), (values, cooldown) => {
        const raised = follow(values, { cooldown: cooldown * second, clearAfter: 0 }).told.flatMap(([tag, at]) =>
          tag === "Raised" ? [at] : []
        )
        raised.forEach((at, i) => {
          if (i >= 2) assert.isAtLeast(at - raised[i - 2]!, cooldown)
        })
      })
    ))

  it("loses no trouble: while there is any, an alert stands, and it was told of", () =>
    fc.assert(
      fc.property(flapping, (values) => {
        let told = 0
        for (const { notices, standing, value } of follow(values).steps) {
          for (const { _tag } of notices) told += _tag === "Raised" ? 1 : -1
          assert.strictEqual(standing.length, told)
          if (value !== undefined && value > 5) assert.strictEqual(told, 1)
        }
      })
    ))

  it("resolves each alert in the end, under the name it was raised by", () =>
    fc.assert(
      fc.property(flapping, (values) => {
        const notices = follow([...values, ...times(182, 0)]).steps.flatMap(({ notices }) => notices)
        const ids = (tag: string) => notices.filter(({ _tag }) => _tag === tag).map(({ alert }) => alert.id)
        assert.deepStrictEqual(ids("Resolved"), ids("Raised"))
        assert.strictEqual(new Set(ids("Raised")).size, ids("Raised").length)
      })
    ))

  it("waits no longer for a clock that was set back", () => {
    const step = alerting.step([rule])
    const hour = 3600 * second
    const at = (state: alerting.State, errorRate: number, now: number) => step(state, { errorRate }, now)
    const [raised] = at(alerting.initial, 9, hour)
    const [quiet] = at(raised, 0, hour + 30 * second)
    const [back] = at(quiet, 0, 0)
    const [, told] = at(back, 0, 60 * second)
    assert.deepStrictEqual(
      told.map(({ _tag }) => _tag),
      ["Resolved"]
    )
  })

  it("keeps the rules apart", () => {
    const step = alerting.step([rule, { ...rule, name: "other", raise: 50 }])
    const [state, first] = step(alerting.initial, { errorRate: 6 }, 0)
    assert.deepStrictEqual(
      first.map(({ alert }) => alert.rule),
      ["error-rate"]
    )
    const [, second] = step(state, { errorRate: 60 }, 5)
    assert.deepStrictEqual(
      second.map(({ alert }) => alert.rule),
      ["other"]
    )
  })
})
