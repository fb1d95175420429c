/** The defaults and the rules of a load test's options. */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Predicate from "effect/Predicate"
import * as validate from "../../../config/internal/validate.js"
import type { Fault } from "../../../error/PgError.js"

export const defaults = {
  /** Of a closed test, which is the default. */
  concurrency: 50,
  /** For each fiber of a closed test, where neither `operations` nor `duration` is given. */
  operations: 100,
  /** In all, of a test at a rate, where neither `operations` nor `duration` is given. */
  operationsAtRate: 5000,
  arrivals: "constant",
  maxInFlight: 1000,
  ramp: "0 seconds",
  warmUp: "0 seconds",
  thinkTime: "0 seconds",
  grace: "10 seconds",
  sampleEvery: "250 millis",
  weight: 1
} as const

/** More would make a report that nobody reads, and memory that nobody planned. */
export const mostOperations = 20

/** One kind of operation, as it is run. */
export interface Prepared<R> {
  readonly name: string
  readonly weight: number
  readonly effect: Effect.Effect<unknown, unknown, R>
}

const weight = validate.number({ min: 0, max: 1e9 })

const one = (value: unknown, field: string, name: string): Either.Either<Prepared<any>, ReadonlyArray<Fault>> => {
  if (Effect.isEffect(value)) {
    return Either.right({ name, weight: defaults.weight, effect: value as Prepared<any>["effect"] })
  }
  if (!Predicate.hasProperty(value, "effect") || !Effect.isEffect(value.effect)) {
    return Either.left([validate.fault(field, value, "an Effect, or { effect, weight }")])
  }
  const given = Predicate.hasProperty(value, "weight") ? value.weight : undefined
  return Either.map(validate.defaulted(weight, defaults.weight)(given, `${field}.weight`), (weight) => ({
    name,
    weight,
    effect: value.effect as Prepared<any>["effect"]
  }))
}

const scenario: validate.Rule<ReadonlyArray<Prepared<any>>> = (value, field) => {
  const expected = `a record of 1 to ${mostOperations} operations by name`
  if (!Predicate.isRecord(value) || Effect.isEffect(value)) {
    return Either.left([validate.fault(field, value, expected)])
  }
  const entries = Object.entries(value)
  if (entries.length === 0 || entries.length > mostOperations) {
    return Either.left([validate.fault(field, `${entries.length} operations`, expected)])
  }
  const faults: Array<Fault> = []
  const operations: Array<Prepared<any>> = []
  for (const [name, operation] of entries) {
    if (name.trim() === "" || name.length > 60) {
      faults.push(validate.fault(field, name, "names of 1 to 60 characters"))
    } else {
      Either.match(one(operation, `${field}.${name}`, name), {
        onLeft: (found) => faults.push(...found),
        onRight: (prepared) => operations.push(prepared)
      })
    }
  }
  if (faults.length === 0 && operations.every(({ weight }) => weight === 0)) {
    faults.push(validate.fault(field, "only weights of 0", "a weight above 0"))
  }
  return faults.length === 0 ? Either.right(operations.filter(({ weight }) => weight > 0)) : Either.left(faults)
}

const texts: validate.Rule<ReadonlyArray<string>> = validate.refined(
  "an array of thresholds",
  (value): value is ReadonlyArray<string> => Array.isArray(value) && value.every(Predicate.isString)
)

const time = validate.duration({ min: 0, max: validate.maxMillis })
const count = validate.integer({ min: 1, max: 1e12 })
const atOnce = validate.integer({ min: 1, max: 100_000 })

export const rule = validate.struct(
  {
    scenario,
    concurrency: validate.optional(atOnce),
    operations: validate.optional(count),
    duration: validate.optional(validate.duration({ min: 1, max: validate.maxMillis })),
    rate: validate.optional(validate.number({ min: 0.001, max: 1_000_000 })),
    arrivals: validate.optional(validate.literal("constant", "poisson")),
    maxInFlight: validate.optional(atOnce),
    ramp: validate.defaulted(time, defaults.ramp),
    warmUp: validate.defaulted(time, defaults.warmUp),
    thinkTime: validate.optional(time),
    grace: validate.defaulted(time, defaults.grace),
    sampleEvery: validate.defaulted(validate.duration({ min: 10, max: 60_000 }), defaults.sampleEvery),
    seed: validate.optional(validate.integer({ min: 0, max: 2 ** 32 - 1 })),
    thresholds: validate.defaulted(texts, []),
    label: validate.optional(validate.text),
    onProgress: validate.optional(validate.func())
  },
  {
    exact: true,
    relation: ({ arrivals, concurrency, maxInFlight, rate, thinkTime }) => {
      const only = (field: string, value: unknown, when: string) =>
        value === undefined ? [] : [validate.fault(field, value, `to be left out ${when}`)]
      return rate === undefined
        ? [
            ...only("arrivals", arrivals, "without a rate"),
            ...only("maxInFlight", maxInFlight, "without a rate: concurrency bounds it")
          ]
        : [
            ...only("concurrency", concurrency, "with a rate: maxInFlight bounds it"),
            ...only("thinkTime", thinkTime, "with a rate")
          ]
    }
  }
)

export type Decoded = validate.Decoded<typeof rule>
