/** Ours with everything on against others: what is asked of it, and what is told of it. */
import { Option } from "effect"
import { bare, byHand, cockatiel, everything, pg } from "./names.js"
import { type Figure, type Measured, rows, series, shown, spread } from "./report.js"
import { median, ratio, type Spread } from "./statistics.js"

export type Bar = { readonly atLeast: number } | { readonly atMost: number }

export interface Comparison {
  readonly what: string
  /** Where it was measured. */
  readonly id: string
  readonly figure: Figure
  readonly against: string
  /** In times the other's. */
  readonly bar?: Bar
}

const reads = { what: "point reads a second, 20 fibers", id: "read/20", figure: "perSecond" } as const

export const bars: ReadonlyArray<Comparison> = [
  { ...reads, against: bare, bar: { atLeast: 1.5 } },
  { ...reads, against: pg, bar: { atLeast: 1 } },
  { ...reads, against: cockatiel, bar: { atLeast: 1.5 } },
  {
    what: "point reads a second, 100 fibers, 1 ms of added round trip",
    id: "read/100/delayed",
    figure: "perSecond",
    against: bare,
    bar: { atLeast: 3 }
  },
  {
    what: "transactions of three statements a second, 20 fibers",
    id: "transaction/20",
    figure: "perSecond",
    against: bare,
    bar: { atLeast: 1 }
  },
  {
    what: "p99, ms, point reads with 5 % slow queries mixed in, 20 fibers",
    id: "mixed/20",
    figure: "p99",
    against: bare,
    bar: { atMost: 1 }
  },
  { what: "CPU, µs a point read, 20 fibers", id: "read/20", figure: "cpu", against: byHand, bar: { atMost: 0.4 } }
]

/** Told, not asked. */
export const others: ReadonlyArray<Comparison> = [
  { what: "point reads a second, 1 fiber", id: "read/1", figure: "perSecond", against: bare },
  { what: "point reads a second, 100 fibers", id: "read/100", figure: "perSecond", against: bare },
  { what: "point reads a second, 1000 fibers", id: "read/1000", figure: "perSecond", against: bare },
  { ...reads, against: byHand },
  { ...reads, against: "postgres.js" },
  { what: "small inserts a second, 20 fibers", id: "insert/20", figure: "perSecond", against: bare },
  { what: "reads of 100 rows a second, 20 fibers", id: "rows/20", figure: "perSecond", against: bare },
  { what: "p99, ms, point reads, 20 fibers", id: "read/20", figure: "p99", against: bare },
  {
    what: "longest stop of the event loop, ms, point reads, 20 fibers",
    id: "read/20",
    figure: "loopDelay",
    against: bare
  },
  { what: "bytes allocated for a point read", id: "allocation", figure: "bytes", against: bare },
  { what: "bytes allocated for a point read", id: "allocation", figure: "bytes", against: byHand },
  {
    what: `connections to read as much as \`${bare}\` with 10, 1 ms of added round trip`,
    id: "size",
    figure: "size",
    against: bare
  },
  { what: "after a restart, ms until 20 reads in a row succeed", id: "recovery", figure: "recovered", against: bare },
  { what: "reads that fail during a restart", id: "recovery", figure: "failed", against: bare },
  { what: "bytes held by a fiber that waits, 10,000 of them", id: "waiting", figure: "held", against: bare },
  { what: "bytes held by a fiber that waits, 10,000 of them", id: "waiting", figure: "held", against: byHand }
]

export interface Compared {
  readonly ours: number
  readonly theirs: number
  readonly times: Spread
}

/** None where one of the two was not measured. */
export const compare = (all: ReadonlyArray<Measured>, { against, figure, id }: Comparison): Option.Option<Compared> =>
  Option.flatMap(Option.fromNullable(all.find((measured) => measured.id === id)), (measured) => {
    const ours = series(measured, everything, figure)
    const theirs = series(measured, against, figure)
    return ours.length === 0 || theirs.length === 0
      ? Option.none()
      : Option.some({ ours: median(ours), theirs: median(theirs), times: ratio(ours, theirs) })
  })

/** By the median as it is shown, with two digits: what reads as the bar itself has reached it. */
export const reached = (bar: Bar, { median }: Spread): boolean => {
  const read = Number(median.toFixed(2))
  return "atLeast" in bar ? read >= bar.atLeast : read <= bar.atMost
}

const asked = (bar: Bar) => ("atLeast" in bar ? `at least ${bar.atLeast}` : `at most ${bar.atMost}`)

/** One table of comparisons, for the end of a run and for the README. */
export const comparisons = (all: ReadonlyArray<Measured>, compared: ReadonlyArray<Comparison>): string =>
  rows(
    ["what", "against", "ours", "theirs", "times theirs (lowest to highest)", "asked", "reached"],
    2,
    compared.map((comparison) => {
      const { against, bar, what } = comparison
      const figures = Option.match(compare(all, comparison), {
        onNone: () => ["–", "–", "not measured"],
        onSome: ({ ours, theirs, times }) => [shown(ours), shown(theirs), spread(times)]
      })
      const verdict = Option.match(compare(all, comparison), {
        onNone: () => "–",
        onSome: ({ times }) => (bar === undefined ? "" : reached(bar, times) ? "yes" : "no")
      })
      return [what, `\`${against}\``, ...figures, bar === undefined ? "" : asked(bar), verdict]
    })
  )
