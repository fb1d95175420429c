import { assert, describe, it } from "@effect/vitest"
import { Duration, Either, FastCheck as fc, Redacted } from "effect"
import * as validate from "../../src/config/internal/validate.js"

/** What a rule makes of a value: the decoded value, or each fault as `field: value, expected`. */
const run = <A>(rule: validate.Rule<A>, value: unknown): A | ReadonlyArray<string> =>
  Either.match(rule(value, "x"), {
    onLeft: (faults) => faults.map((_) => `${_.field}: ${String(_.value)}, ${_.expected}`),
    onRight: (_) => _
  })

describe("validate", () => {
  it.each<[string, validate.Rule<unknown>, unknown, unknown]>([
    ["an integer", validate.integer(), 3, 3],
    ["zero by default", validate.integer(), 0, 0],
    ["the upper bound", validate.integer({ min: 1, max: 3 }), 3, 3],
    ["infinity where allowed", validate.integer({ infinity: true }), "infinity", Number.POSITIVE_INFINITY],
    ["a fraction as a number", validate.number({ max: 1 }), 0.2, 0.2],
    ["a number as milliseconds", validate.duration(), 1_500, 1_500],
    ["a duration string", validate.duration(), "1.5 seconds", 1_500],
    ["a Duration", validate.duration(), Duration.minutes(1), 60_000],
    ["nanoseconds", validate.duration(), 2_000_000n, 2],
    ["a pair of seconds and nanoseconds", validate.duration(), [1, 500_000_000], 1_500],
    ["zero where allowed", validate.duration({ min: 0 }), 0, 0],
    ["an infinite Duration", validate.duration({ infinity: true }), Duration.infinity, Number.POSITIVE_INFINITY],
    ["Infinity as a word", validate.duration({ infinity: true }), "Infinity", Number.POSITIVE_INFINITY],
    ["an off switch", validate.orFalse(validate.integer()), false, false],
    ["a missing value by its default", validate.defaulted(validate.duration(), "1 second"), undefined, 1_000],
    ["a missing value as missing", validate.optional(validate.integer()), undefined, undefined],
    ["a name of a closed set", validate.literal("a", "b"), "b", "b"]
  ])("accepts %s", (_, rule, value, decoded) => {
    assert.deepStrictEqual(run(rule, value), decoded)
  })

  it.each<[string, validate.Rule<unknown>, unknown, string]>([
    ["NaN as an integer", validate.integer(), Number.NaN, "NaN, an integer of 0 or more"],
    ["a fraction as an integer", validate.integer({ min: 1, max: 9 }), 1.5, "1.5, an integer from 1 to 9"],
    ["a numeral in a string", validate.integer(), "5", "5, an integer of 0 or more"],
    ["infinity where not allowed", validate.integer(), Number.POSITIVE_INFINITY, "Infinity, an integer of 0 or more"],
    ["a number under its bound", validate.number({ min: 0.5 }), 0.4, "0.4, a number of 0.5 or more"],
    ["an infinite number", validate.number(), Number.POSITIVE_INFINITY, "Infinity, a number of 0 or more"],
    ["NaN as a duration", validate.duration(), Number.NaN, "NaN, a duration of 1 ms or more"],
    ["a negative duration", validate.duration({ min: 0 }), -1, "-1, a duration of 0 ms or more"],
    [
      "a negative duration in words",
      validate.duration({ min: 0 }),
      "-1 seconds",
      "-1 seconds, a duration of 0 ms or more"
    ],
    ["negative nanoseconds", validate.duration({ min: 0 }), -5n, "-5, a duration of 0 ms or more"],
    ["a pair with NaN", validate.duration({ min: 0 }), [Number.NaN, 0], "an array, a duration of 0 ms or more"],
    ["zero where something is needed", validate.duration(), Duration.zero, "0, a duration of 1 ms or more"],
    ["a malformed duration", validate.duration(), "5 parsecs", "5 parsecs, a duration of 1 ms or more"],
    ["infinity as a plain duration", validate.duration(), "infinity", "infinity, a duration of 1 ms or more"],
    ["a duration over its bound", validate.duration({ max: 10 }), 11, "11, a duration from 1 ms to 10 ms"],
    [
      "a fraction of a millisecond where none fits",
      validate.duration({ whole: true, infinity: true }),
      "1500 micros",
      '1500 micros, a duration of 1 ms or more in whole milliseconds, or "infinity"'
    ],
    ["true where only false switches off", validate.orFalse(validate.integer()), true, "true, an integer of 0 or more"],
    ["an unknown name", validate.literal("a", "b"), "c", "c, one of a, b"],
    ["an empty string", validate.text, "", ", a non-empty string"],
    ["an object, without showing it", validate.text, { password: "hunter2" }, "an object, a non-empty string"],
    [
      "a secret, without showing it",
      validate.secret(validate.integer()),
      "hunter2",
      "<redacted>, an integer of 0 or more"
    ],
    ["what is redacted, without showing it", validate.text, Redacted.make("hunter2"), "<redacted>, a non-empty string"]
  ])("refuses %s", (_, rule, value, expected) => {
    assert.deepStrictEqual(run(rule, value), [`x: ${expected}`])
  })

  const pool = validate.struct(
    { min: validate.integer(), max: validate.integer({ min: 1 }) },
    {
      exact: true,
      relation: ({ min = 0, max = min }) => (min > max ? [validate.fault("min", min, `at most max, ${max}`)] : [])
    }
  )

  it("reports every faulty field of a record, with its path", () => {
    const options = validate.struct({ pool, name: validate.text })
    assert.deepStrictEqual(run(options, { pool: { min: -1, max: Number.NaN }, name: 5 }), [
      "x.pool.min: -1, an integer of 0 or more",
      "x.pool.max: NaN, an integer of 1 or more",
      "x.name: 5, a non-empty string"
    ])
  })

  it("reports a relation between two fields beside faults elsewhere, and no relation of unsound ones", () => {
    const options = validate.struct({ pool, name: validate.text })
    assert.deepStrictEqual(run(options, { pool: { min: 5, max: 2 }, name: "" }), [
      "x.pool.min: 5, at most max, 2",
      "x.name: , a non-empty string"
    ])
    assert.deepStrictEqual(run(pool, { min: 5, max: -2 }), ["x.max: -2, an integer of 1 or more"])
  })

  it("refuses fields it does not know where the record is exact, and leaves them out elsewhere", () => {
    assert.deepStrictEqual(run(pool, { min: 1, max: 2, mx: 3 }), ["x.mx: 3, one of min, max"])
    assert.deepStrictEqual(run(validate.struct({ a: validate.boolean }), { a: true, b: 1 }), { a: true })
  })

  it("puts every faulty field, its value and what is accepted into one line", () => {
    const error = Either.flip(validate.decode(pool, "pool")({ min: -1, max: "many" })).pipe(Either.getOrThrow)
    assert.strictEqual(error._tag, "InvalidOptionsError")
    assert.strictEqual(
      error.message,
      'Invalid options: pool.min is -1, expected an integer of 0 or more; pool.max is "many", expected an integer of 1 or more'
    )
    assert.deepStrictEqual(
      error.faults.map((_) => _.field),
      ["pool.min", "pool.max"]
    )
  })

  it("answers for any value whatever, and decodes only to numbers within the bounds", () => {
    const rules = [
      validate.integer({ min: 1, max: 100 }),
      validate.number({ min: 1, max: 100 }),
      validate.duration({ min: 1, max: 100 })
    ]
    fc.assert(
      fc.property(fc.oneof(fc.anything({ withBigInt: true }), fc.double(), fc.integer({ max: 200 })), (value) => {
        for (const rule of rules) {
          Either.match(rule(value, "x"), {
            onLeft: (faults) => assert.lengthOf(faults, 1),
            onRight: (decoded) => assert.isTrue(decoded >= 1 && decoded <= 100)
          })
        }
      })
    )
  })
})
