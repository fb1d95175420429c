/** Numbers for people: on the terminal and in the report. */

const digits = (value: number): number => (value >= 100 || value === 0 ? 0 : value >= 10 ? 1 : 2)

/** Three digits that count, and thousands apart. */
export const quantity = (value: number): string =>
  value.toLocaleString("en-US", { maximumFractionDigits: Number.isInteger(value) ? 0 : digits(Math.abs(value)) })

/** A time in milliseconds, in the unit that suits it: `830 µs`, `12.4 ms`, `1.52 s`, `3 min 20 s`. */
export const milliseconds = (millis: number): string => {
  if (!Number.isFinite(millis)) return "–"
  if (millis < 1) return `${Math.round(millis * 1000)} µs`
  if (millis < 999.5) return `${quantity(millis)} ms`
  if (millis < 120_000) return `${quantity(millis / 1000)} s`
  return time(millis)
}

/** How long something took or will take, to the second: `42 s`, `3 min 20 s`, `2 h 5 min`. */
export const time = (millis: number): string => {
  const seconds = Math.max(0, Math.round(millis / 1000))
  if (seconds < 120) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  return minutes < 120 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** A share from 0 to 1 as a percentage; what is more than nothing never reads as nothing. */
export const share = (value: number): string => {
  const percent = value * 100
  if (percent > 0 && percent < 0.01) return "< 0.01 %"
  return `${percent.toLocaleString("en-US", { maximumFractionDigits: percent < 10 ? 2 : 1 })} %`
}

/** A change as a percentage with its sign; undefined where there is nothing to compare with. */
export const change = (before: number, after: number): string | undefined => {
  if (!Number.isFinite(before) || !Number.isFinite(after) || before === 0) return undefined
  const percent = (after / before - 1) * 100
  const rounded = Math.abs(percent) < 10 ? Math.round(percent * 10) / 10 : Math.round(percent)
  return `${rounded > 0 ? "+" : rounded < 0 ? "−" : "±"}${Math.abs(rounded).toLocaleString("en-US")} %`
}

const isRight = (column: number) => column > 0

/** Columns with the first to the left and the others to the right, two spaces apart. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = rows.reduce<ReadonlyArray<number>>(
    (most, row) => row.map((cell, n) => Math.max(most[n] ?? 0, cell.length)),
    []
  )
  return rows
    .map((row) =>
      row
        .map((cell, n) => (isRight(n) ? cell.padStart(widths[n]!) : cell.padEnd(widths[n]!)))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}
