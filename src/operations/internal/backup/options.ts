/** The options that the operations on backups share, and their rules. */

import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Redacted from "effect/Redacted"
import * as validate from "../../../config/internal/validate.js"
import type { InvalidOptionsError } from "../../../error/PgError.js"
import type { Progress } from "./progress.js"
import * as target from "./target.js"

export interface Place {
  /** Where the backups are. Default `backups`, below the working directory. */
  readonly directory?: string | undefined
}

export interface Common extends Place {
  /**
   * Where the server is: `postgresql://user@host:port/database`, with the TLS parameters that libpq knows. The password goes
   * to PostgreSQL's programs by the environment; without one in the URL `PGPASSWORD` and the password file hold.
   */
  readonly url: Redacted.Redacted
  /** Where PostgreSQL's programs are. Default: `PG_BINDIR`, else `pg_config --bindir`, `PATH` and the packages' places. */
  readonly binDirectory?: string | undefined
  /** Told what is being done. Default: nobody. */
  readonly onProgress?: ((progress: Progress) => Effect.Effect<void>) | undefined
}

/** `defaults` of all of them. */
export const defaults = {
  directory: "backups",
  format: "directory",
  jobs: 2,
  checksums: false,
  swap: false,
  owners: true,
  maintenanceDatabase: "postgres"
} as const

/** Postgres names are at most 63 bytes long. Source: manual, 4.1.1. */
export const identifier: validate.Rule<string> = validate.refined(
  "a name of 1 to 63 bytes",
  (value): value is string => Predicate.isString(value) && value !== "" && Buffer.byteLength(value) <= 63
)

/** A backup's name, which is a path of one step. */
export const backupName: validate.Rule<string> = validate.refined(
  "a backup's name, or latest",
  (value): value is string => Predicate.isString(value) && /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(value)
)

export const jobs: validate.Rule<number> = validate.integer({ min: 1, max: 64 })

export const place = { directory: validate.defaulted(validate.text, defaults.directory) }

export const common = {
  ...place,
  url: (value: unknown, field: string) =>
    Either.mapLeft(target.parse(value as Redacted.Redacted), (error) =>
      error.faults.map((_) => ({ ..._, field: _.field === "url" ? field : _.field }))
    ),
  binDirectory: validate.optional(validate.text),
  onProgress: validate.defaulted(validate.func<NonNullable<Common["onProgress"]>>(), () => Effect.void)
}

/** A point in time with its offset: without one it would depend on where it is read. */
export const time = (text: string): Option.Option<Date> => {
  const found = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?\s*(Z|[+-]\d\d(:?\d\d)?)$/i.exec(text.trim())
  if (!found) return Option.none()
  const zone = found[3]!.length === 3 ? `${found[3]}:00` : found[3]!
  const date = new Date(text.trim().slice(0, -found[3]!.length).trim().replace(" ", "T") + zone.toUpperCase())
  return Number.isNaN(date.getTime()) ? Option.none() : Option.some(date)
}

export type Invalid = InvalidOptionsError
