import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Config,
  ConfigProvider,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberId,
  Layer,
  Option,
  Queue,
  Stream,
  TestClock
} from "effect"
import type * as PgError from "../../src/error/PgError.js"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import { errorOf } from "./errors.js"

type Breaker = CircuitBreaker.CircuitBreaker["Type"]

const lost = errorOf("ConnectionError")
const now = Effect.clockWith((clock) => Effect.sync(() => CircuitBreaker.unsafeNow(clock)))

/** Opens it by five failures of one tag. */
const trip = (breaker: Breaker, tag: PgError.Tag = "ConnectionError") =>
  Effect.replicateEffect(Effect.flip(breaker.protect(Effect.fail(errorOf(tag)))), 5, { discard: true })

const refused = (breaker: Breaker) =>
  Effect.flip(breaker.protect(Effect.die("was sent"))) as Effect.Effect<PgError.CircuitOpenError>

/** Starts callers that wait for their turn, one after the other, and lists them in the order in which it comes. */
const queueUp = (breaker: Breaker, callers: number) =>
  Effect.gen(function* () {
    const admitted: Array<number> = []
    const verdicts = yield* Effect.replicateEffect(Deferred.make<void, PgError.PgError>(), callers)
    const fibers = yield* Effect.forEach(verdicts, (verdict, caller) =>
      Effect.suspend(() => {
        admitted.push(caller)
        return Deferred.await(verdict)
      }).pipe((attempt) => breaker.protect(attempt, { whenOpen: "wait" }), Effect.fork)
    )
    yield* settled
    return {
      admitted,
      fibers,
      succeed: (caller: number) => Effect.zipRight(Deferred.succeed(verdicts[caller]!, undefined), settled),
      fail: (caller: number) => Effect.zipRight(Deferred.fail(verdicts[caller]!, lost), settled),
      interrupt: (caller: number) => Effect.zipRight(Fiber.interrupt(fibers[caller]!), settled)
    }
  })

/** Lets every fiber go on until it waits. */
const settled = TestClock.adjust(0)

describe("CircuitBreaker.protect", () => {
  it.effect("passes results and failures through, and refuses without running anything once it is open", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      let executions = 0
      const attempt = Effect.suspend(() => (++executions === 1 ? Effect.succeed("answer") : Effect.fail(lost)))
      assert.strictEqual(yield* breaker.protect(attempt), "answer")
      for (let i = 0; i < 5; i++) assert.strictEqual(yield* Effect.flip(breaker.protect(attempt)), lost)
      const error = yield* Effect.flip(breaker.protect(attempt))
      assert.strictEqual(error._tag, "CircuitOpenError")
      assert.strictEqual(executions, 6)
    })
  )

  it.effect("says in its refusal why, until when, and that nothing was sent", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      yield* TestClock.adjust("12 seconds")
      const error = yield* refused(breaker)
      assert.deepInclude(error, {
        _tag: "CircuitOpenError",
        message: "Circuit open after ConnectionError: nothing was sent; try again in 18s",
        phase: "Acquire",
        outcome: "NotApplied",
        transient: true,
        attempts: 0
      })
      assert.deepStrictEqual(error.retryAfter, Duration.seconds(18))
      const named = breaker.unsafeAdmit(yield* now, "get-user")
      assert.strictEqual((named as PgError.CircuitOpenError).operation, "get-user")
    })
  )

  it.effect("refuses until the reset timeout has passed to the millisecond, then two successes close it", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      yield* TestClock.adjust(29_999)
      assert.deepStrictEqual((yield* refused(breaker)).retryAfter, Duration.millis(1))
      yield* TestClock.adjust(1)
      yield* breaker.protect(Effect.void)
      assert.strictEqual(yield* breaker.state, "HalfOpen")
      yield* breaker.protect(Effect.void)
      assert.strictEqual(yield* breaker.state, "Closed")
    })
  )

  it.effect("opens again for longer when a probe fails, with a jitter that the random source decides", () => {
    const reopened = Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      yield* TestClock.adjust("30 seconds")
      yield* Effect.flip(breaker.protect(Effect.fail(lost)))
      const { nextProbeAt, since } = yield* breaker.snapshot
      assert.strictEqual(yield* breaker.state, "Open")
      const wait = nextProbeAt! - since
      assert.isTrue(wait >= 30_000 && wait <= 60_000)
      yield* TestClock.adjust(wait - 1)
      assert.deepStrictEqual((yield* refused(breaker)).retryAfter, Duration.millis(1))
      yield* TestClock.adjust(1)
      yield* breaker.protect(Effect.void)
      return wait
    })
    const withSeed = (seed: number) =>
      Effect.provide(Effect.withRandomFixed(reopened, [seed]), TestClock.defaultTestClock)
    return Effect.gen(function* () {
      const waits = yield* Effect.forEach([1, 2, 3, 1], withSeed)
      assert.strictEqual(waits[0], waits[3])
      assert.strictEqual(new Set(waits).size, 3)
    })
  })

  it.effect("learns nothing from an interrupted probe, and gives its place to the next", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ probes: 1 })
      yield* trip(breaker)
      yield* TestClock.adjust("30 seconds")
      for (let i = 0; i < 10; i++) {
        const probe = yield* Effect.fork(breaker.protect(Effect.never))
        yield* settled
        assert.strictEqual((yield* refused(breaker)).message.split(":")[0], "Circuit half-open, all probes under way")
        yield* Fiber.interrupt(probe)
      }
      yield* Effect.replicateEffect(breaker.protect(Effect.void), 2)
      assert.strictEqual(yield* breaker.state, "Closed")
    })
  )

  it.effect("drops what a call says that began before the circuit opened", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      const verdict = yield* Deferred.make<void, PgError.PgError>()
      const calls = yield* Effect.replicateEffect(Effect.fork(breaker.protect(Deferred.await(verdict))), 10)
      yield* settled
      yield* trip(breaker)
      yield* breaker.recovered
      const before = yield* breaker.snapshot
      assert.strictEqual(before.state, "HalfOpen")
      yield* Deferred.fail(verdict, lost)
      yield* Effect.forEach(calls, Fiber.await)
      assert.deepStrictEqual(yield* breaker.snapshot, before)
    })
  )

  it.effect("measures how long calls take where slowness opens it", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ slowCallRate: 1, slowCallDuration: "2 seconds", minimumCalls: 1 })
      const takes = (duration: Duration.DurationInput) =>
        Effect.gen(function* () {
          const call = yield* Effect.fork(breaker.protect(Effect.sleep(duration)))
          yield* TestClock.adjust(duration)
          yield* Fiber.join(call)
          return yield* breaker.state
        })
      assert.strictEqual(yield* takes("2 seconds"), "Closed")
      yield* breaker.reset
      assert.strictEqual(yield* takes(2_001), "Open")
    })
  )

  it.effect("answers with the fallback what it refuses, and leaves failures of the effect alone", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      const fallback = (error: PgError.CircuitOpenError) => Effect.succeed(error._tag)
      assert.strictEqual(yield* Effect.flip(breaker.withFallback(Effect.fail(lost), fallback)), lost)
      const inner = errorOf("CircuitOpenError")
      assert.strictEqual(yield* Effect.flip(breaker.withFallback(Effect.fail(inner), fallback)), inner)
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.withFallback(Effect.die("was sent"), fallback), "CircuitOpenError")
    })
  )

  it.effect("lets a fallback be interrupted", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* breaker.forceOpen
      const fiber = yield* Effect.fork(breaker.withFallback(Effect.void, () => Effect.never))
      yield* settled
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
    })
  )
})

describe("CircuitBreaker by hand", () => {
  it.effect("admits and settles like protect", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ failureThreshold: 2 })
      const permit = breaker.unsafeAdmit(0) as CircuitBreaker.Permit
      const failure = CircuitBreaker.verdictOf(lost, { answered: false })
      breaker.unsafeSettle(permit, failure, 0, 1)
      breaker.unsafeSettle(permit, CircuitBreaker.neutral, 0, 1)
      assert.strictEqual(yield* breaker.state, "Closed")
      breaker.unsafeSettle(permit, failure, 0, 1)
      assert.strictEqual(yield* breaker.state, "Open")
      assert.strictEqual((breaker.unsafeAdmit(29_999) as PgError.CircuitOpenError)._tag, "CircuitOpenError")
      assert.isNumber(breaker.unsafeAdmit(30_000))
    })
  )

  it.effect("counts a connection that was silent after a cancel, though the call itself said nothing", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ failureThreshold: 1 })
      const permit = breaker.unsafeAdmit(0) as CircuitBreaker.Permit
      breaker.unsafeSettle(permit, CircuitBreaker.neutral, 0, 1)
      breaker.unsafeReport(permit, errorOf("UniqueViolation"), 0)
      assert.strictEqual(yield* breaker.state, "Closed")
      breaker.unsafeReport(permit, lost, 0)
      assert.strictEqual(yield* breaker.state, "Open")
    })
  )

  it.effect("changes nothing, not even the snapshot, over successes when there is nothing to forget", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      const before = yield* breaker.snapshot
      for (let i = 0; i < 1_000; i++) {
        const permit = breaker.unsafeAdmit(i) as CircuitBreaker.Permit
        breaker.unsafeSettle(permit, CircuitBreaker.success, i, 60_000)
      }
      assert.deepStrictEqual(yield* breaker.snapshot, before)
    })
  )
})

describe("CircuitBreaker: recovered, forced, reset", () => {
  it.effect("is half-open as soon as a connection succeeds", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker, "ServerUnavailableError")
      yield* breaker.recovered
      assert.strictEqual(yield* breaker.state, "HalfOpen")
    })
  )

  it.effect(
    "is not opened by calls that began before a connection succeeded, nor by them and later ones together",
    () =>
      Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.make()
        const told = yield* Effect.fork(Stream.runHead(breaker.changes))
        const verdict = yield* Deferred.make<void, PgError.PgError>()
        const calls = yield* Effect.replicateEffect(Effect.fork(breaker.protect(Deferred.await(verdict))), 10)
        yield* settled
        yield* Effect.replicateEffect(Effect.flip(breaker.protect(Effect.fail(lost))), 4)
        assert.deepInclude(yield* breaker.snapshot, { state: "Closed", failures: 4 })
        yield* breaker.recovered
        yield* Deferred.fail(verdict, lost)
        yield* Effect.forEach(calls, Fiber.await)
        assert.deepInclude(yield* breaker.snapshot, { state: "Closed", failures: 0, since: 0, reason: "created" })
        yield* Effect.replicateEffect(Effect.flip(breaker.protect(Effect.fail(lost))), 4)
        assert.deepInclude(yield* breaker.snapshot, { state: "Closed", failures: 4 })
        // No change of state, so nothing to tell.
        assert.deepStrictEqual(yield* Fiber.poll(told), Option.none())
        yield* Effect.flip(breaker.protect(Effect.fail(lost)))
        assert.strictEqual(yield* breaker.state, "Open")
        assert.strictEqual(Option.getOrThrow(yield* Fiber.join(told)).to, "Open")
      })
  )

  it.effect("is not impressed by a connection when a full disk opened it", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker, "ResourceError")
      yield* breaker.recovered
      assert.strictEqual((yield* refused(breaker)).message.split(":")[0], "Circuit open after ResourceError")
    })
  )

  it.effect("forced open, it refuses whatever time passes or connection succeeds, until reset", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* breaker.forceOpen
      yield* TestClock.adjust("1 day")
      yield* breaker.recovered
      const error = yield* refused(breaker)
      assert.strictEqual(error.retryAfter, undefined)
      assert.strictEqual(error.message, "Circuit forced open: nothing was sent; reset it to go on")
      yield* breaker.reset
      assert.strictEqual(yield* breaker.protect(Effect.succeed("answer")), "answer")
    })
  )

  it.effect("forced closed, it admits whatever fails, until reset", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      yield* breaker.forceClosed
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.protect(Effect.succeed("answer")), "answer")
      yield* breaker.reset
      yield* trip(breaker)
      assert.strictEqual(yield* breaker.state, "Open")
    })
  )
})

describe("CircuitBreaker: what it tells", () => {
  it.effect("tells every change of state to the callback and the stream, with its reason, time and cause", () =>
    Effect.gen(function* () {
      const told: Array<CircuitBreaker.Change> = []
      const breaker = yield* CircuitBreaker.make({ onChange: (change) => told.push(change) })
      const subscribed = yield* Queue.unbounded<CircuitBreaker.Change>()
      const listener = yield* Effect.fork(
        Stream.runForEach(breaker.changes, (change) => Queue.offer(subscribed, change))
      )
      yield* settled
      yield* trip(breaker)
      yield* TestClock.adjust("30 seconds")
      yield* Effect.flip(breaker.protect(Effect.fail(errorOf("TooManyConnectionsError"))))
      yield* breaker.recovered
      yield* Effect.replicateEffect(breaker.protect(Effect.void), 2)
      yield* breaker.reset
      yield* breaker.forceOpen
      yield* breaker.forceClosed
      yield* settled
      assert.deepStrictEqual(told, [
        { from: "Closed", to: "Open", at: 0, reason: "consecutiveFailures", cause: ["ConnectionError"] },
        { from: "Open", to: "HalfOpen", at: 30_000, reason: "resetTimeout", cause: [] },
        { from: "HalfOpen", to: "Open", at: 30_000, reason: "probeFailed", cause: ["TooManyConnectionsError"] },
        { from: "Open", to: "HalfOpen", at: 30_000, reason: "recovered", cause: [] },
        { from: "HalfOpen", to: "Closed", at: 30_000, reason: "probesSucceeded", cause: [] },
        { from: "Closed", to: "ForcedOpen", at: 30_000, reason: "forced", cause: [] },
        { from: "ForcedOpen", to: "ForcedClosed", at: 30_000, reason: "forced", cause: [] }
      ])
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Queue.takeAll(subscribed)), told)
      yield* Fiber.interrupt(listener)
    })
  )

  it.effect("shows where it stands", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* Effect.replicateEffect(Effect.flip(breaker.protect(Effect.fail(lost))), 3)
      assert.deepInclude(yield* breaker.snapshot, { state: "Closed", failures: 3, trips: 0, nextProbeAt: undefined })
      yield* TestClock.adjust("1 minute")
      assert.deepInclude(yield* breaker.snapshot, { failures: 0 })
      yield* trip(breaker)
      assert.deepStrictEqual(yield* breaker.snapshot, {
        state: "Open",
        since: 60_000,
        reason: "consecutiveFailures",
        generation: 1,
        failures: 0,
        successes: 0,
        probing: 0,
        waiting: 0,
        openedAt: 60_000,
        nextProbeAt: 90_000,
        trips: 1,
        cause: ["ConnectionError"]
      })
      const waiting = yield* queueUp(breaker, 5)
      assert.deepInclude(yield* breaker.snapshot, { waiting: 5 })
      yield* breaker.recovered
      yield* waiting.succeed(0)
      assert.deepInclude(yield* breaker.snapshot, {
        state: "HalfOpen",
        reason: "recovered",
        generation: 2,
        successes: 1,
        probing: 3,
        waiting: 1,
        openedAt: 60_000,
        cause: []
      })
      yield* Fiber.interruptAll(waiting.fibers)
      yield* breaker.reset
      assert.deepInclude(yield* breaker.snapshot, { state: "Closed", openedAt: undefined })
    })
  )
})

describe("CircuitBreaker: waiting for admission", () => {
  it.effect("waits no moment while calls pass", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      assert.strictEqual(yield* breaker.protect(Effect.succeed("answer"), { whenOpen: "wait" }), "answer")
    })
  )

  it.effect("wakes by itself when the reset timeout has passed, to the millisecond", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      const { admitted } = yield* queueUp(breaker, 1)
      yield* TestClock.adjust(29_999)
      assert.deepStrictEqual(admitted, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(admitted, [0])
    })
  )

  it.effect("admits the oldest three to a half-open circuit, and the next as places come free", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ successesToClose: 3 })
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 6)
      assert.deepStrictEqual(waiting.admitted, [])
      yield* breaker.recovered
      yield* settled
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2])
      yield* waiting.interrupt(1)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2, 3])
      yield* waiting.succeed(0)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2, 3, 4])
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("lets nobody who does not wait go before those who do", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 4)
      yield* breaker.recovered
      assert.strictEqual((yield* refused(breaker))._tag, "CircuitOpenError")
      yield* settled
      yield* waiting.interrupt(0)
      assert.strictEqual((yield* refused(breaker))._tag, "CircuitOpenError")
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2, 3])
      yield* waiting.interrupt(2)
      assert.strictEqual(yield* breaker.protect(Effect.succeed("answer")), "answer")
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("lets a newcomer that finds the reset timeout passed go after those who wait on another clock", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ probes: 1 })
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 1)
      assert.isNotNumber(breaker.unsafeAdmit(30_000))
      yield* settled
      assert.deepStrictEqual(waiting.admitted, [0])
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("wakes all in their order when it closes", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 100)
      yield* breaker.recovered
      yield* settled
      yield* waiting.succeed(0)
      assert.strictEqual(waiting.admitted.length, 4)
      yield* waiting.succeed(1)
      assert.strictEqual(yield* breaker.state, "Closed")
      assert.deepStrictEqual(
        waiting.admitted,
        Array.from({ length: 100 }, (_, caller) => caller)
      )
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("waits on for the new time when the probes failed", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ probes: 1 })
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 2)
      yield* TestClock.adjust("30 seconds")
      yield* waiting.fail(0)
      const { nextProbeAt } = yield* breaker.snapshot
      yield* TestClock.setTime(nextProbeAt! - 1)
      assert.deepStrictEqual(waiting.admitted, [0])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(waiting.admitted, [0, 1])
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("lets others pass probes that are slow, one at a time, and closes on what they say", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 10)
      yield* breaker.recovered
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2, 3])
      yield* waiting.succeed(3)
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2, 3])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2, 3, 4])
      assert.deepInclude(yield* breaker.snapshot, { state: "HalfOpen", probing: 4, successes: 1, waiting: 5 })
      // One of the slow ones, after all.
      yield* waiting.succeed(0)
      assert.strictEqual(yield* breaker.state, "Closed")
      assert.lengthOf(waiting.admitted, 10)
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("sends a server that answers nothing ever fewer probes, and then new ones once in a reset timeout", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ probes: 2, resetTimeout: "5 seconds" })
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 100)
      yield* breaker.recovered
      const admitted: Array<number> = []
      for (let second = 0; second <= 12; second++) {
        yield* second === 0 ? settled : TestClock.adjust("1 second")
        admitted.push(waiting.admitted.length)
      }
      // After 1, 2 and 4 seconds one more; after 5 without any they are given up, and it begins again.
      assert.deepStrictEqual(admitted, [2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 7])
      assert.deepInclude(yield* breaker.snapshot, { reason: "probesSilent", probing: 2 })
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("waits no longer than it must when what was sent past slow probes goes away", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ probes: 1 })
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 5)
      yield* breaker.recovered
      yield* TestClock.adjust(1_000)
      yield* TestClock.adjust(2_000)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2])
      // With three under way the next one would be sent after 4 seconds, with two after 2.
      yield* waiting.interrupt(1)
      yield* TestClock.adjust(1_999)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(waiting.admitted, [0, 1, 2, 3])
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("waits no longer for a late time than for what became possible earlier", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ resetTimeout: "1 second", probes: 1 })
      yield* trip(breaker)
      for (let i = 0; i < 4; i++) {
        yield* breaker.recovered
        yield* Effect.flip(breaker.protect(Effect.fail(lost)))
      }
      const { nextProbeAt } = yield* breaker.snapshot
      assert.isAtLeast(nextProbeAt!, 8_000)
      const waiting = yield* queueUp(breaker, 2)
      yield* breaker.recovered
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(waiting.admitted, [0])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(waiting.admitted, [0, 1])
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("sets one timer for all who wait, which whoever waits longest keeps, and leaves none behind", () =>
    Effect.gen(function* () {
      const clock = yield* Effect.clock
      let asleep = 0
      const sleep = (duration: Duration.Duration) =>
        Effect.acquireUseRelease(
          Effect.sync(() => asleep++),
          () => clock.sleep(duration),
          () => Effect.sync(() => asleep--)
        )
      yield* Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.make()
        yield* trip(breaker)
        const interrupted = yield* queueUp(breaker, 3)
        const waiting = yield* queueUp(breaker, 3)
        assert.strictEqual(asleep, 1)
        yield* Fiber.interruptAll(interrupted.fibers)
        yield* settled
        assert.strictEqual(asleep, 1)
        yield* breaker.reset
        yield* settled
        assert.deepStrictEqual(waiting.admitted, [0, 1, 2])
        assert.strictEqual(asleep, 0)
        yield* Fiber.interruptAll(waiting.fibers)
      }).pipe(Effect.withClock(Object.assign(Object.create(clock) as typeof clock, { sleep })))
    })
  )

  it.effect("waits for as long as it is forced open, and goes on at the reset", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 2)
      yield* breaker.forceOpen
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(waiting.admitted, [])
      yield* breaker.reset
      yield* settled
      assert.deepStrictEqual(waiting.admitted, [0, 1])
      yield* Fiber.interruptAll(waiting.fibers)
    })
  )

  it.effect("is bounded by whoever waits", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* breaker.forceOpen
      const fiber = yield* breaker
        .protect(Effect.void, { whenOpen: "wait" })
        .pipe(Effect.timeoutOption("5 seconds"), Effect.fork)
      yield* TestClock.adjust(4_999)
      assert.deepStrictEqual(yield* Fiber.poll(fiber), Option.none())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(fiber), Option.none())
      assert.deepInclude(yield* breaker.snapshot, { waiting: 0 })
    })
  )

  it.effect("takes back the permit of a caller that is interrupted before it could use it", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ probes: 1 })
      yield* trip(breaker)
      const waiting = yield* queueUp(breaker, 2)
      // Nothing lies between the two, so that the permit is given while the caller still sleeps.
      yield* Effect.zipRight(breaker.recovered, Fiber.interruptAsFork(waiting.fibers[0]!, FiberId.none))
      yield* settled
      assert.deepStrictEqual(waiting.admitted, [1])
      assert.deepInclude(yield* breaker.snapshot, { state: "HalfOpen", probing: 1, waiting: 0 })
      yield* Fiber.interruptAll(waiting.fibers)
      assert.deepInclude(yield* breaker.snapshot, { probing: 0 })
    })
  )

  it.effect("waits where it cannot be interrupted as it waits elsewhere", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make()
      yield* trip(breaker)
      const fiber = yield* breaker
        .protect(Effect.succeed("answer"), { whenOpen: "wait" })
        .pipe(Effect.uninterruptible, Effect.fork)
      yield* settled
      yield* Fiber.interruptFork(fiber)
      yield* TestClock.adjust(29_999)
      assert.deepStrictEqual(yield* Fiber.poll(fiber), Option.none())
      yield* TestClock.adjust(1)
      yield* Fiber.await(fiber)
      assert.deepInclude(yield* breaker.snapshot, { state: "HalfOpen", successes: 1, probing: 0 })
    })
  )
})

describe("CircuitBreaker: layers and options", () => {
  it.effect("refuses options that are out of range, all at once and by name", () =>
    Effect.gen(function* () {
      const faultsOf = (options: CircuitBreaker.Options) =>
        Effect.map(Effect.flip(CircuitBreaker.make(options)), (error) => error.faults.map(({ field }) => field))
      assert.deepStrictEqual(
        yield* faultsOf({
          failureThreshold: 0,
          window: 0,
          failureRate: 1.1,
          slowCallRate: 0,
          slowCallDuration: Number.NaN,
          minimumCalls: 1.5,
          resetTimeout: "-1 seconds" as never,
          maxResetTimeout: Duration.infinity,
          probes: 0,
          successesToClose: -1
        }),
        [
          "breaker.failureThreshold",
          "breaker.window",
          "breaker.failureRate",
          "breaker.slowCallRate",
          "breaker.slowCallDuration",
          "breaker.minimumCalls",
          "breaker.resetTimeout",
          "breaker.maxResetTimeout",
          "breaker.probes",
          "breaker.successesToClose"
        ]
      )
      const capped = { resetTimeout: "2 minutes", maxResetTimeout: "1 minute" } as const
      assert.deepStrictEqual(yield* faultsOf(capped), ["breaker.maxResetTimeout"])
    })
  )

  it.effect("accepts a reset timeout over the default cap, and every default when it is written out", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.make({ resetTimeout: "10 minutes" })
      yield* trip(breaker)
      assert.deepStrictEqual((yield* refused(breaker)).retryAfter, Duration.minutes(10))
      yield* CircuitBreaker.make(CircuitBreaker.defaults)
    })
  )

  it.effect("is configured from the environment", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.CircuitBreaker
      yield* Effect.flip(CircuitBreaker.protect(Effect.fail(lost)))
      assert.deepStrictEqual((yield* refused(breaker)).retryAfter, Duration.seconds(7))
    }).pipe(
      Effect.provide(
        CircuitBreaker.layerConfig({
          failureThreshold: Config.integer("THRESHOLD"),
          resetTimeout: Config.duration("RESET")
        })
      ),
      Effect.provide(
        Layer.setConfigProvider(
          ConfigProvider.fromMap(
            new Map([
              ["THRESHOLD", "1"],
              ["RESET", "7 seconds"]
            ])
          )
        )
      )
    )
  )

  it.effect("switched off, it admits everything and cannot be forced", () =>
    Effect.gen(function* () {
      const breaker = yield* CircuitBreaker.CircuitBreaker
      yield* trip(breaker)
      yield* breaker.forceOpen
      assert.strictEqual(yield* breaker.protect(Effect.succeed("answer")), "answer")
      assert.isNumber(breaker.unsafeAdmit(0))
      assert.isNumber(yield* breaker.awaitAdmission((effect) => effect))
      assert.deepInclude(yield* breaker.snapshot, { state: "Closed", failures: 0, trips: 0 })
      assert.deepStrictEqual(Chunk.size(yield* Stream.runCollect(breaker.changes)), 0)
    }).pipe(Effect.provide(CircuitBreaker.layerNoop))
  )
})
