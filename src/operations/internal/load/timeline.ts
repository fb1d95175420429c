/**
 * What happened over time, in a bounded number of pieces however long a test lasts: when there is no more room, two
 * neighbours become one, and a piece is twice as long from then on.
 */
import type * as CircuitBreaker from "../../../policy/CircuitBreaker.js"
import * as Histogram from "./histogram.js"

/** Pieces of a timeline, and samples, at most. Even. */
export const most = 240

/** Of a new timeline, milliseconds. */
export const firstWidth = 100

/** Three percent are enough for a plot, and make a piece a kilobyte or two. */
const bits = 5

interface Piece {
  errors: number
  /** Of what succeeded. */
  readonly latencies: Histogram.Histogram
}

export interface Timeline {
  /** Milliseconds that a piece covers. */
  width: number
  /** Without gaps: the n-th is from n · width on. */
  pieces: Array<Piece>
}

export const make = (): Timeline => ({ width: firstWidth, pieces: [] })

const empty = (): Piece => ({ errors: 0, latencies: Histogram.make(bits) })

const joined = (one: Piece, other: Piece | undefined): Piece => {
  if (other === undefined) return one
  Histogram.merge(one.latencies, other.latencies)
  one.errors += other.errors
  return one
}

/** One operation that ended `at` milliseconds after the beginning; `latency` in milliseconds, undefined if it failed. */
export const record = (timeline: Timeline, at: number, latency: number | undefined): void => {
  while (at >= timeline.width * most) {
    timeline.pieces = timeline.pieces.flatMap((piece, n, all) => (n % 2 === 0 ? [joined(piece, all[n + 1])] : []))
    timeline.width *= 2
  }
  const index = Math.floor(Math.max(0, at) / timeline.width)
  while (timeline.pieces.length <= index) timeline.pieces.push(empty())
  const piece = timeline.pieces[index]!
  if (latency === undefined) piece.errors += 1
  else Histogram.record(piece.latencies, latency * 1000)
}

/** Times in milliseconds; `at` is where it begins. Latencies are null where nothing succeeded. */
export interface Interval {
  readonly at: number
  readonly width: number
  readonly succeeded: number
  readonly errors: number
  readonly p50: number | null
  readonly p99: number | null
  readonly max: number | null
}

/** Its pieces; the last one ends at `end`, if that is within it. */
export const intervals = ({ pieces, width }: Timeline, end: number): ReadonlyArray<Interval> =>
  pieces.map(({ errors, latencies }, n) => {
    const millis = (percent: number) => (latencies.total === 0 ? null : Histogram.percentile(latencies, percent) / 1000)
    return {
      at: n * width,
      width: n === pieces.length - 1 ? Math.max(Math.min(width, end - n * width), 1) : width,
      succeeded: latencies.total,
      errors,
      p50: millis(50),
      p99: millis(99),
      max: latencies.total === 0 ? null : latencies.max / 1000
    }
  })

/** Pool and breaker at one moment, milliseconds after the beginning; null where the test has none. */
export interface Sample {
  readonly at: number
  readonly pool: {
    readonly max: number
    readonly total: number
    readonly idle: number
    readonly used: number
    readonly connecting: number
    readonly waiting: number
  } | null
  readonly breaker: CircuitBreaker.State | null
}

const severity: { readonly [State in CircuitBreaker.State]: number } = {
  Closed: 0,
  ForcedClosed: 0,
  HalfOpen: 1,
  Open: 2,
  ForcedOpen: 2
}

/** Of two samples the one under more strain, so that no peak gets lost. */
const worse = (one: Sample, other: Sample | undefined): Sample => {
  if (other === undefined) return one
  const strain = ({ breaker, pool }: Sample) =>
    [breaker === null ? 0 : severity[breaker], pool?.waiting ?? 0, pool?.used ?? 0] as const
  const [a, b] = [strain(one), strain(other)]
  const decided = a.findIndex((value, n) => value !== b[n])
  return decided === -1 || a[decided]! > b[decided]! ? one : other
}

/** Samples so far, and every how many-th of those offered is a new one: the others only count if they are worse. */
export interface Samples {
  all: Array<Sample>
  every: number
  offered: number
}

export const makeSamples = (): Samples => ({ all: [], every: 1, offered: 0 })

export const offer = (samples: Samples, sample: Sample): void => {
  if (samples.offered % samples.every === 0) {
    if (samples.all.length === most) {
      samples.all = samples.all.flatMap((one, n, all) => (n % 2 === 0 ? [worse(one, all[n + 1])] : []))
      samples.every *= 2
    }
    samples.all.push(sample)
  } else samples.all[samples.all.length - 1] = worse(samples.all.at(-1)!, sample)
  samples.offered += 1
}
