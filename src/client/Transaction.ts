/**
 * Transactions that tell the truth: nothing the server or the network does becomes a defect, no original error is lost,
 * COMMIT's answer is read, and what can not be known is `OutcomeUnknownError`, never a guess.
 *
 * Every connection has a stack of levels. While a nested transaction is open, statements of the level around it wait: what
 * comes after a savepoint goes with it, so nobody else's work may be there.
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as PgError from "../error/PgError.js"

export type Isolation = "read uncommitted" | "read committed" | "repeatable read" | "serializable"

export interface Options {
  /** Name of the operation, as in `Operation.named`. Default: that of the operation around it. */
  readonly name?: string | undefined
  /** Default: the server's `default_transaction_isolation`. Of the outermost transaction only. */
  readonly isolation?: Isolation | undefined
  /** Default false. An unknown COMMIT of a read-only transaction is no loss: there was nothing to apply. */
  readonly readOnly?: boolean | undefined
  /** With `serializable` and `readOnly`: wait for a snapshot that can not fail. Default false. */
  readonly deferrable?: boolean | undefined
  /** Deadline for everything: waiting, all repetitions, COMMIT. Default: the layer's `timeouts.transaction`, 30 s. */
  readonly timeout?: Duration.DurationInput | "infinity" | undefined
  /**
   * Repeat the whole body when the transaction certainly was not applied and the layer's retry policy says that another
   * try may succeed: serialization failure, deadlock, a connection lost before COMMIT was sent. Default false. The body
   * may then run more than once: it must start from nothing and touch nothing outside the database.
   */
  readonly retry?: boolean | undefined
}

/** How a layer runs transactions: behind `sql.withTransaction` and `Transaction.run`. */
export class Transactor extends Context.Tag("effect-pg-resilience/Transaction/Transactor")<
  Transactor,
  {
    readonly run: <A, E, R>(
      effect: Effect.Effect<A, E, R>,
      options: Options
    ) => Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError, R>
  }
>() {}

/**
 * Run an effect in a transaction, bounded, named, and with its failures as tags of `PgError`. Inside another transaction
 * of the same client it is a savepoint; isolation, access mode and repetition are the outermost transaction's.
 */
export const run = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError, R | Transactor> =>
  Effect.flatMap(Transactor, (_) => _.run(effect, options))

/** `run` as READ ONLY: repeated by itself, as there is nothing to apply twice. */
export const readOnly = <A, E, R>(effect: Effect.Effect<A, E, R>, options: Options = {}) =>
  run(effect, { retry: true, ...options, readOnly: true })

/** `run` as SERIALIZABLE, repeated on 40001 as that level asks for. Source: PostgreSQL manual, section 13.2.3. */
export const serializable = <A, E, R>(effect: Effect.Effect<A, E, R>, options: Options = {}) =>
  run(effect, { retry: true, ...options, isolation: "serializable" })
