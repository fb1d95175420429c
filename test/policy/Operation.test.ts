import { SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Fiber, Layer, TestClock } from "effect"
import { Operation, PgError } from "effect-pg-resilience"
import * as internal from "../../src/policy/internal/operation.js"

const inside = Effect.withFiberRuntime<internal.State | undefined>((fiber) => Effect.succeed(internal.current(fiber)))

const failure = {
  message: "gone",
  phase: "Execute",
  outcome: "NotApplied",
  transient: true,
  attempts: 1
} as const

describe("Operation", () => {
  it.effect("fails with QueryTimeoutError exactly when its deadline passes", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(Effect.flip(Operation.named("slow", { timeout: "2 seconds" })(Effect.never)))
      yield* TestClock.adjust("1999 millis")
      assert.isNull(fiber.unsafePoll())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "QueryTimeoutError")
      assert.strictEqual(error.message, 'operation "slow" did not end within 2s')
      assert.strictEqual(error.outcome, "NotApplied")
      assert.strictEqual(error.operation, "slow")
    })
  )

  it.effect.each([
    ["query", 5_000],
    ["complex", 30_000],
    [{ batch: 100 }, 6_000]
  ] as const)("gives %o the time that the layer gives its kind", ([kind, millis]) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(Effect.flip(Operation.named("x", { kind })(Effect.never)))
      yield* TestClock.adjust(millis - 1)
      assert.isNull(fiber.unsafePoll())
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "QueryTimeoutError")
    })
  )

  it.effect("takes its limits from the layer around it", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(Effect.flip(Operation.named("x")(Effect.never)))
      yield* TestClock.adjust("70 millis")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "QueryTimeoutError")
    }).pipe(Effect.provide(Layer.succeed(Operation.Timeouts, { ...Operation.defaultLimits, query: 70 })))
  )

  it.effect("has no deadline with infinity", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.fork(Operation.named("x", { timeout: "infinity" })(Effect.sleep("40 days")))
      yield* TestClock.adjust("40 days")
      yield* Fiber.join(fiber)
    })
  )

  it.effect("ends with the operation around it at the latest, and keeps its own name and flags", () =>
    Effect.gen(function* () {
      const inner = Operation.named("inner", { timeout: "10 seconds" })
      const outer = Operation.named("outer", { timeout: "1 seconds", idempotent: true, whenOpen: "wait" })
      const state = yield* outer(inner(inside))
      assert.strictEqual(state?.name, "inner")
      assert.strictEqual(state?.idempotent, false)
      assert.strictEqual(state?.whenOpen, "fail")
      assert.strictEqual(state?.deadline, 1_000)
      const fiber = yield* Effect.fork(Effect.flip(outer(inner(Effect.never))))
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* Fiber.join(fiber)).operation, "outer")
    })
  )

  it.effect("names and bounds nothing for a fiber that outlives it", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const daemon = yield* Operation.named("brief")(Effect.forkDaemon(Effect.zipRight(Deferred.await(go), inside)))
      yield* Deferred.succeed(go, undefined)
      assert.isUndefined(yield* Fiber.join(daemon))
    })
  )

  it.effect("holds in a finalizer of an interrupted fiber, where nothing else interrupts", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const seen = yield* Deferred.make<Exit.Exit<unknown, PgError.PgError>>()
      const fiber = yield* Effect.zipRight(Deferred.succeed(started, undefined), Effect.never).pipe(
        Effect.ensuring(
          Operation.named("cleanup", { timeout: "1 seconds" })(Effect.never).pipe(
            Effect.exit,
            Effect.flatMap((exit) => Deferred.succeed(seen, exit))
          )
        ),
        Effect.fork
      )
      yield* Deferred.await(started)
      const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
      while (Chunk.isEmpty(yield* TestClock.sleeps())) yield* Effect.yieldNow()
      yield* TestClock.adjust("999 millis")
      assert.isFalse(yield* Deferred.isDone(seen))
      yield* TestClock.adjust("1 millis")
      const exit = yield* Deferred.await(seen)
      assert.isTrue(Exit.isFailure(exit) && exit.cause._tag === "Fail" && exit.cause.error._tag === "QueryTimeoutError")
      yield* Fiber.join(interrupting)
    })
  )

  it.effect("does its work in a finalizer of an interrupted fiber", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const done = yield* Deferred.make<string>()
      const work = Operation.named("cleanup")(Effect.zipRight(Effect.yieldNow(), Deferred.succeed(done, "done")))
      const fiber = yield* Effect.zipRight(Deferred.succeed(started, undefined), Effect.never).pipe(
        Effect.ensuring(Effect.orDie(work)),
        Effect.fork
      )
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* Deferred.await(done), "done")
    })
  )

  it.effect("says that the outcome is unknown when a write was sent, and not certainly refused", () =>
    Effect.gen(function* () {
      const body = Effect.withFiberRuntime<never>((fiber) =>
        Effect.zipRight(
          Effect.sync(() => internal.countWrite(internal.current(fiber), 1)),
          Effect.never
        )
      )
      const fiber = yield* body.pipe(
        Operation.named("inner", { timeout: "infinity" }),
        Operation.named("outer", { timeout: "1 seconds" }),
        Effect.flip,
        Effect.fork
      )
      yield* TestClock.adjust("1 seconds")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "OutcomeUnknownError")
      assert.strictEqual(error._tag === "OutcomeUnknownError" && error.reason._tag, "QueryTimeoutError")
    })
  )

  it.effect("refines SqlError to its tag and leaves the program's own failures alone", () =>
    Effect.gen(function* () {
      const mine = new PgError.DeadlockError(failure)
      const sql = Effect.fail(new SqlError.SqlError({ cause: mine, message: "no" }))
      assert.strictEqual(yield* Effect.flip(Operation.named("x")(sql)), mine)
      assert.strictEqual(yield* Effect.flip(Operation.named("x")(Effect.fail("mine" as const))), "mine")
      assert.isTrue(Exit.isInterrupted(yield* Effect.exit(Operation.named("x")(Effect.interrupt))))
    })
  )
})
