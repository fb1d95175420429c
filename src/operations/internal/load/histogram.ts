/**
 * A histogram of latencies that keeps every value to within a part in a thousand, whatever their number and their range.
 *
 * The buckets are log-linear, those of HdrHistogram: values below 2^(bits + 1) have a bucket each, and from there on every
 * power of two is divided into 2^bits equal ones. A bucket is thus never wider than its lower bound / 2^bits: 0.1 % at 10
 * bits. Values are whole microseconds; memory is 8 bytes a bucket up to the highest value, 180 kB at most for an hour.
 *
 * Our own, as it is a hundred lines without a dependency, and a histogram can be stored and compared bucket by bucket.
 */

/** Counters as they grow; only this module writes to them. */
export interface Histogram {
  readonly bits: number
  counts: Float64Array
  total: number
  /** Of the values as they were recorded. */
  sum: number
  min: number
  max: number
}

/** Three significant digits. */
export const precise = 10

/** About 51 days: what lasts longer is counted there, and `max` still tells its true length. */
const highest = 2 ** 42

export const make = (bits: number = precise): Histogram => ({
  bits,
  counts: new Float64Array(2 ** (bits + 1)),
  total: 0,
  sum: 0,
  min: Number.POSITIVE_INFINITY,
  max: 0
})

/** floor(log2(value)), without a rounding that could put a value into the next power. */
const exponent = (value: number): number =>
  value < 2 ** 31 ? 31 - Math.clz32(value) : 22 + 31 - Math.clz32(Math.floor(value / 2 ** 22))

/** The bucket of a whole number of microseconds. */
export const indexOf = (bits: number, value: number): number => {
  const size = 2 ** bits
  if (value < 2 * size) return value
  const shift = exponent(value) - bits
  return shift * size + Math.floor(value / 2 ** shift)
}

/** The lowest value of a bucket, and the highest. */
export const boundsOf = (bits: number, index: number): readonly [low: number, high: number] => {
  const size = 2 ** bits
  if (index < 2 * size) return [index, index]
  const shift = Math.floor(index / size) - 1
  const low = (index - shift * size) * 2 ** shift
  return [low, low + 2 ** shift - 1]
}

const add = (histogram: Histogram, index: number, count: number): void => {
  if (index >= histogram.counts.length) {
    const size = 2 ** histogram.bits
    const grown = new Float64Array(Math.ceil((index + 1) / size) * size)
    grown.set(histogram.counts)
    histogram.counts = grown
  }
  histogram.counts[index]! += count
}

/** One value, in microseconds; below zero it is taken for zero. */
export const record = (histogram: Histogram, micros: number): void => {
  const value = Math.max(0, Math.round(micros))
  add(histogram, indexOf(histogram.bits, Math.min(value, highest)), 1)
  histogram.total += 1
  histogram.sum += Math.max(0, micros)
  if (value < histogram.min) histogram.min = value
  if (value > histogram.max) histogram.max = value
}

/** Adds what `other` holds, as if its values had been recorded here. Both must have the same `bits`. */
export const merge = (into: Histogram, other: Histogram): void => {
  if (other.total === 0) return
  for (let index = 0; index < other.counts.length; index++) {
    const count = other.counts[index]!
    if (count > 0) add(into, index, count)
  }
  into.total += other.total
  into.sum += other.sum
  into.min = Math.min(into.min, other.min)
  into.max = Math.max(into.max, other.max)
}

/**
 * The value that `percent` of all values do not exceed, by nearest rank: the highest one of its bucket, and never more
 * than the highest recorded. 0 percent is the lowest. Of an empty histogram NaN.
 */
export const percentile = ({ bits, counts, max, min, total }: Histogram, percent: number): number => {
  if (total === 0) return Number.NaN
  if (percent <= 0) return min
  // 99.9 percent of 1,000 are 999, which binary fractions miss by a hair.
  const rank = Math.max(1, Math.ceil(Number(((percent * total) / 100).toPrecision(12))))
  let seen = 0
  for (let index = 0; index < counts.length; index++) {
    seen += counts[index]!
    if (seen >= rank) return Math.max(min, Math.min(max, boundsOf(bits, index)[1]))
  }
  return max
}

export const mean = ({ sum, total }: Histogram): number => sum / total

/** As plain data: `counts` has a bucket and its count in turn, buckets as the distance to the one before. */
export interface Encoded {
  readonly bits: number
  readonly counts: ReadonlyArray<number>
  readonly sum: number
  readonly min: number
  readonly max: number
}

export const encode = ({ bits, counts, max, min, sum, total }: Histogram): Encoded => {
  const pairs: Array<number> = []
  let before = 0
  for (let index = 0; index < counts.length; index++) {
    const count = counts[index]!
    if (count === 0) continue
    pairs.push(index - before, count)
    before = index
  }
  return { bits, counts: pairs, sum, min: total === 0 ? 0 : min, max }
}

/** What is wrong with data that claims to be a histogram, or undefined. */
export const faultOf = ({ bits, counts, max, min, sum }: Encoded): string | undefined => {
  if (!Number.isInteger(bits) || bits < 1 || bits > 14) return "bits is not an integer from 1 to 14"
  if (counts.length % 2 !== 0) return "counts does not hold pairs"
  if (!counts.every((value) => Number.isSafeInteger(value) && value >= 0)) return "counts holds no counts"
  const last = counts.reduce((at, step, n) => (n % 2 === 0 ? at + step : at), 0)
  if (last > indexOf(bits, highest)) return "counts has a bucket beyond the highest"
  if (![sum, min, max].every((value) => Number.isFinite(value) && value >= 0) || min > max)
    return "min, max or sum is off"
  return undefined
}

/** The histogram that was encoded; `encoded` must have no fault. */
export const decode = ({ bits, counts, max, min, sum }: Encoded): Histogram => {
  const histogram = make(bits)
  let index = 0
  for (let n = 0; n < counts.length; n += 2) {
    index += counts[n]!
    add(histogram, index, counts[n + 1]!)
    histogram.total += counts[n + 1]!
  }
  histogram.sum = sum
  if (histogram.total > 0) histogram.min = min
  histogram.max = max
  return histogram
}
