/** A clock on which nobody waits: to sleep is to move it on. For one rehearsal, which has no concurrency. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/** `start`: milliseconds since the epoch. What would sleep for ever does. */
export const make = (start: number): Clock.Clock => {
  let nanos = BigInt(Math.round(start)) * 1_000_000n
  const millis = () => Number(nanos / 1_000_000n)
  return {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: millis,
    unsafeCurrentTimeNanos: () => nanos,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanos: Effect.sync(() => nanos),
    sleep: (duration) =>
      Duration.isFinite(duration)
        ? Effect.sync(() => {
            nanos += BigInt(Math.round(Duration.toMillis(duration) * 1e6))
          })
        : Effect.never
  }
}
