/** The charts: which figures go together. */
import * as chart from "./chart.js"
import { byId, element, figure, instant, show } from "./dom.js"
import * as format from "./format.js"
import { gap, type Sample, type State, samples } from "./state.js"

const charts: Readonly<Record<string, chart.Options>> = {
  throughput: {
    title: "Throughput",
    format: format.perSecond,
    least: 10,
    series: [{ label: "Attempts", as: "area", of: ({ perSecond }) => perSecond }]
  },
  latency: {
    title: "Latency",
    format: format.ms,
    least: 10,
    floor: 0.1,
    series: [
      { label: "p50", as: "line", of: ({ p50 }) => p50 },
      { label: "p95", as: "dashed", of: ({ p95 }) => p95 },
      { label: "p99", as: "dotted", tone: "quiet", of: ({ p99 }) => p99 }
    ]
  },
  pool: {
    title: "Pool",
    format: format.number,
    least: 1,
    most: ({ pool }) => Math.max(pool.max, pool.total + pool.connecting),
    series: [
      { label: "In use", as: "area", of: ({ pool }) => pool.used, read: ({ pool }) => `${pool.used} of ${pool.max}` },
      { label: "Open", as: "line", tone: "quiet", of: ({ pool }) => pool.total },
      { label: "Idle", as: "none", of: ({ pool }) => pool.idle },
      { label: "Quarantined", as: "dashed", tone: "bad", of: ({ pool }) => pool.quarantined },
      { label: "Connecting", as: "dotted", of: ({ pool }) => pool.connecting }
    ]
  },
  queue: {
    title: "Queue",
    format: format.number,
    least: 10,
    series: [{ label: "Waiting", as: "area", of: ({ pool }) => pool.waiting }]
  },
  wait: {
    title: "Wait for a connection",
    format: format.ms,
    least: 1,
    series: [{ label: "Average", as: "line", of: ({ waitMs }) => waitMs }]
  },
  errors: {
    title: "Errors",
    format: format.perSecond,
    least: 1,
    series: [{ label: "Failed attempts", as: "bars", tone: "bad", of: ({ errors }) => errors }]
  },
  retries: {
    title: "Retries and timeouts",
    format: format.perSecond,
    least: 1,
    series: [
      { label: "Retries", as: "line", of: ({ retries }) => retries },
      { label: "Timeouts", as: "bars", tone: "bad", of: ({ timeouts }) => timeouts }
    ]
  }
}

/** The same figures in words and numbers, each 15 seconds. */
const tableStep = 15_000

const row = (sample: Sample): HTMLTableRowElement =>
  element(
    "tr",
    {},
    element("th", { scope: "row" }, instant(sample.at, format.time(sample.at))),
    figure(format.perSecond(sample.perSecond)),
    ...[sample.p50, sample.p95, sample.p99].map((value) => figure(format.ms(value))),
    figure(`${sample.pool.used} of ${sample.pool.max}`),
    figure(format.number(sample.pool.waiting)),
    figure(format.ms(sample.waitMs)),
    ...[sample.errors, sample.retries, sample.timeouts].map((value) => figure(format.perSecond(value))),
    element("td", {}, sample.breaker)
  )

export const make = (): ((state: State) => void) => {
  let current: State | undefined
  let pointed: number | undefined
  const drawn = Object.entries(charts).map(([id, options]) =>
    chart.make(byId(id), options, (share) => {
      pointed = share
      if (current !== undefined) draw(current)
    })
  )
  const details = byId("figures") as HTMLDetailsElement
  const body = byId("figures-rows")

  const tabulate = (all: ReadonlyArray<Sample>) => {
    if (!details.open) return
    const rows = all.filter(
      ({ at }, n) => Math.floor(at / tableStep) !== Math.floor((all[n + 1]?.at ?? Number.NaN) / tableStep)
    )
    show(
      body,
      rows.map(({ at }) => at),
      () => rows.reverse().map(row)
    )
  }

  const draw = (state: State) => {
    current = state
    const all = samples(state)
    for (const { draw } of drawn) draw(all, gap(state), pointed)
    tabulate(all)
  }
  details.addEventListener("toggle", () => current !== undefined && draw(current))
  return draw
}
