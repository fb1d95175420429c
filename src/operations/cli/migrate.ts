/** `migrate`: changes of the schema from a folder of migrations. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Target } from "../internal/migrations/model.js"
import { defaults } from "../internal/migrations/options.js"
import { json, load, print, UsageError, url } from "./shared.js"

const directory = Options.directory("directory").pipe(
  Options.withAlias("d"),
  Options.withDescription("The folder with the migrations"),
  Options.withDefault("migrations")
)

const table = Options.text("table").pipe(
  Options.withDescription("Where it is written down what has been applied"),
  Options.withDefault(defaults.table)
)

const duration = (name: string, description: string, value: string) =>
  Options.text(name).pipe(
    Options.withDescription(`${description}, for example "30 seconds", or "infinity" (default: ${value})`),
    Options.withDefault(value),
    Options.mapEffect((text) =>
      text === "infinity"
        ? Effect.succeed<Duration.DurationInput | "infinity">(text)
        : Effect.mapError(Duration.decodeUnknown(text), () =>
            ValidationError.invalidValue(
              HelpDoc.p(`--${name} is ${JSON.stringify(text)}, expected a time such as "30 seconds"`)
            )
          )
    )
  )

const place = { url, directory, table, json }

const running = {
  ...place,
  lockTimeout: duration(
    "lock-timeout",
    "How long a statement may wait for a lock, and hold up all that come after it",
    defaults.lockTimeout
  ),
  waitForLock: duration("wait", "How long to wait for another program that migrates", defaults.waitForLock),
  allowEdited: Options.boolean("allow-edited").pipe(
    Options.withDescription("Go on although applied migrations were edited")
  ),
  allowSkipped: Options.boolean("allow-skipped").pipe(
    Options.withDescription("Apply those that were left out although later ones are applied")
  )
}

/** Runs what is loaded only now. */
const loaded = <A, E, R>(use: (module: typeof import("./internal/migrate.js")) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(
    load(() => import("./internal/migrate.js")),
    use
  )

const id = Args.integer({ name: "id" }).pipe(Args.withDescription("The number that the migration's file begins with"))

const up = Command.make("up", running, (given) => loaded((_) => _.report(given, "latest"))).pipe(
  Command.withDescription("Apply what has not been applied")
)

const steps = Args.integer({ name: "n" }).pipe(
  Args.withDescription("How many migrations (default: 1)"),
  Args.withDefault(1)
)

const rollback = (name: string) =>
  Command.make(name, { ...running, steps }, ({ steps, ...given }) =>
    loaded((_) => _.report(given, { rollback: steps }))
  ).pipe(Command.withDescription("Undo the last ones that were applied, from the latest on"))

const to = Command.make("to", { ...running, id }, ({ id, ...given }) =>
  loaded((_) => _.report(given, { to: id }))
).pipe(
  Command.withDescription("Undo what is above that number, and apply what is missing up to it; 0 undoes everything")
)

const status = Command.make("status", place, (given) => loaded((_) => _.status(given))).pipe(
  Command.withDescription("Show what is applied, what is not, and what is not as it was")
)

const plan = Command.make(
  "plan",
  {
    ...running,
    to: Options.integer("to").pipe(Options.withDescription("As the command `to` would"), Options.optional),
    rollback: Options.integer("rollback").pipe(Options.withDescription("As `rollback` would"), Options.optional)
  },
  ({ rollback, to, ...given }) =>
    Effect.gen(function* () {
      if (Option.isSome(to) && Option.isSome(rollback)) {
        return yield* new UsageError({ message: "--to and --rollback are two different plans: give one of them" })
      }
      const target: Target = Option.isSome(to)
        ? { to: to.value }
        : Option.isSome(rollback)
          ? { rollback: rollback.value }
          : "latest"
      yield* loaded((_) => _.plan(given, target))
    })
).pipe(
  Command.withDescription("Show the SQL that would run, and run nothing (see the README about TypeScript migrations)")
)

const resolve = Command.make(
  "resolve",
  {
    ...place,
    id,
    applied: Options.boolean("applied").pipe(Options.withDescription("All of it is in the database")),
    notApplied: Options.boolean("not-applied").pipe(Options.withDescription("Nothing of it is in the database"))
  },
  ({ applied, id, notApplied, ...given }) =>
    Effect.gen(function* () {
      if (applied === notApplied) {
        return yield* new UsageError({ message: "Say either --applied or --not-applied, after a look at the database" })
      }
      yield* loaded((_) => _.resolve(given, id, applied ? "applied" : "notApplied"))
    })
).pipe(Command.withDescription("Say how a migration ended that was cut off, or that one need not run"))

const accept = Command.make("accept", { ...place, id }, ({ id, ...given }) => loaded((_) => _.accept(given, id))).pipe(
  Command.withDescription("Take the file of an applied migration as it is now for the right one")
)

const newOne = Command.make(
  "create",
  {
    directory,
    json,
    kind: Options.choice("kind", ["ts", "js", "sql"]).pipe(
      Options.withDescription("What kind of file (default: that of the latest migration, or ts)"),
      Options.optional
    ),
    name: Args.text({ name: "name" }).pipe(Args.withDescription("Letters, digits, _ and -"))
  },
  ({ directory, json, kind, name }) =>
    Effect.gen(function* () {
      const { create } = yield* load(() => import("./internal/migrateCreate.js"))
      const file = yield* create(directory, name, Option.getOrUndefined(kind))
      yield* print(json, { file }, () => file)
    })
).pipe(Command.withDescription("Begin a new migration, with the next number"))

export const migrate = Command.make("migrate", {}, () =>
  Console.error("Which one? migrate up, rollback, to, status, plan, resolve, accept or create; --help says more").pipe(
    Effect.zipRight(new UsageError({ message: "Nothing was done" }))
  )
).pipe(
  Command.withDescription("Change the schema: up, down, and what is there"),
  Command.withSubcommands([up, rollback("rollback"), rollback("down"), to, status, plan, resolve, accept, newOne])
)
