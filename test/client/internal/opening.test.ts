import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as PgError from "effect-pg-resilience/PgError"
import * as Absence from "../../../src/client/internal/absence.js"
import * as Opening from "../../../src/client/internal/opening.js"

const idle: Opening.Demand = { waiting: 0, checking: 0, connecting: 0, total: 0, min: 0, max: 10, atOnce: 10 }
const missing = (demand: Partial<Opening.Demand>) => Opening.missing({ ...idle, ...demand })

describe("missing", () => {
  it("opens one for each who waits and is not served by what is on its way", () => {
    assert.strictEqual(missing({ waiting: 5 }), 5)
    assert.strictEqual(missing({ waiting: 5, connecting: 2, checking: 1, total: 3 }), 2)
    assert.strictEqual(missing({ waiting: 2, connecting: 2, checking: 1 }), 0)
  })

  it("opens up to the minimum for nobody", () => {
    assert.strictEqual(missing({ min: 3 }), 3)
    assert.strictEqual(missing({ min: 3, total: 1, connecting: 1 }), 1)
    assert.strictEqual(missing({ min: 3, total: 3 }), 0)
  })

  it("never opens beyond the maximum, what is on its way included", () => {
    assert.strictEqual(missing({ waiting: 50, total: 7, connecting: 2 }), 1)
    assert.strictEqual(missing({ waiting: 50, total: 10 }), 0)
    assert.strictEqual(missing({ waiting: 50, total: 11 }), 0)
  })

  it("never has more on their way than slow start allows", () => {
    assert.strictEqual(missing({ waiting: 50, atOnce: 4, connecting: 3 }), 1)
    assert.strictEqual(missing({ waiting: 50, atOnce: 1, connecting: 3 }), 0)
  })

  it("fills a cold pool in rounds of 1, 2, 4, 8 and what is left", () => {
    const absence = Absence.make({ max: 20, closing: () => false, told: () => {} })
    const rounds: Array<number> = []
    for (let total = 0; total < 20; total += rounds.at(-1)!) {
      const round = missing({ waiting: 20 - total, total, max: 20, atOnce: absence.atOnce })
      rounds.push(round)
      for (let n = round; n > 0; n--) absence.opened()
    }
    assert.deepStrictEqual(rounds, [1, 2, 4, 8, 5])
  })
})

describe("the prober", () => {
  /** Nobody answers. What is forked is run by the test, one after the other. */
  const setUp = (transient: boolean) => {
    const forked: Array<Effect.Effect<void>> = []
    const error = new PgError.ConnectionError({
      message: "gone",
      transient,
      phase: "Acquire",
      outcome: "NotApplied",
      attempts: 1
    })
    const absence = Absence.make({ max: 10, closing: () => false, told: () => {} })
    const opening = Opening.make(
      {
        connect: Effect.fail(error),
        fork: (effect) => forked.push(effect),
        random: () => 0,
        closing: () => false,
        came: () => {},
        failed: absence.failed,
        settled: () => {}
      },
      absence
    )
    return { absence, error, forked, opening }
  }

  it.live("is one, however often it is asked for, until its try has failed", () =>
    Effect.gen(function* () {
      const { absence, forked, opening } = setUp(true)
      absence.distrust()
      opening.probe(true)
      opening.probe(true)
      const pause = forked.shift()!
      assert.isEmpty(forked)
      yield* pause
      opening.probe(true)
      const attempt = forked.shift()!
      assert.isEmpty(forked)
      assert.strictEqual(opening.connecting, 1)
      yield* attempt
      assert.strictEqual(opening.connecting, 0)
      assert.strictEqual(absence.away?.failures, 1)
      opening.probe(true)
      assert.lengthOf(forked, 1)
    })
  )

  it("does nothing while the server is there", () => {
    const { forked, opening } = setUp(true)
    opening.probe(true)
    assert.isEmpty(forked)
  })

  it("tries what waiting does not mend only for somebody", () => {
    const { absence, error, forked, opening } = setUp(false)
    absence.failed(error)
    opening.probe(false)
    assert.isEmpty(forked)
    opening.probe(true)
    assert.lengthOf(forked, 1)
  })

  it.live("tries no more when the server was back in the meantime, and looks for it anew when it goes again", () =>
    Effect.gen(function* () {
      const { absence, forked, opening } = setUp(true)
      absence.distrust()
      opening.probe(true)
      absence.back()
      yield* forked.shift()!
      assert.isEmpty(forked)
      absence.distrust()
      opening.probe(true)
      assert.lengthOf(forked, 1)
    })
  )
})
