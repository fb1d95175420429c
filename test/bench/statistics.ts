/** Few numbers from many. */
import { Array as Arr, Order } from "effect"

/** The mean of the middle two where there is no middle one. NaN of none. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = Arr.sort(values, Order.number)
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[sorted.length / 2 - 1] ?? Number.NaN)) / 2
}

/** `sorted` ascending; `q` from 0 to 1. */
export const quantile = (sorted: ArrayLike<number>, q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN

export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
}

/** Round by round, as many times as the other's: what slows the machine down slows both down in one round. */
export const ratio = (values: ReadonlyArray<number>, others: ReadonlyArray<number>): Spread => {
  const ratios = Arr.zipWith(values, others, (a, b) => a / b)
  return { median: median(ratios), low: Math.min(...ratios), high: Math.max(...ratios) }
}

/** Of garbage. */
interface Collection {
  /** Sizes of the heap, bytes. */
  readonly before: number
  readonly after: number
}

/** What was allocated, from the size at the beginning to that at the end, through collections in order. */
export const grown = (begin: number, collections: ReadonlyArray<Collection>, end: number): number =>
  collections.reduce(({ since, sum }, { after, before }) => ({ since: after, sum: sum + before - since }), {
    since: begin,
    sum: 0
  }).sum +
  (end - (collections.at(-1)?.after ?? begin))
