/** A program of the package's user, type-checked against the packed declarations. */
import type { PgError } from "effect-pg-resilience"
import * as PgErrorByPath from "effect-pg-resilience/PgError"
export const same: typeof PgError = PgErrorByPath
