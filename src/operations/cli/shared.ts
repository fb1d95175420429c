/** What the commands have in common: where the database is, what they print, how they end. */
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

/** How a command ends. */
export const exitCodes = {
  /** Done, and nothing found. */
  ok: 0,
  /** Done, and the answer is no: a finding of the doctor, a threshold exceeded, an edited migration, a backup that is no good. */
  refused: 1,
  /** The command line itself is wrong; nothing was done. */
  usage: 2,
  /** It could not be done: no connection, a tool that is missing, a disk that is full. What was done is said. */
  failed: 3,
  /** Ctrl-C or SIGTERM; what had been begun was undone or left as it says. */
  interrupted: 130
} as const

/** The answer is no, and everything about it has been printed. */
export class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

/** Something on the command line that its parser could not see. */
export class UsageError extends Data.TaggedError("UsageError")<{ readonly message: string }> {}

export const exitCodeOf = (cause: Cause.Cause<unknown>): number => {
  if (Cause.isInterruptedOnly(cause)) return exitCodes.interrupted
  const error = Option.getOrUndefined(Cause.failureOption(cause))
  if (ValidationError.isValidationError(error) || Predicate.isTagged(error, "UsageError")) return exitCodes.usage
  return Predicate.isTagged(error, "Refused") ? exitCodes.refused : exitCodes.failed
}

/** One line for a person, on stderr. The parser has printed what it found itself. */
export const explain = (error: unknown): Effect.Effect<void> => {
  if (ValidationError.isValidationError(error)) return Effect.void
  if (Predicate.isTagged(error, "SqlError")) return explain((error as unknown as { readonly cause: unknown }).cause)
  const message = Predicate.hasProperty(error, "message") && Predicate.isString(error.message) ? error.message : ""
  return Console.error(message === "" ? String(error) : message)
}

/** `--json`: one JSON document on stdout and nothing else; progress and log lines are on stderr anyway. */
export const json = Options.boolean("json").pipe(
  Options.withDescription("Print one JSON document to stdout instead of text")
)

/** `--url`, else `DATABASE_URL`. A password on a command line is seen by everybody on the machine: better the variable. */
export const url = Options.redacted("url").pipe(
  Options.withDescription("Where the database is: postgresql://user@host:port/database (default: $DATABASE_URL)"),
  Options.withFallbackConfig(Config.redacted("DATABASE_URL"))
)

/** Prints a result in the one form or the other. */
export const print = (asJson: boolean, value: unknown, text: () => string): Effect.Effect<void> =>
  Console.log(asJson ? JSON.stringify(value, undefined, 2) : text())
