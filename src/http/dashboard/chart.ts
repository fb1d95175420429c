/**
 * A chart of the last five minutes: lines, areas or bars over one axis of time, with a legend that is also its reading: the
 * figures of now, or of the moment that is pointed at. Series differ by their strokes and not by colour alone.
 */
import { element, setAttribute, setText, svg } from "./dom.js"
import * as format from "./format.js"
import { type Sample, span } from "./state.js"

export interface Series {
  readonly label: string
  readonly of: (sample: Sample) => number
  /** In words, where the figure alone does not say it. */
  readonly read?: ((sample: Sample) => string) | undefined
  /** `none`: a figure of the legend alone. */
  readonly as: "line" | "dashed" | "dotted" | "area" | "bars" | "none"
  /** Bad news, or of less weight than the first. */
  readonly tone?: "bad" | "quiet" | undefined
}

export interface Options {
  readonly title: string
  readonly series: ReadonlyArray<Series>
  readonly format: (value: number) => string
  /** The axis ends at a round number that is no less than this. */
  readonly least: number
  /** For values that span magnitudes: the axis is logarithmic, and begins here. Default: linear, and begins at zero. */
  readonly floor?: number | undefined
  /** Where the axis ends instead, for what has an end of its own. */
  readonly most?: ((sample: Sample) => number) | undefined
}

export interface Chart {
  readonly draw: (samples: ReadonlyArray<Sample>, gap: number, pointed: number | undefined) => void
}

/** Units of the drawing; it is stretched to whatever room there is. */
const width = 600
const height = 100

const x = (at: number, end: number) => Math.max(0, ((at - end + span) / span) * width)
const rounded = (n: number) => Math.round(n * 10) / 10

/** Stretches of known values without a gap in time. */
const runs = (samples: ReadonlyArray<Sample>, of: Series["of"], gap: number): ReadonlyArray<ReadonlyArray<Sample>> => {
  const all: Array<Array<Sample>> = []
  let before: Sample | undefined
  for (const sample of samples) {
    if (Number.isNaN(of(sample))) before = undefined
    else {
      if (before === undefined || sample.at - before.at > gap) all.push([])
      all.at(-1)?.push(sample)
      before = sample
    }
  }
  return all
}

/** From 0 at the axis' beginning to 1 at its end. */
const level = (value: number, top: number, floor: number | undefined): number => {
  const share = floor === undefined ? value / top : Math.log(Math.max(value, floor) / floor) / Math.log(top / floor)
  return Math.min(1, share)
}

const path = (
  series: Series,
  samples: ReadonlyArray<Sample>,
  gap: number,
  top: number,
  floor: number | undefined
): string => {
  const end = samples.at(-1)?.at ?? 0
  const y = (sample: Sample) => rounded(height - level(series.of(sample), top, floor) * height)
  const point = (sample: Sample) => `${rounded(x(sample.at, end))} ${y(sample)}`
  if (series.as === "bars") {
    return samples
      .filter((sample) => series.of(sample) > 0)
      .map((sample) => `M${rounded(x(sample.at, end))} ${height}V${Math.min(y(sample), height - 2)}`)
      .join("")
  }
  return runs(samples, series.of, gap)
    .map((run) => {
      const line = run.map(point).join("L")
      const [first] = run
      const last = run.at(-1)
      if (series.as !== "area" || first === undefined || last === undefined) return `M${line}h.01`
      return `M${rounded(x(first.at, end))} ${height}L${line}L${rounded(x(last.at, end))} ${height}Z`
    })
    .join("")
}

const nearest = (samples: ReadonlyArray<Sample>, at: number): Sample | undefined =>
  samples.reduce<Sample | undefined>(
    (best, sample) => (best === undefined || Math.abs(sample.at - at) < Math.abs(best.at - at) ? sample : best),
    undefined
  )

/** What the chart shows, for those who do not see it. */
const summary = ({ format: unit, series, title }: Options, samples: ReadonlyArray<Sample>): string => {
  const told = series.map(({ label, of }) => {
    const values = samples.map(of).filter((value) => !Number.isNaN(value))
    const now = samples.at(-1)
    if (values.length === 0 || now === undefined) return `${label}: nothing yet`
    return `${label}: now ${unit(of(now))}, between ${unit(Math.min(...values))} and ${unit(Math.max(...values))}`
  })
  return `${title}, last five minutes. ${told.join("; ")}.`
}

/** Fills `target`. `onPoint` hears which share of the span is pointed at. */
export const make = (target: HTMLElement, options: Options, onPoint: (share: number | undefined) => void): Chart => {
  const drawn = options.series.map((series) => {
    const kind = `series ${series.as} ${series.tone ?? ""}`.trim()
    const value = element("dd")
    const swatch =
      series.as === "none"
        ? []
        : [
            svg(
              "svg",
              { class: "swatch", viewBox: "0 0 18 8", "aria-hidden": "true" },
              svg("path", {
                class: kind,
                d:
                  series.as === "area"
                    ? "M0 8V2H18V8Z"
                    : series.as === "bars"
                      ? "M3 8V4M7 8V1M11 8V3M15 8V2"
                      : "M0 4H18"
              })
            )
          ]
    return {
      series,
      value,
      path: svg("path", { class: kind, "vector-effect": "non-scaling-stroke" }),
      entry: element("div", {}, element("dt", {}, ...swatch, series.label), value)
    }
  })
  const cursor = svg("path", { class: "cursor", "vector-effect": "non-scaling-stroke" })
  const grid = svg("path", {
    class: "grid",
    "vector-effect": "non-scaling-stroke",
    d: `M0 0H${width}M0 ${height / 2}H${width}M0 ${height}H${width}`
  })
  const plot = svg(
    "svg",
    { class: "plot", role: "img", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" },
    grid,
    // The first series is what matters most: it is drawn last, over the others.
    ...drawn.map(({ path }) => path).reverse(),
    cursor
  )
  const top = element("span", { class: "edge" })
  const bottom =
    options.floor === undefined ? [] : [element("span", { class: "edge bottom" }, options.format(options.floor))]
  const when = element("span", {}, "now")
  target.append(
    element("dl", { class: "legend" }, ...drawn.map(({ entry }) => entry)),
    element("div", { class: "frame" }, plot, top, ...bottom),
    element("p", { class: "axis", "aria-hidden": "true" }, element("span", {}, "5 min ago"), when)
  )
  plot.addEventListener("pointermove", ({ clientX }) => {
    const { left, width } = plot.getBoundingClientRect()
    onPoint(Math.min(1, Math.max(0, (clientX - left) / width)))
  })
  plot.addEventListener("pointerleave", () => onPoint(undefined))

  return {
    draw: (samples, gap, pointed) => {
      const end = samples.at(-1)
      if (end === undefined) return
      const plotted = drawn.filter(({ series }) => series.as !== "none")
      const highest = Math.max(
        0,
        ...plotted.flatMap(({ series }) => samples.map(series.of).filter((value) => !Number.isNaN(value)))
      )
      const limit = options.most === undefined ? 0 : Math.max(...samples.map(options.most))
      const edge = limit > 0 ? limit : format.roundUp(highest, options.least)
      const read = pointed === undefined ? end : (nearest(samples, end.at - span * (1 - pointed)) ?? end)
      for (const { path: line, series, value } of drawn) {
        if (series.as !== "none") setAttribute(line, "d", path(series, samples, gap, edge, options.floor))
        setText(value, series.read?.(read) ?? options.format(series.of(read)))
      }
      setText(top, options.format(edge))
      setText(when, pointed === undefined ? "now" : format.time(read.at))
      setAttribute(cursor, "d", pointed === undefined ? "" : `M${rounded(x(read.at, end.at))} 0V${height}`)
      setAttribute(plot, "aria-label", summary(options, samples))
    }
  }
}
