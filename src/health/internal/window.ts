/** The recent past of counters that only ever rise: how much has happened between two readings, and how fast. Pure. */
import {
  above,
  addHistograms,
  type Figures,
  type Histogram,
  type Named,
  noHistogram,
  slowSeconds
} from "../../telemetry/internal/figures.js"

/** `at` in milliseconds. */
export interface Reading {
  readonly at: number
  readonly figures: Figures
}

/** Of one name: attempts that took over a second, and what all of its attempts took on average. */
export interface SlowOperation {
  readonly operation: string
  readonly count: number
  readonly averageMs: number
}

/** What happened in a window. Times in milliseconds, 0 where nothing happened; shares from 0 to 1. */
export interface Window {
  readonly seconds: number
  /** Attempts that were sent. */
  readonly operations: number
  readonly perSecond: number
  readonly errorRate: number
  /** Attempts that failed, by tag: also those that there was no connection for. */
  readonly errors: Readonly<Record<string, number>>
  readonly averageQueryMs: number
  readonly p50Ms: number
  readonly p95Ms: number
  readonly p99Ms: number
  readonly slowQueries: number
  readonly slowShare: number
  /** Which operations took over a second: at most ten, those that did so most often first. */
  readonly slowest: ReadonlyArray<SlowOperation>
  readonly waitMs: number
  readonly timeouts: number
  readonly timeoutsPerMinute: number
  readonly retries: number
  readonly retryShare: number
  readonly leaks: number
  readonly openedPerMinute: number
}

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

/** At most so many are named. */
const slowestNamed = 10

/** Of each name, what it gained between two readings, added to what it had. */
const addNamed = (sums: Map<string, Named>, before: Figures["byName"], after: Figures["byName"]) => {
  for (const [name, now] of after) {
    const earlier = before.get(name)
    const gain = (figure: keyof Named) => increase(earlier?.[figure] ?? 0, now[figure])
    const sum = sums.get(name)
    sums.set(name, {
      count: (sum?.count ?? 0) + gain("count"),
      sum: (sum?.sum ?? 0) + gain("sum"),
      slow: (sum?.slow ?? 0) + gain("slow")
    })
  }
}

const slowestOf = (sums: ReadonlyMap<string, Named>): ReadonlyArray<SlowOperation> =>
  Array.from(sums)
    .filter(([, { slow }]) => slow > 0)
    .sort(([, a], [, b]) => b.slow - a.slow || b.sum - a.sum)
    .slice(0, slowestNamed)
    .map(([operation, { count, slow, sum }]) => ({ operation, count: slow, averageMs: (1000 * sum) / count }))

const counters = ["troubled", "unserved", "silent", "interrupted", "timeouts", "opened", "retries", "leaks"] as const

const share = (part: number, whole: number) => (whole > 0 ? Math.min(1, part / whole) : 0)

/** All that happened from the first reading to the last, over every reading between, so that no reset hides anything. */
export const over = (readings: ReadonlyArray<Reading>): Window => {
  const sums: Record<(typeof counters)[number], number> = {
    troubled: 0,
    unserved: 0,
    silent: 0,
    interrupted: 0,
    timeouts: 0,
    opened: 0,
    retries: 0,
    leaks: 0
  }
  let operations = noHistogram
  let waits = noHistogram
  const errors = new Map<string, number>()
  const named = new Map<string, Named>()
  for (let i = 1; i < readings.length; i++) {
    const before = readings[i - 1]!.figures
    const after = readings[i]!.figures
    for (const name of counters) sums[name] += increase(before[name], after[name])
    operations = addHistograms(operations, gained(before.operations, after.operations))
    waits = addHistograms(waits, gained(before.waits, after.waits))
    addNamed(named, before.byName, after.byName)
    for (const [tag, count] of after.errors) {
      const more = increase(before.errors.get(tag) ?? 0, count)
      if (more > 0) errors.set(tag, (errors.get(tag) ?? 0) + more)
    }
  }
  const seconds = Math.max(0, ((readings.at(-1)?.at ?? 0) - (readings[0]?.at ?? 0)) / 1000)
  // Never more than there was: ten connections in the first second of a program are not six hundred a minute.
  const perMinute = (count: number) => (count * 60) / Math.max(60, seconds)
  const average = ({ count, sum }: Histogram) => (count > 0 ? (sum * 1000) / count : 0)
  const attempts = operations.count + sums.unserved
  const slowQueries = above(operations, slowSeconds)
  return {
    seconds,
    operations: operations.count,
    perSecond: seconds > 0 ? operations.count / seconds : 0,
    errorRate: share(sums.troubled + sums.silent, Math.max(0, attempts - sums.interrupted) + sums.silent),
    errors: Object.fromEntries(errors),
    averageQueryMs: average(operations),
    p50Ms: quantile(operations, 0.5) * 1000,
    p95Ms: quantile(operations, 0.95) * 1000,
    p99Ms: quantile(operations, 0.99) * 1000,
    slowQueries,
    slowShare: share(slowQueries, operations.count),
    slowest: slowestOf(named),
    waitMs: average(waits),
    timeouts: sums.timeouts,
    timeoutsPerMinute: perMinute(sums.timeouts),
    retries: sums.retries,
    retryShare: share(sums.retries, attempts),
    leaks: sums.leaks,
    openedPerMinute: perMinute(sums.opened)
  }
}
