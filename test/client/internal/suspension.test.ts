/** `suspend` is `Effect.async`: whatever resumes it, interrupts it or goes wrong, at whatever moment. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, FiberId, FastCheck as fc } from "effect"
import { vi } from "vitest"
import { type Resume, suspend } from "../../../src/client/internal/suspension.js"

/** What begins, and what ends it: how either is told of it. */
type Register = (resume: Resume<number, string>) => () => void
type Suspend = (register: Register) => Effect.Effect<number, string>

const ours: Suspend = (register) =>
  Effect.withFiberRuntime((fiber) => suspend<number, string>(fiber as never, register))
const effects: Suspend = (register) =>
  Effect.async((resume) => {
    const abandon = register(resume)
    return Effect.sync(abandon)
  })

const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** An exit without what differs from run to run. */
const shown = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.match(exit, {
    onSuccess: (value) => `success ${value}`,
    onFailure: (cause) =>
      `failure ${[...Cause.failures(cause)]} defects ${[...Cause.defects(cause)].map(String)} interrupted ${Cause.isInterrupted(cause)}`
  })

/** What a fiber is given to go on with. */
const outcomes = {
  succeeds: Effect.succeed(1),
  fails: Effect.fail("failed"),
  dies: Effect.die("defect"),
  later: Effect.zipRight(Effect.repeatN(Effect.yieldNow(), 3), Effect.succeed(2)),
  interrupts: Effect.interrupt
} satisfies Record<string, Effect.Effect<number, string>>
type Outcome = keyof typeof outcomes

/** Where it stands. */
const regions = {
  plain: (self: Effect.Effect<number, string>) => self,
  uninterruptible: (self: Effect.Effect<number, string>) => Effect.uninterruptible(self),
  restored: (self: Effect.Effect<number, string>) => Effect.uninterruptibleMask((restore) => restore(self)),
  finalizer: (self: Effect.Effect<number, string>) => Effect.ensuring(Effect.succeed(0), Effect.exit(self)),
  finalizerInterruptible: (self: Effect.Effect<number, string>) =>
    Effect.ensuring(Effect.succeed(0), Effect.exit(Effect.interruptible(self))),
  timeout: (self: Effect.Effect<number, string>) =>
    Effect.timeoutTo(self, { duration: 60_000, onSuccess: (n) => n, onTimeout: () => -1 }),
  raced: (self: Effect.Effect<number, string>) => Effect.raceFirst(self, Effect.never),
  caught: (self: Effect.Effect<number, string>) => Effect.catchAllCause(self, () => Effect.succeed(7)),
  again: (self: Effect.Effect<number, string>) => Effect.zipRight(Effect.exit(self), self),
  onInterrupt: (self: Effect.Effect<number, string>) => Effect.onInterrupt(self, () => Effect.yieldNow())
} as const
type Region = keyof typeof regions

type Step =
  | { readonly _tag: "Resume"; readonly outcome: Outcome }
  | { readonly _tag: "Interrupt" }
  | { readonly _tag: "Turn" }

interface Plan {
  readonly region: Region
  /** Resumed by `register` itself, so often. */
  readonly atOnce: ReadonlyArray<Outcome>
  readonly throws: boolean
  /** Interrupted before it has begun. */
  readonly early: boolean
  /** By others, in this order. */
  readonly steps: ReadonlyArray<Step>
}

/** What happens, as far as anybody can tell, in the order of time. */
const run = (suspend: Suspend, { atOnce, early, region, steps, throws }: Plan) =>
  Effect.gen(function* () {
    const seen: Array<string> = []
    const resumes: Array<Resume<number, string>> = []
    const self = suspend((resume) => {
      seen.push("registered")
      const resumed: Resume<number, string> = (effect) => {
        seen.push("resumed")
        resume(effect)
      }
      for (const outcome of atOnce) resumed(outcomes[outcome])
      // After it was resumed that would be lost.
      if (throws && atOnce.length === 0) throw new Error("not registered")
      resumes.push(resumed)
      return () => seen.push("abandoned")
    })
    const fiber = yield* Effect.fork(regions[region](self))
    const interrupt = () => {
      seen.push("interrupted")
      fiber.unsafeInterruptAsFork(FiberId.none)
    }
    if (early) interrupt()
    yield* turn
    for (const step of steps) {
      if (step._tag === "Turn") yield* turn
      if (step._tag === "Interrupt") interrupt()
      if (step._tag === "Resume") for (const resume of resumes) resume(outcomes[step.outcome])
    }
    // Whatever the plan left open comes to its end here.
    for (let n = 0; n < 4; n++) {
      yield* turn
      for (const resume of [...resumes]) resume(Effect.succeed(9))
    }
    yield* turn
    return { seen, exit: shown(yield* Fiber.await(fiber)) }
  })

const count = (seen: ReadonlyArray<string>, what: string) => seen.filter((one) => one === what).length

/**
 * What is waited for is given up once at most, and not after it has ended, unless the interruption was already on its way
 * then. (`Effect.async` gives it up also when it has ended in the same turn before.)
 */
const givesUpRightly = (seen: ReadonlyArray<string>) => {
  for (const [at, what] of seen.entries()) {
    if (what !== "abandoned") continue
    const before = seen.slice(seen.lastIndexOf("registered", at), at)
    const [ended, interrupted] = [before.indexOf("resumed"), seen.slice(0, at).indexOf("interrupted")]
    if (interrupted === -1 || before.includes("abandoned")) return false
    if (ended !== -1 && seen.lastIndexOf("registered", at) + ended < interrupted) return false
  }
  return true
}

const outcome = fc.constantFrom(...(Object.keys(outcomes) as Array<Outcome>))
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ _tag: fc.constant("Resume" as const), outcome }),
  fc.constant({ _tag: "Interrupt" as const }),
  fc.constant({ _tag: "Turn" as const })
)
const plan: fc.Arbitrary<Plan> = fc.record({
  region: fc.constantFrom(...(Object.keys(regions) as Array<Region>)),
  atOnce: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(outcome, { maxLength: 2 })),
  throws: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, fc.boolean()),
  early: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, fc.boolean()),
  steps: fc.array(step, { maxLength: 6 })
})

const seed = Number(process.env["TEST_SEED"] ?? 20_260_101)

describe("suspend", () => {
  it("does what Effect.async does, in 3,000 random plans", { timeout: 60_000 }, () =>
    fc.assert(
      fc.asyncProperty(plan, async (plan) => {
        const [own, theirs] = await Effect.runPromise(Effect.all([run(ours, plan), run(effects, plan)]))
        assert.strictEqual(own.exit, theirs.exit)
        assert.strictEqual(count(own.seen, "registered"), count(theirs.seen, "registered"))
        assert.isTrue(givesUpRightly(own.seen), own.seen.join())
        if (count(theirs.seen, "resumed") === 0) assert.deepStrictEqual(own.seen, theirs.seen)
      }),
      { numRuns: 3_000, seed }
    )
  )

  it("does so with the means of Effect.async where the runtime is not the one that it knows", async () => {
    vi.resetModules()
    vi.doMock("effect/Effect", async (original) => ({
      ...(await original<typeof import("effect/Effect")>()),
      runSync: () => {
        throw new Error("another runtime")
      }
    }))
    const { suspend } = await import("../../../src/client/internal/suspension.js")
    vi.doUnmock("effect/Effect")
    let effect: unknown
    const fallback: Suspend = (register) =>
      Effect.withFiberRuntime((fiber) => {
        const suspended = suspend<number, string>(fiber as never, register)
        effect = suspended
        return suspended
      })
    await fc.assert(
      fc.asyncProperty(plan, async (plan) => {
        const [own, theirs] = await Effect.runPromise(Effect.all([run(fallback, plan), run(effects, plan)]))
        assert.deepStrictEqual(own, theirs)
      }),
      { numRuns: 300, seed }
    )
    assert.notStrictEqual((effect as object).constructor.name, "Suspension")
  })

  const plans: ReadonlyArray<readonly [string, Partial<Plan>, exit: string, abandoned: number]> = [
    ["resumed at once", { atOnce: ["succeeds"] }, "success 1", 0],
    ["resumed twice at once, the first counts", { atOnce: ["succeeds", "fails"] }, "success 1", 0],
    ["resumed later, by an effect", { steps: [{ _tag: "Resume", outcome: "later" }] }, "success 2", 0],
    [
      "interrupted while it waits, what it waits for is given up once",
      { steps: [{ _tag: "Interrupt" }, { _tag: "Interrupt" }] },
      "failure  defects  interrupted true",
      1
    ],
    [
      "interrupted where it can not be, it waits on",
      {
        region: "finalizer",
        steps: [{ _tag: "Interrupt" }, { _tag: "Resume", outcome: "succeeds" }]
      },
      "failure  defects  interrupted true",
      0
    ],
    [
      "resumed and then interrupted in one turn, nothing is given up",
      { steps: [{ _tag: "Resume", outcome: "later" }, { _tag: "Interrupt" }] },
      "failure  defects  interrupted true",
      0
    ],
    ["not registered, for a defect", { throws: true }, "failure  defects Error: not registered interrupted false", 0]
  ]
  for (const [name, given, exit, abandoned] of plans) {
    it.live(name, () =>
      Effect.gen(function* () {
        const plan: Plan = { region: "plain", atOnce: [], throws: false, early: false, steps: [], ...given }
        const told = yield* run(ours, plan)
        assert.deepStrictEqual([told.exit, count(told.seen, "abandoned")], [exit, abandoned])
      })
    )
  }

  // `Effect.async` forgets what it waits for then.
  it.live("interrupted by what it begins, it gives that up", () =>
    Effect.gen(function* () {
      const itself = yield* Deferred.make<Fiber.RuntimeFiber<number, string>>()
      let abandoned = 0
      const wait = (fiber: Fiber.RuntimeFiber<number, string>) =>
        ours(() => {
          fiber.unsafeInterruptAsFork(FiberId.none)
          return () => abandoned++
        })
      const fiber = yield* Effect.fork(Effect.flatMap(Deferred.await(itself), wait))
      yield* Deferred.succeed(itself, fiber)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.await(fiber)))
      assert.strictEqual(abandoned, 1)
    })
  )

  it.live("waits in ten thousand fibers at once, half of which are interrupted", () =>
    Effect.gen(function* () {
      const resumes: Array<Resume<number, string>> = []
      let abandoned = 0
      const wait = ours((resume) => {
        resumes.push(resume)
        return () => abandoned++
      })
      const fibers = yield* Effect.replicateEffect(Effect.fork(wait), 10_000)
      yield* turn
      assert.strictEqual(resumes.length, 10_000)
      const [even, odd] = [0, 1].map((rest) => fibers.filter((_, n) => n % 2 === rest))
      yield* Fiber.interruptAll(odd!)
      assert.strictEqual(abandoned, 5_000)
      for (const resume of resumes) resume(Effect.succeed(3))
      for (const fiber of even!) assert.strictEqual(yield* Fiber.join(fiber), 3)
      assert.strictEqual(abandoned, 5_000)
    })
  )
})
