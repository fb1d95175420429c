import { assert, describe, it, vi } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Clock,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FastCheck as fc,
  Request,
  RequestResolver,
  TestClock,
  TestContext
} from "effect"
import * as deadline from "../../../src/policy/internal/deadline.js"
import * as Schedules from "./deadline.schedules.js"

/** `DEADLINE_SEED` and `DEADLINE_RUNS` try others than those that every run of the tests tries. */
const seed = Number(process.env.DEADLINE_SEED ?? 20_260)
const runs = Number(process.env.DEADLINE_RUNS ?? 2_000)

const { ref } = Schedules

const ours: Schedules.Bounding = (self, millis) =>
  Effect.withFiberRuntime((fiber) =>
    deadline.within(fiber, self, { millis, onTimeout: () => "late", onEnd: () => {}, ref, value: "inside" })
  )

const effects: Schedules.Bounding = (self, millis) =>
  Effect.timeoutFail(Effect.interruptible(Effect.locally(self, ref, "inside")), {
    duration: millis,
    onTimeout: () => "late"
  })

const turn = () => new Promise<void>((resume) => setImmediate(resume))

/** A clock that somebody drives, as `TestClock` does, but who looks only once whether everything waits. */
const virtual = () => {
  let now = 0
  const sleeping: Array<{ readonly at: number; readonly wake: () => void }> = []
  const clock: Clock.Clock = Object.assign(Clock.make(), {
    unsafeCurrentTimeMillis: () => now,
    sleep: (duration: Duration.Duration) =>
      Effect.async<void>((resume) => {
        const sleeper = { at: now + Duration.toMillis(duration), wake: () => resume(Effect.void) }
        if (sleeper.at <= now) return sleeper.wake()
        sleeping.push(sleeper)
        return Effect.sync(() => {
          if (sleeping.includes(sleeper)) sleeping.splice(sleeping.indexOf(sleeper), 1)
        })
      })
  })
  const drive = async () => {
    for (;;) {
      await turn()
      sleeping.sort((a, b) => a.at - b.at)
      const first = sleeping.shift()
      if (first === undefined) return
      now = first.at
      first.wake()
    }
  }
  return { clock, drive }
}

type Drive = (program: Effect.Effect<string>) => Promise<string>

const byVirtualClock: Drive = async (program) => {
  const { clock, drive } = virtual()
  const end = Effect.runPromise(Effect.withClock(program, clock))
  await drive()
  return end
}

/** By the live clock, on timers that fire at once, one after the other. */
const byTimers: Drive = async (program) => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "Date"], now: 0 })
  try {
    const end = Effect.runPromise(program)
    for (;;) {
      await turn()
      if (vi.getTimerCount() === 0) return await end
      vi.advanceTimersToNextTimer()
    }
  } finally {
    vi.useRealTimers()
  }
}

const byTestClock: Drive = (program) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(program)
    yield* TestClock.adjust(2 ** 40)
    return yield* Fiber.join(fiber)
  }).pipe(Effect.provide(TestContext.TestContext), Effect.runPromise)

const seen = async (schedule: Schedules.Schedule, bounding: Schedules.Bounding, drive: Drive) => {
  const events = new Map<string, Array<string>>()
  const end = await drive(Schedules.run(schedule, bounding, events))
  return { end, events: Object.fromEntries([...events].sort()) }
}

const same = (drive: Drive, numRuns: number) =>
  fc.assert(
    fc.asyncProperty(Schedules.schedules, async (schedule) => {
      assert.deepStrictEqual(await seen(schedule, ours, drive), await seen(schedule, effects, drive))
    }),
    { seed, numRuns }
  )

describe("a deadline in the caller's own fiber", () => {
  it("is there where Effect is as it was", () => assert.isTrue(Effect.runSync(deadline.probe)))

  it(`is Effect.timeoutFail for whatever a program does (seed ${seed})`, () => same(byVirtualClock, runs))

  it(`is Effect.timeoutFail by the live clock (seed ${seed})`, () => same(byTimers, runs / 2))

  it(`is Effect.timeoutFail under TestClock (seed ${seed})`, () => same(byTestClock, runs / 100))
})

const id = Effect.fiberId

describe("a deadline by the live clock", () => {
  it.live("forks nothing for a body that ends in time, and needs no other turn of the event loop", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* ours(id, 1_000), yield* id)
      assert.strictEqual(Effect.runSync(ours(ours(Effect.succeed("now"), 1_000), 2_000)), "now")
    })
  )

  it.live("shares a timer with all others, and leaves none behind", () =>
    Effect.gen(function* () {
      const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length
      const before = timers()
      const go = yield* Deferred.make<void>()
      const waiting = yield* Effect.fork(
        Effect.all(
          Array.from({ length: 100 }, (_, i) => ours(Deferred.await(go), 60_000 - i)),
          { concurrency: "unbounded" }
        )
      )
      yield* Effect.promise(turn)
      assert.strictEqual(timers(), before + 1)
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(waiting)
      assert.strictEqual(timers(), before)
      assert.strictEqual(yield* Effect.flip(ours(Effect.never, 5)), "late")
      assert.strictEqual(timers(), before)
    })
  )

  it.live("does not pass early, and passes soon", () =>
    Effect.gen(function* () {
      const took = (millis: number) =>
        Effect.suspend(() => {
          const start = performance.now()
          return Effect.map(Effect.flip(ours(Effect.never, millis)), () => performance.now() - start - millis)
        })
      const late = yield* Effect.forEach(
        Array.from({ length: 100 }, (_, i) => i / 3 + 0.5),
        took,
        {
          concurrency: "unbounded"
        }
      )
      assert.isAtLeast(Math.min(...late), 0)
      // The machine may have been busy: most of them.
      assert.isAtMost(late.sort((a, b) => a - b)[50]!, 20)
    })
  )

  it.live.each([0, -1, Number.NEGATIVE_INFINITY])(
    "of %d milliseconds passes at once, unless the body is over by then",
    (millis) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* Effect.flip(ours(Effect.never, millis)), "late")
        assert.strictEqual(yield* ours(Effect.succeed("in time"), millis), "in time")
        assert.strictEqual(yield* Effect.flip(effects(Effect.never, millis)), "late")
        assert.strictEqual(yield* effects(Effect.succeed("in time"), millis), "in time")
      })
  )

  it("that passes while the fiber does its last step leaves the fiber uninterrupted", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] })
    try {
      const body = Effect.sync(() => {
        vi.advanceTimersByTime(20)
        return "too late"
      })
      const rest = (error: string) => Effect.zipRight(Effect.yieldNow(), Effect.succeed(`${error}, and goes on`))
      const end = Effect.runPromise(Effect.flatMap(Effect.flip(ours(body, 10)), rest))
      assert.strictEqual(await end, "late, and goes on")
    } finally {
      vi.useRealTimers()
    }
  })

  it.live(
    "is asked for its error once, after the body's finalizers, and not if the caller is interrupted meanwhile",
    () =>
      Effect.gen(function* () {
        const events: Array<string> = []
        const note = (event: string) => Effect.sync(() => void events.push(event))
        const bounded = (finalizer: Effect.Effect<unknown>) =>
          Effect.withFiberRuntime<never, string>((fiber) =>
            deadline.within(
              fiber,
              Effect.onInterrupt(Effect.never, () => finalizer),
              {
                millis: 5,
                onTimeout: () => {
                  events.push("late")
                  return "late"
                },
                onEnd: () => void events.push("end"),
                ref,
                value: "inside"
              }
            )
          )
        yield* Effect.flip(bounded(Effect.zipRight(Effect.sleep(5), note("finalizer"))))
        assert.deepStrictEqual(events.splice(0), ["finalizer", "end", "late"])
        const started = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(
          bounded(Effect.zipRight(Deferred.succeed(started, undefined), Effect.uninterruptible(Deferred.await(go))))
        )
        yield* Deferred.await(started)
        const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* Effect.yieldNow()
        yield* Deferred.succeed(go, undefined)
        const exit = yield* Fiber.join(interrupting)
        assert.isTrue(
          Exit.isInterrupted(exit) && Chunk.isEmpty(Cause.failures((exit as Exit.Failure<never, string>).cause))
        )
        assert.deepStrictEqual(events, ["end"])
      })
  )
})

describe("an interruption of the caller", () => {
  const shown = (cause: Cause.Cause<unknown>): string =>
    Cause.match(cause, {
      onEmpty: "-",
      onFail: (error) => `${error}`,
      onDie: (defect) => `${defect}`,
      onInterrupt: () => "!",
      onSequential: (left, right) => `(${left}${right})`,
      onParallel: (left, right) => `(${left}|${right})`
    })

  it.live("has the cause that it has by Effect.timeoutFail, step by step", () =>
    Effect.gen(function* () {
      const bodies: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        Effect.never,
        Effect.ensuring(Effect.never, Effect.die("broken")),
        Effect.uninterruptible(Effect.sleep(5)),
        Effect.uninterruptibleMask((restore) => Effect.zipRight(Effect.sleep(5), restore(Effect.never))),
        Effect.catchAllCause(Effect.never, () => Effect.fail("other"))
      ]
      const causes = (self: Effect.Effect<unknown, unknown>, bounding: Schedules.Bounding) =>
        Effect.gen(function* () {
          const inside: Array<string> = []
          const body = Effect.onError(self, (cause) => Effect.sync(() => inside.push(shown(cause))))
          const fiber = yield* Effect.fork(bounding(body, 1_000))
          yield* Effect.promise(turn)
          yield* Fiber.interruptFork(fiber)
          const exit = yield* Fiber.await(fiber)
          return [...inside, Exit.isFailure(exit) ? shown(exit.cause) : "in time"]
        })
      for (const body of bodies) assert.deepStrictEqual(yield* causes(body, ours), yield* causes(body, effects))
    })
  )
})

describe("a deadline that is not Effect.timeoutFail to the letter", () => {
  it.live("is interrupted at once in Effect.all whose other effect fails, where Effect's would let the time pass", () =>
    Effect.gen(function* () {
      const start = performance.now()
      const both = Effect.all([ours(Effect.never, 10_000), Effect.delay(Effect.fail("other"), 5)], { concurrency: 2 })
      assert.strictEqual(yield* Effect.flip(both), "other")
      assert.isBelow(performance.now() - start, 5_000)
    })
  )

  it.live("has fibers of its own around a request that is batched, whose continuation another fiber may run", () =>
    Effect.gen(function* () {
      class Get extends Request.TaggedClass("Get")<string, never, { readonly key: string }> {}
      const batches: Array<number> = []
      const resolver = RequestResolver.makeBatched((requests: ReadonlyArray<Get>) => {
        batches.push(requests.length)
        return Effect.forEach(requests, (request) => Request.succeed(request, request.key), { discard: true })
      })
      const get = (key: string) => Effect.request(new Get({ key }), resolver)
      const caller = yield* id
      const fibers: Array<unknown> = []
      const one = (key: string) =>
        Effect.zipLeft(
          get(key),
          Effect.map(id, (id) => fibers.push(id))
        )
      const all = (bounding: Schedules.Bounding) =>
        Effect.forEach(["a", "b"], (key) => bounding(one(key), 1_000), { batching: true, concurrency: "unbounded" })
      assert.deepStrictEqual(yield* all(ours), ["a", "b"])
      assert.deepStrictEqual(yield* all(effects), ["a", "b"])
      assert.deepStrictEqual(batches.slice(0, batches.length / 2), batches.slice(batches.length / 2))
      assert.notInclude(fibers, caller)
      assert.deepStrictEqual(
        yield* ours(Effect.forEach(["a", "b"], one, { batching: true, concurrency: "unbounded" }), 1_000),
        ["a", "b"]
      )
      assert.strictEqual(batches.at(-1), 2)
    })
  )
})

describe("deadlines by several clocks at once", () => {
  it("pass each by its own", async () => {
    const one = virtual()
    const other = virtual()
    const program = Effect.all(
      [
        Effect.withClock(Effect.flip(ours(Effect.never, 10)), one.clock),
        Effect.withClock(Effect.exit(ours(Effect.void, 5)), other.clock)
      ],
      { concurrency: "unbounded" }
    )
    const inner = Effect.withClock(
      ours(Effect.withClock(Effect.flip(ours(Effect.never, 1)), one.clock), 5),
      other.clock
    )
    const end = Effect.runPromise(Effect.zipRight(program, inner))
    await one.drive()
    await other.drive()
    await one.drive()
    assert.strictEqual(await end, "late")
  })
})
