import { assert, describe, it } from "@effect/vitest"
import { type CallFacts, outcomeOf } from "../../src/error/outcome.js"

const columns = ["written", "answered", "inTransaction", "isCommit", "readOnly", "opaque"] as const

/** One column per fact, in the order above: `1` yes, `0` no, `-` whatever. Every combination is in exactly one row. */
const rows: ReadonlyArray<readonly [string, ReturnType<typeof outcomeOf>, string]> = [
  ["0 - - - - -", "NotApplied", "nothing was sent"],
  ["1 - - - 1 -", "NotApplied", "there was nothing to apply"],
  ["1 - - - 0 1", "Unknown", "an opaque text was sent, whatever came back"],
  ["1 1 - - 0 0", "NotApplied", "the server refused it, a COMMIT too"],
  ["1 0 0 0 0 0", "Unknown", "an autocommit write was lost"],
  ["1 0 1 0 0 0", "NotApplied", "the loss came before COMMIT"],
  ["1 0 0 1 0 0", "Unknown", "a COMMIT was lost"],
  ["1 0 1 1 0 0", "Unknown", "a COMMIT was lost"]
]

const combinations: ReadonlyArray<CallFacts> = Array.from(
  { length: 2 ** columns.length },
  (_, bits) => Object.fromEntries(columns.map((name, i) => [name, (bits & (1 << i)) !== 0])) as unknown as CallFacts
)

const matching = (facts: CallFacts) =>
  rows.filter(([pattern]) =>
    pattern.split(" ").every((sign, i) => sign === "-" || (sign === "1") === facts[columns[i]!])
  )

describe("outcomeOf", () => {
  it.each(rows)("%s: %s, because %s", (pattern, outcome) => {
    const covered = combinations.filter((facts) => matching(facts).some(([other]) => other === pattern))
    assert.isAbove(covered.length, 0)
    for (const facts of covered) assert.strictEqual(outcomeOf(facts), outcome, JSON.stringify(facts))
  })

  it("has one answer for each of the 64 combinations", () => {
    for (const facts of combinations) assert.strictEqual(matching(facts).length, 1, JSON.stringify(facts))
  })
})
