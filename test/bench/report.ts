/** What was measured, as Markdown. */
import { Array as Arr, Option } from "effect"
import { bare } from "./names.js"
import { median, ratio, type Spread } from "./statistics.js"

/** Every figure there is, as a table heads it. */
const headings = {
  perSecond: "per second",
  cpu: "CPU, µs each",
  p50: "p50 ms",
  p99: "p99 ms",
  p999: "p99.9 ms",
  loopDelay: "event loop, ms",
  bytes: "bytes each",
  collections: "collections",
  size: "connections",
  recovered: "back after, ms",
  failed: "reads that failed",
  held: "bytes each"
} as const

export type Figure = keyof typeof headings

/** Of one round of one contender. */
export type Figures = { readonly [F in Figure]?: number }

/** By contender, its rounds. */
export type Rounds = ReadonlyMap<string, ReadonlyArray<Figures>>

export interface Measured {
  /** For those who look for it in all that was measured. */
  readonly id: string
  readonly title: string
  /** In the order of the columns. The first is the one that is compared. */
  readonly figures: Arr.NonEmptyReadonlyArray<Figure>
  readonly rounds: Rounds
}

/** Of one contender, round by round. Empty where it was not measured. */
export const series = ({ rounds }: Measured, name: string, figure: Figure): ReadonlyArray<number> =>
  Arr.filterMap(rounds.get(name) ?? [], (round) => Option.fromNullable(round[figure]))

/** Three figures of what is small, whole numbers of what is large. */
export const shown = (value: number): string =>
  Number.isNaN(value)
    ? "–"
    : !Number.isFinite(value)
      ? "not reached"
      : Number.isInteger(value) || value >= 100
        ? Math.round(value).toLocaleString("en")
        : value.toPrecision(3).slice(0, value < 10 ? 4 : 5)

export const spread = ({ high, low, median }: Spread): string =>
  Number.isFinite(median) ? `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})` : "–"

export const rows = (head: ReadonlyArray<string>, left: number, body: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map((_, column) => (column < left ? "---" : "---:")), ...body]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n")

/** All contenders by all figures, with the ratios of the first figure to the standard's. */
export const table = (measured: Measured, standard: string = bare): string => {
  const { figures, rounds, title } = measured
  const [main, ...others] = figures
  const cell = (name: string, figure: Figure) => shown(median(series(measured, name, figure)))
  const times = (name: string) => spread(ratio(series(measured, name, main), series(measured, standard, main)))
  const body = Array.from(rounds.keys(), (name) => [
    name,
    cell(name, main),
    times(name),
    ...others.map((figure) => cell(name, figure))
  ])
  const head = ["contender", headings[main], `times ${standard} (lowest to highest)`]
  return `### ${title}\n\n${rows([...head, ...others.map((figure) => headings[figure])], 1, body)}\n`
}
