/** The command `chaos`: the scenarios' claims and figures, as a table. */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Chaos from "../../internal/chaos/run.js"
import * as Scenarios from "../../internal/chaos/scenarios.js"
import { print, Refused, UsageError } from "../shared.js"
import * as style from "./style.js"

export interface Options {
  /** Names; all where it is empty. */
  readonly only: ReadonlyArray<string>
  readonly seed: number | undefined
  readonly seconds: number
  readonly workers: number
  readonly json: boolean
}

const figure = (ms: number | undefined) => (ms === undefined ? "–" : `${Math.round(ms)} ms`)

const text = (results: ReadonlyArray<Chaos.Result>, seed: number, { paint, width }: style.Style): string => {
  const [head, ...rows] = style.table([
    ["scenario", "operations", "acknowledged", "failed", "unknown", "recovery", "claims"],
    ...results.map((result) => [
      result.scenario,
      String(result.operations),
      String(result.acknowledged),
      String(result.failed),
      String(result.unknown),
      figure(result.recoveryMs),
      result.holds
        ? `${result.claims.length} hold`
        : `${result.claims.filter(({ holds }) => !holds).length} of ${result.claims.length} BROKEN`
    ])
  ])
  const broken = results.flatMap(({ claims, scenario }) =>
    claims.filter(({ holds }) => !holds).map(({ claim, why }) => `${scenario}: not "${claim}": ${why}`)
  )
  return [
    paint("bold", head ?? ""),
    ...rows,
    "",
    ...(broken.length === 0
      ? [paint("green", "Nothing lost, nothing doubled, nothing misreported; every claim holds.")]
      : broken.flatMap((line) => style.fold(paint("red", line), width))),
    paint("dim", `--seed ${seed}`)
  ].join("\n")
}

export const run = ({ json, only, seed: given, seconds, workers }: Options) =>
  Effect.gen(function* () {
    const unknown = only.filter((name) => !Scenarios.names.includes(name))
    if (unknown.length > 0)
      return yield* new UsageError({
        message: `--only ${unknown.join(", ")}: expected one of ${Scenarios.names.join(", ")}`
      })
    const scenarios = Scenarios.all.filter(({ name }) => only.length === 0 || only.includes(name))
    const seed = given ?? (yield* Random.nextIntBetween(0, 2 ** 31))
    yield* Console.error(`Starting a PostgreSQL for ${scenarios.length} scenarios, --seed ${seed}`)
    const results = yield* Chaos.run({
      scenarios,
      seed,
      seconds,
      workers,
      onBegin: ({ name, what }) => Console.error(`${name}: ${what}`)
    })
    const holds = results.every((result) => result.holds)
    yield* print(json, { seed, holds, scenarios: results }, () => text(results, seed, style.ofProcess()))
    if (!holds) return yield* new Refused({ message: "A claim does not hold." })
  })
