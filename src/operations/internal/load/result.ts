/** What a load test has found, as plain data: everything in it is what JSON holds, so that it can be stored and read again. */
import * as Schema from "effect/Schema"
import * as Histogram from "./histogram.js"

/** What a file says that holds a result. */
export const format = "effect-pg-resilience/load-test"

const Count = Schema.NonNegativeInt
const Millis = Schema.NonNegative.pipe(Schema.finite())

const Buckets = Schema.Struct({
  bits: Schema.Int,
  counts: Schema.Array(Schema.Number),
  sum: Schema.Number,
  min: Schema.Number,
  max: Schema.Number
}).pipe(Schema.filter((encoded) => Histogram.faultOf(encoded)))

/** Milliseconds, each percentile to a part in a thousand. `histogram` counts microseconds. */
export const Latency = Schema.Struct({
  min: Millis,
  mean: Millis,
  p50: Millis,
  p75: Millis,
  p90: Millis,
  p95: Millis,
  p99: Millis,
  p99_9: Millis,
  max: Millis,
  histogram: Buckets
})
export type Latency = typeof Latency.Type

/** The percentiles of a latency that have a name, in rising order. */
export const percentiles = { p50: 50, p75: 75, p90: 90, p95: 95, p99: 99, p99_9: 99.9 } as const

const figures = {
  succeeded: Count,
  failed: Count,
  /** Succeeded a second. */
  rate: Schema.NonNegative,
  /** Of what succeeded, from when it was due to its end; null where nothing has. */
  response: Schema.NullOr(Latency),
  /** The same from when it began: at a rate. In a closed test what is due begins, so that there is but one. */
  service: Schema.NullOr(Latency)
}

export const Figures = Schema.Struct(figures)
export type Figures = typeof Figures.Type

export const OperationFigures = Schema.Struct({ name: Schema.String, weight: Schema.NonNegative, ...figures })
export type OperationFigures = typeof OperationFigures.Type

const common = {
  /** Null: no bound. Of a closed test for each fiber, else in all. */
  operations: Schema.NullOr(Count),
  durationMs: Schema.NullOr(Millis),
  rampMs: Millis,
  warmUpMs: Millis,
  seed: Count
}

export const Settings = Schema.Union(
  Schema.Struct({ model: Schema.Literal("closed"), concurrency: Count, thinkTimeMs: Millis, ...common }),
  Schema.Struct({
    model: Schema.Literal("open"),
    rate: Schema.Positive,
    arrivals: Schema.Literal("constant", "poisson"),
    maxInFlight: Count,
    ...common
  })
)
export type Settings = typeof Settings.Type

export const ErrorCount = Schema.Struct({
  operation: Schema.String,
  /** Of `PgError`, else the failure's own `_tag` or name; `Defect`, `Interrupted`, or `Unfinished` when the grace was over. */
  tag: Schema.String,
  count: Count,
  /** Of the first of them. */
  message: Schema.String
})
export type ErrorCount = typeof ErrorCount.Type

export const Interval = Schema.Struct({
  at: Millis,
  width: Millis,
  succeeded: Count,
  errors: Count,
  p50: Schema.NullOr(Millis),
  p99: Schema.NullOr(Millis),
  max: Schema.NullOr(Millis)
})

export const Sample = Schema.Struct({
  at: Millis,
  pool: Schema.NullOr(
    Schema.Struct({ max: Count, total: Count, idle: Count, used: Count, connecting: Count, waiting: Count })
  ),
  breaker: Schema.NullOr(Schema.Literal("Closed", "Open", "HalfOpen", "ForcedOpen", "ForcedClosed"))
})

export const Verdict = Schema.Struct({
  threshold: Schema.String,
  ok: Schema.Boolean,
  actual: Schema.NullOr(Schema.Number),
  found: Schema.String
})

/** Times are milliseconds; those on the timeline count from the end of the warm-up, from where on things are measured. */
export const Result = Schema.Struct({
  format: Schema.Literal(format),
  version: Schema.Literal(1),
  /** What was tested, in the words of whoever did. */
  label: Schema.NullOr(Schema.String),
  /** ISO 8601, UTC. */
  startedAt: Schema.String,
  settings: Settings,
  /** False: stopped before it had come to its end. */
  complete: Schema.Boolean,
  measuredMs: Millis,
  total: Figures,
  operations: Schema.Array(OperationFigures),
  errors: Schema.Array(ErrorCount),
  /** How long what failed took. */
  failed: Schema.NullOr(Latency),
  /** Of the failures that are a `PgError`. */
  outcomes: Schema.Struct({ NotApplied: Count, Unknown: Count }),
  /** Under way when the test was stopped. */
  unfinished: Count,
  /** At a rate: began late, because as many as `maxInFlight` were under way. */
  delayed: Count,
  /** Began more than 10 ms late, although there was room: the program that runs the test had no time for them. */
  behind: Count,
  /** At a rate: due before the end, and never begun, because as many as `maxInFlight` were under way until the end. */
  unstarted: Count,
  timeline: Schema.Array(Interval),
  samples: Schema.Array(Sample),
  thresholds: Schema.Array(Verdict)
})
export type Result = typeof Result.Type

/** Milliseconds; null for a histogram without values. */
export const latencyOf = (histogram: Histogram.Histogram): Latency | null => {
  if (histogram.total === 0) return null
  const millis = (percent: number) => Histogram.percentile(histogram, percent) / 1000
  return {
    min: histogram.min / 1000,
    mean: Histogram.mean(histogram) / 1000,
    p50: millis(50),
    p75: millis(75),
    p90: millis(90),
    p95: millis(95),
    p99: millis(99),
    p99_9: millis(99.9),
    max: histogram.max / 1000,
    histogram: Histogram.encode(histogram)
  }
}

/** Any percentile of a latency, milliseconds. */
export const percentileOf = ({ histogram }: Latency): ((percent: number) => number) => {
  const decoded = Histogram.decode(histogram)
  return (percent) => Histogram.percentile(decoded, percent) / 1000
}
