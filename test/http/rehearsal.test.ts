import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Random, Schedule, Schema, TestClock } from "effect"
import * as rehearsal from "../../src/http/internal/rehearsal.js"
import * as virtualClock from "../../src/http/internal/virtualClock.js"
import type * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import * as RetryPolicy from "../../src/policy/RetryPolicy.js"

const stateNames = (states: ReadonlyArray<{ readonly state: string }>) => states.map(({ state }) => state)

const steady: CircuitBreaker.Options = { resetTimeout: "10 seconds", maxResetTimeout: "10 seconds" }

describe("a rehearsed circuit breaker", () => {
  it.effect("opens at its threshold, refuses for its reset timeout, and closes by its probes", () =>
    Effect.gen(function* () {
      const told = yield* rehearsal.breaker({}, {})
      assert.deepInclude(told, {
        tag: "ConnectionError",
        counted: true,
        failures: 5,
        refused: 1,
        probes: 2,
        changes: 3
      })
      assert.deepStrictEqual(stateNames(told.states), ["Closed", "Open", "HalfOpen", "Closed"])
      assert.deepInclude(told.opened, { afterMs: 0, failures: 5 })
      assert.strictEqual(told.opened?.retryAfterMs, 30_000)
      assert.strictEqual(told.closedAfterMs, 30_000)
      assert.strictEqual(told.state, "Closed")
      assert.isTrue(Schema.is(rehearsal.BreakerRehearsal)(told))
    })
  )

  it.effect("goes by the options that it is given, and is as patient after each probe that fails", () =>
    Effect.gen(function* () {
      const told = yield* rehearsal.breaker(
        { failureThreshold: 2, resetTimeout: "1 second", maxResetTimeout: "1 hour", successesToClose: 1 },
        { failures: 5 }
      )
      assert.deepStrictEqual(stateNames(told.states), [
        ...["Closed", "Open", "HalfOpen", "Open", "HalfOpen", "Open", "HalfOpen", "Open", "HalfOpen", "Closed"]
      ])
      assert.deepInclude(told, { failures: 5, refused: 4, probes: 4, changes: 9 })
      const opened = told.states.flatMap(({ afterMs, state }) => (state === "Open" ? [afterMs] : []))
      const halfOpened = told.states.flatMap(({ afterMs, state }) => (state === "HalfOpen" ? [afterMs] : []))
      for (const [n, at] of opened.entries()) {
        const open = halfOpened[n]! - at
        assert.isTrue(open >= 500 * 2 ** n && open <= 1000 * 2 ** n, `${open} ms at ${n}`)
      }
    })
  )

  it.effect("does not open for what the server answers, nor below its threshold, nor where there is none", () =>
    Effect.gen(function* () {
      const answers = yield* rehearsal.breaker(steady, { tag: "UniqueViolation", failures: 1000 })
      const few = yield* rehearsal.breaker(steady, { failures: 4 })
      const off = yield* rehearsal.breaker(false, { failures: 1000 })
      const never = yield* rehearsal.breaker({ failureThreshold: "infinity" }, {})
      for (const told of [answers, few, off, never]) {
        assert.deepInclude(told, { refused: 0, probes: 0, changes: 0, state: "Closed" })
        assert.isUndefined(told.opened)
        assert.isUndefined(told.closedAfterMs)
      }
      assert.deepStrictEqual([answers.failures, few.failures, off.failures], [1000, 4, 1000])
      assert.deepStrictEqual([answers.counted, few.counted, off.counted], [false, true, false])
    })
  )

  it.effect("opens by its failure rate where it has one", () =>
    Effect.gen(function* () {
      const told = yield* rehearsal.breaker(
        { ...steady, failureThreshold: "infinity", failureRate: 0.5, minimumCalls: 30 },
        {}
      )
      assert.deepInclude(told.opened, { failures: 30 })
    })
  )

  it.effect("ends, and lists what fits, however long it is kept open", () =>
    Effect.gen(function* () {
      const told = yield* rehearsal.breaker(
        { failureThreshold: 1, resetTimeout: "20 days", maxResetTimeout: "24 days" },
        { failures: 1000 }
      )
      assert.deepInclude(told, { failures: 1000, refused: 1000, state: "Closed" })
      assert.lengthOf(told.states, 50)
      const endless = yield* rehearsal.breaker({ ...steady, successesToClose: 1_000_000 }, {})
      assert.strictEqual(endless.state, "HalfOpen")
    })
  )

  it.effect("takes no time and tells nobody", () =>
    Effect.gen(function* () {
      let told = 0
      const before = yield* Clock.currentTimeMillis
      yield* rehearsal.breaker({ onChange: () => void told++ }, { failures: 100 })
      assert.strictEqual(told, 0)
      assert.strictEqual(yield* Clock.currentTimeMillis, before)
    })
  )
})

describe("rehearsed retries", () => {
  it.effect("wait as the policy would, and succeed when the server is well in time", () =>
    Effect.gen(function* () {
      const told = yield* rehearsal.retry(RetryPolicy.standard, {})
      assert.deepInclude(told, { tag: "ConnectionError", attempts: 4, outcome: "Succeeded" })
      assert.lengthOf(told.delaysMs, 3)
      for (const [n, delay] of told.delaysMs.entries()) assert.isTrue(delay >= 0 && delay <= 500 * 1.5 ** n)
      assert.strictEqual(
        told.waitedMs,
        told.delaysMs.reduce((sum, delay) => sum + delay, 0)
      )
      assert.isTrue(Schema.is(rehearsal.RetryRehearsal)(told))
    })
  )

  it.effect("are those of the policy to the millisecond, drawn by the same dice", () =>
    Effect.gen(function* () {
      const policy = RetryPolicy.patient
      const driver = yield* RetryPolicy.driver(policy)
      const { delaysMs } = yield* Effect.withRandom(
        rehearsal.retry(policy, { tag: "PoolTimeoutError", failures: 100 }),
        Random.make("dice")
      )
      const error: any = { _tag: "PoolTimeoutError", transient: true }
      const drawn = yield* Effect.withRandom(
        Effect.replicateEffect(
          Effect.suspend(() => driver.next(error, 0)),
          delaysMs.length
        ),
        Random.make("dice")
      )
      assert.deepStrictEqual(
        delaysMs,
        drawn.map((delay) => (delay._tag === "Some" ? Duration.toMillis(delay.value) : Number.NaN))
      )
      assert.lengthOf(delaysMs, 10)
    })
  )

  it.effect("give up where the policy does, at once where it has nothing for the tag or there is none", () =>
    Effect.gen(function* () {
      const outcome = ({ attempts, outcome }: typeof rehearsal.RetryRehearsal.Type) => [attempts, outcome]
      const standard = RetryPolicy.standard
      assert.deepStrictEqual(outcome(yield* rehearsal.retry(standard, { failures: 100 })), [6, "GaveUp"])
      assert.deepStrictEqual(outcome(yield* rehearsal.retry(standard, { tag: "UniqueViolation" })), [1, "GaveUp"])
      assert.deepStrictEqual(outcome(yield* rehearsal.retry(false, {})), [1, "GaveUp"])
      assert.deepStrictEqual(outcome(yield* rehearsal.retry(false, { failures: 0 })), [1, "Succeeded"])
      const capped = RetryPolicy.make({ maxRetries: 2 })
      assert.deepStrictEqual(outcome(yield* rehearsal.retry(capped, { failures: 10 })), [3, "GaveUp"])
      const endless = RetryPolicy.make({ ConnectionError: Schedule.spaced(Duration.infinity) })
      assert.deepStrictEqual(outcome(yield* rehearsal.retry(endless, {})), [1, "GaveUp"])
    })
  )
})

describe("a virtual clock", () => {
  it.effect("is moved on by whoever sleeps on it, and by nothing else", () =>
    Effect.gen(function* () {
      const clock = virtualClock.make(1_000_000)
      yield* TestClock.adjust("1 day")
      const times = yield* Effect.withClock(
        Effect.gen(function* () {
          const before = yield* Clock.currentTimeMillis
          yield* Effect.sleep("30 minutes")
          yield* Effect.sleep("1500 micros")
          return [before, yield* Clock.currentTimeMillis, yield* Clock.currentTimeNanos]
        }),
        clock
      )
      assert.deepStrictEqual(times, [1_000_000, 2_800_001, 2_800_001_500_000n])
    })
  )
})
