/** The recent past of counters that only ever rise: how much has happened between two readings, and how fast. Pure. */
import { above, type Figures, type Histogram, noHistogram } from "../../telemetry/internal/figures.js"

/** `at` in milliseconds. */
export interface Reading {
  readonly at: number
  readonly figures: Figures
}

/** What happened in a window. Times in milliseconds, 0 where nothing happened; shares from 0 to 1. */
export interface Window {
  readonly seconds: number
  readonly operations: number
  readonly perSecond: number
  readonly errorRate: number
  readonly averageQueryMs: number
  readonly p50Ms: number
  readonly p95Ms: number
  readonly p99Ms: number
  readonly slowQueries: number
  readonly slowShare: number
  readonly waitMs: number
  readonly timeouts: number
  readonly timeoutsPerMinute: number
  readonly retries: number
  readonly retryShare: number
  readonly leaks: number
  readonly openedPerMinute: number
}

/** A query that takes longer is slow, seconds. A boundary of the histogram. */
const slowSeconds = 1

/** A window keeps at most about this many readings, however often it is read. */
const readingsPerWindow = 60

/**
 * The readings that a window of `spanMs` needs after one more: those within it and the youngest before it. A reading that
 * follows another closely takes its place, so that their number stays bounded.
 */
export const remember = (
  readings: ReadonlyArray<Reading>,
  reading: Reading,
  spanMs: number
): ReadonlyArray<Reading> => {
  const past = readings.filter(({ at }) => at <= reading.at)
  const before = past.at(-2)
  const last = past.at(-1)
  const close = before !== undefined && last !== undefined && last.at - before.at < spanMs / readingsPerWindow
  const kept = close ? past.slice(0, -1) : past
  const first = kept.findLastIndex(({ at }) => at <= reading.at - spanMs)
  return [...kept.slice(Math.max(0, first)), reading]
}

/** What a counter gained. One that fell has begun again from 0. */
export const increase = (before: number, after: number): number => Math.max(0, after >= before ? after - before : after)

const gained = (before: Histogram, after: Histogram): Histogram => {
  if (after.count < before.count) return after
  const earlier = new Map(before.buckets)
  return {
    count: after.count - before.count,
    sum: increase(before.sum, after.sum),
    buckets: after.buckets.map(([bound, count]) => [bound, increase(earlier.get(bound) ?? 0, count)] as const)
  }
}

const joined = (a: Histogram, b: Histogram): Histogram => {
  const other = new Map(b.buckets)
  return a.count === 0
    ? b
    : {
        count: a.count + b.count,
        sum: a.sum + b.sum,
        buckets: a.buckets.map(([bound, count]) => [bound, count + (other.get(bound) ?? 0)] as const)
      }
}

/**
 * The value below which a share `q` of what was counted lies, taken as spread evenly within its bucket; the bound of the
 * last finite bucket for what lies above it. 0 where nothing was counted.
 */
export const quantile = ({ buckets, count }: Histogram, q: number): number => {
  const rank = q * count
  if (!(rank > 0)) return 0
  let lower = 0
  let below = 0
  for (const [bound, cumulative] of buckets) {
    if (cumulative >= rank) {
      if (!Number.isFinite(bound)) return lower
      return lower + (bound - lower) * Math.min(1, Math.max(0, (rank - below) / Math.max(1, cumulative - below)))
    }
    below = cumulative
    if (Number.isFinite(bound)) lower = bound
  }
  return lower
}

const counters = ["troubled", "silent", "interrupted", "timeouts", "opened", "retries", "leaks"] as const

const share = (part: number, whole: number) => (whole > 0 ? Math.min(1, part / whole) : 0)

/** All that happened from the first reading to the last, over every reading between, so that no reset hides anything. */
export const over = (readings: ReadonlyArray<Reading>): Window => {
  const sums: Record<(typeof counters)[number], number> = {
    troubled: 0,
    silent: 0,
    interrupted: 0,
    timeouts: 0,
    opened: 0,
    retries: 0,
    leaks: 0
  }
  let operations = noHistogram
  let waits = noHistogram
  for (let i = 1; i < readings.length; i++) {
    const before = readings[i - 1]!.figures
    const after = readings[i]!.figures
    for (const name of counters) sums[name] += increase(before[name], after[name])
    operations = joined(operations, gained(before.operations, after.operations))
    waits = joined(waits, gained(before.waits, after.waits))
  }
  const seconds = Math.max(0, ((readings.at(-1)?.at ?? 0) - (readings[0]?.at ?? 0)) / 1000)
  // Never more than there was: ten connections in the first second of a program are not six hundred a minute.
  const perMinute = (count: number) => (count * 60) / Math.max(60, seconds)
  const average = ({ count, sum }: Histogram) => (count > 0 ? (sum * 1000) / count : 0)
  const slowQueries = above(operations, slowSeconds)
  return {
    seconds,
    operations: operations.count,
    perSecond: seconds > 0 ? operations.count / seconds : 0,
    errorRate: share(sums.troubled + sums.silent, Math.max(0, operations.count - sums.interrupted) + sums.silent),
    averageQueryMs: average(operations),
    p50Ms: quantile(operations, 0.5) * 1000,
    p95Ms: quantile(operations, 0.95) * 1000,
    p99Ms: quantile(operations, 0.99) * 1000,
    slowQueries,
    slowShare: share(slowQueries, operations.count),
    waitMs: average(waits),
    timeouts: sums.timeouts,
    timeoutsPerMinute: perMinute(sums.timeouts),
    retries: sums.retries,
    retryShare: share(sums.retries, operations.count),
    leaks: sums.leaks,
    openedPerMinute: perMinute(sums.opened)
  }
}
