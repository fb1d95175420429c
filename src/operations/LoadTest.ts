/**
 * What a database bears, and at which latency: a load of one's own effects, or of the built-in mix, and what came of it.
 *
 * Two models. Closed: so many fibers, each beginning its next operation when the one before has ended. It finds out what can
 * be done, but slows down with what it measures: while the server stands still, nobody asks. Open: operations arrive at a
 * rate, as clients do who know nothing of each other, and what waited because everybody was busy has waited: response times
 * count from when an operation was due. (Gil Tene calls the error of leaving that out coordinated omission.)
 *
 * @example
 * import { LoadTest } from "effect-pg-resilience"
 *
 * const test = LoadTest.run({
 *   scenario: { search: { effect: search, weight: 9 }, order: placeOrder },
 *   rate: 200,
 *   duration: "1 minute",
 *   thresholds: ["p99<200ms", "errors<0.1%"]
 * })
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as CircuitBreaker from "../policy/CircuitBreaker.js"
import * as ResilientPg from "../ResilientPg.js"
import * as comparing from "./internal/load/compare.js"
import * as mixing from "./internal/load/mix.js"
import * as internal from "./internal/load/options.js"
import * as Pacing from "./internal/load/pacing.js"
import * as progressing from "./internal/load/progress.js"
import * as Recorder from "./internal/load/recorder.js"
import * as reporting from "./internal/load/report.js"
import * as results from "./internal/load/result.js"
import * as running from "./internal/load/run.js"
import * as text from "./internal/load/text.js"
import * as thresholding from "./internal/load/threshold.js"

/** An effect, or one with a weight: how often it is drawn, in proportion to the others. Default 1; 0 leaves it out. */
export type Operation<R = never> =
  | Effect.Effect<unknown, unknown, R>
  | { readonly effect: Effect.Effect<unknown, unknown, R>; readonly weight?: number | undefined }

/** 1 to 20 operations by name. Each run of an effect is one operation; it draws what is random from `Random`, which is seeded. */
export type Scenario<R = never> = { readonly [name: string]: Operation<R> }

/** How far a test is; see its fields. */
export type Progress = progressing.Progress

export interface Options<R = never> {
  readonly scenario: Scenario<R>
  /** Closed: fibers, 1 to 100,000. Default 50. Not with `rate`. */
  readonly concurrency?: number | undefined
  /**
   * Measured operations after which it ends: of a closed test for each fiber, at a rate in all. Default where there is no
   * `duration` either: 100 for each fiber, 5,000 at a rate.
   */
  readonly operations?: number | undefined
  /** Time, after the warm-up, in which operations begin, the ramp included: 1 ms to 24 days. The first bound reached ends it. */
  readonly duration?: Duration.DurationInput | undefined
  /** Open: arrivals a second, 0.001 to 1,000,000. Default: a closed test. */
  readonly rate?: number | undefined
  /** With `rate`: evenly spaced, or as of independent clients. Default `constant`. */
  readonly arrivals?: "constant" | "poisson" | undefined
  /**
   * With `rate`: operations under way at once, 1 to 100,000. Beyond that an arrival waits, which counts in its response time
   * and in `delayed`; what still waits at the end is not begun any more, and counts in `unstarted`. Default 1,000.
   */
  readonly maxInFlight?: number | undefined
  /** The load rises evenly over so long, from nothing. Default 0. */
  readonly ramp?: Duration.DurationInput | undefined
  /** What begins within it is run, and not measured. Default 0. */
  readonly warmUp?: Duration.DurationInput | undefined
  /** Closed: how long a fiber waits from the end of an operation to the next. Default 0. Not with `rate`. */
  readonly thinkTime?: Duration.DurationInput | undefined
  /** With `duration`: what is under way at its end gets so long, is then interrupted and has failed, as `Unfinished`. Default 10 s. */
  readonly grace?: Duration.DurationInput | undefined
  /** Between two looks at pool and breaker, and calls of `onProgress`: 10 ms to 1 minute. Default 250 ms. */
  readonly sampleEvery?: Duration.DurationInput | undefined
  /** Which operations are drawn, what they draw, and when they arrive: 0 to 2^32 - 1. Default: drawn from `Random`, and told. */
  readonly seed?: number | undefined
  /** What it must keep to, such as `p99<200ms`, `errors<0.1%`, `rate>1000/s`, `read:p99.9<1s`; `thresholdGrammar` says it all. */
  readonly thresholds?: ReadonlyArray<string> | undefined
  /** What is tested, for whoever reads the result. */
  readonly label?: string | undefined
  /** Told how far it is, each `sampleEvery`. Must neither block nor throw. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

export const defaults = internal.defaults

/** A threshold that cannot be read, or that speaks of an operation which the scenario does not have. */
export { InvalidThresholdError } from "./internal/load/threshold.js"

/** How thresholds are written. */
export const thresholdGrammar = thresholding.grammar

/** Text that holds no result, or that of another version. */
export class InvalidResultError extends Data.TaggedError("InvalidResultError")<{ readonly message: string }> {}

/** What was found, as plain data: `Schema` for storing it, `encode` and `decode` for doing so as JSON. */
export const Result = results.Result
export type Result = results.Result
export type Latency = results.Latency

/** One test, made and not begun. */
export interface LoadTest<R = never> {
  /** Runs it to its end. To be run once: a second time it would go on counting where the first ended. */
  readonly run: Effect.Effect<Result, never, R>
  /** What is known by now: while it runs, and after it was interrupted. */
  readonly result: Effect.Effect<Result>
}

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null)

const settingsOf = (options: internal.Decoded, seed: number, bounds: { operations: number }): results.Settings => {
  const common = {
    operations: finite(bounds.operations),
    durationMs: options.duration ?? null,
    rampMs: options.ramp,
    warmUpMs: options.warmUp,
    seed
  }
  const { rate } = options
  return rate === undefined
    ? {
        model: "closed",
        concurrency: options.concurrency ?? defaults.concurrency,
        thinkTimeMs: options.thinkTime ?? 0,
        ...common
      }
    : {
        model: "open",
        rate,
        arrivals: options.arrivals ?? defaults.arrivals,
        maxInFlight: options.maxInFlight ?? defaults.maxInFlight,
        ...common
      }
}

const measuredOf = (figures: results.Figures, { delayed, unstarted }: { delayed: number; unstarted: number }) => ({
  count: figures.succeeded + figures.failed,
  errors: figures.failed,
  rate: figures.rate,
  delayed,
  unstarted,
  latency:
    figures.response === null ? undefined : { ...figures.response, percentile: results.percentileOf(figures.response) }
})

/**
 * A test on the services around it: the pool and the circuit breaker are watched if there are any. Fails, before anything has
 * run, with the options that are out of range, or with the threshold that cannot be read.
 */
export const make = <R = never>(
  given: Options<R>
): Effect.Effect<LoadTest<R>, PgError.InvalidOptionsError | thresholding.InvalidThresholdError> =>
  Effect.gen(function* () {
    const options = yield* validate.decode(internal.rule, "load")(given)
    const operations: ReadonlyArray<internal.Prepared<R>> = options.scenario
    const thresholds = yield* Either.all(
      options.thresholds.map(thresholding.parseFor(operations.map(({ name }) => name)))
    )
    const clock = yield* Effect.clock
    const seed = options.seed ?? (yield* Random.nextIntBetween(0, 2 ** 32))
    const pg = yield* Effect.serviceOption(ResilientPg.ResilientPg)
    const breaker = yield* Effect.serviceOption(CircuitBreaker.CircuitBreaker)

    const { duration = Number.POSITIVE_INFINITY, ramp, rate, warmUp } = options
    const bounded = options.operations ?? (rate === undefined ? defaults.operations : defaults.operationsAtRate)
    const bounds = {
      operations:
        options.operations === undefined && options.duration !== undefined ? Number.POSITIVE_INFINITY : bounded
    }
    const settings = settingsOf(options, seed, bounds)
    const open = settings.model === "open"
    const workers = open ? settings.maxInFlight : settings.concurrency
    const common = { warmUp, end: warmUp + duration, ramp, operations: bounds.operations }
    const pace = open
      ? Pacing.open({ ...common, rate: settings.rate, arrivals: settings.arrivals, seed })
      : Pacing.closed({ ...common, concurrency: workers, thinkTime: settings.thinkTimeMs })
    const recorder = Recorder.make(operations, { begins: warmUp, corrected: open })

    let start: bigint | undefined
    let startedAt = 0
    let complete = false
    let unstarted = 0
    const elapsed = () => (start === undefined ? 0 : running.elapsed(clock, start))

    const progress = () => {
      const { failed, succeeded } = recorder.counts()
      const expected = bounds.operations * (open ? 1 : workers)
      const known = { elapsed: elapsed(), warmUp, end: common.end, expected, done: succeeded + failed, failed }
      return progressing.of({ ...known, p99: recorder.percentile(99) })
    }

    const look = Effect.gen(function* () {
      const pool = Option.isSome(pg) ? yield* pg.value.pool : null
      const state = Option.isSome(breaker) ? yield* breaker.value.state : null
      recorder.sample({
        at: elapsed(),
        pool: pool && {
          max: pool.max,
          total: pool.total,
          idle: pool.idle,
          used: pool.used,
          connecting: pool.connecting,
          waiting: pool.waiting
        },
        breaker: state
      })
      options.onProgress?.(progress())
    })

    const result = Effect.sync((): Result => {
      const until = complete ? recorder.lastEnd() : elapsed()
      const measuredMs = Math.max(0, until - warmUp)
      const read = recorder.read(measuredMs)
      const counts = { delayed: read.delayed, unstarted }
      return {
        format: results.format,
        version: 1,
        label: options.label ?? null,
        startedAt: new Date(startedAt).toISOString(),
        settings,
        complete,
        measuredMs,
        ...read,
        unstarted,
        thresholds: thresholds.map((threshold) =>
          thresholding.judge(
            threshold,
            measuredOf(read.operations.find(({ name }) => name === threshold.operation) ?? read.total, counts)
          )
        )
      }
    })

    const run = Effect.gen(function* () {
      startedAt = yield* Clock.currentTimeMillis
      start = clock.unsafeCurrentTimeNanos()
      yield* Effect.forkScoped(Effect.repeat(look, Schedule.spaced(options.sampleEvery)))
      const plan = { operations, pace, recorder, workers, open, seed, warmUp, end: common.end, grace: options.grace }
      yield* running.run(plan, clock, start)
      unstarted = pace.left(elapsed())
      complete = true
      yield* look
      return yield* result
    }).pipe(Effect.scoped, Effect.withClock(clock))

    return { run, result }
  })

/** `make`, and run to its end. */
export const run = <R = never>(
  options: Options<R>
): Effect.Effect<Result, PgError.InvalidOptionsError | thresholding.InvalidThresholdError, R> =>
  Effect.flatMap(make(options), (test) => test.run)

/** Whether every threshold holds; a test without any has nothing to fail. */
export const passed = ({ thresholds }: Result): boolean => thresholds.every(({ ok }) => ok)

/** Weights of the built-in operations, and how many rows they work on. */
export type MixOptions = mixing.Options

/** 70 reads, 20 writes and 10 transactions, on 10,000 rows. */
export const mixDefaults = mixing.defaults

/**
 * The built-in scenario, on a table of its own: `read` is one row by its key, `write` an UPDATE of one row, `transaction` takes
 * from one row what it gives to another, in three statements. The table is made where the role creates tables by default, under a
 * name that nobody else has, and is dropped with the scope; no other table is touched. If it cannot be dropped, because the
 * server is gone, a line in the log says its name.
 */
export const mix = mixing.make

/** Any percentile of a latency, from 0 to 100, in milliseconds and to a part in a thousand. */
export const percentile = (latency: Latency, percent: number): number => results.percentileOf(latency)(percent)

/** What changed from one result to another: figures side by side, and which settings differ. */
export const compare = comparing.compare
export type Comparison = comparing.Comparison

/** A result as a page of text. */
export const summary = text.summary

/** A comparison as a page of text. */
export const comparisonSummary = text.comparison

/** A result as one HTML file that asks for nothing else, beside an earlier one if that is given. */
export const html: (result: Result, before?: Result | undefined) => string = reporting.html

/** A result as JSON, to be stored. */
export const encode = (result: Result): string => `${JSON.stringify(Schema.encodeSync(Result)(result))}\n`

const decodeResult = Schema.decodeUnknownEither(Schema.parseJson(Result))

/** The result that `encode` wrote. Fails with `InvalidResultError` where the text holds none. */
export const decode = (json: string): Either.Either<Result, InvalidResultError> =>
  Either.mapLeft(
    decodeResult(json),
    (error) =>
      new InvalidResultError({
        message: `This is not the result of a load test that this version can read: ${firstFault(error)}`
      })
  )

/** The first of what is wrong, on one line. */
const firstFault = (error: ParseResult.ParseError): string => {
  const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
  if (issue === undefined) return "it does not parse"
  const where = issue.path.length === 0 ? "" : `${issue.path.join(".")}: `
  return `${where}${issue.message.replace(/\s+/g, " ").slice(0, 200)}`
}
