/** The plots of a report: which figures go together, and what there is to say about each. Pure. */
import { milliseconds, quantity, time } from "./format.js"
import * as Plot from "./plot.js"
import { type Latency, percentileOf, type Result } from "./result.js"

/** Where a percentile is drawn: each further nine (p90, p99, p99.9) has the same room. */
const nines = (percent: number): number => -Math.log10(1 - percent / 100)

const perSecond = (value: number) => `${quantity(value)}/s`

/** Seconds with as many digits as a short test needs. */
const clock = (millis: number): string =>
  millis === 0
    ? "0"
    : millis < 1000
      ? `${quantity(millis)} ms`
      : millis % 1000 === 0
        ? time(millis)
        : milliseconds(millis)

const between = (values: ReadonlyArray<number>, format: (value: number) => string): string =>
  values.length === 0
    ? "nothing was measured"
    : `between ${format(Math.min(...values))} and ${format(Math.max(...values))}`

const known = (values: ReadonlyArray<number | null>): ReadonlyArray<number> =>
  values.filter((value): value is number => value !== null)

const percentileName = (percent: number) => (percent === 0 ? "min" : percent === 100 ? "max" : `p${percent}`)

const curveTicks = [0, 50, 90, 99, 99.9, 99.99, 99.999] as const

/** Latency by percentile. */
const percentilesFigure = ({ total }: Result, before: Result | undefined): string => {
  const curves = [
    {
      label: total.service === null ? "Response time" : "Response time, from when it was due",
      as: "line",
      of: total.response
    },
    { label: "Service time, from when it began", as: "dashed", of: total.service },
    { label: "Response time before", as: "dotted", tone: "quiet", of: before?.total.response ?? null }
  ] as const
  const drawn = curves.flatMap((curve) => (curve.of === null ? [] : [{ ...curve, of: curve.of }]))
  if (drawn.length === 0) return ""
  const count = Math.max(...drawn.map(({ of }) => of.histogram.counts.reduce((sum, n, at) => sum + (at % 2) * n, 0)))
  const end = Math.min(5, Math.max(2, Math.ceil(Math.log10(count))))
  const pointsOf = (latency: Latency) => {
    const at = percentileOf(latency)
    return Array.from({ length: 201 }, (_, n): Plot.Point => {
      const x = (end * n) / 200
      return [x, at((1 - 10 ** -x) * 100)]
    })
  }
  const ticks = curveTicks.filter((percent) => nines(percent) <= end + 1e-9)
  const low = Math.max(0.001, Math.min(...drawn.map(({ of }) => of.min)))
  const high = Math.max(0.002, ...drawn.map(({ of }) => of.max))
  const said = drawn.map(
    ({ label, of }) =>
      `${label}: p50 ${milliseconds(of.p50)}, p99 ${milliseconds(of.p99)}, at most ${milliseconds(of.max)}`
  )
  const readers = drawn.map(({ of }) => percentileOf(of))
  return Plot.figure(
    {
      id: "percentiles",
      title: "Latency by percentile",
      words: `${said.join(". ")}. Both axes are logarithmic.`,
      x: { from: 0, to: end, ticks: ticks.map((percent) => [nines(percent), percentileName(percent)]) },
      y: Plot.logarithmic(low, high, milliseconds),
      series: drawn.map(({ as, label, of, ...rest }) => ({ label, as, points: pointsOf(of), ...rest }))
    },
    Plot.table(
      "Latency by percentile",
      ["Percentile", ...drawn.map(({ label }) => label)],
      [...ticks, 100].map((percent) => [percentileName(percent), ...readers.map((at) => milliseconds(at(percent)))])
    )
  )
}

const timelineFigures = ({ measuredMs, timeline }: Result): ReadonlyArray<string> => {
  if (timeline.length === 0) return []
  // A last piece that is hardly begun would show whatever fell into it as a rate.
  const whole = timeline.filter(({ width }, n) => n === 0 || n < timeline.length - 1 || width >= timeline[0]!.width / 4)
  const x = Plot.overTime(measuredMs, clock)
  const middle = ({ at, width }: (typeof timeline)[number]) => at + width / 2
  const rates = whole.map(({ succeeded, width }) => (succeeded * 1000) / width)
  const errors = timeline.map(({ errors }) => errors)
  const latencies = known(timeline.flatMap(({ max, p50 }) => [p50, max]))
  const latency = (label: string, as: Plot.Series["as"], key: "p50" | "p99" | "max", tone?: "quiet"): Plot.Series => ({
    label,
    as,
    tone,
    points: timeline.map((one) => [middle(one), one[key]])
  })
  const orNone = (value: number | null) => (value === null ? "–" : milliseconds(value))
  return [
    Plot.figure(
      {
        id: "throughput",
        title: "Throughput",
        words: `Operations that succeeded a second: ${between(rates, perSecond)}.`,
        x,
        y: Plot.linear(Math.max(...rates), 1, perSecond),
        series: [{ label: "Succeeded a second", as: "area", points: whole.map((one, n) => [middle(one), rates[n]!]) }]
      },
      Plot.table(
        "Throughput",
        ["From", "Succeeded", "A second"],
        whole.map(({ at, succeeded }, n) => [clock(at), quantity(succeeded), perSecond(rates[n]!)])
      )
    ),
    ...(latencies.length === 0
      ? []
      : [
          Plot.figure(
            {
              id: "latency",
              title: "Latency over time",
              words: `p50 ${between(known(timeline.map(({ p50 }) => p50)), milliseconds)}; p99 ${between(known(timeline.map(({ p99 }) => p99)), milliseconds)}; at most ${milliseconds(Math.max(...latencies))}. The axis of latency is logarithmic.`,
              x,
              y: Plot.logarithmic(Math.max(0.001, Math.min(...latencies)), Math.max(0.002, ...latencies), milliseconds),
              series: [
                latency("p50", "line", "p50"),
                latency("p99", "dashed", "p99"),
                latency("Highest", "dotted", "max", "quiet")
              ]
            },
            Plot.table(
              "Latency over time",
              ["From", "p50", "p99", "Highest"],
              timeline.map(({ at, max, p50, p99 }) => [clock(at), orNone(p50), orNone(p99), orNone(max)])
            )
          )
        ]),
    Plot.figure(
      {
        id: "errors",
        title: "Errors over time",
        words: `${quantity(errors.reduce((a, b) => a + b, 0))} failed; in one piece of the time at most ${quantity(Math.max(...errors))}.`,
        x,
        y: Plot.linear(Math.max(...errors), 4, quantity),
        series: [{ label: "Failed", as: "bars", tone: "bad", points: timeline.map((one) => [middle(one), one.errors]) }]
      },
      Plot.table(
        "Errors over time",
        ["From", "Failed"],
        timeline.filter(({ errors }) => errors > 0).map(({ at, errors }) => [clock(at), quantity(errors)])
      )
    )
  ]
}

const poolFigure = ({ measuredMs, samples }: Result): string => {
  const pools = samples.flatMap(({ at, pool }) => (pool === null ? [] : [{ at, ...pool }]))
  if (pools.length === 0) return ""
  const most = (of: (pool: (typeof pools)[number]) => number) => Math.max(...pools.map(of))
  const series = (label: string, as: Plot.Series["as"], key: "used" | "idle" | "waiting", tone?: "bad" | "quiet") => ({
    label,
    as,
    tone,
    points: pools.map((pool): Plot.Point => [pool.at, pool[key]])
  })
  return Plot.figure(
    {
      id: "pool",
      title: "Pool",
      words: `Of at most ${quantity(most(({ max }) => max))} connections up to ${quantity(most(({ used }) => used))} were used; up to ${quantity(most(({ waiting }) => waiting))} fibers waited for one.`,
      x: Plot.overTime(measuredMs, clock),
      y: Plot.linear(
        most(({ idle, used, waiting }) => Math.max(used, idle, waiting)),
        4,
        quantity
      ),
      series: [
        series("Connections used", "area", "used"),
        series("Connections idle", "dotted", "idle", "quiet"),
        series("Fibers waiting", "dashed", "waiting", "bad")
      ]
    },
    Plot.table(
      "Pool",
      ["At", "Used", "Idle", "Connecting", "Waiting"],
      pools.map(({ at, connecting, idle, used, waiting }) => [
        clock(at),
        ...[used, idle, connecting, waiting].map(quantity)
      ])
    )
  )
}

const states = { Closed: 0, ForcedClosed: 0, HalfOpen: 1, Open: 2, ForcedOpen: 2 } as const

const breakerFigure = ({ measuredMs, samples }: Result): string => {
  const seen = samples.flatMap(({ at, breaker }) => (breaker === null ? [] : [{ at, state: breaker }]))
  if (seen.length === 0) return ""
  const changes = seen.filter(({ state }, n) => n === 0 || state !== seen[n - 1]!.state)
  return Plot.figure(
    {
      id: "breaker",
      title: "Circuit breaker",
      words: changes.map(({ at, state }) => `${state} from ${clock(at)} on`).join("; "),
      x: Plot.overTime(measuredMs, clock),
      y: {
        from: -0.25,
        to: 2.25,
        ticks: [
          [0, "closed"],
          [1, "half-open"],
          [2, "open"]
        ]
      },
      series: [{ label: "State", as: "steps", points: seen.map(({ at, state }) => [at, states[state]]) }]
    },
    Plot.table(
      "Circuit breaker",
      ["From", "State"],
      changes.map(({ at, state }) => [clock(at), state])
    )
  )
}

export const figures = (result: Result, before: Result | undefined): string =>
  [percentilesFigure(result, before), ...timelineFigures(result), poolFigure(result), breakerFigure(result)]
    .filter((figure) => figure !== "")
    .join("\n")
