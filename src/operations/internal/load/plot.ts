/**
 * A plot as inline SVG: lines, areas or bars over two labelled axes. Series differ by their strokes and not by colour alone;
 * title and description say in words what is drawn. Pure, and everything that comes from outside is escaped.
 */

export const escape = (text: string): string =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;")

export type Point = readonly [x: number, y: number | null]

export interface Series {
  readonly label: string
  readonly as: "line" | "dashed" | "dotted" | "area" | "bars" | "steps"
  readonly tone?: "bad" | "quiet" | undefined
  /** In rising order of x. Where y is null there is a gap. */
  readonly points: ReadonlyArray<Point>
}

export interface Axis {
  readonly from: number
  readonly to: number
  readonly log?: boolean | undefined
  readonly ticks: ReadonlyArray<readonly [at: number, label: string]>
}

export interface Plot {
  /** Of the page's elements. */
  readonly id: string
  readonly title: string
  /** What there is to see, for those who do not. */
  readonly words: string
  readonly x: Axis
  readonly y: Axis
  readonly series: ReadonlyArray<Series>
}

const size = { width: 720, height: 250, left: 78, right: 16, top: 10, bottom: 28 } as const
const plotWidth = size.width - size.left - size.right
const plotHeight = size.height - size.top - size.bottom

const rounded = (n: number): string => String(Math.round(n * 10) / 10)

/** From 0 at the beginning of an axis to 1 at its end. */
const level = ({ from, log, to }: Axis, value: number): number => {
  const share = log ? Math.log(Math.max(value, from) / from) / Math.log(to / from) : (value - from) / (to - from || 1)
  return Math.min(1, Math.max(0, share))
}

/** 1, 2 or 5 times a power of ten: the least that is no less than `value`. */
const roundUp = (value: number): number => {
  const power = 10 ** Math.floor(Math.log10(value))
  return (([1, 2, 5].find((step) => step * power >= value * 0.999_999) ?? 10) as number) * power
}

/** From zero to a round number that is no less than `most` and `least`. */
export const linear = (most: number, least: number, format: (value: number) => string): Axis => {
  const top = Math.max(most, least)
  const step = roundUp(top / 4)
  const count = Math.max(1, Math.ceil(top / step - 1e-9))
  const ticks = Array.from({ length: count + 1 }, (_, n) => [n * step, format(n * step)] as const)
  return { from: 0, to: count * step, ticks }
}

/** Whole powers of ten around `low` and `high`, which are above zero. */
export const logarithmic = (low: number, high: number, format: (value: number) => string): Axis => {
  const from = Math.floor(Math.log10(low) + 1e-9)
  const to = Math.max(from + 1, Math.ceil(Math.log10(high) - 1e-9))
  const ticks = Array.from({ length: to - from + 1 }, (_, n) => [10 ** (from + n), format(10 ** (from + n))] as const)
  return { from: 10 ** from, to: 10 ** to, log: true, ticks }
}

/** Seconds or minutes from zero to `end` milliseconds. */
export const overTime = (end: number, format: (millis: number) => string): Axis => {
  const units = [1, 2, 5, 10, 20, 50, 100, 200, 500].concat(
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400].map((s) => s * 1000)
  )
  const step = units.find((unit) => end / unit <= 7) ?? roundUp(end / 7)
  const count = Math.floor(end / step + 1e-9)
  return {
    from: 0,
    to: Math.max(end, 1),
    ticks: Array.from({ length: count + 1 }, (_, n) => [n * step, format(n * step)] as const)
  }
}

const runs = (points: ReadonlyArray<Point>): ReadonlyArray<ReadonlyArray<readonly [number, number]>> => {
  const all: Array<Array<readonly [number, number]>> = [[]]
  for (const [x, y] of points) {
    if (y === null) all.push([])
    else all.at(-1)!.push([x, y])
  }
  return all.filter((run) => run.length > 0)
}

const path = ({ as, points }: Series, x: Axis, y: Axis): string => {
  const across = (value: number) => rounded(size.left + level(x, value) * plotWidth)
  const up = (value: number) => rounded(size.top + (1 - level(y, value)) * plotHeight)
  const bottom = String(size.top + plotHeight)
  if (as === "bars") {
    const visible = (value: number) => Math.min(Number(up(value)), size.top + plotHeight - 2)
    return points
      .filter(([, value]) => value !== null && value > 0)
      .map(([at, value]) => `M${across(at)} ${bottom}V${visible(value!)}`)
      .join("")
  }
  return runs(points)
    .map((run) => {
      const [first] = run
      const last = run.at(-1)!
      const line =
        as === "steps"
          ? run
              .map(([at, value], n) => (n === 0 ? `${across(at)} ${up(value)}` : `H${across(at)}V${up(value)}`))
              .join("")
          : run.map(([at, value]) => `${across(at)} ${up(value)}`).join("L")
      return as === "area"
        ? `M${across(first![0])} ${bottom}L${line}L${across(last[0])} ${bottom}Z`
        : `M${line}${run.length === 1 ? "h.01" : ""}`
    })
    .join("")
}

const kind = ({ as, tone }: Series): string => `series ${as}${tone === undefined ? "" : ` ${tone}`}`

const swatch = (series: Series): string => {
  const d = series.as === "area" ? "M0 9V3H20V9Z" : series.as === "bars" ? "M4 9V5M9 9V2M14 9V4" : "M0 6H20"
  return `<svg class="swatch" viewBox="0 0 20 10" aria-hidden="true"><path class="${kind(series)}" d="${d}"/></svg>`
}

const axes = (x: Axis, y: Axis): string => {
  const right = size.width - size.right
  const bottom = size.top + plotHeight
  const across = x.ticks.map(([at, label]) => {
    const left = rounded(size.left + level(x, at) * plotWidth)
    // The last one stays within the drawing.
    const anchor = level(x, at) > 0.97 ? "end" : "middle"
    const end = anchor === "end" ? size.width - 2 : left
    return `<path class="grid" d="M${left} ${size.top}V${bottom}"/><text class="tick" x="${end}" y="${bottom + 18}" text-anchor="${anchor}">${escape(label)}</text>`
  })
  const up = y.ticks.map(([at, label]) => {
    const top = size.top + (1 - level(y, at)) * plotHeight
    return `<path class="grid" d="M${size.left} ${rounded(top)}H${right}"/><text class="tick" x="${size.left - 8}" y="${rounded(top + 4)}" text-anchor="end">${escape(label)}</text>`
  })
  return [...across, ...up].join("")
}

/** The drawing, with its legend and, folded, `table`. */
export const figure = ({ id, series, title, words, x, y }: Plot, table: string): string => `<figure>
<figcaption>${escape(title)}</figcaption>
<ul class="legend">${series.map((one) => `<li>${swatch(one)}${escape(one.label)}</li>`).join("")}</ul>
<svg class="plot" role="img" viewBox="0 0 ${size.width} ${size.height}" aria-labelledby="${id}-title ${id}-words">
<title id="${id}-title">${escape(title)}</title>
<desc id="${id}-words">${escape(words)}</desc>
${axes(x, y)}
${[...series]
  .reverse()
  .map((one) => `<path class="${kind(one)}" d="${path(one, x, y)}"/>`)
  .join("\n")}
</svg>
<details><summary>${escape(title)} as a table</summary>${table}</details>
</figure>`

/** The beginning of a table that may be wider or longer than its room, and is then scrolled, by keyboard too. */
export const scroll = (caption: string): string =>
  `<div class="scroll" role="region" aria-label="${escape(caption)}" tabindex="0"><table><caption>${escape(caption)}</caption>`

/** A table whose first column names its rows. */
export const table = (
  caption: string,
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): string => `${scroll(caption)}
<thead><tr>${head.map((cell) => `<th scope="col">${escape(cell)}</th>`).join("")}</tr></thead>
<tbody>${rows
  .map(
    ([name = "", ...cells]) =>
      `<tr><th scope="row">${escape(name)}</th>${cells.map((cell) => `<td>${escape(cell)}</td>`).join("")}</tr>`
  )
  .join("\n")}</tbody></table></div>`
