/**
 * Ratios as bars, in one SVG: a column for each workload, a line for each contender, whiskers from the lowest to the highest
 * round. It brings its own ground and follows the reader's colour scheme, so that it can be read on any page; what a bar says is
 * written beside it, too.
 */
import type { Spread } from "./statistics.js"

export interface Column {
  readonly title: string
  readonly where: string
  /** By contender. Missing where it was not measured. */
  readonly times: ReadonlyMap<string, Spread>
}

export interface Plot {
  readonly title: string
  /** All of it in words, for those who do not see it. */
  readonly words: string
  /** Under the plot. */
  readonly note: string
  readonly columns: ReadonlyArray<Column>
  /** In order, top down. */
  readonly contenders: ReadonlyArray<string>
  /** Among them, those that it is about. */
  readonly emphasis: ReadonlySet<string>
}

/** Pixels. Text is 12 to 14 of them, at the width that a README gives it. */
const layout = { width: 900, names: 176, top: 92, line: 28, bar: 15, gap: 20, value: 42, bottom: 44 } as const

const style = `
  text { font: 12px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 } .head { font-size: 13px; font-weight: 600 } .faint { fill: #59636e }
  .strong { font-weight: 600 } .ground { fill: #ffffff; stroke: #d1d9e0 } .bar { fill: #8c959f } .bar.ours { fill: #0969da }
  .value { stroke: #ffffff; stroke-width: 4px; paint-order: stroke }
  .whisker { stroke: #1f2328; stroke-width: 1.2 } .one { stroke: #59636e; stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .faint { fill: #9198a1 } .ground { fill: #0d1117; stroke: #3d444d } .bar { fill: #656c76 }
    .bar.ours { fill: #1f6feb } .value { stroke: #0d1117 } .whisker { stroke: #f0f6fc } .one { stroke: #9198a1 }
  }`

export const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;")

const text = (x: number, y: number, content: string, classes = "") =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${classes === "" ? "" : ` class="${classes}"`}>${escape(content)}</text>`

/** One column's bars. Its axis begins at zero and is its own: the columns are not compared with each other. */
const column = ({ contenders, emphasis }: Plot, { times, title, where }: Column, left: number, width: number) => {
  const room = width - layout.value
  const most = Math.max(1, ...Array.from(times.values(), ({ high }) => high))
  const at = (value: number) => left + (room * value) / most
  const bottom = layout.top + contenders.length * layout.line
  const vertical = (x: number, from: number, to: number, classes: string) =>
    `<line x1="${x.toFixed(1)}" x2="${x.toFixed(1)}" y1="${from.toFixed(1)}" y2="${to.toFixed(1)}" class="${classes}"/>`
  const lines = contenders.flatMap((name, n) => {
    const spread = times.get(name)
    const middle = layout.top + n * layout.line + layout.line / 2
    if (spread === undefined) return [text(left, middle + 4, "not measured", "faint")]
    const { high, low, median } = spread
    const ours = emphasis.has(name)
    const whisker =
      high > low
        ? `<line x1="${at(low).toFixed(1)}" x2="${at(high).toFixed(1)}" y1="${middle}" y2="${middle}" class="whisker"/>` +
          [low, high].map((end) => vertical(at(end), middle - 3, middle + 3, "whisker")).join("")
        : ""
    return [
      `<rect x="${left}" y="${middle - layout.bar / 2}" width="${(at(median) - left).toFixed(1)}" height="${layout.bar}" rx="2" class="bar${ours ? " ours" : ""}"/>`,
      whisker,
      text(at(Math.max(median, high)) + 6, middle + 4, median.toFixed(2), `value${ours ? " strong" : ""}`)
    ]
  })
  return [
    text(left, layout.top - 28, title, "head"),
    text(left, layout.top - 10, where, "faint"),
    vertical(at(1), layout.top, bottom, "one"),
    ...lines
  ]
}

export const plot = (all: Plot): string => {
  const { columns, contenders, emphasis, note, title, words } = all
  const height = layout.top + contenders.length * layout.line + layout.bottom
  const width = (layout.width - layout.names - 24 - layout.gap * (columns.length - 1)) / columns.length
  const names = contenders.map((name, n) =>
    text(20, layout.top + n * layout.line + layout.line / 2 + 4, name, emphasis.has(name) ? "strong" : "")
  )
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${layout.width} ${height}" width="${layout.width}" height="${height}" role="img" aria-labelledby="title desc">`,
    `<title id="title">${escape(title)}</title>`,
    `<desc id="desc">${escape(words)}</desc>`,
    `<style>${style}\n</style>`,
    `<rect x="0.5" y="0.5" width="${layout.width - 1}" height="${height - 1}" rx="6" class="ground"/>`,
    text(20, 30, title, "title"),
    ...names,
    ...columns.flatMap((each, n) => column(all, each, layout.names + n * (width + layout.gap), width)),
    text(20, height - 16, note, "faint"),
    "</svg>",
    ""
  ]
    .filter((line, n, all) => line !== "" || n === all.length - 1)
    .join("\n")
}
