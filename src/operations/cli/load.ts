/** `load`: a load test from the command line, on the built-in mix or on a scenario of one's own. */
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Redacted from "effect/Redacted"
import * as PgError from "../../error/PgError.js"
import * as ResilientPg from "../../ResilientPg.js"
import { settings } from "../internal/load/text.js"
import * as LoadTest from "../LoadTest.js"
import { duration, mixOf } from "./loadArguments.js"
import { bar } from "./loadBar.js"
import * as scenarios from "./loadScenario.js"
import { json, print, Refused, UsageError, url } from "./shared.js"

const invalid = (message: string) => ValidationError.invalidValue(HelpDoc.p(message))

/** A time such as `500ms`, `30s` or `5m`. */
const time = (name: string, description: string) =>
  Options.text(name).pipe(
    Options.withPseudoName("time"),
    Options.withDescription(description),
    Options.mapEffect((text) => Either.mapLeft(duration(text), (fault) => invalid(`--${name}: ${fault}`))),
    Options.optional
  )

const file = (name: string, description: string) =>
  Options.text(name).pipe(Options.withPseudoName("file"), Options.withDescription(description), Options.optional)

const integer = (name: string, description: string) =>
  Options.integer(name).pipe(Options.withDescription(description), Options.optional)

const options = {
  url,
  concurrency: integer(
    "concurrency",
    "Fibers, each beginning its next operation when the one before has ended (default: 50)"
  ),
  operations: integer("operations", "Operations of each fiber, or with --rate in all (default: 100 each, 5000 in all)"),
  duration: time("duration", "End after this time, such as 30s or 5m; with --operations, whichever comes first"),
  rate: Options.float("rate").pipe(
    Options.withDescription("Begin so many operations a second, whatever becomes of them, instead of --concurrency"),
    Options.optional
  ),
  arrivals: Options.choice("arrivals", ["constant", "poisson"]).pipe(
    Options.withDescription("With --rate: evenly spaced, or as of independent clients (default: constant)"),
    Options.optional
  ),
  maxInFlight: integer(
    "max-in-flight",
    "With --rate: operations under way at once, beyond which they wait (default: 1000)"
  ),
  ramp: time("ramp", "Let the load rise over this time"),
  warmUp: time("warm-up", "Run for this time before measuring"),
  thinkTime: time("think-time", "Let each fiber wait so long between two operations"),
  mix: Options.text("mix").pipe(
    Options.withPseudoName("weights"),
    Options.withDescription("Weights of the built-in operations (default: read=70,write=20,transaction=10)"),
    Options.mapEffect((text) => Either.mapLeft(mixOf(text), (fault) => invalid(`--mix: ${fault}`))),
    Options.optional
  ),
  rows: integer("rows", "Rows of the built-in operations' table (default: 10000)"),
  scenario: file(
    "scenario",
    "A module of your own whose default export is a scenario, instead of the built-in operations"
  ),
  threshold: Options.text("threshold").pipe(
    Options.withDescription(
      "What the test must keep to, such as p99<200ms, errors<0.1% or read:p50<5ms; may be repeated"
    ),
    Options.repeated
  ),
  html: file("html", "Write a report with plots"),
  save: file("save", "Write the result as JSON, for --compare"),
  compare: file("compare", "Compare with the result that an earlier test has saved"),
  seed: integer("seed", "Draw the same operations again (default: another seed each time; it is printed)"),
  poolMax: integer("pool-max", "Connections of the pool (default: 10)"),
  quiet: Options.boolean("quiet").pipe(Options.withDescription("Show no progress")),
  json
}

type Arguments = Command.Command.ParseConfig<typeof options>

/** Options and thresholds that are refused were given on the command line, and so was the URL. */
const usage = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | UsageError, R> =>
  Effect.mapError(effect, (error) => {
    const told: unknown = Predicate.isTagged(error, "SqlError") && "cause" in error ? error.cause : error
    return told instanceof PgError.InvalidOptionsError || told instanceof LoadTest.InvalidThresholdError
      ? new UsageError({ message: told.message })
      : error
  })

const testOptions = (args: Arguments): Omit<LoadTest.Options, "scenario"> => ({
  concurrency: Option.getOrUndefined(args.concurrency),
  operations: Option.getOrUndefined(args.operations),
  duration: Option.getOrUndefined(args.duration),
  rate: Option.getOrUndefined(args.rate),
  arrivals: Option.getOrUndefined(args.arrivals),
  maxInFlight: Option.getOrUndefined(args.maxInFlight),
  ramp: Option.getOrUndefined(args.ramp),
  warmUp: Option.getOrUndefined(args.warmUp),
  thinkTime: Option.getOrUndefined(args.thinkTime),
  seed: Option.getOrUndefined(args.seed),
  thresholds: args.threshold
})

/** A file for writing, refused before the test and not after it. */
const writable = (name: string, file: Option.Option<string>) =>
  Effect.gen(function* () {
    if (Option.isNone(file)) return
    const fs = yield* FileSystem.FileSystem
    const folder = (yield* Path.Path).dirname(file.value)
    yield* fs
      .access(folder, { writable: true })
      .pipe(
        Effect.mapError(
          () =>
            new UsageError({ message: `--${name} ${file.value}: there is no folder ${folder} that can be written to` })
        )
      )
  })

const earlier = (file: string) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const text = yield* fs
      .readFileString(file)
      .pipe(
        Effect.mapError((error) => new UsageError({ message: `--compare ${file} cannot be read: ${error.message}` }))
      )
    return yield* Either.mapLeft(
      LoadTest.decode(text),
      (error) => new UsageError({ message: `--compare ${file}: ${error.message}` })
    )
  })

const write = (file: Option.Option<string>, text: () => string, what: string) =>
  Effect.gen(function* () {
    if (Option.isNone(file)) return
    const fs = yield* FileSystem.FileSystem
    yield* fs.writeFileString(file.value, text())
    yield* Console.error(`${what}: ${file.value}`)
  })

/** Everything about a result: on stdout, and in files. */
const tell = (args: Arguments, result: LoadTest.Result, before: LoadTest.Result | undefined) =>
  Effect.gen(function* () {
    const compared = before === undefined ? undefined : LoadTest.compare(before, result)
    yield* print(args.json, compared === undefined ? result : { ...result, comparison: compared }, () =>
      [LoadTest.summary(result), ...(compared === undefined ? [] : ["", LoadTest.comparisonSummary(compared)])].join(
        "\n"
      )
    )
    yield* write(args.save, () => LoadTest.encode(result), "Result")
    yield* write(args.html, () => LoadTest.html(result, before), "Report")
  })

const work = (args: Arguments, before: LoadTest.Result | undefined, source: scenarios.Source) =>
  Effect.gen(function* () {
    const { config } = yield* PgClient.PgClient
    const place = `${config.host ?? "localhost"}:${config.port ?? 5432}/${config.database ?? config.username ?? ""}`
    yield* Console.error(`Connecting to ${place} as ${config.username ?? "the default user"}`)
    yield* ResilientPg.ready({ within: "10 seconds" })
    const scenario = yield* scenarios.make(source)
    const progress = bar(args.quiet)
    const test = yield* LoadTest.make({
      ...testOptions(args),
      scenario,
      label: place,
      sampleEvery: "200 millis",
      onProgress: progress.show
    })
    const planned = yield* test.result
    if (!args.quiet) yield* Console.error(settings(planned.settings, planned.operations))
    const result = yield* test.run.pipe(
      Effect.ensuring(Effect.sync(progress.clear)),
      Effect.onInterrupt(() => Effect.ignoreLogged(Effect.flatMap(test.result, (result) => tell(args, result, before))))
    )
    yield* tell(args, result, before)
    return result
  }).pipe(Effect.scoped)

const layer = (url: Redacted.Redacted, poolMax: Option.Option<number>) =>
  ResilientPg.layer({
    url,
    applicationName: "effect-pg-resilience load",
    maxConnections: Option.getOrUndefined(poolMax)
  })

export const load = Command.make("load", options, (args) =>
  Effect.gen(function* () {
    const source = yield* scenarios.source(args)
    // All that is wrong with the command line is said before anything is done.
    if (source._tag !== "Made") {
      const names = source._tag === "Mix" ? scenarios.mixNames(source.options) : source.scenario
      yield* usage(LoadTest.make({ ...testOptions(args), scenario: names }))
    }
    const before = Option.isSome(args.compare) ? yield* earlier(args.compare.value) : undefined
    yield* writable("save", args.save)
    yield* writable("html", args.html)
    const result = yield* usage(Effect.provide(work(args, before, source), layer(args.url, args.poolMax)))
    if (!LoadTest.passed(result)) {
      const failed = result.thresholds.filter(({ ok }) => !ok)
      return yield* new Refused({
        message: `${failed.length} of ${result.thresholds.length} thresholds failed: ${failed.map(({ found, threshold }) => `${threshold} (${found})`).join(", ")}`
      })
    }
  })
).pipe(
  Command.withDescription(
    "Put load on a database and measure what it bears. The built-in operations work on a table of their own, which is dropped afterwards; no other is touched"
  )
)
