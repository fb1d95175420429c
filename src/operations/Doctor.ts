/**
 * What about a server, and about a program's way to it, should be otherwise: findings, each with what to do.
 *
 * ```ts
 * const report = yield* Doctor.examine()
 * for (const { advice, found, severity } of report.findings) yield* Effect.log(`${severity}: ${found} ${advice}`)
 * ```
 *
 * It only reads, and only catalogs and statistics: on a connection of its own first, and then, one short statement after the
 * other, on one of the pool's. A check that may not look says so in `notChecked`, with what would help, and never passes;
 * the role `pg_monitor` may look at everything. The queries of others, which may hold data, are not read.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as validate from "../config/internal/validate.js"
import type * as Platform from "../config/Platform.js"
import * as ResilienceConfig from "../config/ResilienceConfig.js"
import type * as PgError from "../error/PgError.js"
import * as ResilientPg from "../ResilientPg.js"
import * as gathering from "./internal/doctor/facts.js"
import * as judging from "./internal/doctor/judge.js"
import * as Model from "./internal/doctor/model.js"
import * as rules from "./internal/doctor/options.js"
import * as limits from "./internal/doctor/thresholds.js"

/** From best to worst: `ok`, `info`, `warning`, `critical`. */
export type Severity = Model.Severity
/** What one check has found, and what to do about it. */
export type Finding = Model.Finding
/** Why a check could not look. */
export type NotChecked = Model.NotChecked
export type Report = Model.Report
/** The report as a schema, for its JSON. */
export const Report = Model.Report

/** From best to worst. */
export const severities = Model.severities

/** Whether a severity is at least as bad as another. */
export const atLeast = Model.atLeast

export type Levels = limits.Levels
export type Thresholds = limits.Thresholds

export interface Options {
  /** Connections that one instance's pool opens at most: 1 or more. Default: the client's own `maxConnections`. */
  readonly maxConnections?: number | undefined
  /** Instances of the program that share the server: 1 or more. Default 1. */
  readonly instances?: number | undefined
  /** For the recommended pool. Default: nothing is known, as with `PoolSizing.recommend`. */
  readonly platform?: Platform.Platform | undefined
  /** For the recommended pool: operations of one instance that want a connection at the same moment, 1 or more. */
  readonly expectedConcurrency?: number | undefined
  /** Replaces some of `defaults`: figures of 0 or more, `Infinity` for never, and `critical` not below `warning`. */
  readonly thresholds?: Partial<Thresholds> | undefined
  /** For one statement; a check whose statement takes longer is not done, and says so: 1 ms or more. Default 10 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
}

/** From where on a figure is worth a finding, with the source of each number. */
export const defaults = limits.defaults

/** The names of all checks, in the order in which they are made. */
export const checks: ReadonlyArray<string> = judging.checks.map(({ name }) => name)

/**
 * Looks, and judges. Fails when no connection can be had, with the reason; with `InvalidOptionsError` for options that
 * are out of range. Changes nothing on the server.
 */
export const examine = (given: Options = {}): Effect.Effect<Report, PgError.PgError, PgClient.PgClient> =>
  Effect.gen(function* () {
    const {
      expectedConcurrency,
      instances = 1,
      maxConnections,
      platform,
      thresholds,
      timeout
    } = yield* validate.decode(rules.rule, "doctor")(given)
    const client = yield* PgClient.PgClient
    const own = ResilientPg.optionsOf(client)
    const { ledger } = ResilienceConfig.defaults
    const { schema = ledger.schema, table = ledger.table } = own.ledger ?? {}
    const facts = yield* gathering.gather(client, { ledger: { schema, table }, timeout })
    return judging.judge({
      facts,
      thresholds: { ...defaults, ...thresholds },
      program: {
        maxConnections: maxConnections ?? own.maxConnections ?? ResilienceConfig.defaults.maxConnections,
        instances,
        sizing: { platform, expectedConcurrency },
        ledger: { schema, table }
      }
    })
  }).pipe(Effect.withSpan("Doctor.examine"))
