/**
 * An operation: a name, a deadline and what is known about the statements in it, carried by the fiber.
 *
 * `Operation.named("get-user")` around an effect bounds it, names it in errors, metrics and logs, and refines its error
 * channel from `SqlError` to the tags of `PgError`. It needs nothing from the context.
 */
import type { SqlError } from "@effect/sql/SqlError"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as PgError from "../error/PgError.js"
import { bounded, type Limits } from "./internal/operation.js"

export { defaultLimits, type Limits, Timeouts } from "./internal/operation.js"

/** How much time an operation gets when it does not say so itself. `batch` is the number of rows. */
export type Kind = "query" | "complex" | { readonly batch: number }

export interface Options {
  /** Which of the layer's `timeouts` applies. Default `"query"`. */
  readonly kind?: Kind | undefined
  /**
   * Deadline for everything inside: waiting, all attempts, all delays. `"infinity"` for none. Default: by `kind`.
   * A nested operation ends with the one around it at the latest.
   */
  readonly timeout?: Duration.DurationInput | "infinity" | undefined
  /** The statements may be applied twice without harm: an attempt of unknown outcome is repeated. Default false. */
  readonly idempotent?: boolean | undefined
  /** Overrules what the lexer finds out about whether the statements only read. Default: the lexer's answer. */
  readonly readOnly?: boolean | undefined
  /**
   * A write of its own, outside a transaction, that is applied exactly once also when its answer gets lost: in a transaction
   * with `exactlyOnce`, see `Transaction.Options`. Default false.
   */
  readonly exactlyOnce?: boolean | "ledger" | "xid" | undefined
  /** With the circuit open: `"fail"` at once (default), or `"wait"` within the deadline. */
  readonly whenOpen?: "fail" | "wait" | undefined
}

const limitOf = (kind: Kind, limits: Limits): number =>
  typeof kind === "string" ? limits[kind] : limits.batchBase + limits.batchPerRow * kind.batch

/**
 * Name and bound an effect, and see its failures as tags of `PgError`.
 *
 * `idempotent`, `readOnly`, `exactlyOnce` and `whenOpen` hold for the statements directly under this operation, not for those of another
 * one inside it; the deadline holds for everything. Inside a transaction the name and the deadline apply, retrying does
 * not: a transaction is repeated as a whole or not at all. Around a batched resolver request the deadline bounds the
 * waiting caller; to bound the statement, put the operation inside the resolver.
 *
 * Fails with `QueryTimeoutError` when the deadline passes; with `OutcomeUnknownError` if by then a write was sent that was
 * not certainly refused, and may be made only once: what the operation did so far stays done.
 *
 * @example
 * import { Operation } from "effect-pg-resilience"
 *
 * const user = sql`SELECT * FROM users WHERE id = ${id}`.pipe(
 *   Operation.named("get-user", { timeout: "2 seconds" }),
 *   Effect.catchTag("QueryTimeoutError", () => Effect.succeed([]))
 * )
 */
export const named =
  (name: string, options: Options = {}) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError, R> =>
    PgError.refine(bounded(self, name, options, (limits) => limitOf(options.kind ?? "query", limits)))
