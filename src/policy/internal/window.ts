/**
 * What a closed circuit remembers of the attempts that settled lately, and the rules that say when it is enough.
 */
import * as Option from "effect/Option"
import type * as PgError from "../../error/PgError.js"
import { isConnectivity, type Verdict } from "./verdict.js"

/** When to trip. A rule that is off has `Infinity` for its threshold or rate. */
export interface Rules {
  /** Counted failures in a row, with no success after the first of them. */
  readonly failureThreshold: number
  readonly windowMs: number
  /** Share of counted failures among the calls of the window, from 0 to 1. */
  readonly failureRate: number
  /** Share of calls that took longer than `slowCallMs`, from 0 to 1. */
  readonly slowCallRate: number
  readonly slowCallMs: number
  /** Calls in the window below which the two rates say nothing. */
  readonly minimumCalls: number
}

interface Failed {
  readonly at: number
  readonly tag: PgError.Tag
}

/** The calls of one tenth of the window; those that failed for want of a server are in a bucket of their own. */
interface Bucket {
  readonly index: number
  readonly connectivity: boolean
  readonly calls: number
  readonly slow: number
  readonly failures: number
  readonly tags: ReadonlyArray<PgError.Tag>
}

/** `failures` since the last success, oldest first; `buckets` only where a rate is asked for. */
export interface Window {
  readonly failures: ReadonlyArray<Failed>
  readonly buckets: ReadonlyArray<Bucket>
}

export const empty: Window = { failures: [], buckets: [] }

const bucketCount = 10

/** Whether successes have to be counted too. */
export const countsCalls = (rules: Rules): boolean =>
  rules.failureRate !== Number.POSITIVE_INFINITY || rules.slowCallRate !== Number.POSITIVE_INFINITY

/** Whether a call of this length is slow, and slowness asked for. */
export const isSlow = (durationMs: number, rules: Rules): boolean =>
  rules.slowCallRate !== Number.POSITIVE_INFINITY && durationMs > rules.slowCallMs

const failedAfter = (failures: ReadonlyArray<Failed>, now: number, rules: Rules) =>
  failures.filter(({ at }) => now - at < rules.windowMs)

const bucketIndex = (now: number, rules: Rules) => Math.floor((now * bucketCount) / rules.windowMs)

const bucketsAfter = (buckets: ReadonlyArray<Bucket>, now: number, rules: Rules) => {
  const oldest = bucketIndex(now, rules) - bucketCount
  return buckets.filter(({ index }) => index > oldest)
}

const distinct = <A>(values: Iterable<A>): ReadonlyArray<A> => Array.from(new Set(values))

const count = (buckets: ReadonlyArray<Bucket>, tag: PgError.Tag | undefined, slow: boolean, index: number) => {
  const connectivity = tag !== undefined && isConnectivity(tag)
  const found = buckets.findLastIndex((bucket) => bucket.connectivity === connectivity && bucket.index >= index)
  const open = buckets[found] ?? { index, connectivity, calls: 0, slow: 0, failures: 0, tags: [] }
  const counted: Bucket = {
    ...open,
    calls: open.calls + 1,
    slow: open.slow + (slow ? 1 : 0),
    failures: open.failures + (tag === undefined ? 0 : 1),
    tags: tag === undefined ? open.tags : distinct([...open.tags, tag])
  }
  return found < 0 ? [...buckets, counted] : buckets.with(found, counted)
}

/** The window after one more call. The same window where nothing has to be remembered. */
export const record = (window: Window, verdict: Verdict, durationMs: number, now: number, rules: Rules): Window => {
  if (verdict._tag === "Neutral") return window
  const tag = verdict._tag === "Failure" ? verdict.tag : undefined
  const buckets = countsCalls(rules)
    ? count(bucketsAfter(window.buckets, now, rules), tag, isSlow(durationMs, rules), bucketIndex(now, rules))
    : window.buckets
  const failures =
    tag === undefined || rules.failureThreshold === Number.POSITIVE_INFINITY
      ? empty.failures
      : [...failedAfter(window.failures, now, rules), { at: now, tag }]
  return failures.length === 0 && buckets.length === 0 ? empty : { failures, buckets }
}

/** The window after a connection has succeeded: calls that failed for want of one are as if they had not been. */
export const reconnected = ({ buckets, failures }: Window): Window => {
  const kept = {
    failures: failures.filter(({ tag }) => !isConnectivity(tag)),
    buckets: buckets.filter(({ connectivity }) => !connectivity)
  }
  return kept.failures.length === 0 && kept.buckets.length === 0 ? empty : kept
}

const total = (buckets: ReadonlyArray<Bucket>, field: "calls" | "slow" | "failures") =>
  buckets.reduce((sum, bucket) => sum + bucket[field], 0)

/** Counted failures that the window still holds. */
export const failureCount = (window: Window, now: number, rules: Rules): number =>
  Math.max(failedAfter(window.failures, now, rules).length, total(bucketsAfter(window.buckets, now, rules), "failures"))

const rateReached = (buckets: ReadonlyArray<Bucket>, field: "slow" | "failures", rate: number, rules: Rules) => {
  const calls = total(buckets, "calls")
  return calls >= rules.minimumCalls && total(buckets, field) / calls >= rate
}

/** A rule looks at a window that has just recorded a call, and names the tags that it counted. */
interface TripRule {
  readonly reason: TripReason
  readonly trips: (window: Window, rules: Rules) => boolean
  readonly cause: (window: Window) => ReadonlyArray<PgError.Tag>
}

export type TripReason = "consecutiveFailures" | "failureRate" | "slowCallRate"

const tripRules: ReadonlyArray<TripRule> = [
  {
    reason: "consecutiveFailures",
    trips: ({ failures }, rules) => failures.length >= rules.failureThreshold,
    cause: ({ failures }) => distinct(failures.map(({ tag }) => tag))
  },
  {
    reason: "failureRate",
    trips: ({ buckets }, rules) => rateReached(buckets, "failures", rules.failureRate, rules),
    cause: ({ buckets }) => distinct(buckets.flatMap(({ tags }) => tags))
  },
  {
    reason: "slowCallRate",
    trips: ({ buckets }, rules) => rateReached(buckets, "slow", rules.slowCallRate, rules),
    cause: () => []
  }
]

/** Should a circuit with this window trip, and on account of which tags? */
export const tripped = (window: Window, rules: Rules) =>
  Option.map(Option.fromNullable(tripRules.find((rule) => rule.trips(window, rules))), ({ cause, reason }) => ({
    reason,
    cause: cause(window)
  }))
