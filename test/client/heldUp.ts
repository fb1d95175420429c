/** Moments between two operations of a fiber, for races that come about by themselves once in a million. */
import { Effect, Scheduler } from "effect"

const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** All fibers have come as far as they come by themselves: no answer of a server is among what they wait for. */
export const turns = Effect.repeatN(turn, 20)

/** An effect whose fiber can be held up between any two operations: what others do then comes at that very moment. */
export const heldUp = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.sync(() => {
    let own: unknown
    let operations = 0
    let at = Number.POSITIVE_INFINITY
    let state: "running" | "holding" | "held" | "over" = "running"
    let go = () => {}
    const scheduler: Scheduler.Scheduler = {
      shouldYield: (fiber) => {
        if (fiber !== own || state === "over" || ++operations !== at)
          return Scheduler.defaultScheduler.shouldYield(fiber)
        state = "holding"
        return 0
      },
      scheduleTask: (task, priority, fiber) => {
        if (state !== "holding" || fiber !== own) return Scheduler.defaultScheduler.scheduleTask(task, priority, fiber)
        state = "held"
        go = task
      }
    }
    const over = Effect.sync(() => {
      state = "over"
    })
    return {
      effect: Effect.withFiberRuntime<A, E, R>((fiber) => {
        own = fiber
        return self
      }).pipe(Effect.ensuring(over), Effect.withScheduler(scheduler)),
      /** So many operations from now on. */
      holdAfter: (count: number) => {
        at = operations + count
      },
      /** Waits until it is held up, or over before. Returns whether it has come that far. */
      happened: Effect.map(
        Effect.repeat(turn, { until: () => state === "held" || state === "over" }),
        () => operations >= at
      ),
      letGo: Effect.sync(() => go())
    }
  })
