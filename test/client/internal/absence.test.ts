import { assert, describe, it } from "@effect/vitest"
import { Array as Arr } from "effect"
import * as PgError from "effect-pg-resilience/PgError"
import * as Absence from "../../../src/client/internal/absence.js"

const failure = (fields: Partial<PgError.PgError> = {}) => ({
  message: "gone",
  transient: true,
  phase: "Acquire" as const,
  outcome: "NotApplied" as const,
  attempts: 1,
  ...fields
})
const gone = new PgError.ConnectionError(failure())
const wrongPassword = new PgError.AuthenticationError(failure({ transient: false }))

/** The machine, by a clock that is set by hand, and what it has told. */
const setUp = ({ closing = false, max = 100 } = {}) => {
  const told: Array<readonly [lost: boolean, seconds: number]> = []
  let time = 1_000
  const absence = Absence.make({
    max,
    closing: () => closing,
    told: (lost, seconds) => told.push([lost !== undefined, seconds]),
    now: () => time
  })
  return {
    absence,
    told,
    later: (millis: number) => {
      time += millis
      return time
    }
  }
}

describe("pause", () => {
  it("is none after a loss, then 50 ms doubling up to 1 s", () => {
    assert.deepStrictEqual(
      Arr.makeBy(8, (failures) => Absence.pause(failures, 1)),
      [0, 50, 100, 200, 400, 800, 1_000, 1_000]
    )
    assert.strictEqual(Absence.pause(1_000_000, 1), 1_000)
  })

  it("is shortened by chance to half of that at most", () => {
    assert.deepStrictEqual(
      [0, 0.5, 1].map((random) => Absence.pause(3, random)),
      [100, 150, 200]
    )
  })
})

describe("absence", () => {
  it("a suspicion ends the trust in all who have not answered since", () => {
    const { absence, later } = setUp()
    const before = later(1)
    assert.isTrue(absence.trusts(before))
    later(1)
    absence.distrust()
    assert.isFalse(absence.trusts(before))
    assert.isTrue(absence.trusts(later(1)))
    assert.strictEqual(absence.generation, 1)
  })

  it("all can lose its trust although the server is there", () => {
    const { absence } = setUp()
    absence.raise()
    assert.strictEqual(absence.generation, 1)
    assert.isUndefined(absence.away)
  })

  it("slow start: one more at once for each that came, up to the maximum, and from one again after each setback", () => {
    const { absence } = setUp({ max: 10 })
    const rounds: Array<number> = []
    for (let round = 0; round < 5; round++) {
      rounds.push(absence.atOnce)
      for (let n = absence.atOnce; n > 0; n--) absence.opened()
    }
    assert.deepStrictEqual(rounds, [1, 2, 4, 8, 10])
    absence.distrust()
    assert.strictEqual(absence.atOnce, 1)
    absence.opened()
    absence.failed(wrongPassword)
    assert.strictEqual(absence.atOnce, 1)
  })

  it("lasts from the first sign to the first answer, and says how long that was", () => {
    const { absence, later, told } = setUp()
    absence.distrust()
    later(500)
    absence.failed(gone)
    later(1_500)
    absence.failed(gone)
    assert.deepStrictEqual({ ...absence.away }, { since: 1_000, cause: gone, failures: 2, failedAt: 3_000 })
    const openedAt = later(1_000)
    absence.answered({ openedAt, answeredAt: later(0.5) })
    assert.isUndefined(absence.away)
    assert.deepStrictEqual(told, [
      [true, 0.5],
      [true, 2],
      [false, 3.0005]
    ])
  })

  it("after a mere suspicion, away for no time at all", () => {
    const { absence, later, told } = setUp()
    absence.distrust()
    later(300)
    absence.back()
    absence.back()
    assert.deepStrictEqual(told, [[false, 0]])
  })

  it("who has only greeted, or came before the last failure, does not prove that the server is back", () => {
    const { absence, later } = setUp()
    const old = later(1)
    later(1)
    absence.failed(gone)
    absence.answered({ openedAt: old, answeredAt: later(1) })
    const openedAt = later(1)
    absence.answered({ openedAt, answeredAt: openedAt })
    assert.isDefined(absence.away)
    absence.answered({ openedAt, answeredAt: later(1) })
    assert.isUndefined(absence.away)
  })

  it("a server that refuses is no reason to distrust those that it has let in", () => {
    const { absence } = setUp()
    absence.failed(wrongPassword)
    assert.strictEqual(absence.generation, 0)
    assert.strictEqual(absence.away?.cause, wrongPassword)
    const away = setUp()
    away.absence.failed(gone)
    away.absence.failed(gone)
    assert.strictEqual(away.absence.generation, 1)
  })

  it("of new connections that are lost without an answer the second one, and not the first, fails whoever waits", () => {
    const { absence, later } = setUp()
    const first = later(10)
    later(10)
    assert.isFalse(absence.lost({ openedAt: first, answeredAt: first - 1 }))
    assert.strictEqual(absence.away?.failures, 1)
    // It came with the first one.
    assert.isFalse(absence.lost({ openedAt: first, answeredAt: first - 1 }))
    const second = later(10)
    later(10)
    assert.isTrue(absence.lost({ openedAt: second, answeredAt: second - 1 }))
  })

  it("a connection that is old enough, or has answered, is lost and no failure to connect", () => {
    for (const [age, answered] of [
      [Absence.infancy, 0],
      [10, 5]
    ] as const) {
      const { absence, later } = setUp()
      const openedAt = later(10)
      later(age)
      assert.isFalse(absence.lost({ openedAt, answeredAt: openedAt + answered }))
      assert.deepStrictEqual([absence.away?.failures, absence.generation], [0, 1])
    }
  })

  it("while the pool closes, a loss is no news", () => {
    const { absence, later } = setUp({ closing: true })
    assert.isFalse(absence.lost({ openedAt: later(1), answeredAt: 0 }))
    assert.strictEqual(absence.generation, 0)
    assert.isUndefined(absence.away)
  })
})
