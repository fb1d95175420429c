/** Text for a terminal: colours where it has them, lines folded to its width. Pure, but for looking at it. */
import process from "node:process"

export type Colour = "red" | "yellow" | "green" | "cyan" | "dim" | "bold"

const codes: { readonly [name in Colour]: readonly [on: number, off: number] } = {
  red: [31, 39],
  yellow: [33, 39],
  green: [32, 39],
  cyan: [36, 39],
  dim: [2, 22],
  bold: [1, 22]
}

export interface Style {
  readonly paint: (colour: Colour, text: string) => string
  /** Columns; infinite where output goes to no terminal. */
  readonly width: number
}

export const make = (colours: boolean, width: number): Style => ({
  width,
  paint: (colour, text) => {
    const [on, off] = codes[colour]
    return colours ? `\u001b[${on}m${text}\u001b[${off}m` : text
  }
})

const isTerminal = (stream: NodeJS.WriteStream): boolean => stream.isTTY === true && process.env["TERM"] !== "dumb"

/** Whether what is written there may be coloured. `NO_COLOR`, if it is not empty, means what no-color.org says. */
export const hasColours = (stream: NodeJS.WriteStream): boolean =>
  isTerminal(stream) && (process.env["NO_COLOR"] ?? "") === ""

/** Of this process's output. */
export const ofProcess = (): Style =>
  make(hasColours(process.stdout), isTerminal(process.stdout) ? process.stdout.columns || 80 : Number.POSITIVE_INFINITY)

/** Broken at spaces, further lines indented by as much as the first. A word that is too long stays whole. */
export const fold = (text: string, width: number, indent = ""): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = indent
  for (const word of text.split(" ")) {
    const longer = line === indent ? indent + word : `${line} ${word}`
    if (longer.length > width && line !== indent) {
      lines.push(line)
      line = indent + word
    } else line = longer
  }
  return [...lines, line]
}

/** Columns padded to one width; the last one is left as it is. Numbers, told by their form, are set to the right. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  const right = widths.map((_, column) =>
    rows.slice(1).every((row) => /^[-–]?[\d.,]*( (ms|%))?$/.test(row[column] ?? ""))
  )
  return rows.map((row) =>
    row
      .map((cell, column) => (right[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join("  ")
      .trimEnd()
  )
}
