/** What PostgreSQL's programs say on stderr while they work, as numbers. */

/** One step of a backup or a restore. */
export interface Progress {
  readonly step:
    | "dump"
    | "globals"
    | "count"
    | "checksum"
    | "copy"
    | "verify"
    | "restore"
    | "compare"
    | "swap"
    | "recover"
    | "remove"
    | "publish"
  /** For a person: the table that is dumped, the file that is read. */
  readonly message: string
  /** Units of `total` that are done. Undefined where the step has no measure. */
  readonly done: number | undefined
  readonly total: number | undefined
  readonly unit: "tables" | "bytes" | "files" | undefined
}

/** `Progress` without a measure. */
export const said = (step: Progress["step"], message: string): Progress => ({
  step,
  message,
  done: undefined,
  total: undefined,
  unit: undefined
})

/** A table of `pg_dump --verbose`, or of `pg_restore --verbose`. Source: messages of those programs. */
const table = /(?:dumping contents of|processing data for) table "(.+)"$/

/** The table that a line is about, when it begins with one. */
export const tableOf = (line: string): string | undefined => table.exec(line)?.[1]

const copied = /^\s*(\d+)\/(\d+) kB \(\d+%\)/

/** A line of `pg_basebackup --progress`, in bytes. The total is an estimate: it may be passed. */
export const copiedOf = (line: string): { readonly done: number; readonly total: number } | undefined => {
  const found = copied.exec(line)
  return found ? { done: Number(found[1]) * 1024, total: Number(found[2]) * 1024 } : undefined
}

const size = (bytes: number): string => {
  const units = ["B", "kB", "MB", "GB", "TB"]
  const power = bytes <= 0 ? 0 : Math.min(units.length - 1, Math.floor(Math.log(bytes) / Math.log(1024)))
  const value = bytes / 1024 ** power
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`
}

/** Bytes for a person: `1.4 GB`, with 1 kB = 1024 bytes as in PostgreSQL's own settings. */
export const bytes = size

/** A line for a person. */
export const describe = ({ done, message, step, total, unit }: Progress): string => {
  if (done === undefined) return `${step}: ${message}`
  const measure =
    unit === "bytes"
      ? `${size(done)}${total === undefined ? "" : ` of ${size(total)}`}`
      : `${done}${total === undefined ? "" : ` of ${total}`} ${unit ?? ""}`.trimEnd()
  return `${step}: ${measure}${message === "" ? "" : `, ${message}`}`
}
