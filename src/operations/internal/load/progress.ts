/** How far a load test is, and how long it will take from here. Pure. */
import { milliseconds, quantity, time } from "./format.js"

export interface Progress {
  readonly phase: "warming up" | "measuring" | "finishing"
  /** From the beginning, milliseconds. */
  readonly elapsedMs: number
  /** Ended and measured, of `expected` where there is a number to reach. */
  readonly done: number
  readonly expected: number | undefined
  readonly failed: number
  /** Ended a second, since measuring began. */
  readonly rate: number
  /** Response time of what succeeded, milliseconds; NaN while nothing has. */
  readonly p99: number
  /** From 0 to 1. */
  readonly fraction: number
  /** Milliseconds, undefined while nobody can tell. */
  readonly etaMs: number | undefined
}

export interface Known {
  readonly elapsed: number
  readonly warmUp: number
  /** `Infinity` where there is no such bound. */
  readonly end: number
  readonly expected: number
  readonly done: number
  readonly failed: number
  readonly p99: number
}

/** A test ends by the bound that is reached first, and so does the estimate. */
export const of = ({ done, elapsed, end, expected, failed, p99, warmUp }: Known): Progress => {
  const measuring = Math.max(0, elapsed - warmUp)
  const rate = measuring > 0 ? (done * 1000) / measuring : 0
  const byCount =
    rate > 0 ? ((expected - done) / rate) * 1000 + Math.max(0, warmUp - elapsed) : Number.POSITIVE_INFINITY
  const eta = Math.max(0, Math.min(end - elapsed, byCount))
  const shares = [done / expected, elapsed / end].filter(Number.isFinite)
  return {
    phase: elapsed < warmUp ? "warming up" : elapsed >= end || done >= expected ? "finishing" : "measuring",
    elapsedMs: elapsed,
    done,
    expected: Number.isFinite(expected) ? expected : undefined,
    failed,
    rate,
    p99,
    fraction: Math.min(1, Math.max(0, ...shares)),
    etaMs: Number.isFinite(eta) ? eta : undefined
  }
}

const width = 20

/** `███████░░░`, and what there is to know, what matters most first, on one line of at most `columns`. */
export const line = (progress: Progress, columns: number, drawn: boolean): string => {
  const { done, elapsedMs, etaMs, expected, failed, fraction, p99, phase, rate } = progress
  const full = Math.round(fraction * width)
  const words = [
    `${Math.floor(fraction * 100)} %`,
    phase === "measuring" ? undefined : phase,
    etaMs === undefined ? undefined : `${time(etaMs)} left`,
    `${quantity(done)}${expected === undefined ? "" : ` of ${quantity(expected)}`}`,
    `${quantity(Math.round(rate))}/s`,
    Number.isNaN(p99) ? undefined : `p99 ${milliseconds(p99)}`,
    `${quantity(failed)} failed`,
    time(elapsedMs)
  ].filter((word) => word !== undefined)
  const text = `${drawn ? `${"█".repeat(full)}${"░".repeat(width - full)} ` : ""}${words.join(" · ")}`
  return text.slice(0, Math.max(1, columns))
}
