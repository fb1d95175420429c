import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option, Random, Schedule, TestClock } from "effect"
import type * as PgError from "../../src/error/PgError.js"
import * as RetryPolicy from "../../src/policy/RetryPolicy.js"
import { errorOf, tags } from "./errors.js"

/** Draws the longest delay that full jitter allows. */
const longest = Effect.withRandomFixed([Number.MAX_SAFE_INTEGER])

const repeat = <A>(value: A, times: number): ReadonlyArray<A> => Array.from({ length: times }, () => value)

/** The delays in milliseconds for errors as they come, until the policy gives up. */
const delaysFor = (policy: RetryPolicy.RetryPolicy, errors: ReadonlyArray<PgError.PgError>) =>
  Effect.gen(function* () {
    const driver = yield* RetryPolicy.driver(policy)
    const delays: Array<number> = []
    for (const error of errors) {
      const delay = yield* driver.next(error, 0)
      if (Option.isNone(delay)) break
      delays.push(Duration.toMillis(delay.value))
    }
    return delays
  })

const delaysOf = (policy: RetryPolicy.RetryPolicy, tag: PgError.Tag) => delaysFor(policy, repeat(errorOf(tag), 100))

const away = [500, 750, 1_125, 1_687, 2_531]
const slots = [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000, 60_000]
const locks = [1_000, 2_000, 4_000]
const conflicts = [10, 20, 40, 80, 160]
const boots = [250, 375, 562, 843, 1_265, 1_898, 2_847, 4_271, ...repeat(5_000, 52)]

type Delays = { readonly [Tag in PgError.Tag]?: ReadonlyArray<number> }

const presets: { readonly [name in "standard" | "web" | "patient" | "startup"]: Delays } = {
  standard: {
    ConnectionError: away,
    ServerUnavailableError: away,
    ReadOnlyError: away,
    ResourceError: away,
    TooManyConnectionsError: slots,
    LockTimeoutError: locks,
    DeadlockError: conflicts,
    SerializationError: conflicts
  },
  web: {
    ConnectionError: [100, 200, 400],
    ServerUnavailableError: [100, 200, 400],
    ReadOnlyError: [100, 200, 400],
    ResourceError: [100, 200, 400],
    TooManyConnectionsError: [100, 200, 400],
    LockTimeoutError: [100, 200, 400],
    DeadlockError: conflicts,
    SerializationError: conflicts
  },
  patient: {
    ConnectionError: away,
    ServerUnavailableError: away,
    ReadOnlyError: away,
    ResourceError: away,
    TooManyConnectionsError: slots,
    PoolTimeoutError: slots,
    LockTimeoutError: locks,
    DeadlockError: conflicts,
    SerializationError: conflicts
  },
  startup: {
    ConnectionError: boots,
    ServerUnavailableError: boots,
    ReadOnlyError: boots,
    ResourceError: boots,
    TooManyConnectionsError: boots,
    PoolTimeoutError: boots,
    CircuitOpenError: boots,
    LockTimeoutError: locks,
    DeadlockError: conflicts,
    SerializationError: conflicts
  }
}

describe("RetryPolicy", () => {
  describe.each([
    ["standard", RetryPolicy.standard, presets.standard],
    ["web", RetryPolicy.web, presets.web],
    ["patient", RetryPolicy.patient, presets.patient],
    ["startup", RetryPolicy.startup, presets.startup]
  ] as const)("%s", (_, policy, expected: Delays) => {
    it.effect.each(tags)("delays the retries of %s by its numbers at the longest, and then gives up", (tag) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* delaysOf(policy, tag), expected[tag] ?? [])
      }).pipe(longest)
    )
  })

  it.effect.each(tags)("none retries no %s", (tag) =>
    Effect.map(delaysOf(RetryPolicy.none, tag), (delays) => assert.deepStrictEqual(delays, []))
  )

  it.effect.each(tags)("as a schedule it waits each delay of %s to the millisecond, and runs once after each", (tag) =>
    Effect.gen(function* () {
      const error = errorOf(tag)
      let attempts = 0
      let executions = 0
      const work = Effect.suspend(() => {
        attempts++
        return Effect.yieldNow().pipe(
          Effect.tap(() => executions++),
          Effect.zipRight(Effect.fail(error))
        )
      })
      const fiber = yield* Effect.fork(Effect.retry(work, RetryPolicy.toSchedule(RetryPolicy.standard)))
      yield* TestClock.adjust(0)
      const delays = presets.standard[tag] ?? []
      for (const [retries, delay] of delays.entries()) {
        yield* TestClock.adjust(delay - 1)
        assert.deepStrictEqual([attempts, executions], [retries + 1, retries + 1], `before retry ${retries + 1}`)
        yield* TestClock.adjust(1)
        assert.deepStrictEqual([attempts, executions], [retries + 2, retries + 2], `after retry ${retries + 1}`)
      }
      assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.fail(error))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([attempts, executions], [delays.length + 1, delays.length + 1])
    }).pipe(longest)
  )

  it.effect("draws delays uniformly from nothing to the longest, in whole milliseconds", () =>
    Effect.gen(function* () {
      const draws = yield* Effect.replicateEffect(
        Effect.map(delaysFor(RetryPolicy.standard, [errorOf("ConnectionError")]), ([delay]) => delay!),
        5_000
      )
      assert.isTrue(draws.every((delay) => Number.isInteger(delay) && delay >= 0 && delay <= 500))
      const tenths = Array.from(
        { length: 10 },
        (_, tenth) => draws.filter((delay) => Math.min(9, Math.floor(delay / 50)) === tenth).length
      )
      assert.isTrue(
        tenths.every((hits) => hits > 400 && hits < 600),
        String(tenths)
      )
      assert.isTrue(draws.includes(0) && draws.includes(500))
    }).pipe(Effect.withRandom(Random.make(1)))
  )

  it.effect.each(tags)("no preset retries a %s that is not transient", (tag) =>
    Effect.forEach([RetryPolicy.standard, RetryPolicy.web, RetryPolicy.patient, RetryPolicy.startup], (policy) =>
      Effect.map(delaysFor(policy, [errorOf(tag, { transient: false })]), (delays) =>
        assert.deepStrictEqual(delays, [])
      )
    )
  )

  it.effect("does not retry a full disk, but other resources that ran out", () =>
    Effect.gen(function* () {
      const full = errorOf("ResourceError", { sqlState: "53100" })
      const memory = errorOf("ResourceError", { sqlState: "53200" })
      for (const policy of [RetryPolicy.standard, RetryPolicy.web, RetryPolicy.patient, RetryPolicy.startup]) {
        assert.deepStrictEqual(yield* delaysFor(policy, [full]), [])
        assert.strictEqual((yield* delaysFor(policy, [memory])).length, 1)
      }
    })
  )

  it.effect("counts and backs off each tag by itself when tags vary within one operation", () =>
    Effect.gen(function* () {
      const errors = (
        ["ConnectionError", "ConnectionError", "DeadlockError", "ServerUnavailableError", "ConnectionError"] as const
      ).map((tag) => errorOf(tag))
      assert.deepStrictEqual(yield* delaysFor(RetryPolicy.standard, errors), [500, 750, 10, 500, 1_125])
    }).pipe(longest)
  )

  it.effect("ends the operation when the tag at hand is used up, whatever others have left", () =>
    Effect.gen(function* () {
      const errors = [...repeat(errorOf("LockTimeoutError"), 3), errorOf("DeadlockError"), errorOf("LockTimeoutError")]
      assert.deepStrictEqual(yield* delaysFor(RetryPolicy.standard, errors), [1_000, 2_000, 4_000, 10])
    }).pipe(longest)
  )

  it.effect("retries one operation 20 times at most, over all tags together", () =>
    Effect.gen(function* () {
      const retried = tags.filter((tag) => presets.standard[tag] !== undefined)
      const errors = Array.from({ length: 100 }, (_, i) => errorOf(retried[i % retried.length]!))
      assert.strictEqual((yield* delaysFor(RetryPolicy.standard, errors)).length, RetryPolicy.defaults.maxRetries)
      const limited = (maxRetries: number | "infinity") => RetryPolicy.make({ maxRetries })
      assert.strictEqual((yield* delaysFor(limited(3), errors)).length, 3)
      assert.strictEqual((yield* delaysFor(limited(0), errors)).length, 0)
      // Then the first tag that is used up ends it: locks, in their fourth round of eight tags.
      assert.strictEqual(
        (yield* delaysFor(limited("infinity"), errors)).length,
        24 + retried.indexOf("LockTimeoutError")
      )
    })
  )

  it.effect("never waits less than the error asks for, nor less than its own delay", () =>
    Effect.gen(function* () {
      const asks = (retryAfter: Duration.DurationInput) =>
        errorOf("ConnectionError", { retryAfter: Duration.decode(retryAfter) })
      const errors = [asks("3 seconds"), asks("1 millis"), asks("30 seconds")]
      assert.deepStrictEqual(yield* delaysFor(RetryPolicy.standard, errors), [3_000, 750, 30_000])
    }).pipe(longest)
  )

  it.effect("waits for the time that an error names when it is run as a schedule, to the millisecond", () =>
    Effect.gen(function* () {
      let executions = 0
      const error = errorOf("CircuitOpenError", { retryAfter: Duration.seconds(30) })
      const work = Effect.suspend(() => (++executions === 1 ? Effect.fail(error) : Effect.succeed("answer")))
      const fiber = yield* Effect.fork(Effect.retry(work, RetryPolicy.toSchedule(RetryPolicy.startup)))
      yield* TestClock.adjust(29_999)
      assert.strictEqual(executions, 1)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(fiber), "answer")
      assert.strictEqual(executions, 2)
    })
  )

  it.effect("takes any schedule for any tag, and hands it the error of that tag", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.make({
        UniqueViolation: Schedule.whileInput(
          Schedule.recurs(2),
          (error: PgError.UniqueViolation) => error.constraint === "invoice_number"
        ),
        LockTimeoutError: undefined
      })
      const violation = (constraint: string) => repeat(errorOf("UniqueViolation", { transient: false, constraint }), 9)
      assert.deepStrictEqual(yield* delaysFor(policy, violation("invoice_number")), [0, 0])
      assert.deepStrictEqual(yield* delaysFor(policy, violation("email")), [])
      assert.deepStrictEqual(yield* delaysOf(policy, "LockTimeoutError"), [])
      assert.deepStrictEqual(yield* delaysOf(policy, "DeadlockError"), conflicts)
    }).pipe(longest)
  )

  it.effect("shows a schedule the time, so that one may end by elapsed time", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.make(
        { ConnectionError: Schedule.spaced("1 second").pipe(Schedule.upTo("10 seconds")) },
        RetryPolicy.none
      )
      const driver = yield* RetryPolicy.driver(policy)
      const error = errorOf("ConnectionError")
      assert.isTrue(Option.isSome(yield* driver.next(error, 1_000)))
      assert.isTrue(Option.isSome(yield* driver.next(error, 10_999)))
      assert.isTrue(Option.isNone(yield* driver.next(error, 11_000)))
    })
  )

  it.effect("keeps the state of one operation from another", () =>
    Effect.gen(function* () {
      const first = yield* RetryPolicy.driver(RetryPolicy.standard)
      const second = yield* RetryPolicy.driver(RetryPolicy.standard)
      const error = errorOf("ConnectionError")
      yield* first.next(error, 0)
      assert.deepStrictEqual(yield* first.next(error, 0), Option.some(Duration.millis(750)))
      assert.deepStrictEqual(yield* second.next(error, 0), Option.some(Duration.millis(500)))
    }).pipe(longest)
  )

  it.effect("gives three immediate retries for dead connections, which cost no tag anything", () =>
    Effect.gen(function* () {
      const driver = yield* RetryPolicy.driver(RetryPolicy.standard)
      assert.deepStrictEqual(
        Array.from({ length: 5 }, () => driver.unsafeImmediate()),
        [true, true, true, false, false]
      )
      assert.deepStrictEqual(yield* driver.next(errorOf("ConnectionError"), 0), Option.some(Duration.millis(500)))
    }).pipe(longest)
  )

  it("refuses a backoff whose numbers are out of range, naming each", () => {
    const faultsOf = (options: RetryPolicy.Backoff) => {
      try {
        RetryPolicy.backoff(options)
        return []
      } catch (error) {
        return (error as PgError.InvalidOptionsError).faults.map(({ field }) => field)
      }
    }
    assert.deepStrictEqual(faultsOf({ retries: -1, first: 0, factor: Number.NaN, cap: "-1 seconds" as never }), [
      "backoff.retries",
      "backoff.first",
      "backoff.factor",
      "backoff.cap"
    ])
    assert.deepStrictEqual(faultsOf({ retries: 1, first: 10, cap: "25 days" }), ["backoff.cap"])
    assert.deepStrictEqual(faultsOf({ retries: 1.5, first: 10, cap: 10 }), ["backoff.retries"])
    assert.deepStrictEqual(faultsOf({ retries: 1, first: 11, cap: 10 }), ["backoff.cap"])
    assert.deepStrictEqual(faultsOf({ retries: "infinity", first: 10, factor: 0.5, cap: 10 }), ["backoff.factor"])
    assert.deepStrictEqual(faultsOf({ retries: 0, first: 10, factor: 1, cap: 10 }), [])
    assert.throws(() => RetryPolicy.make({ maxRetries: Number.NaN }), /retry\.maxRetries/)
    assert.throws(() => RetryPolicy.make({ maxRetries: -1 }), /retry\.maxRetries/)
  })

  it.effect("keeps doubling past the range of numbers without leaving its cap", () =>
    Effect.gen(function* () {
      const endless = RetryPolicy.backoff({ retries: "infinity", first: 1, factor: 1e300, cap: "1 minute" })
      const policy = RetryPolicy.make({ ConnectionError: endless, maxRetries: "infinity" }, RetryPolicy.none)
      const delays = yield* delaysFor(policy, repeat(errorOf("ConnectionError"), 50))
      assert.deepStrictEqual(delays, [1, ...repeat(60_000, 49)])
    }).pipe(longest)
  )
})
