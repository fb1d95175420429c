/**
 * What a running load test counts. Synchronous and of bounded size: a few histograms for each kind of operation, a timeline,
 * the samples, and the tags of failures, however many operations there are. Times are milliseconds from the beginning.
 */
import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as PgError from "../../../error/PgError.js"
import * as Histogram from "./histogram.js"
import type { ErrorCount, Figures, OperationFigures } from "./result.js"
import { latencyOf } from "./result.js"
import * as Timeline from "./timeline.js"

/** Different failures told apart, for each kind of operation: the rest is `Other`. */
const mostTags = 50

const longest = 300

/** A failure as it is counted. */
export interface Failure {
  readonly tag: string
  readonly message: string
  readonly outcome: PgError.Outcome | undefined
}

const oneLine = (text: string) => {
  const line = text.replace(/\s+/g, " ").trim()
  return line.length > longest ? `${line.slice(0, longest)}…` : line
}

const messageOf = (error: unknown): string =>
  oneLine(Predicate.hasProperty(error, "message") && Predicate.isString(error.message) ? error.message : String(error))

const ofError = (error: unknown): Failure => {
  if (PgError.isPgError(error)) return { tag: error._tag, message: oneLine(error.message), outcome: error.outcome }
  if (
    Predicate.isTagged(error, "SqlError") &&
    Predicate.hasProperty(error, "cause") &&
    PgError.isPgError(error.cause)
  ) {
    return ofError(error.cause)
  }
  const tag =
    Predicate.hasProperty(error, "_tag") && Predicate.isString(error._tag)
      ? error._tag
      : error instanceof Error
        ? error.name
        : "Failure"
  return { tag, message: messageOf(error), outcome: undefined }
}

export const failureOf = (cause: Cause.Cause<unknown>): Failure => {
  const failure = Cause.failureOption(cause)
  if (Option.isSome(failure)) return ofError(failure.value)
  const defect = Cause.dieOption(cause)
  return Option.isSome(defect)
    ? { tag: "Defect", message: messageOf(defect.value), outcome: undefined }
    : { tag: "Interrupted", message: "interrupted itself", outcome: undefined }
}

interface Counters {
  begun: number
  succeeded: number
  failed: number
  readonly response: Histogram.Histogram
  readonly service: Histogram.Histogram | undefined
  readonly errors: Map<string, { count: number; readonly message: string }>
}

/** `delayed`: everybody was busy when it was due. `behind`: somebody was free, but the program had no time for it. */
export type Punctuality = "onTime" | "delayed" | "behind"

export interface Recorder {
  readonly begin: (operation: number, punctuality: Punctuality) => void
  /** An operation that was due at `due` and began at `started` has come to its end at `ended`. */
  readonly end: (
    operation: number,
    due: number,
    started: number,
    ended: number,
    exit: Exit.Exit<unknown, unknown>
  ) => void
  /** Whatever is under way has failed: nobody waits for it any longer. */
  readonly abandon: () => void
  readonly sample: (sample: Timeline.Sample) => void
  readonly counts: () => { readonly begun: number; readonly succeeded: number; readonly failed: number }
  /** Of what has succeeded, milliseconds; NaN while nothing has. */
  readonly percentile: (percent: number) => number
  /** When the last operation ended. */
  readonly lastEnd: () => number
  readonly read: (measuredMs: number) => {
    readonly total: Figures
    readonly operations: ReadonlyArray<OperationFigures>
    readonly errors: ReadonlyArray<ErrorCount>
    readonly failed: ReturnType<typeof latencyOf>
    readonly outcomes: { readonly NotApplied: number; readonly Unknown: number }
    readonly unfinished: number
    readonly delayed: number
    readonly behind: number
    readonly timeline: ReadonlyArray<Timeline.Interval>
    readonly samples: ReadonlyArray<Timeline.Sample>
  }
}

/** `begins`: where measuring begins. `corrected`: what was due may begin later, so that there are two latencies. */
export const make = (
  operations: ReadonlyArray<{ readonly name: string; readonly weight: number }>,
  { begins, corrected }: { readonly begins: number; readonly corrected: boolean }
): Recorder => {
  const counters = operations.map(
    (): Counters => ({
      begun: 0,
      succeeded: 0,
      failed: 0,
      response: Histogram.make(),
      service: corrected ? Histogram.make() : undefined,
      errors: new Map()
    })
  )
  const failed = Histogram.make()
  const outcomes = { NotApplied: 0, Unknown: 0 }
  const timeline = Timeline.make()
  const samples = Timeline.makeSamples()
  const late = { onTime: 0, delayed: 0, behind: 0 }
  let lastEnd = begins

  const count = (counter: Counters, { message, outcome, tag }: Failure, times: number) => {
    counter.failed += times
    if (outcome !== undefined) outcomes[outcome] += times
    const known = counter.errors.has(tag) || counter.errors.size < mostTags ? tag : "Other"
    const entry = counter.errors.get(known)
    if (entry === undefined) counter.errors.set(known, { count: times, message })
    else entry.count += times
  }

  const counts = () =>
    counters.reduce(
      (all, { begun, failed, succeeded }) => ({
        begun: all.begun + begun,
        succeeded: all.succeeded + succeeded,
        failed: all.failed + failed
      }),
      { begun: 0, succeeded: 0, failed: 0 }
    )

  const together = (of: (counter: Counters) => Histogram.Histogram | undefined): Histogram.Histogram => {
    const all = Histogram.make()
    for (const counter of counters) {
      const one = of(counter)
      if (one !== undefined) Histogram.merge(all, one)
    }
    return all
  }

  return {
    begin: (operation, punctuality) => {
      counters[operation]!.begun += 1
      late[punctuality] += 1
    },
    end: (operation, due, started, ended, exit) => {
      const counter = counters[operation]!
      lastEnd = Math.max(lastEnd, ended)
      // Timers fire up to a millisecond early: then it is due when it begins.
      const response = ended - Math.min(due, started)
      if (exit._tag === "Success") {
        counter.succeeded += 1
        Histogram.record(counter.response, response * 1000)
        if (counter.service !== undefined) Histogram.record(counter.service, (ended - started) * 1000)
        Timeline.record(timeline, ended - begins, response)
      } else {
        count(counter, failureOf(exit.cause), 1)
        Histogram.record(failed, response * 1000)
        Timeline.record(timeline, ended - begins, undefined)
      }
    },
    abandon: () => {
      for (const counter of counters) {
        const left = counter.begun - counter.succeeded - counter.failed
        if (left === 0) continue
        count(
          counter,
          { tag: "Unfinished", message: "had not ended when the grace was over", outcome: undefined },
          left
        )
      }
    },
    sample: (sample) => {
      if (sample.at >= begins) Timeline.offer(samples, { ...sample, at: sample.at - begins })
    },
    counts,
    percentile: (percent) =>
      Histogram.percentile(
        together(({ response }) => response),
        percent
      ) / 1000,
    lastEnd: () => lastEnd,
    read: (measuredMs) => {
      const { begun, failed: fails, succeeded } = counts()
      const seconds = measuredMs / 1000
      const rate = (succeeded: number) => (seconds > 0 ? succeeded / seconds : 0)
      return {
        total: {
          succeeded,
          failed: fails,
          rate: rate(succeeded),
          response: latencyOf(together(({ response }) => response)),
          service: latencyOf(together(({ service }) => service))
        },
        operations: operations.map(({ name, weight }, n) => {
          const { failed, response, service, succeeded } = counters[n]!
          return {
            name,
            weight,
            succeeded,
            failed,
            rate: rate(succeeded),
            response: latencyOf(response),
            service: service === undefined ? null : latencyOf(service)
          }
        }),
        errors: operations
          .flatMap(({ name }, n) =>
            Array.from(counters[n]!.errors, ([tag, entry]) => ({ operation: name, tag, ...entry }))
          )
          .sort((a, b) => b.count - a.count),
        failed: latencyOf(failed),
        outcomes: { ...outcomes },
        unfinished: begun - succeeded - fails,
        delayed: late.delayed,
        behind: late.behind,
        timeline: Timeline.intervals(timeline, measuredMs),
        samples: [...samples.all]
      }
    }
  }
}
