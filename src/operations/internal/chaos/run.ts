/** Runs scenarios, one after the other, on a server that is started for it and ended with it. */
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Random from "effect/Random"
import * as EmbeddedPostgres from "../../../testing/EmbeddedPostgres.js"
import * as FaultProxy from "../../../testing/FaultProxy.js"
import type * as Scenarios from "./scenarios.js"

export interface Options {
  readonly scenarios: ReadonlyArray<Scenarios.Scenario>
  readonly seed: number
  readonly seconds: number
  readonly workers: number
  readonly onBegin: (scenario: Scenarios.Scenario) => Effect.Effect<void>
}

export interface Result extends Scenarios.Outcome {
  readonly scenario: string
  readonly holds: boolean
}

/** A deadlock is found after this time, milliseconds: the default of a second would only be waited for. */
const deadlockTimeout = 100

/** Fails when no server can be started, or asked past all faults; a claim that does not hold is a result. */
export const run = (options: Options): Effect.Effect<ReadonlyArray<Result>, Scenarios.Failure> =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.make({ settings: { deadlock_timeout: deadlockTimeout } })
    const proxy = yield* FaultProxy.make({ upstream: server.config })
    const one = (scenario: Scenarios.Scenario, n: number) =>
      Effect.gen(function* () {
        yield* options.onBegin(scenario)
        const database = `chaos_${n}`
        const url = proxy.url(yield* server.createDatabase(database))
        const outcome = yield* scenario
          .run({ server, proxy, url, database, ...options })
          .pipe(Effect.ensuring(Effect.ignore(proxy.heal)))
        const result: Result = {
          scenario: scenario.name,
          ...outcome,
          holds: outcome.claims.every(({ holds }) => holds)
        }
        return result
      }).pipe(
        Effect.scoped,
        // Each by itself, so that one alone does what it does among the others.
        Effect.withRandom(Random.make(`${options.seed} ${scenario.name}`))
      )
    return yield* Effect.forEach(options.scenarios, one)
  }).pipe(
    Effect.scoped,
    // What goes wrong is what is wanted here: the table tells it.
    Logger.withMinimumLogLevel(LogLevel.None)
  )
