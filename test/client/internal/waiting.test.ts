/** The queue by itself: its alarms are kept as data, and rung by hand. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, FiberId, identity, TestClock } from "effect"
import * as Waiting from "../../../src/client/internal/waiting.js"

interface Lease {
  readonly name: string
  readonly release: () => void
}

const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

const queue = (limit: number) =>
  Effect.sync(() => {
    const alarms: Array<{ readonly clock: Clock.Clock; readonly millis: number; readonly ring: () => void }> = []
    const cancelled: Array<Clock.Clock> = []
    const released: Array<string> = []
    const waiting: Waiting.Waiting<Lease, string> = Waiting.make<Lease, string>({
      limit,
      alarm: (clock, millis, ring) => {
        alarms.push({ clock, millis, ring })
        return () => cancelled.push(clock)
      },
      late: () => `late, with ${waiting.size} behind`,
      waited: () => {}
    })
    const lease = (name: string): Lease => ({ name, release: () => released.push(name) })
    return {
      waiting,
      alarms,
      cancelled,
      released,
      lease,
      serve: (name: string) => waiting.serve(() => lease(name)),
      /** Joins the queue by a clock; the name of what came in the end, or the failure. */
      join: (clock: Clock.Clock) => {
        const wait = Effect.uninterruptibleMask((restore) => waiting.wait(restore, clock, () => {}))
        return Effect.fork(Effect.merge(Effect.map(wait, ({ name }) => name))).pipe(Effect.zipLeft(Effect.yieldNow()))
      }
    }
  })

describe("waiting", () => {
  it.effect("serves whoever waits in the order in which they came, each with one", () =>
    Effect.gen(function* () {
      const { join, serve, waiting } = yield* queue(1_000)
      const clock = yield* Effect.clock
      const fibers = yield* Effect.all([join(clock), join(clock), join(clock)])
      assert.strictEqual(waiting.size, 3)
      for (const name of ["a", "b", "c"]) serve(name)
      assert.deepStrictEqual(yield* Fiber.join(Fiber.all(fibers)), ["a", "b", "c"])
      assert.strictEqual(waiting.size, 0)
    })
  )

  it.effect("asks for nothing to give when nobody waits", () =>
    Effect.gen(function* () {
      const { lease, waiting } = yield* queue(1_000)
      let asked = 0
      waiting.serve(() => {
        asked++
        return lease("a")
      })
      assert.strictEqual(asked, 0)
    })
  )

  it.effect("has one alarm a clock, for whoever came first, and the next one for whoever is first then", () =>
    Effect.gen(function* () {
      const { alarms, join } = yield* queue(1_000)
      const clock = yield* Effect.clock
      const first = yield* join(clock)
      yield* TestClock.adjust("300 millis")
      const second = yield* join(clock)
      assert.deepStrictEqual(
        alarms.map(({ millis }) => millis),
        [1_000]
      )
      yield* TestClock.adjust("700 millis")
      alarms[0]!.ring()
      assert.strictEqual(yield* Fiber.join(first), "late, with 1 behind")
      assert.isNull(second.unsafePoll())
      assert.deepStrictEqual(
        alarms.map(({ millis }) => millis),
        [1_000, 300]
      )
      yield* TestClock.adjust("300 millis")
      alarms[1]!.ring()
      assert.strictEqual(yield* Fiber.join(second), "late, with 0 behind")
      assert.lengthOf(alarms, 2)
    })
  )

  it.effect("ends nobody's wait a millisecond before its time, however early the alarm", () =>
    Effect.gen(function* () {
      const { alarms, join } = yield* queue(1_000)
      const fiber = yield* join(yield* Effect.clock)
      yield* TestClock.adjust("999 millis")
      alarms[0]!.ring()
      yield* Effect.yieldNow()
      assert.isNull(fiber.unsafePoll())
      assert.strictEqual(alarms[1]!.millis, 1)
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("lets each wait by the clock of its own program", () =>
    Effect.gen(function* () {
      const { alarms, join, waiting } = yield* queue(60_000)
      const [own, other] = [yield* Effect.clock, Clock.make()]
      const [early, late] = yield* Effect.all([join(own), join(other)])
      assert.deepStrictEqual(
        alarms.map(({ clock }) => clock === own),
        [true, false]
      )
      yield* TestClock.adjust("60 seconds")
      for (const { ring } of [...alarms]) ring()
      assert.strictEqual(yield* Fiber.join(early), "late, with 1 behind")
      assert.strictEqual(waiting.size, 1)
      yield* Fiber.interrupt(late)
    })
  )

  it.effect("keeps no clock waiting for nobody", () =>
    Effect.gen(function* () {
      const { alarms, cancelled, join, serve } = yield* queue(1_000)
      const clock = yield* Effect.clock
      const served = yield* join(clock)
      serve("a")
      yield* Fiber.join(served)
      yield* turn
      assert.deepStrictEqual(cancelled, [clock])
      yield* Fiber.interrupt(yield* join(clock))
      yield* turn
      assert.deepStrictEqual(cancelled, [clock, clock])
      assert.lengthOf(alarms, 2)
    })
  )

  it.effect("keeps its alarm when the queue fills again in the same turn", () =>
    Effect.gen(function* () {
      const { alarms, cancelled, join, serve } = yield* queue(1_000)
      const clock = yield* Effect.clock
      yield* join(clock)
      serve("a")
      const next = yield* join(clock)
      yield* turn
      assert.isEmpty(cancelled)
      assert.lengthOf(alarms, 1)
      yield* Fiber.interrupt(next)
    })
  )

  it.effect("sets no alarm without a limit, nor for whoever is served at once", () =>
    Effect.gen(function* () {
      const endless = yield* queue(Number.POSITIVE_INFINITY)
      const clock = yield* Effect.clock
      const fiber = yield* endless.join(clock)
      assert.isEmpty(endless.alarms)
      yield* Fiber.interrupt(fiber)
      const { alarms, serve, waiting } = yield* queue(1_000)
      assert.strictEqual((yield* waiting.wait(identity, clock, () => serve("a"))).name, "a")
      assert.isEmpty(alarms)
    })
  )

  it.effect("whoever gives up is out at once, and the others keep their places", () =>
    Effect.gen(function* () {
      const { join, released, serve, waiting } = yield* queue(1_000)
      const clock = yield* Effect.clock
      const [first, second, third] = yield* Effect.all([join(clock), join(clock), join(clock)])
      yield* Fiber.interrupt(second)
      assert.strictEqual(waiting.size, 2)
      serve("a")
      serve("b")
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(third)], ["a", "b"])
      assert.isEmpty(released)
    })
  )

  it.effect("what reaches somebody at the moment of giving up goes back", () =>
    Effect.gen(function* () {
      const { join, released, serve } = yield* queue(1_000)
      const fiber = yield* join(yield* Effect.clock)
      serve("a")
      fiber.unsafeInterruptAsFork(FiberId.none)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.await(fiber)))
      assert.deepStrictEqual(released, ["a"])
    })
  )

  it.effect("can end all waits alike", () =>
    Effect.gen(function* () {
      const { cancelled, join, waiting } = yield* queue(1_000)
      const clock = yield* Effect.clock
      const fibers = yield* Effect.all([join(clock), join(clock)])
      waiting.failAll("closed")
      assert.deepStrictEqual(yield* Fiber.join(Fiber.all(fibers)), ["closed", "closed"])
      yield* turn
      assert.deepStrictEqual(cancelled, [clock])
    })
  )
})
