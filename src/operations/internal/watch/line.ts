/** What a dashboard on a terminal is made of: lines of coloured pieces, cut to a width. Pure. */
import type { Colour, Style } from "../../cli/internal/style.js"

export type Piece = string | readonly [colour: Colour, text: string]
export type Line = ReadonlyArray<Piece>

/** One moment of what is watched. */
export interface View {
  /** For a terminal of so many columns. */
  readonly lines: (width: number) => ReadonlyArray<Line>
  /** The same where there is no terminal. */
  readonly line: string
}

/** No longer than the width: a line that wraps would push the others down. */
export const render = (line: Line, { paint }: Style, width: number): string => {
  let left = width
  let text = ""
  for (const piece of line) {
    const [colour, whole] = typeof piece === "string" ? [undefined, piece] : piece
    const part = Array.from(whole).slice(0, Math.max(0, left)).join("")
    left -= Array.from(part).length
    text += colour === undefined || part === "" ? part : paint(colour, part)
  }
  return text
}

export const bar = (share: number, width = 20): string => {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width)
  return "█".repeat(full) + "░".repeat(width - full)
}

const ticks = "▁▂▃▄▅▆▇█"

/** The latest values, as many as fit, against the largest of them. */
export const spark = (values: ReadonlyArray<number>, width: number): string => {
  const shown = values.slice(-Math.max(0, width))
  const most = Math.max(...shown, 0)
  return shown
    .map((value) =>
      most === 0 ? ticks[0] : ticks[Math.min(ticks.length - 1, Math.floor((value / most) * ticks.length))]
    )
    .join("")
}

/** A name in its column, and what there is to say. */
export const row = (name: string, ...pieces: ReadonlyArray<Piece>): Line => [["dim", name.padEnd(14)], ...pieces]

export const alarming = (text: string, alarm: boolean): Piece => (alarm ? ["red", text] : text)

export const clock = (at: number): string => new Date(at).toISOString().slice(11, 19)
