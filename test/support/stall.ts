import { Effect } from "effect"

const nobody = new Int32Array(new SharedArrayBuffer(4))

/** Nothing of this process runs for so many milliseconds: no timer, no socket, no other fiber. */
export const stall = (millis: number): Effect.Effect<void> =>
  Effect.sync(() => {
    Atomics.wait(nobody, 0, 0, millis)
  })
