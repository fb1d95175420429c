/**
 * `Effect.timeoutFail(Effect.interruptible(self), …)`, to the letter, without the two fibers that it starts.
 *
 * The body runs in the caller's own fiber, and the deadline interrupts that fiber until the body has ended. So what a fiber
 * of its own would have kept apart is kept apart here:
 *
 * 1. The body knows nothing of interruptions from before it, and the caller nothing of the deadline's: the fiber's
 *    `interruptedCause` is set back, less the deadline's own mark, and with what came from elsewhere meanwhile.
 * 2. The deadline interrupts the body and the fibers that it forked, none that the caller had forked before.
 * 3. Fibers that the body forked end before it does, awaited, and within the deadline.
 * 4. What the body did to FiberRefs reaches the caller only if it succeeded in time, joined as a fiber's would be.
 * 5. Once the deadline has passed, it is what the caller sees, whatever the body ends with; but not before the body has ended.
 * 6. Nothing of the deadline reaches the fiber once the body is over: the same step that looks whether it has passed calls it off.
 *
 * What differs: the body has the caller's fiber id, starts at once, and supervisors are not told of it; of what happens at the
 * same moment, something else may come first. In `Effect.all` it hears at once that another effect failed, which a fiber of
 * its own does not. Where a request would take the body to another fiber (`Effect.step`, for batching), or Effect's fibers are
 * not what they were when this was written (`probe`), it is `Effect.timeoutFail` that runs.
 *
 * By the live clock all deadlines share one timer. By any other each sleeps for itself, in a fiber, as there: such a clock
 * is a test's, and may do as it likes.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import { identity } from "effect/Function"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as alarms from "./alarms.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** What is used of Effect's fibers beyond their interface. `probe` looks whether it is there, and does what it should. */
interface Internals {
  readonly _fiberRefs: FiberRefs.FiberRefs
  /** Fibers forked and still running; null for none. */
  readonly _children: ReadonlySet<AnyFiber> | null
  /** The `Effect.step`s around: a request made inside takes its continuation to another fiber. */
  readonly _steps: ReadonlyArray<unknown>
  readonly currentRuntimeFlags: RuntimeFlags.RuntimeFlags
  setFiberRefs(refs: FiberRefs.FiberRefs): void
  addChild(child: AnyFiber): void
  removeChild(child: AnyFiber): void
  /** Of all messages only this one, which runs in the fiber, between two steps or while it waits. */
  tell(message: { readonly _tag: "Stateful"; readonly onFiber: () => void }): void
}

type Inner = AnyFiber & Internals

/** And of FiberRefs: what becomes of a value when a fiber is forked, and when it is joined. */
interface RefInternals {
  readonly initial: unknown
  readonly fork: unknown
  readonly diff: (before: unknown, after: unknown) => unknown
  readonly patch: (patch: unknown) => (value: unknown) => unknown
  readonly join: (parent: unknown, child: unknown) => unknown
}

const internals = (ref: FiberRef.FiberRef<any>) => ref as unknown as RefInternals

/** What a fiber forked here would begin with, and `ref` set to `value`. */
const refsForBody = (fiber: Inner, before: FiberRefs.FiberRefs, own: FiberRef.FiberRef<any>, value: unknown) => {
  const locals: FiberRefs.FiberRefs["locals"] = new Map()
  before.locals.forEach((stack, ref) => {
    const { fork, patch } = internals(ref)
    const old = stack[0][1]
    const forked = fork === identity ? old : patch(fork)(old)
    locals.set(ref, forked === old ? stack : [[fiber.id(), forked], ...stack])
  })
  locals.set(own, [[fiber.id(), value], ...(before.locals.get(own) ?? [])])
  return FiberRefs.unsafeMake(locals)
}

/** What the caller has after the body succeeded, as if a fiber were joined that had set what is not as before. */
const joined = (fiber: Inner, before: FiberRefs.FiberRefs, own: FiberRef.FiberRef<any>): FiberRefs.FiberRefs => {
  let refs = before
  for (const [fiberRef, stack] of fiber._fiberRefs.locals) {
    const known = before.locals.get(fiberRef)
    if (stack === known || fiberRef === own) continue
    const { diff, initial, join, patch } = internals(fiberRef)
    const value = stack[0][1]
    const old = known === undefined ? initial : known[0][1]
    if (known === undefined ? Equal.equals(value, old) : join(old, value) === old) continue
    const next = join(old, known === undefined ? value : patch(diff(old, value))(old))
    if (known !== undefined && Equal.equals(next, old)) continue
    refs = FiberRefs.updateAs(refs, { fiberId: fiber.id(), fiberRef, value: next })
  }
  return refs
}

/** The interruptions that the fiber was told of, after those from before the body, less the one marked. */
const interruptions = (
  told: Cause.Cause<never>,
  before: Cause.Cause<never>,
  mark: FiberId.FiberId | undefined
): Cause.Cause<never> => {
  if (Cause.isEmptyType(told)) return before
  if (!Cause.isSequentialType(told)) return told
  const left = interruptions(told.left, before, mark)
  return Cause.isInterruptType(told.right) && told.right.fiberId === mark ? left : Cause.sequential(left, told.right)
}

export interface Options<E, S> {
  readonly millis: number
  /** Asked once, when the body has ended, unless the caller is interrupted. */
  readonly onTimeout: () => E
  /** Called once, when the body has ended. */
  readonly onEnd: () => void
  /** A FiberRef and its value for the body. */
  readonly ref: FiberRef.FiberRef<S>
  readonly value: S
}

/** In fibers of their own. */
const forked = <A, E, R, E1, S>(
  self: Effect.Effect<A, E, R>,
  { millis, onEnd, onTimeout, ref, value }: Options<E1, S>
): Effect.Effect<A, E | E1, R> =>
  Effect.ensuring(
    Effect.timeoutFail(Effect.interruptible(Effect.locally(self, ref, value)), { duration: millis, onTimeout }),
    Effect.sync(onEnd)
  )

/** `Clock.make().sleep`: who has it sleeps by `setTimeout`. */
const liveSleep = Clock.make().sleep

const none: ReadonlyArray<AnyFiber> = []

class Deadline<A, E, E1, S> {
  private passed: Exit.Exit<void> | undefined
  private over = false
  /** Whose interruption of the fiber the deadline is. */
  private mark: FiberId.FiberId | undefined
  private alarm: alarms.Alarm | undefined
  private sleeper: AnyFiber | undefined
  private readonly flags: RuntimeFlags.RuntimeFlags
  /** Interruptions from before the body. */
  private readonly interrupted: Cause.Cause<never>
  private readonly others: ReadonlySet<AnyFiber> | undefined
  private before: FiberRefs.FiberRefs

  /** In the fiber, where nothing interrupts. */
  constructor(
    readonly fiber: Inner,
    readonly options: Options<E1, S>
  ) {
    this.flags = fiber.currentRuntimeFlags
    this.interrupted = fiber.getFiberRef(FiberRef.interruptedCause)
    this.others = fiber._children === null || fiber._children.size === 0 ? undefined : new Set(fiber._children)
    this.before = fiber._fiberRefs
  }

  /** The body, and what comes of it: to be run after `restore`. */
  begin<R>(body: Effect.Effect<A, E, R>): Effect.Effect<Effect.Effect<A, E | E1>, E, R> {
    if (Context.get(this.fiber.currentDefaultServices, Clock.Clock).sleep === liveSleep) {
      this.alarm = alarms.set(this.options.millis, () => this.pass(Exit.void))
      return this.run(body)
    }
    const asleep = Effect.forkDaemon(Effect.interruptible(Effect.sleep(this.options.millis)))
    return Effect.flatMap(asleep, (sleeper) => {
      this.sleeper = sleeper
      sleeper.addObserver((exit) => this.pass(exit))
      return this.run(body)
    })
  }

  private run<R>(body: Effect.Effect<A, E, R>): Effect.Effect<Effect.Effect<A, E | E1>, E, R> {
    const { fiber, options } = this
    this.before = fiber._fiberRefs
    fiber.setFiberRefs(refsForBody(fiber, this.before, options.ref, options.value))
    return Effect.matchCauseEffect(body, {
      onFailure: (cause) => this.end(Exit.failCause(cause)),
      onSuccess: (a) => this.end(Exit.succeed(a))
    })
  }

  private pass(exit: Exit.Exit<void>): void {
    if (this.over || this.passed !== undefined) return
    this.passed = exit
    const { fiber, others } = this
    const { id, startTimeMillis } = fiber.id()
    this.mark = FiberId.runtime(id, startTimeMillis)
    if (others === undefined) {
      fiber.unsafeInterruptAsFork(this.mark)
      return
    }
    // The three follow one another with nothing in between.
    let away = none
    const hide = () => {
      away = Array.from(fiber._children ?? none).filter((child) => others.has(child))
      for (const child of away) fiber.removeChild(child)
    }
    const show = () => {
      for (const child of away) fiber.addChild(child)
    }
    fiber.tell({ _tag: "Stateful", onFiber: hide })
    fiber.unsafeInterruptAsFork(this.mark)
    fiber.tell({ _tag: "Stateful", onFiber: show })
  }

  /**
   * Ends what the body forked, and then the deadline. Whatever the fiber was told while it ran the body it has heard by now:
   * to become uninterruptible again took it steps of its own.
   */
  private end(exit: Exit.Exit<A, E>): Effect.Effect<Effect.Effect<A, E | E1>, E> {
    const { fiber, others } = this
    if (fiber._children === null || fiber._children.size === 0) return this.conclude(exit)
    const own = Array.from(fiber._children).filter((child) => others?.has(child) !== true)
    if (own.length === 0) return this.conclude(exit)
    for (const child of own) {
      child.unsafeInterruptAsFork(fiber.id())
      fiber.removeChild(child)
    }
    return Effect.flatMap(
      Effect.forEach(own, (child) => Fiber.await(child), { discard: true }),
      () => this.end(exit)
    )
  }

  /** In one step of the fiber. */
  private conclude(exit: Exit.Exit<A, E>): Effect.Effect<Effect.Effect<A, E | E1>, E> {
    const { alarm, before, fiber, flags, interrupted, options, passed, sleeper } = this
    this.over = true
    if (alarm !== undefined) alarms.cancel(alarm)
    options.onEnd()
    const inTime = passed === undefined && Exit.isSuccess(exit)
    const told = interruptions(fiber.getFiberRef(FiberRef.interruptedCause), interrupted, this.mark)
    const refs = inTime ? joined(fiber, before, options.ref) : before
    fiber.setFiberRefs(
      told === interrupted
        ? refs
        : FiberRefs.updateAs(refs, { fiberId: fiber.id(), fiberRef: FiberRef.interruptedCause, value: told })
    )
    const result: Effect.Effect<Effect.Effect<A, E | E1>, E> = passed !== undefined
      ? Effect.as(passed, Effect.failSync(options.onTimeout))
      : Exit.isSuccess(exit)
        ? Effect.succeed(exit)
        : Effect.failCause(exit.cause)
    const alone = sleeper === undefined ? result : Effect.zipRight(Fiber.interruptAs(sleeper, fiber.id()), result)
    return inTime || fiber.currentRuntimeFlags === flags
      ? alone
      : Effect.zipRight(Effect.patchRuntimeFlags(RuntimeFlags.diff(fiber.currentRuntimeFlags, flags)), alone)
  }
}

/** In the caller's fiber, where that can be. */
const unforked = <A, E, R, E1, S>(
  caller: AnyFiber,
  self: Effect.Effect<A, E, R>,
  options: Options<E1, S>
): Effect.Effect<A, E | E1, R> => {
  const fiber = caller as Inner
  if (fiber._steps.length > 0) return forked(self, options)
  return Effect.flatten(
    Effect.uninterruptibleMask((restore) =>
      // Interruptible twice, as `Effect.locally` would have it: it shows in the cause of an interruption.
      new Deadline<A, E, E1, S>(fiber, options).begin(restore(Effect.interruptible(Effect.interruptible(self))))
    )
  )
}

/**
 * Whether Effect's fibers are as described above: a deadline that passes at once, in a fiber that forked another one before,
 * ends its body and what that forked, and nothing else; what succeeds is joined; and a step is seen.
 */
export const probe: Effect.Effect<boolean, string> = Effect.withFiberRuntime<boolean, string>((fiber) =>
  Effect.gen(function* () {
    const ref = FiberRef.unsafeMake("before")
    const sum = FiberRef.unsafeMake(1, { fork: () => 0, join: (parent, child) => parent + child })
    const options = { millis: 1, onTimeout: () => "late", onEnd: () => {}, ref, value: "during" }
    yield* FiberRef.set(sum, 2)
    const other = yield* Effect.fork(Effect.never)
    let own: Fiber.RuntimeFiber<never> | undefined
    const endless = Effect.gen(function* () {
      own = yield* Effect.fork(Effect.never)
      return yield* Effect.never
    })
    const atOnce = Object.assign(Clock.make(), { sleep: () => Effect.void })
    const late = yield* Effect.exit(Effect.withClock(unforked(fiber, endless, options), atOnce))
    const inTime = yield* unforked(
      fiber,
      FiberRef.getAndUpdate(sum, (n) => n + 3),
      options
    )
    const stepped = yield* Effect.step(Effect.sync(() => (fiber as AnyFiber as Inner)._steps.length))
    yield* Effect.interruptible(Effect.yieldNow())
    return (
      Equal.equals(late, Exit.fail("late")) &&
      other.unsafePoll() === null &&
      own?.unsafePoll()?._tag === "Failure" &&
      inTime === 0 &&
      (yield* sum) === 5 &&
      (yield* ref) === "before" &&
      Equal.equals(stepped, Exit.succeed(1))
    )
  })
)

/** Asked at the first deadline. */
let supported: boolean | undefined
const ask = (): boolean => {
  try {
    return Effect.runSync(probe)
  } catch {
    return false
  }
}

/**
 * `self`, with `ref` set to `value`, fails with what `onTimeout` gives if it does not end within so many milliseconds.
 * To be run by this fiber.
 */
export const within = <A, E, R, E1, S>(
  fiber: AnyFiber,
  self: Effect.Effect<A, E, R>,
  options: Options<E1, S>
): Effect.Effect<A, E | E1, R> => {
  supported ??= ask()
  return supported ? unforked(fiber, self, options) : forked(self, options)
}
