import { assert, describe, it } from "@effect/vitest"
import {
  Config,
  ConfigProvider,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FastCheck as fc,
  Layer,
  Option,
  TestClock
} from "effect"
import * as RetryBudget from "../../src/policy/RetryBudget.js"
import * as RetryPolicy from "../../src/policy/RetryPolicy.js"
import { errorOf } from "./errors.js"

type Budget = RetryBudget.RetryBudget["Type"]

const enter = (budget: Budget, operations: number) => {
  for (let i = 0; i < operations; i++) budget.unsafeEnter()
}

/** Takes permits until one is refused, and says how many there were. */
const drain = (budget: Budget): number => (budget.unsafeTake() ? 1 + drain(budget) : 0)

describe("RetryBudget", () => {
  it.effect.each([
    [0, 3],
    [1, 3],
    [15, 3],
    [16, 4],
    [20, 4],
    [21, 5],
    [1_000, 200]
  ] as const)("with %d operations in flight %d retries may be under way", ([inFlight, permits]) =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make()
      enter(budget, inFlight)
      assert.strictEqual((yield* budget.snapshot).allowed, permits)
      assert.strictEqual(drain(budget), permits)
      assert.deepStrictEqual(yield* budget.snapshot, { inFlight, retrying: permits, allowed: permits })
      budget.unsafeReturn()
      assert.isTrue(budget.unsafeTake())
      assert.isFalse(budget.unsafeTake())
    })
  )

  it.effect("holds a permit through the delay, and returns it when the attempt settles", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0, min: 1 })
      const attempt = Effect.delay(Effect.succeed("answer"), "10 seconds")
      const retrying = yield* Effect.fork(budget.withPermit(attempt, Effect.succeed("refused")))
      yield* TestClock.adjust(9_999)
      assert.strictEqual(yield* budget.withPermit(Effect.succeed("second"), Effect.succeed("refused")), "refused")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(retrying), "answer")
      assert.strictEqual(yield* budget.withPermit(Effect.succeed("second"), Effect.succeed("refused")), "second")
    })
  )

  it.effect.each([
    ["success", Effect.void],
    ["failure", Effect.fail("no")],
    ["defect", Effect.die("bug")],
    ["interruption", Effect.interrupt]
  ] as const)("returns what was taken after %s", ([_, ending]) =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make()
      yield* Effect.exit(budget.track(budget.withPermit(ending, Effect.void)))
      assert.deepStrictEqual(yield* budget.snapshot, { inFlight: 0, retrying: 0, allowed: 3 })
    })
  )

  it.effect("returns nothing that it had refused", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make({ ratio: 0, min: 1 })
      budget.unsafeTake()
      const error = errorOf("ConnectionError")
      assert.deepStrictEqual(yield* Effect.exit(budget.withPermit(Effect.void, Effect.fail(error))), Exit.fail(error))
      assert.strictEqual((yield* budget.snapshot).retrying, 1)
    })
  )

  it.effect("keeps no permit of fibers that were interrupted wherever they were", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.make()
      const started = yield* Deferred.make<void>()
      const fibers = yield* Effect.forEach(Array.from({ length: 200 }), (_, i) => {
        const attempt = Effect.zipRight(Deferred.succeed(started, undefined), Effect.sleep(i))
        return Effect.fork(budget.track(budget.withPermit(attempt, Effect.never)))
      })
      yield* Deferred.await(started)
      yield* TestClock.adjust(20)
      yield* Fiber.interruptAll(fibers)
      assert.deepStrictEqual(yield* budget.snapshot, { inFlight: 0, retrying: 0, allowed: 3 })
    })
  )

  it.effect("bounds the attempts of all operations together when every attempt fails", () =>
    Effect.gen(function* () {
      const operations = 500
      const budget = yield* RetryBudget.make()
      let attempts = 0
      let mostRetrying = 0
      const attempt = Effect.yieldNow().pipe(
        Effect.zipRight(budget.snapshot),
        Effect.flatMap(({ retrying }) => {
          attempts++
          mostRetrying = Math.max(mostRetrying, retrying)
          return Effect.fail(errorOf("ConnectionError"))
        })
      )
      const operation = Effect.gen(function* () {
        const driver = yield* RetryPolicy.driver(RetryPolicy.standard)
        let error = yield* Effect.flip(attempt)
        while (true) {
          const delay = yield* driver.next(error, 0)
          if (Option.isNone(delay)) return yield* Effect.fail(error)
          const last = error
          error = yield* Effect.flip(budget.withPermit(Effect.delay(attempt, delay.value), Effect.fail(last)))
          if (error === last) return yield* Effect.fail(error)
        }
      })
      const fibers = yield* Effect.forEach(Array.from({ length: operations }), () =>
        Effect.fork(budget.track(operation))
      )
      yield* TestClock.adjust("10 minutes")
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.isTrue(exits.every(Exit.isFailure))
      // Without a budget there would be 6 attempts for each operation.
      assert.strictEqual(mostRetrying, operations * 0.2)
      assert.isAtLeast(attempts, operations + operations * 0.2)
      assert.isAtMost(attempts, operations * 1.5)
      assert.deepStrictEqual(yield* budget.snapshot, { inFlight: 0, retrying: 0, allowed: 3 })
    })
  )

  it("allows exactly what a count of what is out allows, whatever happens in whatever order", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.nat({ max: 5 }),
        fc.array(fc.constantFrom("enter", "leave", "take", "return"), { maxLength: 200 }),
        (ratio, min, steps) => {
          const budget = Effect.runSync(RetryBudget.make({ ratio, min }))
          let [inFlight, retrying] = [0, 0]
          for (const step of steps) {
            if (step === "enter") {
              budget.unsafeEnter()
              inFlight++
            } else if (step === "leave" && inFlight > 0) {
              budget.unsafeLeave()
              inFlight--
            } else if (step === "return" && retrying > 0) {
              budget.unsafeReturn()
              retrying--
            } else if (step === "take") {
              const allowed = retrying < Math.max(min, ratio * inFlight)
              assert.strictEqual(budget.unsafeTake(), allowed)
              if (allowed) retrying++
            }
          }
        }
      ),
      { numRuns: 1_000 }
    )
  })

  it.effect("refuses nothing when it is off, and counts all the same", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.RetryBudget
      enter(budget, 2)
      for (let i = 0; i < 1_000; i++) assert.isTrue(budget.unsafeTake())
      assert.deepStrictEqual(yield* budget.snapshot, {
        inFlight: 2,
        retrying: 1_000,
        allowed: Number.POSITIVE_INFINITY
      })
    }).pipe(
      Effect.provide(RetryBudget.layerNoop),
      Effect.zipRight(Effect.map(RetryBudget.make({ min: "infinity" }), (budget) => assert.isTrue(budget.unsafeTake())))
    )
  )

  it.effect("refuses options that are out of range, all at once and by name", () =>
    Effect.gen(function* () {
      const faultsOf = (options: RetryBudget.Options) =>
        Effect.map(Effect.flip(RetryBudget.make(options)), (error) => error.faults.map(({ field }) => field))
      assert.deepStrictEqual(yield* faultsOf({ ratio: 1.01, min: -1 }), ["retryBudget.ratio", "retryBudget.min"])
      assert.deepStrictEqual(yield* faultsOf({ ratio: Number.NaN }), ["retryBudget.ratio"])
      assert.deepStrictEqual(yield* faultsOf({ min: 2.5 }), ["retryBudget.min"])
    })
  )

  it.effect("is configured from the environment", () =>
    Effect.gen(function* () {
      const budget = yield* RetryBudget.RetryBudget
      enter(budget, 100)
      assert.strictEqual(drain(budget), 50)
    }).pipe(
      Effect.provide(RetryBudget.layerConfig({ ratio: Config.number("RATIO") })),
      Effect.provide(Layer.setConfigProvider(ConfigProvider.fromMap(new Map([["RATIO", "0.5"]]))))
    )
  )
})
