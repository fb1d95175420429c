/** All commands, and how their ends become exit codes. */
import { readFileSync } from "node:fs"
import process from "node:process"
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { backup } from "./backup.js"
import { chaos } from "./chaos.js"
import { doctor } from "./doctor.js"
import { health, report } from "./health.js"
import { mend } from "./internal/completions.js"
import { path, plain, tidy } from "./internal/help.js"
import * as style from "./internal/style.js"
import { load } from "./load.js"
import { migrate } from "./migrate.js"
import { pool } from "./pool.js"
import { exitCodeOf, explain } from "./shared.js"
import { watch } from "./watch.js"

const { version } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8"))

const command = Command.make("effect-pg-resilience").pipe(
  Command.withDescription("Operate a PostgreSQL database: look at it, change its schema, load it, back it up"),
  Command.withSubcommands([doctor, health, report, watch, chaos, pool, load, migrate, backup])
)

const name = "effect-pg-resilience"

const parsed = Command.run(command, { name, version })

/** The console with what the parser prints made fit for where it goes. */
const fitted = (console: Console.Console, args: ReadonlyArray<string>): Console.Console => {
  const adapt = (colours: boolean) => (value: unknown) => {
    if (!Predicate.isString(value)) return value
    const mended = mend(tidy(value, name, args), name)
    return colours ? mended : plain(mended)
  }
  return {
    ...console,
    log: (...values) => console.log(...values.map(adapt(style.hasColours(process.stdout)))),
    error: (...values) => console.error(...values.map(adapt(style.hasColours(process.stderr))))
  }
}

/** `args` as in `process.argv`. Fails with what the command failed with. */
export const run = (args: ReadonlyArray<string>) =>
  Console.consoleWith((console) => Console.withConsole(parsed(args), fitted(console, args)))

/** What ends the command early, and is no failure of its own. */
const onBrokenPipe = (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  // Whoever read has gone, as `head` does: what is under way is undone as with Ctrl-C.
  process.kill(process.pid, "SIGINT")
}

const subcommands = Command.getSubcommands(command)

/** Where to read on, after what the parser found. */
const hint = (args: ReadonlyArray<string>) =>
  Console.error(
    `Try: ${[
      name,
      ...path(args)
        .slice(0, 1)
        .filter((word) => HashMap.has(subcommands, word))
    ].join(" ")} --help`
  )

/** `run`, and whatever it failed with said on stderr. */
export const told = (args: ReadonlyArray<string>) =>
  Effect.tapErrorCause(run(args), (cause) =>
    Option.match(Cause.failureOption(cause), {
      onNone: () => (Cause.isInterruptedOnly(cause) ? Effect.void : Effect.logFatal(cause)),
      onSome: (error) => (ValidationError.isValidationError(error) ? hint(args) : explain(error))
    })
  )

/** What the commands stand on. */
export const layer = Layer.mergeAll(
  NodeContext.layer,
  CliConfig.layer({ showBuiltIns: false }),
  Logger.replace(Logger.defaultLogger, Logger.prettyLogger({ stderr: true }))
)

export const main = (args: ReadonlyArray<string>): void => {
  process.stdout.on("error", onBrokenPipe)
  told(args).pipe(
    Effect.provide(layer),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      disablePrettyLogger: true,
      teardown: (exit, onExit) => onExit(Exit.isSuccess(exit) ? 0 : exitCodeOf(exit.cause))
    })
  )
}
