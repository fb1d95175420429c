/** The defaults of every option, and the rules that decode them: times to milliseconds, `"infinity"` to `Infinity`. */

import type { Duplex } from "node:stream"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import type { CustomTypesConfig } from "pg"
import type { Fault } from "../../error/PgError.js"
import * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import * as breakerOptions from "../../policy/internal/breakerOptions.js"
import * as budgetOptions from "../../policy/internal/budgetOptions.js"
import * as Operation from "../../policy/Operation.js"
import * as RetryBudget from "../../policy/RetryBudget.js"
import * as RetryPolicy from "../../policy/RetryPolicy.js"
import * as target from "./target.js"
import * as validate from "./validate.js"

/** Every default once: documentation, decoding and `fromEnv` read these. */
export const defaults = {
  minConnections: 0,
  maxConnections: 10,
  maxWaiting: 10_000,
  acquireTimeout: "30 seconds",
  idleTimeout: "10 seconds",
  connectionTTL: "30 minutes",
  maxUses: "infinity",
  closeGrace: "5 seconds",
  checkAfterIdle: "500 millis",
  connectTimeout: "10 seconds",
  keepAlive: true,
  leakThreshold: "60 seconds",
  requireOnStart: false,
  exposeServerDetail: false,
  slowQueryThreshold: "1 second",
  retry: RetryPolicy.standard,
  retryBudget: RetryBudget.defaults,
  breaker: CircuitBreaker.defaults,
  autoRetryReads: true,
  preparedStatements: { size: 256, after: 2 },
  lanes: true,
  /** In milliseconds, as `Operation` has them. */
  timeouts: Operation.defaultLimits,
  ledger: { schema: "public", table: "effect_pg_ledger", retention: "7 days" }
} as const

/** A limit in time: 1 ms or more, and `"infinity"` for none. */
const limit = validate.duration({ infinity: true })

/** As `limit`, with 0 for none: what `pg` means by it. */
export const limitOrZero = validate.map(validate.duration({ min: 0, infinity: true }), (millis) =>
  millis === 0 ? Number.POSITIVE_INFINITY : millis
)

/** An age from which something is done: 0 is always, `"infinity"` never. */
const age = validate.duration({ min: 0, infinity: true })

/** Settings of the startup message that have an option of their own. */
const ownOption = new Map([
  ["user", "username"],
  ["database", "database"],
  ["application_name", "applicationName"],
  ["statement_timeout", "serverTimeouts.statement"],
  ["lock_timeout", "serverTimeouts.lock"],
  ["idle_in_transaction_session_timeout", "serverTimeouts.idleInTransaction"]
])

/** Names as PostgreSQL accepts them, values as text. The values are kept out of faults: some programs pass keys here. */
const parameters: validate.Rule<{ readonly [name: string]: string }> = (value, field) => {
  if (!Predicate.isRecord(value)) return Either.left([validate.fault(field, value, "a record of strings")])
  const faults = Object.entries(value).flatMap(([name, setting]): ReadonlyArray<Fault> => {
    const refused = (expected: string) => [validate.fault(`${field}.${name}`, "<redacted>", expected)]
    const option = ownOption.get(name.toLowerCase())
    if (option !== undefined) return refused(`to be given as ${option}`)
    if (!/^[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)*$/i.test(name)) return refused("the name of a server setting")
    return Predicate.isString(setting) ? [] : refused("a string")
  })
  return faults.length === 0 ? Either.right(value as { readonly [name: string]: string }) : Either.left(faults)
}

/** Bytes of a name that PostgreSQL keeps (`NAMEDATALEN` - 1), less those that names made of it have more, as `_token`. */
const maxName = 63 - 6

const ledgerName = validate.refined(
  `a name of 1 to ${maxName} bytes`,
  (value): value is string =>
    Predicate.isString(value) && value !== "" && !value.includes("\0") && Buffer.byteLength(value) <= maxName
)

/** Milliseconds. */
const century = 100 * 365 * 24 * 60 * 60 * 1000

/** How many of the longest deadlines a token must be remembered: nobody may come back later and find it forgotten. */
const deadlinesKept = 100

const record = validate.refined("a record", Predicate.isRecord)

/** Options that are decoded by whoever they are for: as they were given, if they are sound. */
const checked =
  <A>(self: validate.Rule<unknown>): validate.Rule<A> =>
  (value, field) =>
    Either.map(self(value, field), () => value as A)

const maxRetries = validate.optional(validate.integer({ infinity: true }))
const schedule = validate.optional(validate.refined("a Schedule", Schedule.isSchedule))

/** A policy as it is, after a look at each part of it. */
const retryPolicy: validate.Rule<RetryPolicy.RetryPolicy> = (value, field) => {
  if (!Predicate.isRecord(value)) return Either.left([validate.fault(field, value, "false or a RetryPolicy")])
  const faults = Object.entries(value).flatMap(([name, part]) => {
    const rule: validate.Rule<unknown> = name === "maxRetries" ? maxRetries : schedule
    return Either.match(rule(part, `${field}.${name}`), { onLeft: (found) => [...found], onRight: () => [] })
  })
  return faults.length === 0 ? Either.right(value as RetryPolicy.RetryPolicy) : Either.left(faults)
}

/** Each option's rule by its name. PostgreSQL itself can keep no more than 262,143 connections (`MAX_BACKENDS`). */
export const rules = {
  url: validate.optional(target.url),
  host: validate.optional(validate.text),
  port: validate.optional(target.port),
  path: validate.optional(validate.text),
  ssl: validate.optional(target.ssl),
  database: validate.optional(validate.text),
  username: validate.optional(validate.text),
  password: validate.optional(target.password),
  stream: validate.optional(validate.func<() => Duplex>()),
  applicationName: validate.optional(validate.text),

  minConnections: validate.integer({ max: 262_143 }),
  maxConnections: validate.integer({ min: 1, max: 262_143 }),
  maxWaiting: validate.integer({ infinity: true }),
  acquireTimeout: limit,
  idleTimeout: limitOrZero,
  connectionTTL: limitOrZero,
  maxUses: validate.integer({ min: 1, infinity: true }),
  closeGrace: age,
  checkAfterIdle: age,
  connectTimeout: limit,
  keepAlive: validate.boolean,
  leakThreshold: limit,
  poolName: validate.optional(validate.text),

  onConnect: validate.optional(validate.func<(connection: Connection) => Effect.Effect<void, SqlError>>()),
  parameters: validate.defaulted(parameters, {}),
  serverTimeouts: validate.defaulted(
    validate.struct(
      {
        statement: validate.optional(target.serverTimeout),
        lock: validate.optional(target.serverTimeout),
        idleInTransaction: validate.optional(target.serverTimeout)
      },
      { exact: true }
    ),
    {}
  ),
  requireOnStart: validate.boolean,

  timeouts: validate.orFalse(
    validate.struct(
      {
        query: validate.defaulted(limit, defaults.timeouts.query),
        complex: validate.defaulted(limit, defaults.timeouts.complex),
        batchBase: validate.defaulted(limit, defaults.timeouts.batchBase),
        batchPerRow: validate.defaulted(age, defaults.timeouts.batchPerRow),
        transaction: validate.defaulted(limit, defaults.timeouts.transaction)
      },
      { exact: true }
    )
  ),
  ledger: validate.defaulted(
    validate.struct(
      {
        schema: validate.defaulted(ledgerName, defaults.ledger.schema),
        table: validate.defaulted(ledgerName, defaults.ledger.table),
        retention: validate.defaulted(validate.duration({ max: century }), defaults.ledger.retention)
      },
      { exact: true }
    ),
    defaults.ledger
  ),
  retry: validate.orFalse(retryPolicy),
  breaker: validate.orFalse(checked<CircuitBreaker.Options>(breakerOptions.rule)),
  retryBudget: validate.orFalse(checked<RetryBudget.Options>(budgetOptions.rule)),
  autoRetryReads: validate.boolean,
  lanes: validate.boolean,
  preparedStatements: validate.orFalse(
    validate.struct(
      {
        size: validate.defaulted(validate.integer({ min: 1, max: 10_000 }), defaults.preparedStatements.size),
        after: validate.defaulted(validate.integer({ min: 1 }), defaults.preparedStatements.after)
      },
      { exact: true }
    )
  ),

  exposeServerDetail: validate.boolean,
  slowQueryThreshold: age,

  spanAttributes: validate.defaulted(record, {}),
  transformResultNames: validate.optional(validate.func<(name: string) => string>()),
  transformQueryNames: validate.optional(validate.func<(name: string) => string>()),
  transformJson: validate.optional(validate.boolean),
  types: validate.optional(
    validate.refined("pg's custom types", (value): value is CustomTypesConfig =>
      Predicate.hasProperty(value, "getTypeParser")
    )
  )
}

/** The pool's minimum is at most its maximum, and the ledger remembers for longer than anybody works. */
export const relation: validate.Relation<typeof rules> = ({ ledger, maxConnections, minConnections, timeouts }) => {
  const longest = Math.max(...Object.values(timeouts === false ? {} : (timeouts ?? {})).filter(Number.isFinite), 0)
  const kept = deadlinesKept * longest
  return [
    ...(minConnections !== undefined && maxConnections !== undefined && minConnections > maxConnections
      ? [validate.fault("minConnections", minConnections, `at most maxConnections, ${maxConnections}`)]
      : []),
    ...(ledger !== undefined && ledger.retention < kept
      ? [
          validate.fault(
            "ledger.retention",
            ledger.retention,
            `${kept} ms or more: ${deadlinesKept} of the longest deadline`
          )
        ]
      : [])
  ]
}
