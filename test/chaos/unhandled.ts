/** What would have ended the process, or was never heard of. */
import { Effect } from "effect"

/** While the scope is open: unhandled rejections and uncaught exceptions, in words. */
export const unhandled = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const seen: Array<string> = []
      const listener = (error: unknown) => void seen.push(`unhandled: ${(error as Error)?.stack ?? String(error)}`)
      process.on("unhandledRejection", listener)
      process.on("uncaughtException", listener)
      return { seen, listener }
    }),
    ({ listener }) =>
      Effect.sync(() => {
        process.off("unhandledRejection", listener)
        process.off("uncaughtException", listener)
      })
  ),
  ({ seen }): ReadonlyArray<string> => seen
)
