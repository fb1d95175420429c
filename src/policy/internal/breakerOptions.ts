/** The defaults and the rules of the breaker's options, and what they decode to. */
import * as Duration from "effect/Duration"
import * as validate from "../../config/internal/validate.js"
import type { Change, Options } from "../CircuitBreaker.js"
import type { Config } from "./breaker.js"

export const defaults = {
  failureThreshold: 5,
  window: "1 minute",
  slowCallDuration: "5 seconds",
  minimumCalls: 20,
  resetTimeout: "30 seconds",
  maxResetTimeout: "5 minutes",
  probes: 3,
  successesToClose: 2
} as const satisfies Options

const rate = validate.map(
  validate.optional(validate.number({ min: 0.01, max: 1 })),
  (rate) => rate ?? Number.POSITIVE_INFINITY
)

const maxResetMs = (given: number | undefined, resetMs: number) =>
  given ?? Math.max(resetMs, Duration.toMillis(defaults.maxResetTimeout))

export const rule = validate.struct(
  {
    failureThreshold: validate.defaulted(validate.integer({ min: 1, infinity: true }), defaults.failureThreshold),
    window: validate.defaulted(validate.duration(), defaults.window),
    failureRate: rate,
    slowCallRate: rate,
    slowCallDuration: validate.defaulted(validate.duration(), defaults.slowCallDuration),
    minimumCalls: validate.defaulted(validate.integer({ min: 1 }), defaults.minimumCalls),
    resetTimeout: validate.defaulted(validate.duration({ max: validate.maxMillis }), defaults.resetTimeout),
    maxResetTimeout: validate.optional(validate.duration({ max: validate.maxMillis })),
    probes: validate.defaulted(validate.integer({ min: 1 }), defaults.probes),
    successesToClose: validate.defaulted(validate.integer({ min: 1 }), defaults.successesToClose),
    onChange: validate.optional(validate.func<(change: Change) => void>())
  },
  {
    relation: ({ maxResetTimeout, resetTimeout }) =>
      resetTimeout !== undefined && maxResetMs(maxResetTimeout, resetTimeout) < resetTimeout
        ? [validate.fault("maxResetTimeout", maxResetTimeout, `resetTimeout, which is ${resetTimeout} ms, or more`)]
        : []
  }
)

type Decoded = validate.Decoded<typeof rule>

export const configOf = (options: Decoded): Config => ({
  failureThreshold: options.failureThreshold,
  windowMs: options.window,
  failureRate: options.failureRate,
  slowCallRate: options.slowCallRate,
  slowCallMs: options.slowCallDuration,
  minimumCalls: options.minimumCalls,
  resetMs: options.resetTimeout,
  maxResetMs: maxResetMs(options.maxResetTimeout, options.resetTimeout),
  probes: options.probes,
  successes: options.successesToClose
})
