/** The rules of the doctor's options. */
import * as Predicate from "effect/Predicate"
import * as Record from "effect/Record"
import * as validate from "../../../config/internal/validate.js"
import * as Platform from "../../../config/Platform.js"
import { defaults, type Levels, type Thresholds } from "./thresholds.js"

const figure = validate.number({ infinity: true })

const levels = validate.struct(
  { warning: figure, critical: figure },
  {
    exact: true,
    relation: ({ critical, warning }) =>
      critical !== undefined && warning !== undefined && critical < warning
        ? [validate.fault("critical", critical, `${warning} or more, as \`warning\` is`)]
        : []
  }
) as validate.Rule<Levels>

const thresholds = validate.struct(
  Record.map(
    defaults as unknown as Readonly<Record<keyof Thresholds, unknown>>,
    (value): validate.Rule<unknown> =>
      Predicate.isNumber(value) ? validate.optional(figure) : validate.optional(levels)
  ),
  { exact: true }
) as validate.Rule<Partial<Thresholds>>

const some = validate.optional(validate.integer({ min: 1 }))

export const rule = validate.struct(
  {
    maxConnections: some,
    instances: some,
    expectedConcurrency: some,
    platform: validate.optional(validate.literal(...Platform.names)),
    thresholds: validate.optional(thresholds),
    timeout: validate.defaulted(validate.duration({ min: 1, max: validate.maxMillis }), "10 seconds")
  },
  { exact: true }
)
