/** The tester itself, on effects that take as long as `TestClock` says: every latency is known beforehand. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Data, Effect, Either, Exit, Fiber, Random, Ref, TestClock } from "effect"
import { LoadTest, PgError } from "effect-pg-resilience"

/** To its end, which comes within an hour of the test's clock. */
const finished = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(effect)
    yield* TestClock.adjust("1 hour")
    return yield* Fiber.join(fiber)
  })

const sampleEvery = "1 minute"
const tenMillis = Effect.sleep("10 millis")

class Broken extends Data.TaggedError("Broken")<{ readonly message: string }> {}

describe("a closed test", () => {
  it.effect("runs so many operations in each of so many fibers, each as soon as the one before has ended", () =>
    Effect.gen(function* () {
      const result = yield* finished(
        LoadTest.run({ scenario: { wait: tenMillis }, concurrency: 4, operations: 3, sampleEvery, seed: 1 })
      )
      assert.deepInclude(result.total, { succeeded: 12, failed: 0, rate: 400, service: null })
      assert.deepInclude(result.total.response!, { min: 10, mean: 10, p50: 10, p99_9: 10, max: 10 })
      assert.deepInclude(result, { complete: true, measuredMs: 30, unfinished: 0, delayed: 0, behind: 0, unstarted: 0 })
      assert.deepStrictEqual(result.settings, {
        model: "closed",
        concurrency: 4,
        operations: 3,
        durationMs: null,
        rampMs: 0,
        warmUpMs: 0,
        thinkTimeMs: 0,
        seed: 1
      })
    })
  )

  it.effect("is 50 fibers with 100 operations each, if nothing else is said", () =>
    Effect.gen(function* () {
      const running = yield* Ref.make({ now: 0, most: 0 })
      const operation = Effect.acquireUseRelease(
        Ref.update(running, ({ most, now }) => ({ now: now + 1, most: Math.max(most, now + 1) })),
        () => Effect.yieldNow(),
        () => Ref.update(running, ({ most, now }) => ({ most, now: now - 1 }))
      )
      const result = yield* LoadTest.run({ scenario: { operation }, sampleEvery })
      assert.strictEqual(result.total.succeeded, 5000)
      assert.deepStrictEqual(yield* Ref.get(running), { now: 0, most: 50 })
    })
  )

  it.effect("ends by the clock, lets what is under way come to its end, and thinks between operations", () =>
    Effect.gen(function* () {
      const options = { scenario: { wait: tenMillis }, concurrency: 1, sampleEvery } as const
      const busy = yield* finished(LoadTest.run({ ...options, duration: "95 millis" }))
      assert.deepInclude(busy.total, { succeeded: 10 })
      assert.strictEqual(busy.measuredMs, 100)
      const thinking = yield* finished(LoadTest.run({ ...options, duration: "95 millis", thinkTime: "20 millis" }))
      assert.deepInclude(thinking.total, { succeeded: 4 })
    })
  )

  it.effect("does not measure what begins while it warms up", () =>
    Effect.gen(function* () {
      const count = yield* Ref.make(0)
      // Slow at first, as everything is.
      const operation = Effect.flatMap(
        Ref.updateAndGet(count, (n) => n + 1),
        (n) => Effect.sleep(n <= 2 ? "500 millis" : "10 millis")
      )
      const result = yield* finished(
        LoadTest.run({ scenario: { operation }, concurrency: 1, operations: 5, warmUp: "900 millis", sampleEvery })
      )
      assert.strictEqual(yield* Ref.get(count), 7)
      assert.deepInclude(result.total.response!, { min: 10, max: 10 })
      assert.deepInclude(result.total, { succeeded: 5 })
    })
  )

  it.effect("fails what has not ended when the grace is over", () =>
    Effect.gen(function* () {
      const result = yield* finished(
        LoadTest.run({
          scenario: { hangs: { effect: Effect.never }, works: { effect: tenMillis, weight: 0 } },
          concurrency: 3,
          duration: "1 second",
          grace: "2 seconds",
          thresholds: ["errors<1"],
          sampleEvery
        })
      )
      assert.deepInclude(result, { complete: true, unfinished: 0 })
      assert.deepInclude(result.errors[0], { operation: "hangs", tag: "Unfinished", count: 3 })
      assert.isFalse(LoadTest.passed(result))
    })
  )
})

describe("a test at a rate", () => {
  /** The fifth of its operations takes a second, the others 4 ms. */
  const stalling = Effect.map(Ref.make(0), (count) =>
    Effect.flatMap(
      Ref.updateAndGet(count, (n) => n + 1),
      (n) => Effect.sleep(n === 5 ? "1 second" : "4 millis")
    )
  )

  it.effect("begins operations when they are due, however long those before them take", () =>
    Effect.gen(function* () {
      const begun = yield* Ref.make<ReadonlyArray<number>>([])
      const operation = Effect.gen(function* () {
        const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        yield* Ref.update(begun, (all) => [...all, now])
        yield* Effect.sleep("1 second")
      })
      const result = yield* finished(LoadTest.run({ scenario: { operation }, rate: 10, operations: 5, sampleEvery }))
      assert.deepStrictEqual(yield* Ref.get(begun), [0, 100, 200, 300, 400])
      assert.deepInclude(result, { delayed: 0, unstarted: 0 })
      assert.deepInclude(result.total.response!, { min: 1000, max: 1000 })
      assert.strictEqual(result.measuredMs, 1400)
    })
  )

  it.effect("counts the time that operations waited, which a closed test leaves out", () =>
    Effect.gen(function* () {
      const open = yield* finished(
        LoadTest.run({
          scenario: { operation: yield* stalling },
          rate: 100,
          operations: 20,
          maxInFlight: 1,
          sampleEvery
        })
      )
      // one that stood still, and fifteen that it kept waiting
      assert.strictEqual(open.delayed, 15)
      const { response, service } = open.total
      // a part in a thousand is what a histogram leaves open
      for (const figure of ["p50", "p95"] as const) assert.closeTo(service![figure], 4, 0.004)
      assert.strictEqual(service!.max, 1000)
      assert.isAbove(response!.p50, 500)
      assert.strictEqual(response!.min, 4)
      // due at 50 ms, begun at 1040 ms, after the one that was due at 40 ms
      assert.closeTo(LoadTest.percentile(response!, 95), 994, 1)

      const closed = yield* finished(
        LoadTest.run({ scenario: { operation: yield* stalling }, concurrency: 1, operations: 20, sampleEvery })
      )
      assert.closeTo(closed.total.response!.p95, 4, 0.004)
      assert.strictEqual(closed.total.response!.max, 1000)
    })
  )

  it.effect("counts what it never began for want of room", () =>
    Effect.gen(function* () {
      const result = yield* finished(
        LoadTest.run({
          scenario: { slow: Effect.sleep("400 millis") },
          rate: 10,
          duration: "1 second",
          maxInFlight: 1,
          thresholds: ["unstarted<1", "delayed<50%"],
          sampleEvery
        })
      )
      // due each 100 ms; begun at 0, 400 and 800
      assert.deepInclude(result, { unstarted: 7, delayed: 2 })
      assert.deepInclude(result.total, { succeeded: 3 })
      assert.deepStrictEqual(
        result.thresholds.map(({ ok }) => ok),
        [false, false]
      )
      assert.include(LoadTest.summary(result), "7 operations were due and never begun, because 1 were under way")
    })
  )

  it.effect("draws arrivals and kinds from its seed", () =>
    Effect.gen(function* () {
      const drawn = (seed: number) =>
        Effect.gen(function* () {
          const log = yield* Ref.make<ReadonlyArray<string>>([])
          const told = (name: string) =>
            Effect.gen(function* () {
              const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
              yield* Ref.update(log, (all) => [...all, `${name} at ${now}`])
            })
          const options = {
            scenario: { a: { effect: told("a"), weight: 3 }, b: told("b") },
            seed,
            sampleEvery
          } as const
          const start = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
          yield* finished(LoadTest.run({ ...options, rate: 20, arrivals: "poisson", operations: 40, maxInFlight: 5 }))
          const all = yield* Ref.get(log)
          return all.map((line) => line.replace(/\d+$/, (at) => String(Number(at) - start)))
        })
      const first = yield* drawn(3)
      assert.deepStrictEqual(yield* drawn(3), first)
      assert.notDeepEqual(yield* drawn(4), first)
      const share = first.filter((line) => line.startsWith("a")).length / first.length
      assert.closeTo(share, 0.75, 0.2)
    })
  )
})

describe("a scenario", () => {
  it.effect("is drawn by its weights, and the same for the same seed, fiber by fiber", () =>
    Effect.gen(function* () {
      const counted = (seed: number) =>
        Effect.gen(function* () {
          const sum = yield* Ref.make(0)
          const random = Effect.flatMap(Random.nextIntBetween(0, 1000), (n) => Ref.update(sum, (all) => all + n))
          const { operations } = yield* LoadTest.run({
            scenario: {
              often: { effect: random, weight: 70 },
              seldom: { effect: random, weight: 30 },
              never: { effect: Effect.die("drawn"), weight: 0 }
            },
            concurrency: 5,
            operations: 400,
            seed,
            sampleEvery
          })
          return {
            kinds: operations.map(({ name, succeeded }) => [name, succeeded] as const),
            sum: yield* Ref.get(sum)
          }
        })
      const one = yield* counted(11)
      assert.deepStrictEqual(yield* counted(11), one)
      assert.notDeepEqual(yield* counted(12), one)
      assert.deepStrictEqual(
        one.kinds.map(([name]) => name),
        ["often", "seldom"]
      )
      assert.closeTo(one.kinds[0]![1] / 2000, 0.7, 0.05)
    })
  )

  it.effect("fails by tag: a PgError's, one's own, a defect's, an interruption's", () =>
    Effect.gen(function* () {
      const unknown = PgError.toSqlError(
        new PgError.ConnectionError({
          message: "lost",
          phase: "Execute",
          outcome: "Unknown",
          transient: true,
          attempts: 1
        })
      )
      const result = yield* LoadTest.run({
        scenario: {
          lost: Effect.fail(unknown),
          own: new Broken({ message: "of my own\nmaking" }),
          text: Effect.fail("text"),
          thrown: Effect.sync(() => {
            throw new RangeError("out of range")
          }),
          error: Effect.fail(new TypeError("typed")),
          interrupted: Effect.interrupt,
          fine: Effect.void
        },
        concurrency: 2,
        operations: 200,
        thresholds: ["errors<100%", "errors<50%", "fine:errors<1", "p99<1s", "own:p99<1s"],
        seed: 5,
        sampleEvery
      })
      const tags = new Map(result.errors.map(({ message, operation, tag }) => [operation, [tag, message]]))
      assert.deepStrictEqual(Object.fromEntries(tags), {
        lost: ["ConnectionError", "lost"],
        own: ["Broken", "of my own making"],
        text: ["Failure", "text"],
        thrown: ["Defect", "out of range"],
        error: ["TypeError", "typed"],
        interrupted: ["Interrupted", "interrupted itself"]
      })
      const count = (operation: string) => result.errors.find((one) => one.operation === operation)?.count ?? 0
      assert.deepStrictEqual(result.outcomes, { NotApplied: 0, Unknown: count("lost") })
      assert.strictEqual(result.total.succeeded + result.total.failed, 400)
      assert.strictEqual(
        result.total.failed,
        result.errors.reduce((sum, { count }) => sum + count, 0)
      )
      assert.deepStrictEqual(
        result.thresholds.map(({ ok }) => ok),
        [true, false, true, true, false]
      )
      assert.strictEqual(
        result.failed?.histogram.counts.filter((_, n) => n % 2 === 1).reduce((a, b) => a + b),
        result.total.failed
      )
    })
  )

  it.effect("keeps what it needs bounded, whatever fails in it and however long it lasts", () =>
    Effect.gen(function* () {
      let n = 0
      const result = yield* LoadTest.run({
        scenario: {
          operation: Effect.suspend(() => {
            n += 1
            return n % 2 === 0 ? Effect.void : Effect.fail({ _tag: `Tag${n}`, message: "x".repeat(5000) })
          })
        },
        concurrency: 1000,
        operations: 20,
        sampleEvery
      })
      assert.strictEqual(result.total.succeeded + result.total.failed, 20_000)
      assert.isAtMost(result.errors.length, 51)
      assert.deepInclude(result.errors[0], { tag: "Other" })
      assert.isAtMost(LoadTest.encode(result).length, 100_000)
    })
  )
})

describe("options", () => {
  const refused = (options: Record<string, unknown>) =>
    Effect.flip(LoadTest.make({ scenario: { a: Effect.void }, ...options } as LoadTest.Options))

  it.effect("out of range are refused, all of them at once", () =>
    Effect.gen(function* () {
      const error = yield* refused({
        scenario: { " ": Effect.void, b: 1, c: { effect: Effect.void, weight: -1 } },
        concurrency: 0,
        operations: 1.5,
        duration: "0 seconds",
        sampleEvery: 1,
        seed: -1,
        ramp: -5,
        unheardOf: true
      })
      assert.strictEqual(error._tag, "InvalidOptionsError")
      for (const field of [
        "scenario",
        "scenario.b",
        "scenario.c.weight",
        "concurrency",
        "operations",
        "duration",
        "sampleEvery",
        "seed",
        "ramp",
        "unheardOf"
      ]) {
        assert.include(error.message, `load.${field} is`)
      }
    })
  )

  it.effect("of the other model are refused", () =>
    Effect.gen(function* () {
      assert.include((yield* refused({ arrivals: "poisson" })).message, "without a rate")
      assert.include((yield* refused({ maxInFlight: 5 })).message, "concurrency bounds it")
      assert.include((yield* refused({ rate: 5, concurrency: 5 })).message, "maxInFlight bounds it")
      assert.include((yield* refused({ rate: 5, thinkTime: "1 second" })).message, "thinkTime")
      assert.include((yield* refused({ scenario: {} })).message, "1 to 20 operations")
      assert.include((yield* refused({ scenario: Effect.void })).message, "1 to 20 operations")
      assert.include(
        (yield* refused({ scenario: { a: { effect: Effect.void, weight: 0 } } })).message,
        "a weight above 0"
      )
    })
  )

  it.effect("with a threshold that cannot be read, or that names nothing, are refused", () =>
    Effect.gen(function* () {
      const malformed = yield* refused({ thresholds: ["p99<1s", "p99 below 1s"] })
      assert.strictEqual(malformed._tag, "InvalidThresholdError")
      assert.include(malformed.message, "[operation:]metric comparator value")
      assert.include((yield* refused({ thresholds: ["b:p99<1s"] })).message, "which has a")
    })
  )
})

describe("a test that is interrupted", () => {
  it.effect("stops at once, and tells what it has measured", () =>
    Effect.gen(function* () {
      const test = yield* LoadTest.make({ scenario: { wait: tenMillis }, concurrency: 2, operations: 100, sampleEvery })
      const fiber = yield* Effect.fork(test.run)
      yield* TestClock.adjust("55 millis")
      const exit = yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause))
      const result = yield* test.result
      assert.deepInclude(result, { complete: false, unfinished: 2, measuredMs: 55 })
      assert.deepInclude(result.total, { succeeded: 10, failed: 0 })
      assert.include(LoadTest.summary(result), "Stopped before its end: 2 operations were under way")
    })
  )
})

describe("progress", () => {
  it.effect("is told as the test goes on, with the time that is left", () =>
    Effect.gen(function* () {
      const told: Array<LoadTest.Progress> = []
      yield* finished(
        LoadTest.run({
          scenario: { wait: Effect.sleep("100 millis") },
          concurrency: 1,
          operations: 20,
          warmUp: "1 second",
          sampleEvery: "500 millis",
          onProgress: (progress) => told.push(progress)
        })
      )
      const at = (elapsed: number) => told.find(({ elapsedMs }) => elapsedMs === elapsed)
      assert.deepInclude(at(500), { phase: "warming up", done: 0, etaMs: undefined })
      assert.deepInclude(at(2000), { phase: "measuring", expected: 20, rate: 10, p99: 100 })
      assert.closeTo(at(2000)!.fraction, 0.5, 0.05)
      assert.closeTo(at(2000)!.etaMs!, 1000, 100)
      assert.deepInclude(told.at(-1), { done: 20, fraction: 1, etaMs: 0, phase: "finishing" })
    })
  )
})

describe("a result", () => {
  const result = LoadTest.run({
    scenario: { a: Effect.void, b: Effect.fail("no") },
    concurrency: 2,
    operations: 50,
    label: "here",
    sampleEvery
  })

  it.effect("comes back from its file as it was", () =>
    Effect.gen(function* () {
      const before = yield* result
      assert.deepStrictEqual(Either.getOrThrow(LoadTest.decode(LoadTest.encode(before))), before)
    })
  )

  it.effect("is not to be had from a file that holds none", () =>
    Effect.gen(function* () {
      const good = JSON.parse(LoadTest.encode(yield* result))
      const texts = [
        "",
        "{",
        "[]",
        JSON.stringify({ ...good, version: 2 }),
        JSON.stringify({ ...good, format: "other" }),
        JSON.stringify({ ...good, total: { ...good.total, succeeded: -1 } }),
        JSON.stringify({
          ...good,
          failed: { ...good.failed, histogram: { ...good.failed.histogram, counts: [1, 2, 3] } }
        })
      ]
      for (const text of texts) {
        const error = Either.getOrThrow(Either.flip(LoadTest.decode(text)))
        assert.strictEqual(error._tag, "InvalidResultError")
        assert.include(error.message, "not the result of a load test")
        assert.notInclude(error.message, "\n")
      }
    })
  )

  it.effect("is compared with an earlier one: figures, and what the tests differ in", () =>
    Effect.gen(function* () {
      const run = (millis: number, concurrency: number) =>
        finished(LoadTest.run({ scenario: { wait: Effect.sleep(millis) }, concurrency, operations: 10, sampleEvery }))
      const compared = LoadTest.compare(yield* run(10, 2), yield* run(20, 3))
      assert.deepStrictEqual(compared.differences, ["concurrency: 2 before, 3 now"])
      const row = (figure: string) => compared.rows.find((row) => row.figure === figure && row.operation === undefined)
      assert.deepInclude(row("p99"), { before: 10, after: 20, better: "less" })
      assert.deepInclude(row("rate"), { before: 200, after: 150, better: "more" })
      const text = LoadTest.comparisonSummary(compared)
      assert.match(text, /all p99 +10 ms +20 ms +\+100 % worse/)
      assert.match(text, /all rate +200\/s +150\/s +−25 % worse/)
      assert.match(text, /all failed +0 % +0 % +same/)
    })
  )
})
