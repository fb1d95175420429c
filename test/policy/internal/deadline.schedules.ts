/** Random programs under a deadline, and what can be seen of one that runs. */
import {
  Array as Arr,
  Cause,
  Clock,
  Context,
  Effect,
  Exit,
  Fiber,
  FiberId,
  FiberRef,
  FastCheck as fc,
  RuntimeFlags,
  RuntimeFlagsPatch
} from "effect"

/** A program. */
export type Body =
  | { readonly _tag: "Succeed" | "Fail" | "Die" | "Interrupt" | "Yield" | "Flags" }
  | { readonly _tag: "Sleep" | "Deaf"; readonly ticks: number }
  | { readonly _tag: "Async"; readonly ticks: number; readonly cancel: "none" | "sync" | "slow" | "dies" }
  | { readonly _tag: "Set" | "Add"; readonly value: number }
  | { readonly _tag: "Locally"; readonly value: number; readonly body: Body }
  | {
      readonly _tag: "Both" | "Ensuring" | "OnInterrupt" | "Race" | "CatchAll"
      readonly body: Body
      readonly other: Body
    }
  | {
      readonly _tag: "Uninterruptible" | "Interruptible" | "Exit" | "Fork" | "Daemon" | "Join" | "Scoped" | "Retry"
      readonly body: Body
    }
  | { readonly _tag: "All"; readonly ticks: ReadonlyArray<number>; readonly fails: boolean }
  | { readonly _tag: "Deadline"; readonly ticks: number; readonly body: Body }

/** What is around the deadline. */
export type Around = "nothing" | "uninterruptible" | "finalizer" | "sibling" | "forked" | "race" | "all"

export interface Schedule {
  readonly around: Around
  readonly ticks: number
  readonly body: Body
  /** When the caller is interrupted. */
  readonly interruptions: ReadonlyArray<number>
}

const ticks = fc.integer({ min: 1, max: 12 })

const { body } = fc.letrec<{ body: Body; leaf: Body }>((tie) => ({
  leaf: fc.oneof(
    fc.record({ _tag: fc.constantFrom("Succeed", "Fail", "Die", "Interrupt", "Yield", "Flags") }),
    fc.record({ _tag: fc.constantFrom("Sleep", "Sleep", "Deaf"), ticks }),
    fc.record({ _tag: fc.constant("Async"), ticks, cancel: fc.constantFrom("none", "sync", "slow", "dies") }),
    fc.record({ _tag: fc.constantFrom("Set", "Add"), value: fc.integer({ min: 1, max: 9 }) }),
    fc.record({ _tag: fc.constant("All"), ticks: fc.array(ticks, { minLength: 1, maxLength: 2 }), fails: fc.boolean() })
  ) as fc.Arbitrary<Body>,
  body: fc.oneof(
    { depthSize: "small", maxDepth: 5 },
    tie("leaf"),
    fc.record({
      _tag: fc.constantFrom("Both", "Both", "Both", "Ensuring", "OnInterrupt", "Race", "CatchAll"),
      body: tie("body"),
      other: tie("body")
    }) as fc.Arbitrary<Body>,
    fc.record({
      _tag: fc.constantFrom("Uninterruptible", "Interruptible", "Exit", "Fork", "Daemon", "Join", "Scoped", "Retry"),
      body: tie("body")
    }) as fc.Arbitrary<Body>,
    fc.record({
      _tag: fc.constant("Locally"),
      value: fc.integer({ min: 1, max: 9 }),
      body: tie("body")
    }) as fc.Arbitrary<Body>,
    fc.record({ _tag: fc.constant("Deadline"), ticks, body: tie("body") }) as fc.Arbitrary<Body>
  )
}))

export const schedules: fc.Arbitrary<Schedule> = fc.record({
  around: fc.constantFrom("nothing", "uninterruptible", "finalizer", "sibling", "forked", "race", "all"),
  ticks,
  body,
  interruptions: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 2 })
})

/** The deadline under test: fails with "late". */
export type Bounding = <A, E, R>(self: Effect.Effect<A, E, R>, millis: number) => Effect.Effect<A, E | string, R>

export const ref = FiberRef.unsafeMake("outside")
const plain = FiberRef.unsafeMake(0)
const sum = FiberRef.unsafeMake(0, { fork: () => 0, join: (parent, child) => parent + child })
const kept = FiberRef.unsafeMake(0, { join: (parent) => parent })

/** A cause without the fibers' ids, and without how often each interruption was told of. */
const steps = (cause: Cause.Cause<unknown>): ReadonlyArray<string> =>
  Cause.match(cause, {
    onEmpty: [] as ReadonlyArray<string>,
    onFail: (error) => [`fail ${error}`],
    onDie: (defect) => [`die ${defect}`],
    onInterrupt: () => ["interrupt"],
    onSequential: (left, right) => Arr.dedupeAdjacent([...left, ...right]),
    onParallel: (left, right) => [`(${left} and ${right})`]
  })

const told = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.match(exit, { onFailure: (cause) => `${steps(cause)}`, onSuccess: (value) => `${value}` })

/** Lets what was forked do what it can before it waits. */
const started = <A>(fork: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.zipLeft(
    fork,
    Effect.promise(async () => {
      for (let i = 0; i < 60; i++) await undefined
    })
  )

/**
 * The program of a schedule: gives how the caller ended. `events`: of each fiber of the program what it did, and when.
 *
 * Whatever takes time takes some ticks and a power of four of its own, so that no two things happen at the same moment:
 * which of them would be first is nobody's promise.
 */
export const run = (
  schedule: Schedule,
  bounding: Bounding,
  events: Map<string, Array<string>>
): Effect.Effect<string> => {
  let nodes = 0
  const millisOf = (ticks: number) => ticks * 2 ** 26 + 4 ** (1 + (nodes++ % 12))
  const interruptions = schedule.interruptions.map(millisOf)
  const note = (thread: string, what: string) =>
    Effect.withFiberRuntime<void>((fiber, { runtimeFlags }) => {
      const now = Context.get(fiber.currentDefaultServices, Clock.Clock).unsafeCurrentTimeMillis()
      const refs = [ref, plain, sum, kept].map((ref) => fiber.getFiberRef(ref as FiberRef.FiberRef<unknown>)).join(" ")
      const flag = RuntimeFlags.isEnabled(runtimeFlags, RuntimeFlags.OpSupervision) ? " flagged" : ""
      events.set(thread, [...(events.get(thread) ?? []), `${now} ${what} [${refs}]${flag}`])
      return Effect.void
    })

  const seen = <A, E>(thread: string, name: string, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.zipRight(
      note(thread, name),
      Effect.onExit(self, (exit) => note(thread, `${name} ends: ${told(exit)}`))
    )

  const compile = (body: Body, thread: string): Effect.Effect<unknown, string> =>
    seen(thread, body._tag, make(body, thread))

  const make = (body: Body, thread: string): Effect.Effect<unknown, string> => {
    switch (body._tag) {
      case "Succeed":
        return Effect.succeed("a")
      case "Fail":
        return Effect.fail("no")
      case "Die":
        return Effect.die("broken")
      case "Interrupt":
        return Effect.interrupt
      case "Yield":
        return Effect.yieldNow()
      case "Flags":
        return Effect.zipRight(
          Effect.patchRuntimeFlags(RuntimeFlagsPatch.enable(RuntimeFlags.OpSupervision)),
          Effect.succeed("flags")
        )
      case "Sleep":
        return Effect.sleep(millisOf(body.ticks))
      case "Deaf":
        return Effect.uninterruptible(Effect.sleep(millisOf(body.ticks)))
      case "Async": {
        const wait = Effect.sleep(millisOf(body.ticks))
        const slow = Effect.sleep(millisOf(1))
        return Effect.flatMap(Effect.forkDaemon(Effect.interruptible(wait)), (timer) =>
          Effect.async<unknown>((resume) => {
            timer.addObserver(() => resume(Effect.succeed("answer")))
            const cancelled = note(thread, "cancelled")
            if (body.cancel === "sync") return cancelled
            if (body.cancel === "slow") return Effect.zipRight(slow, cancelled)
            if (body.cancel === "dies") return Effect.zipRight(cancelled, Effect.die("cancel"))
            return undefined
          })
        )
      }
      case "Set":
        return Effect.all([FiberRef.set(plain, body.value), FiberRef.set(kept, body.value)], { discard: true })
      case "Add":
        return FiberRef.update(sum, (n) => n + body.value)
      case "Locally":
        return Effect.locally(compile(body.body, thread), plain, body.value)
      case "Both":
        return Effect.zipRight(compile(body.body, thread), compile(body.other, thread))
      case "Ensuring":
        return Effect.ensuring(compile(body.body, thread), Effect.orDie(compile(body.other, thread)))
      case "OnInterrupt":
        return Effect.onInterrupt(compile(body.body, thread), () => Effect.orDie(compile(body.other, thread)))
      case "Race": {
        const [one, other] = [body.body, body.other].map((side) =>
          Effect.delay(compile(side, `${thread}.${nodes++}`), millisOf(1))
        )
        return Effect.race(one!, other!)
      }
      case "CatchAll":
        return Effect.catchAll(compile(body.body, thread), () => compile(body.other, thread))
      case "Uninterruptible":
        return Effect.uninterruptible(compile(body.body, thread))
      case "Interruptible":
        return Effect.interruptible(compile(body.body, thread))
      case "Exit":
        return Effect.map(Effect.exit(compile(body.body, thread)), told)
      case "Fork":
        return Effect.as(started(Effect.fork(compile(body.body, `${thread}.${nodes++}`))), "forked")
      case "Daemon":
        return Effect.as(started(Effect.forkDaemon(compile(body.body, `${thread}.${nodes++}`))), "daemon")
      case "Join":
        return Effect.flatMap(Effect.fork(compile(body.body, `${thread}.${nodes++}`)), Fiber.join)
      case "Scoped":
        return Effect.scoped(
          Effect.zipRight(
            Effect.acquireRelease(note(thread, "acquired"), (_, exit) => note(thread, `released: ${told(exit)}`)),
            compile(body.body, thread)
          )
        )
      case "Retry":
        return Effect.retry(compile(body.body, thread), { times: 2 })
      case "All": {
        const waits = body.ticks.map((ticks) => Effect.sleep(millisOf(ticks)))
        const all = Effect.all([...waits, body.fails ? Effect.fail("one") : Effect.void], { concurrency: "unbounded" })
        return Effect.as(all, "all")
      }
      case "Deadline":
        return bounding(compile(body.body, thread), millisOf(body.ticks))
    }
  }

  const bounded = bounding(compile(schedule.body, "body"), millisOf(schedule.ticks))
  const after = seen("body", "afterwards", Effect.sleep(millisOf(1)))
  const whole = Effect.flatMap(Effect.exit(seen("body", "deadline", bounded)), (exit) => Effect.as(after, told(exit)))
  const around = (): Effect.Effect<unknown, unknown> => {
    switch (schedule.around) {
      case "nothing":
        return whole
      case "uninterruptible":
        return Effect.uninterruptible(whole)
      case "finalizer":
        return Effect.ensuring(
          Effect.withFiberRuntime<void>((fiber) => {
            fiber.unsafeInterruptAsFork(FiberId.none)
            return Effect.never
          }),
          whole
        )
      case "sibling":
        return Effect.zipRight(Effect.fork(seen("sibling", "sibling", Effect.sleep(millisOf(6)))), whole)
      case "forked":
        return Effect.flatMap(Effect.fork(whole), Fiber.join)
      case "all":
        return Effect.all([whole, Effect.sleep(millisOf(3))], { concurrency: "unbounded" })
      case "race":
        return Effect.race(whole, seen("other", "other", Effect.sleep(millisOf(9))))
    }
  }
  return Effect.flatMap(Effect.fork(around()), (fiber) => {
    const interrupting = interruptions.map((millis, i) =>
      Effect.forkDaemon(
        Effect.delay(
          Effect.sync(() => fiber.unsafeInterruptAsFork(FiberId.runtime(i, 0))),
          millis
        )
      )
    )
    return Effect.zipRight(Effect.all(interrupting), Effect.map(Fiber.await(fiber), told))
  })
}
