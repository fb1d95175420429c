/** Where the operations of `load` come from: the built-in mix, or a module of the user's. */
import { pathToFileURL } from "node:url"
import * as Path from "@effect/platform/Path"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { Services } from "../../ResilientPg.js"
import * as LoadTest from "../LoadTest.js"
import { UsageError } from "./shared.js"

export type Source =
  | { readonly _tag: "Mix"; readonly options: LoadTest.MixOptions }
  /** Of a module whose default export is the scenario itself. */
  | { readonly _tag: "Given"; readonly file: string; readonly scenario: LoadTest.Scenario<Services> }
  /** Of a module whose default export is an Effect that makes it, and whose scope closes after the test. */
  | {
      readonly _tag: "Made"
      readonly file: string
      readonly scenario: Effect.Effect<unknown, unknown, Services | Scope.Scope>
    }

const kinds = ["read", "write", "transaction"] as const

/** The built-in operations by name and weight, doing nothing: to check options against. */
export const mixNames = (options: LoadTest.MixOptions): LoadTest.Scenario => {
  const given = kinds.some((kind) => options[kind] !== undefined)
  return Object.fromEntries(
    kinds.map((kind) => [
      kind,
      { effect: Effect.void, weight: given ? (options[kind] ?? 0) : LoadTest.mixDefaults[kind] }
    ])
  )
}

const expected =
  "export default a record of Effects by name, each alone or as { effect, weight }, or an Effect that makes such a record"

const imported = (file: string) =>
  Effect.gen(function* () {
    const path = (yield* Path.Path).resolve(file)
    const module: unknown = yield* Effect.tryPromise({
      try: () => import(pathToFileURL(path).href),
      catch: (error) => {
        const { code, message } = error as { readonly code?: string; readonly message?: string }
        const hint =
          code === "ERR_UNKNOWN_FILE_EXTENSION"
            ? " (a TypeScript file needs a loader: NODE_OPTIONS='--import tsx')"
            : ""
        return new UsageError({
          message: `--scenario ${file} could not be loaded: ${String(message ?? error).split("\n")[0]}${hint}`
        })
      }
    })
    return Predicate.hasProperty(module, "default") ? module.default : undefined
  })

interface Arguments {
  readonly scenario: Option.Option<string>
  readonly mix: Option.Option<Pick<LoadTest.MixOptions, "read" | "write" | "transaction">>
  readonly rows: Option.Option<number>
}

export const source = ({ mix, rows, scenario }: Arguments): Effect.Effect<Source, UsageError, Path.Path> =>
  Effect.gen(function* () {
    if (Option.isNone(scenario)) {
      const options = { ...Option.getOrElse(mix, () => ({})), ...(Option.isSome(rows) ? { rows: rows.value } : {}) }
      return { _tag: "Mix", options }
    }
    const file = scenario.value
    if (Option.isSome(mix) || Option.isSome(rows)) {
      return yield* new UsageError({
        message: "--mix and --rows are about the built-in operations, and have no place beside --scenario"
      })
    }
    const found = yield* imported(file)
    if (Effect.isEffect(found)) {
      return { _tag: "Made", file, scenario: found as Effect.Effect<unknown, unknown, Services | Scope.Scope> }
    }
    if (!Predicate.isRecord(found)) {
      return yield* new UsageError({ message: `--scenario ${file} has no scenario: ${expected}` })
    }
    return { _tag: "Given", file, scenario: found as LoadTest.Scenario<Services> }
  })

/** The scenario on the services around it. The scope takes back what was made for it. */
export const make = (source: Source) =>
  Effect.gen(function* (): Effect.fn.Return<
    LoadTest.Scenario<Services>,
    Effect.Effect.Error<ReturnType<typeof LoadTest.mix>> | UsageError,
    Services | Scope.Scope
  > {
    switch (source._tag) {
      case "Mix":
        return yield* LoadTest.mix(source.options)
      case "Given":
        return source.scenario
      case "Made": {
        const made = yield* Effect.mapError(
          source.scenario,
          (error) =>
            new UsageError({
              message: `--scenario ${source.file} could not be made: ${Predicate.hasProperty(error, "message") ? error.message : String(error)}`
            })
        )
        if (Predicate.isRecord(made) && !Effect.isEffect(made)) return made as LoadTest.Scenario<Services>
        return yield* new UsageError({ message: `--scenario ${source.file} makes no scenario: ${expected}` })
      }
    }
  })
