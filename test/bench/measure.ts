/** How fast, how late and how dear: contenders in alternation, and of each round's figures the median. */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { Array as Arr, Effect, Order } from "effect"
import { type Contender, latencies, type Workload } from "./contenders.js"

/** One round of one contender. Times of latencies in milliseconds. */
export interface Figures {
  readonly perSecond: number
  /** Microseconds of all threads of this process, a piece of work. */
  readonly cpu: number
  readonly p50: number
  readonly p99: number
  readonly p999: number
  /** The longest that the event loop was kept from going on. */
  readonly loopDelay: number
}

export const median = (values: ReadonlyArray<number>): number =>
  Arr.sort(values, Order.number)[Math.floor(values.length / 2)] ?? Number.NaN

const quantile = (sorted: ReadonlyArray<number>, q: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN

const once = async (contender: Contender, workers: number, pieces: number, workload: Workload): Promise<Figures> => {
  const delay = monitorEventLoopDelay({ resolution: 5 })
  delay.enable()
  const cpu = process.cpuUsage()
  const since = performance.now()
  await contender.drive(workers, pieces, workload)
  const elapsed = performance.now() - since
  const { system, user } = process.cpuUsage(cpu)
  delay.disable()
  const taken = Arr.sort(latencies.taken, Order.number)
  return {
    perSecond: (1000 * pieces) / elapsed,
    cpu: (user + system) / pieces,
    p50: quantile(taken, 0.5),
    p99: quantile(taken, 0.99),
    p999: quantile(taken, 0.999),
    loopDelay: delay.max / 1e6
  }
}

export interface Setting {
  readonly workload: Workload
  readonly workers: number
  readonly pieces: number
}

/** By contender, its rounds. The first two of each warm up and are not counted. */
export const alternate = (contenders: ReadonlyArray<Contender>, setting: Setting, rounds: number) =>
  Effect.promise(async () => {
    const { pieces, workers, workload } = setting
    const all = new Map<string, Array<Figures>>(contenders.map(({ name }) => [name, []]))
    for (let round = -2; round < rounds; round++) {
      for (const contender of contenders) {
        const figures = await once(contender, workers, pieces, workload)
        if (round >= 0) all.get(contender.name)!.push(figures)
      }
    }
    return all as ReadonlyMap<string, ReadonlyArray<Figures>>
  })

/** Round by round, as many times as the other's: the median, the lowest and the highest. */
export const ratio = (
  figures: ReadonlyArray<Figures>,
  other: ReadonlyArray<Figures>,
  of: (figures: Figures) => number
): { readonly median: number; readonly low: number; readonly high: number } => {
  const ratios = Arr.zipWith(figures, other, (a, b) => of(a) / of(b))
  return { median: median(ratios), low: Math.min(...ratios), high: Math.max(...ratios) }
}
