/**
 * What a load test must keep to, as text: `p99<200ms`, `errors<0.1%`, `rate>1000/s`, `read:p99.9<=1s`.
 *
 * Pure: text to threshold, and a threshold and what was measured to a verdict.
 */
import * as Data from "effect/Data"
import * as Either from "effect/Either"
import { milliseconds, quantity, share } from "./format.js"

/** The text is not a threshold, or names an operation that the scenario does not have. */
export class InvalidThresholdError extends Data.TaggedError("InvalidThresholdError")<{
  readonly message: string
  readonly threshold: string
}> {}

export type Comparator = "<" | "<=" | ">" | ">="

/** Latencies are response times in milliseconds; counts are operations, or shares of them from 0 to 1. */
export type Metric =
  | { readonly _tag: "Percentile"; readonly percent: number }
  | { readonly _tag: "Mean" }
  | { readonly _tag: "Min" }
  | { readonly _tag: "Max" }
  | { readonly _tag: "Rate" }
  | { readonly _tag: "Count"; readonly of: Counted; readonly share: boolean }

/** `delayed` and `unstarted` are of tests at a rate. */
export type Counted = "errors" | "delayed" | "unstarted"

export interface Threshold {
  readonly text: string
  /** Undefined: of all operations together. */
  readonly operation: string | undefined
  readonly metric: Metric
  readonly comparator: Comparator
  /** Milliseconds, operations a second, operations, or a share from 0 to 1. */
  readonly limit: number
}

/** What a person may write. */
export const grammar =
  "[operation:]metric comparator value, where metric is p50, p99.9 or another percentile, min, mean or max with a time " +
  "(200ms, 1.5s, 800us), errors, delayed or unstarted with a number or a percentage (5, 0.1%), or rate (1000/s), and comparator is <, <=, > or >="

const millisPer: Readonly<Record<string, number>> = { us: 0.001, µs: 0.001, ms: 1, s: 1000, m: 60_000, min: 60_000 }

const shape =
  /^(?:(?<operation>.+):)?\s*(?<metric>p\d{1,3}(?:\.\d+)?|min|mean|max|errors|delayed|unstarted|rate)\s*(?<comparator><=?|>=?)\s*(?<value>\d+(?:\.\d+)?)\s*(?<unit>us|µs|ms|s|min|m|%|\/s)?$/

const metricOf = (name: string, unit: string | undefined): Metric | undefined => {
  const time = unit !== undefined && Object.hasOwn(millisPer, unit)
  if (name.startsWith("p")) {
    const percent = Number(name.slice(1))
    return time && percent > 0 && percent <= 100 ? { _tag: "Percentile", percent } : undefined
  }
  switch (name) {
    case "min":
      return time ? { _tag: "Min" } : undefined
    case "mean":
      return time ? { _tag: "Mean" } : undefined
    case "max":
      return time ? { _tag: "Max" } : undefined
    case "rate":
      return unit === undefined || unit === "/s" ? { _tag: "Rate" } : undefined
    default:
      return unit === undefined || unit === "%"
        ? { _tag: "Count", of: name as Counted, share: unit === "%" }
        : undefined
  }
}

export const parse = (text: string): Either.Either<Threshold, InvalidThresholdError> => {
  const found = shape.exec(text.trim())?.groups
  const metric = found && metricOf(found["metric"]!, found["unit"])
  if (found === undefined || metric === undefined) {
    const message = `${JSON.stringify(text)} is not a threshold: expected ${grammar}`
    return Either.left(new InvalidThresholdError({ threshold: text, message }))
  }
  const unit = found["unit"] ?? ""
  return Either.right({
    text: text.trim(),
    operation: found["operation"]?.trim(),
    metric,
    comparator: found["comparator"] as Comparator,
    limit: Number(found["value"]) * (millisPer[unit] ?? (unit === "%" ? 0.01 : 1))
  })
}

/** `parse`, for the operations of a scenario. A count of what was delayed or never begun is of the whole test. */
export const parseFor =
  (operations: ReadonlyArray<string>) =>
  (text: string): Either.Either<Threshold, InvalidThresholdError> =>
    Either.flatMap(parse(text), (threshold) => {
      const { metric, operation } = threshold
      const fault = (message: string) => Either.left(new InvalidThresholdError({ threshold: text, message }))
      if (operation === undefined) return Either.right(threshold)
      if (!operations.includes(operation)) {
        return fault(`${JSON.stringify(text)} names no operation of this test, which has ${operations.join(", ")}`)
      }
      return metric._tag === "Count" && metric.of !== "errors"
        ? fault(
            `${JSON.stringify(text)}: ${metric.of} is known of the whole test, not of an operation; leave out "${operation}:"`
          )
        : Either.right(threshold)
    })

/** What was measured, of all operations or of one. `latency` is undefined where none succeeded. */
export interface Measured {
  /** Ended, one way or the other. */
  readonly count: number
  readonly errors: number
  /** Succeeded a second. */
  readonly rate: number
  readonly delayed: number
  readonly unstarted: number
  readonly latency:
    | {
        readonly min: number
        readonly mean: number
        readonly max: number
        readonly percentile: (percent: number) => number
      }
    | undefined
}

const actualOf = (metric: Metric, measured: Measured): number | undefined => {
  switch (metric._tag) {
    case "Percentile":
      return measured.latency?.percentile(metric.percent)
    case "Mean":
      return measured.latency?.mean
    case "Min":
      return measured.latency?.min
    case "Max":
      return measured.latency?.max
    case "Rate":
      return measured.rate
    case "Count": {
      // Of what was to be done, so that what never began is part of the whole.
      const all = measured.count + (metric.of === "unstarted" ? measured.unstarted : 0)
      return metric.share ? (all === 0 ? undefined : measured[metric.of] / all) : measured[metric.of]
    }
  }
}

const holds = (actual: number, comparator: Comparator, limit: number): boolean => {
  switch (comparator) {
    case "<":
      return actual < limit
    case "<=":
      return actual <= limit
    case ">":
      return actual > limit
    case ">=":
      return actual >= limit
  }
}

const shown = (metric: Metric, value: number): string =>
  metric._tag === "Rate"
    ? `${quantity(value)}/s`
    : metric._tag === "Count"
      ? metric.share
        ? share(value)
        : quantity(value)
      : milliseconds(value)

export interface Verdict {
  readonly threshold: string
  readonly ok: boolean
  /** What was measured, in the threshold's unit (milliseconds, a second, operations, share); null where there was nothing. */
  readonly actual: number | null
  /** The same for a person. */
  readonly found: string
}

/** A threshold that nothing was measured for does not hold: a test that proves nothing has not passed. */
export const judge = (threshold: Threshold, measured: Measured): Verdict => {
  const { comparator, limit, metric, text } = threshold
  const actual = measured.count === 0 && measured.unstarted === 0 ? undefined : actualOf(metric, measured)
  return {
    threshold: text,
    ok: actual !== undefined && holds(actual, comparator, limit),
    actual: actual ?? null,
    found: actual === undefined ? "nothing was measured" : shown(metric, actual)
  }
}
