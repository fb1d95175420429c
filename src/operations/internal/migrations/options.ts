/** The defaults and the rules of the options of migrations. */
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schedule from "effect/Schedule"
import * as validate from "../../../config/internal/validate.js"
import type * as PgError from "../../../error/PgError.js"
import * as RetryPolicy from "../../../policy/RetryPolicy.js"
import { type Tables, tablesOf } from "./tables.js"

export const defaults = {
  table: "effect_sql_migrations",
  lockTimeout: "3 seconds",
  /**
   * At most 20 retries: up to 1 s, doubling, capped at 15 s, full jitter, while the error is transient. That is some two minutes
   * of waiting on average.
   */
  retry: RetryPolicy.backoff({ retries: 20, first: "1 second", factor: 2, cap: "15 seconds" }),
  waitForLock: "10 minutes",
  idleTimeout: "1 minute",
  allowEdited: false,
  allowSkipped: false
} as const

/** The longest name of a table that leaves room for `_state` in the 63 bytes that PostgreSQL keeps. */
const longestName = 57

const table = validate.refined(
  `a table's name, or schema.table, of at most ${longestName} bytes each`,
  (value): value is string =>
    typeof value === "string" &&
    value.split(".").length <= 2 &&
    value.split(".").every((part) => part !== "" && !part.includes("\0") && Buffer.byteLength(part) <= longestName)
)

const limit = validate.duration({ max: validate.maxMillis, infinity: true })

const rules = validate.struct({
  table: validate.defaulted(table, defaults.table),
  lockTimeout: validate.defaulted(limit, defaults.lockTimeout),
  retry: validate.defaulted(
    validate.refined("a Schedule", (value): value is Schedule.Schedule<unknown, PgError.PgError> =>
      Schedule.isSchedule(value)
    ),
    defaults.retry
  ),
  waitForLock: validate.defaulted(
    validate.duration({ min: 0, max: validate.maxMillis, infinity: true }),
    defaults.waitForLock
  ),
  idleTimeout: validate.defaulted(limit, defaults.idleTimeout),
  allowEdited: validate.defaulted(validate.boolean, defaults.allowEdited),
  allowSkipped: validate.defaulted(validate.boolean, defaults.allowSkipped)
})

/** Times in milliseconds, `Infinity` for none. */
export interface Config extends validate.Decoded<typeof rules> {
  readonly tables: Tables
}

export const decode = (options: unknown): Effect.Effect<Config, PgError.InvalidOptionsError> =>
  Either.map(validate.decode(rules, "migrations")(options), (config) => ({ ...config, tables: tablesOf(config.table) }))
