/** The defaults and the rules of the monitor's options. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as validate from "../../config/internal/validate.js"
import type { Options } from "../HealthMonitor.js"
import type { HealthProbe } from "../HealthProbe.js"

/** Between two checks, by what is at stake. */
export const intervals = { production: "30 seconds", development: "10 seconds", critical: "5 seconds" } as const

export const defaults = {
  environment: "production",
  timeout: "3 seconds",
  window: "1 minute",
  historySize: 720,
  eventsSize: 500,
  probe: "dedicated"
} as const satisfies Options

const isProbe = (value: unknown): value is HealthProbe =>
  Predicate.hasProperty(value, "ping") && Effect.isEffect(value.ping)

const size = validate.integer({ min: 1, max: 100_000 })

const rules = {
  environment: validate.defaulted(validate.literal("production", "development", "critical"), defaults.environment),
  interval: validate.optional(validate.duration({ min: 100, max: validate.maxMillis, infinity: true })),
  timeout: validate.defaulted(validate.duration({ max: validate.maxMillis }), defaults.timeout),
  window: validate.defaulted(validate.duration({ min: 1000, max: validate.maxMillis }), defaults.window),
  historySize: validate.defaulted(size, defaults.historySize),
  eventsSize: validate.defaulted(size, defaults.eventsSize),
  poolName: validate.optional(validate.text)
}

/** Of a layer. */
export const rule = validate.struct(
  {
    ...rules,
    probe: validate.defaulted(
      validate.refined(
        "dedicated, pool or a probe",
        (value): value is "dedicated" | "pool" | HealthProbe =>
          value === "dedicated" || value === "pool" || isProbe(value)
      ),
      defaults.probe
    )
  },
  { exact: true }
)

/** Of `make`. */
export const makeRule = validate.struct(
  { ...rules, probe: validate.optional(validate.refined("a probe", isProbe)) },
  { exact: true }
)
