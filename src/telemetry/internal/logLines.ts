/** The library's log lines: rate-limited, so that a server in trouble does not drown the log that explains it. */
import * as Effect from "effect/Effect"
import type * as LogLevel from "effect/LogLevel"

/** At most one line of a kind in this many milliseconds; the next one says how many were left out. */
const quiet = 5_000

export interface LogLines {
  readonly say: (level: LogLevel.LogLevel, kind: string, message: string, details?: Record<string, unknown>) => void
}

/** `fork` runs the line in the background, with the layer's own loggers. `now`: milliseconds, monotonic. */
export const make = (fork: (effect: Effect.Effect<void>) => void, now: () => number): LogLines => {
  const kinds = new Map<string, { at: number; leftOut: number }>()
  return {
    say: (level, kind, message, details = {}) => {
      const at = now()
      const last = kinds.get(kind)
      if (last !== undefined && at - last.at < quiet) {
        last.leftOut++
        return
      }
      const leftOut = last?.leftOut ?? 0
      kinds.set(kind, { at, leftOut: 0 })
      const line = leftOut === 0 ? message : `${message} (and ${leftOut} more like this)`
      fork(Effect.annotateLogs(Effect.logWithLevel(level, line), details))
    }
  }
}
