/** One run for all who ask while it is under way, so that many callers cost no more than one. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"

/** A caller that is interrupted leaves the run to the others; it ends with the scope at the latest. */
export const make = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<Effect.Effect<A, E>, never, Scope.Scope> =>
  Effect.map(Effect.interruptible(FiberSet.makeRuntime<never, A, E>()), (runFork) => {
    let underWay: Fiber.RuntimeFiber<A, E> | undefined
    return Effect.suspend(() => {
      if (underWay !== undefined) return Fiber.join(underWay)
      const fiber = runFork(effect)
      underWay = fiber
      // At once, if it has ended by now.
      fiber.addObserver(() => {
        underWay = undefined
      })
      return Fiber.join(fiber)
    })
  })
