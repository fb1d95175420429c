/** Where a figure is heading: straight lines through its recent past, by least squares. Pure. */

/** `at` in milliseconds. */
export interface Point {
  readonly at: number
  readonly value: number
}

export interface Line {
  /** The value at the latest point, and its change per second, as the line has them. */
  readonly now: number
  readonly perSecond: number
  /** The value at the earliest point, as the line has it. */
  readonly start: number
  /** How much of the values' variation the line explains, from 0 to 1. */
  readonly fit: number
}

/** Fewer points than this are a coincidence. */
export const fewest = 4

/** A line that explains less than half of what it sees is not one to go by. */
const leastFit = 0.5

/** Undefined with too few finite points, or with all of them at one time. */
export const line = (points: ReadonlyArray<Point>): Line | undefined => {
  const sound = points.filter(({ at, value }) => Number.isFinite(at) && Number.isFinite(value))
  const last = sound.at(-1)
  if (sound.length < fewest || last === undefined) return undefined
  // Times relative to the latest: squares of milliseconds since the epoch would eat up the precision.
  const xs = sound.map(({ at }) => (at - last.at) / 1000)
  const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / values.length
  const mx = mean(xs)
  const my = mean(sound.map(({ value }) => value))
  let xx = 0
  let xy = 0
  let yy = 0
  sound.forEach(({ value }, i) => {
    const dx = xs[i]! - mx
    const dy = value - my
    xx += dx * dx
    xy += dx * dy
    yy += dy * dy
  })
  if (!(xx > 0) || !Number.isFinite(xx + yy)) return undefined
  const perSecond = xy / xx
  const at = (x: number) => my + perSecond * (x - mx)
  // A flat line leaves nothing to explain.
  return { now: at(0), start: at(Math.min(...xs)), perSecond, fit: yy === 0 ? 1 : Math.min(1, (xy * xy) / (xx * yy)) }
}

/**
 * Seconds until the line reaches `limit` from below: 0 where the latest value is there already; undefined where it is not
 * rising, or the points are too few or too scattered to say.
 */
export const secondsUntil = (points: ReadonlyArray<Point>, limit: number): number | undefined => {
  const last = points.at(-1)
  if (last !== undefined && last.value >= limit) return 0
  const found = line(points)
  if (found === undefined || found.fit < leastFit || !(found.perSecond > 0)) return undefined
  const seconds = Math.max(0, (limit - found.now) / found.perSecond)
  return Number.isFinite(seconds) ? seconds : undefined
}

/**
 * How many times its value at the start a latency is now, by the line: 2 is twice as slow, 1 is steady. What starts below
 * `floor` counts as `floor`, so that a tenth of a millisecond that became three is no alarm. Undefined as `secondsUntil`;
 * points too scattered for a line, or falling, are steady.
 */
export const drift = (points: ReadonlyArray<Point>, floor: number): number | undefined => {
  const found = line(points)
  if (found === undefined) return undefined
  if (found.fit < leastFit || found.perSecond <= 0) return 1
  return Math.max(1, found.now / Math.max(floor, found.start))
}

/** The least number of connections opened per minute that is called a storm, however small the pool. */
const leastStorm = 10

/** Whether connections come and go so fast that each of the pool is opened twice a minute or more. */
export const isStorm = (openedPerMinute: number, max: number): boolean =>
  openedPerMinute >= Math.max(leastStorm, 2 * Math.max(0, Number.isFinite(max) ? max : 0))
