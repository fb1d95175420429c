/** What the commands have in common: where the database is, what they print, how they end. */
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Redacted from "effect/Redacted"

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

const isUsage = (error: unknown): boolean =>
  Predicate.isTagged(error, "UsageError") ||
  ConfigError.isConfigError(error) ||
  // A URL that is none, an option out of range: found by the library before anything was done.
  Predicate.isTagged(innermost(error), "InvalidOptionsError")

export const exitCodeOf = (cause: Cause.Cause<unknown>): number => {
  if (Cause.isInterruptedOnly(cause)) return exitCodes.interrupted
  const error = Option.getOrUndefined(Cause.failureOption(cause))
  if (ValidationError.isValidationError(error) || isUsage(error)) return exitCodes.usage
  return Predicate.isTagged(error, "Refused") ? exitCodes.refused : exitCodes.failed
}

/** What an `SqlError` is about. */
const innermost = (error: unknown): unknown =>
  Predicate.isTagged(error, "SqlError") && Predicate.hasProperty(error, "cause") ? innermost(error.cause) : error

/** One line for a person, on stderr. The parser has printed what it found itself. */
export const explain = (error: unknown): Effect.Effect<void> => {
  if (ValidationError.isValidationError(error)) return Effect.void
  const cause = innermost(error)
  const message = Predicate.hasProperty(cause, "message") && Predicate.isString(cause.message) ? cause.message : ""
  return Console.error(message === "" ? String(cause) : message)
}

/** `--json`: one JSON document on stdout and nothing else; progress and log lines are on stderr anyway. */
export const json = Options.boolean("json").pipe(
  Options.withDescription("Print one JSON document to stdout instead of text")
)

/** Prints a result in the one form or the other. */
export const print = (asJson: boolean, value: unknown, text: () => string): Effect.Effect<void> =>
  Console.log(asJson ? JSON.stringify(value, undefined, 2) : text())

/** What was given, or a sentence about what was expected instead, in place of the parser's own words about types. */
const checked =
  <A>(name: string, isSound: (value: A) => boolean, expected: string) =>
  (self: Options.Options<A>): Options.Options<A> =>
    Options.mapEffect(self, (value) =>
      isSound(value)
        ? Effect.succeed(value)
        : Effect.fail(ValidationError.invalidValue(HelpDoc.p(`--${name} is ${value}: expected ${expected}`)))
    )

const range = (min: number, max: number) => (max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`)

/** A whole number within bounds. */
export const whole = (name: string, min: number, max: number = Number.MAX_SAFE_INTEGER): Options.Options<number> =>
  Options.integer(name).pipe(
    checked(name, (value) => value >= min && value <= max, `a whole number, ${range(min, max)}`)
  )

/** A number within bounds. */
export const amount = (name: string, min: number, max: number = Number.MAX_SAFE_INTEGER): Options.Options<number> =>
  Options.float(name).pipe(checked(name, (value) => value >= min && value <= max, `a number, ${range(min, max)}`))

/** A running program's health API, instead of a database. */
export const service = Options.text("service").pipe(
  Options.withDescription(
    "Ask a running program's health API instead: its URL, prefix included, such as http://shop:9464"
  ),
  checked(
    "service",
    (text) => URL.canParse(text) && /^https?:/.test(text),
    "the URL of a health API, such as http://127.0.0.1:9464"
  ),
  Options.optional
)

/** `url`, for commands that can do without a database: what is missing is said only when it is needed. */
export const optionalUrl = Options.redacted("url").pipe(
  Options.withDescription("Where the database is: postgresql://user@host:port/database (default: $DATABASE_URL)"),
  Options.optional
)

/** `--url`, else `DATABASE_URL`, else none. */
export const knownUrl = (
  given: Option.Option<Redacted.Redacted>
): Effect.Effect<Option.Option<Redacted.Redacted>, ConfigError.ConfigError> =>
  Option.isSome(given) ? Effect.succeed(given) : Config.option(Config.redacted("DATABASE_URL"))

/** `--url`, else `DATABASE_URL`. */
export const requiredUrl = (
  given: Option.Option<Redacted.Redacted>
): Effect.Effect<Redacted.Redacted, ConfigError.ConfigError | UsageError> =>
  Effect.flatMap(
    knownUrl(given),
    Option.match({
      onNone: () =>
        new UsageError({
          message: "No database is given: set DATABASE_URL, or --url, to postgresql://user@host:port/database"
        }),
      onSome: Effect.succeed
    })
  )

/** `--url`, else `DATABASE_URL`. A password on a command line is seen by everybody on the machine: better the variable. */
export const url: Options.Options<Redacted.Redacted> = Options.mapEffect(optionalUrl, (given) =>
  Effect.mapError(requiredUrl(given), ({ message }) => ValidationError.missingValue(HelpDoc.p(message)))
)

/**
 * What a command needs, loaded when it runs: so that every command starts as quickly as the smallest. A module that cannot
 * be loaded is a broken installation.
 */
export const load = <A>(module: () => Promise<A>): Effect.Effect<A> => Effect.promise(module)
