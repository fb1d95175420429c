/** What the README says of a run: the machine in a sentence, one table, one plot. */
import { bars, comparisons, others } from "./bars.js"
import { alone, bare, everything } from "./names.js"
import { type Column, plot } from "./plot.js"
import { type Measured, series } from "./report.js"
import { ratio } from "./statistics.js"

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly node: string
  readonly postgres: string
  /** ISO 8601. */
  readonly date: string
  readonly command: string
  readonly rounds: number
}

const begin = "<!-- bench -->"
const end = "<!-- /bench -->"

/** The text with what stands between the two marks replaced. Fails where they are not there, in order. */
export const replaced = (readme: string, content: string): string => {
  const [from, to] = [readme.indexOf(begin), readme.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`README.md has no ${begin} … ${end}`)
  return `${readme.slice(0, from + begin.length)}\n\n${content}\n\n${readme.slice(to)}`
}

const columns = [
  { id: "read/20", title: "Point reads, 20 fibers", where: "loopback" },
  { id: "read/100/delayed", title: "Point reads, 100 fibers", where: "1 ms of added round trip" },
  { id: "transaction/20", title: "Transactions, 20 fibers", where: "loopback" }
] as const

const timesOf = (all: ReadonlyArray<Measured>, id: string): Column["times"] => {
  const measured = all.find((_) => _.id === id)
  if (measured === undefined) return new Map()
  const standard = series(measured, bare, "perSecond")
  return new Map(
    Array.from(measured.rounds.keys(), (name) => [name, ratio(series(measured, name, "perSecond"), standard)])
  )
}

const title = `Throughput, in times that of ${bare}`

/** The plot as SVG. */
export const picture = (all: ReadonlyArray<Measured>): string => {
  const drawn = columns.map(({ id, title, where }) => ({ title, where, times: timesOf(all, id) }))
  const contenders = [...new Set(drawn.flatMap(({ times }) => [...times.keys()]))]
  const words = drawn.map(({ times, title, where }) => {
    const each = Array.from(times, ([name, { median }]) => `${name} ${median.toFixed(2)}`)
    return `${title}, ${where}: ${each.length === 0 ? "not measured" : each.join(", ")}.`
  })
  return plot({
    title,
    words: words.join(" "),
    note: "Bars: medians of the rounds. Whiskers: lowest to highest. Longer is faster. The dashed line is 1. Each column has a scale of its own.",
    columns: drawn,
    contenders,
    emphasis: new Set([alone, everything])
  })
}

/** `file` is the plot's, as the README finds it. */
export const chapter = (all: ReadonlyArray<Measured>, machine: Machine, file: string): string => {
  const { command, cores, cpu, date, node, postgres, rounds } = machine
  return [
    `${date}, ${cores} × ${cpu}, Node ${node}, PostgreSQL ${postgres} on the same machine, \`${command}\`: medians of ${rounds} rounds.`,
    comparisons(all, [...bars, ...others]),
    `![${title}: point reads by 20 fibers, by 100 fibers with 1 ms of added round trip, and transactions; the table has the main figures](${file})`
  ].join("\n\n")
}
