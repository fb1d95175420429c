/** The command line, run within the test: what it printed, and how it would have ended. */
import { Cause, ConfigProvider, Console, Effect, Exit, Redacted } from "effect"
import * as App from "../../src/operations/cli/app.js"
import { exitCodeOf } from "../../src/operations/cli/shared.js"

export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const capturing = (
  base: Console.Console,
  stdout: Array<string>,
  stderr: Array<string>,
  onLine: (line: string) => void
): Console.Console => ({
  ...base,
  log: (...values) =>
    Effect.sync(() => {
      stdout.push(values.join(" "))
      onLine(values.join(" "))
    }),
  error: (...values) =>
    Effect.sync(() => {
      stderr.push(values.join(" "))
      onLine(values.join(" "))
    })
})

/** `database` is what `DATABASE_URL` says; `onLine` hears what is printed, as it is, to either stream. */
export const invoke = (
  args: ReadonlyArray<string>,
  database?: Redacted.Redacted,
  onLine: (line: string) => void = () => {}
): Effect.Effect<Ended> =>
  Effect.gen(function* () {
    const stdout: Array<string> = []
    const stderr: Array<string> = []
    const environment = database === undefined ? [] : [["DATABASE_URL", Redacted.value(database)] as const]
    const exit = yield* App.told(["node", "effect-pg-resilience", ...args]).pipe(
      Effect.provide(App.layer),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(environment))),
      (self) => Console.consoleWith((base) => Console.withConsole(self, capturing(base, stdout, stderr, onLine))),
      Effect.exit
    )
    if (Exit.isFailure(exit) && Cause.isDie(exit.cause))
      return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    return {
      code: Exit.isSuccess(exit) ? 0 : exitCodeOf(exit.cause),
      stdout: stdout.join("\n"),
      stderr: stderr.join("\n").trim()
    }
  })
