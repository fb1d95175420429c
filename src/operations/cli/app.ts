/** All commands, and how their ends become exit codes. */
import { readFileSync } from "node:fs"
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import { migrate } from "./migrate.js"
import { exitCodeOf, explain } from "./shared.js"

const { version } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8"))

const command = Command.make("effect-pg-resilience").pipe(
  Command.withDescription("Operate a PostgreSQL database: look at it, change its schema, load it, back it up"),
  Command.withSubcommands([migrate])
)

/** `args` as in `process.argv`. Fails with what the command failed with. */
export const run = Command.run(command, { name: "effect-pg-resilience", version })

export const main = (args: ReadonlyArray<string>): void =>
  run(args).pipe(
    Effect.tapErrorCause((cause) =>
      Option.match(Cause.failureOption(cause), {
        onNone: () => (Cause.isInterruptedOnly(cause) ? Effect.void : Effect.logFatal(cause)),
        // The parser has printed its own already.
        onSome: (error) => explain(error)
      })
    ),
    Effect.provide(
      Layer.mergeAll(
        NodeContext.layer,
        CliConfig.layer({ showBuiltIns: false }),
        Logger.replace(Logger.defaultLogger, Logger.prettyLogger({ stderr: true }))
      )
    ),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      disablePrettyLogger: true,
      teardown: (exit, onExit) => onExit(Exit.isSuccess(exit) ? 0 : exitCodeOf(exit.cause))
    })
  )
