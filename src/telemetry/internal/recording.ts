/**
 * The last stage: what the others tell, as metrics and log lines. Synchronous, and asks nothing back. A log line names
 * operations, tags and durations, never a statement or a value.
 */
import * as LogLevel from "effect/LogLevel"
import type * as Tracer from "effect/Tracer"
import type { Settled } from "../../client/internal/cancel.js"
import type { Recorder } from "../../client/internal/stages.js"
import type * as Pool from "../../client/Pool.js"
import { classify } from "../../error/classify.js"
import type * as PgError from "../../error/PgError.js"
import type * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import type * as RetryBudget from "../../policy/RetryBudget.js"
import type { PoolMetrics } from "../Metrics.js"
import type { LogLines } from "./logLines.js"

export interface Recording {
  readonly stages: Recorder
  readonly pool: (snapshot: () => Pool.Snapshot) => Omit<Pool.Listener, "server">
  readonly server: Pool.Listener["server"]
  readonly breaker: (change: CircuitBreaker.Change) => void
  readonly budget: (snapshot: RetryBudget.Snapshot) => void
  /** An operation ran out of its time. */
  readonly expired: (operation: string | undefined) => void
  readonly settled: (result: Settled) => void
  readonly settingsRefused: () => void
  readonly poolerFound: () => void
  readonly listenLost: (error: PgError.PgError) => void
}

/** Evictions that are part of a quiet life. */
const routine = new Set<Pool.EvictionReason>(["idle", "lifetime", "uses", "surplus", "closing"])

const round = (seconds: number) => Math.round(seconds * 1000) / 1000

export const make = ({
  log,
  metrics,
  slowQuerySeconds
}: {
  readonly metrics: PoolMetrics
  readonly log: LogLines
  readonly slowQuerySeconds: number
}): Recording => {
  /** What was said last of a server that there is no connection to. */
  let trouble: "lost" | "refuses" | undefined
  return {
    stages: {
      attempt: (operation, command, seconds, failure) => {
        metrics.operation(operation?.name ?? command, seconds, failure)
        if (seconds >= slowQuerySeconds) {
          log.say(LogLevel.Warning, "slow", "Slow query", {
            operation: operation?.name ?? command,
            seconds: round(seconds),
            ...(failure === undefined ? {} : { error: failure })
          })
        }
      },
      unserved: (error) => metrics.unserved(error._tag),
      retry: (error) => metrics.retry(error._tag),
      retryRefused: (error) =>
        log.say(LogLevel.Warning, "budget", "Retry budget exhausted: failed at once", { error: error._tag }),
      interruptedWrite: (operation, what) => {
        log.say(LogLevel.Warning, "interrupted", `A ${what} in flight was interrupted: it may have been applied`, {
          operation: operation?.name ?? what
        })
      },
      streamLost: (error) =>
        log.say(LogLevel.Error, "stream", "A stream was left before its end, and what its query wrote was not stored", {
          error: error === undefined ? "rolled back" : classify(error).message
        }),
      outcomeUnknown: (error) => {
        metrics.outcomeUnknown(error.reason._tag)
        log.say(LogLevel.Error, "unknown", "Outcome unknown: a write may or may not have been applied", {
          operation: error.operation ?? "unnamed",
          error: error.reason._tag,
          phase: error.phase
        })
      },
      transaction: metrics.transaction,
      settled: metrics.settled
    },
    pool: (snapshot) => {
      let scheduled = false
      return {
        connected: metrics.connected,
        waited: metrics.waited,
        used: metrics.used,
        timedOut: metrics.acquireTimeout,
        // Figures change several times per statement; they are read once per turn of the event loop.
        changed: () => {
          if (scheduled) return
          scheduled = true
          setImmediate(() => {
            scheduled = false
            const { idle, total, waiting } = snapshot()
            metrics.pool({ idle, used: total - idle, pending: waiting })
          })
        },
        evicted: (reason, cause) => {
          metrics.evicted(reason)
          if (routine.has(reason)) return
          const error = cause === undefined ? undefined : classify(cause, { phase: "Acquire" })
          log.say(LogLevel.Info, `evicted ${reason}`, "Connection evicted", {
            reason,
            ...(error === undefined ? {} : { error: error.message })
          })
        },
        held: (span: Tracer.AnySpan | undefined, seconds) => {
          metrics.leak()
          log.say(LogLevel.Warning, "held", "Connection held for long", {
            seconds: round(seconds),
            span: span === undefined ? "none" : span._tag === "Span" ? `${span.name} ${span.spanId}` : span.spanId
          })
        }
      }
    },
    server: (error, awaySeconds) => {
      const before = trouble
      if (error !== undefined) {
        trouble = error.transient ? "lost" : "refuses"
        if (trouble === before) return
        // The server may be in the best of health: somebody has to mend the password, the name or the set-up.
        const said = error.transient ? "Server lost" : "Connections are refused; waiting does not mend this"
        log.say(LogLevel.Error, `server ${trouble}`, said, { error: error._tag, reason: error.message })
      } else if (before !== undefined) {
        trouble = undefined
        const said = before === "lost" ? "Server back" : "Connections are accepted again"
        log.say(LogLevel.Info, `server ${before} no more`, said, { awaySeconds: round(awaySeconds) })
      }
    },
    breaker: ({ cause, from, reason, to }) => {
      metrics.breaker(from, to)
      log.say(
        to === "Open" || to === "ForcedOpen" ? LogLevel.Warning : LogLevel.Info,
        `breaker ${to}`,
        "Circuit breaker",
        {
          from,
          to,
          reason,
          ...(cause.length === 0 ? {} : { cause: cause.join(", ") })
        }
      )
    },
    budget: ({ allowed, retrying }) => metrics.budget(retrying, allowed),
    expired: (operation) => metrics.operationTimeout(operation ?? "transaction"),
    settled: metrics.cancel,
    settingsRefused: () =>
      log.say(LogLevel.Warning, "settings", "The server takes no limits when connecting (a pooler?)", {
        instead: "serverTimeouts go into each BEGIN, and hold in transactions only"
      }),
    poolerFound: () =>
      log.say(LogLevel.Warning, "pooler", "Prepared statements come and go on their own (a pooler?)", {
        instead: "statements are parsed each time from now on; `preparedStatements: false` says so from the beginning"
      }),
    listenLost: (error) =>
      log.say(LogLevel.Warning, "listen", "LISTEN connection lost, connecting again", { error: error.message })
  }
}

/** The breaker's options, with our observer beside the program's own. */
export const observed = (
  options: CircuitBreaker.Options,
  tell: (change: CircuitBreaker.Change) => void
): CircuitBreaker.Options => ({
  ...options,
  onChange: (change) => {
    tell(change)
    options.onChange?.(change)
  }
})
