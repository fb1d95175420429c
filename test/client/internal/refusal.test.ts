import { assert, describe, it } from "@effect/vitest"
import * as PgError from "effect-pg-resilience/PgError"
import * as refusal from "../../../src/client/internal/refusal.js"

const facts: refusal.Facts = { max: 4, used: 3, waiting: 2, cause: undefined }
const cause = new PgError.ConnectionError({
  message: "connect ECONNREFUSED",
  transient: true,
  phase: "Acquire",
  outcome: "NotApplied",
  attempts: 1
})

describe("refusal", () => {
  it("gives the figures, and what to do", () => {
    const advice = "Shorten what holds connections, raise maxConnections, or ask for less at once."
    assert.strictEqual(
      refusal.queueFull(facts).message,
      `The queue for a connection is full: 3 of 4 connections in use, 2 waiting. ${advice}`
    )
    assert.strictEqual(
      refusal.late(500, facts).message,
      `No connection came free within 500 ms: 3 of 4 connections in use, 2 waiting. ${advice}`
    )
  })

  it("says what connecting failed with, while the server is away", () => {
    const error = refusal.late(500, { ...facts, cause })
    assert.match(error.message, / The last attempt to connect failed: connect ECONNREFUSED$/)
    assert.strictEqual(error.cause, cause)
  })

  it("nothing was sent; waiting may mend a full queue, and never a closed pool", () => {
    for (const [error, transient] of [
      [refusal.queueFull(facts), true],
      [refusal.late(500, facts), true],
      [refusal.shut(cause), false]
    ] as const) {
      assert.deepStrictEqual(
        [error.phase, error.outcome, error.attempts, error.transient],
        ["Acquire", "NotApplied", 1, transient]
      )
    }
  })
})
