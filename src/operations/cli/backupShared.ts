/** What the commands on backups have in common. */
import * as Args from "@effect/cli/Args"
import * as Options from "@effect/cli/Options"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { InvalidOptionsError } from "../../error/PgError.js"
import * as Backup from "../Backup.js"
import { bytes } from "../internal/backup/progress.js"
import { Refused, UsageError } from "./shared.js"

export const directory = Options.text("directory").pipe(
  Options.withDescription(`Where the backups are (default: ./${Backup.defaults.directory})`),
  Options.withDefault(Backup.defaults.directory)
)

export const binDirectory = Options.text("bin-directory").pipe(
  Options.withDescription(
    "Where PostgreSQL's programs are (default: $PG_BINDIR, else pg_config --bindir and the PATH)"
  ),
  Options.optional
)

export const account = Options.text("account").pipe(
  Options.withDescription("Account that the server runs under, where this program is root"),
  Options.withDefault("postgres")
)

export const maintenanceDatabase = Options.text("maintenance-database").pipe(
  Options.withDescription("A database to connect to while others are made and renamed"),
  Options.withDefault(Backup.defaults.maintenanceDatabase)
)

export const quiet = Options.boolean("quiet").pipe(Options.withDescription("No progress on stderr"))

export const dryRun = Options.boolean("dry-run").pipe(Options.withDescription("Say what would be done, and do nothing"))

export const jobs = Options.integer("jobs").pipe(
  Options.withDescription(`Tables at once, 1 to 64 (default: ${Backup.defaults.jobs})`),
  Options.optional
)

export const name = Args.text({ name: "name" }).pipe(
  Args.withDescription("A backup's name, or latest: the newest of the URL's database")
)

/** Milliseconds between two lines of one step: thousands of tables are no news each. */
const pace = 500

/** Progress as lines on stderr: the beginning of each step, and then now and again. */
export const progress = (quiet: boolean): ((progress: Backup.Progress) => Effect.Effect<void>) => {
  let step: string | undefined
  let told = 0
  return (progress) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (quiet || (progress.step === step && now - told < pace)) return Effect.void
      step = progress.step
      told = now
      return Console.error(Backup.describeProgress(progress))
    })
}

/** What the library refuses is a fault of the command line; a backup that is no good is an answer. */
export const answering = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.mapError(self, (error) => {
    const { _tag, message } = error as { readonly _tag?: string; readonly message?: string }
    if (_tag === "InvalidOptionsError") {
      return new UsageError({ message: (error as InvalidOptionsError).message.replace(/^Invalid options: /, "") })
    }
    return _tag === "BackupDamagedError" ? new Refused({ message: message ?? "" }) : error
  })

export const orUndefined = Option.getOrUndefined

const pad = (cells: ReadonlyArray<string>, widths: ReadonlyArray<number>) =>
  cells.map((cell, n) => (n === cells.length - 1 ? cell : cell.padEnd(widths[n]!))).join("  ")

/** Columns for a person. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, n) => Math.max(...rows.map((row) => row[n]!.length)))
  return rows.map((row) => pad(row, widths)).join("\n")
}

export const seconds = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`

export { bytes }
