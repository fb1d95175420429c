/**
 * Transactions that tell the truth: nothing the server or the network does becomes a defect, no original error is lost,
 * COMMIT's answer is read, and what can not be known is `OutcomeUnknownError`, never a guess.
 *
 * Every connection has a stack of levels. While a nested transaction is open, statements of the level around it wait: what
 * comes after a savepoint goes with it, so nobody else's work may be there.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as ParseResult from "effect/ParseResult"
import type * as Schema from "effect/Schema"
import { defaults } from "../config/internal/options.js"
import * as PgError from "../error/PgError.js"
import { create } from "./internal/ledger.js"

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
  /**
   * Find out what became of a COMMIT whose answer got lost, instead of failing with `OutcomeUnknownError`. `true` and
   * `"ledger"`: by a row in a table of ours (`createLedger`), which travels in BEGIN's message; right over crashes, failovers
   * and restores. `"xid"`: by the server's transaction ids, where we may create no table; after a crash or a failover it can
   * still tell what was not applied, and else fails with `OutcomeUnknownError`. Default false.
   *
   * `retry` is on with it, unless it is set to `false`; the body may run more than once either way, as with the ledger only
   * a second attempt can ask. Of the outermost transaction only; of a `readOnly` one there is nothing to find out. An answer to
   * COMMIT is waited for 5 seconds, or half of the time that is left, before it is taken for lost and asked about.
   */
  readonly exactlyOnce?: boolean | "ledger" | "xid" | undefined
}

/** `Expired`: asked too late, when the ledger may have forgotten. */
export type Outcome = "Applied" | "NotApplied" | "Expired"

export interface OnceOptions extends Pick<Options, "name" | "timeout"> {
  /** How long the key and its result are kept, by the server's clock. Afterwards the key is new again. Default 24 hours. */
  readonly ttl?: Duration.DurationInput | undefined
  /**
   * What the work is made of, say a hash of the request: the same key with another fingerprint is `IdempotencyKeyReusedError`
   * instead of another request's result. Default: none, and then it is not compared.
   */
  readonly fingerprint?: string | undefined
}

/** How a layer runs transactions: behind `sql.withTransaction` and `Transaction.run`. */
export class Transactor extends Context.Tag("effect-pg-resilience/Transaction/Transactor")<
  Transactor,
  {
    readonly run: <A, E, R>(
      effect: Effect.Effect<A, E, R>,
      options: Options
    ) => Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError, R>
    readonly outcome: (
      settlement: PgError.Settlement,
      options: Pick<Options, "name" | "timeout">
    ) => Effect.Effect<Outcome, PgError.PgError>
    readonly once: <A, I, R1, E, R>(
      key: string,
      schema: Schema.Schema<A, I, R1>,
      effect: Effect.Effect<A, E, R>,
      options: OnceOptions
    ) => Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError | ParseResult.ParseError, R | R1>
    readonly createLedger: Effect.Effect<void, PgError.PgError>
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

/**
 * What became of a transaction, or a statement, that was to happen exactly once and ended with `OutcomeUnknownError`; or of its
 * `settlement`, which is plain data (`PgError.Settlement` is its schema). The ledger's answer stays true: after `NotApplied`,
 * an attempt that is still under way somewhere is refused, and fails with `TransactionAbortedError`. By the server's ids it is
 * what became of that one attempt.
 *
 * Asks on a connection of its own, also inside a transaction, until it knows, within `timeout` (default: the layer's
 * `timeouts.transaction`); then it fails with `QueryTimeoutError`, and before that with what no waiting mends. An error without
 * a `settlement` was not of work that is to happen exactly once, or nobody will ever know: `InvalidOptionsError`.
 */
export const outcome = (
  asked: PgError.OutcomeUnknownError | PgError.Settlement,
  options: Pick<Options, "name" | "timeout"> = {}
): Effect.Effect<Outcome, PgError.PgError, Transactor> => {
  const settlement = "mode" in asked ? asked : asked.settlement
  return settlement === undefined
    ? Effect.fail(noSettlement)
    : Effect.flatMap(Transactor, (_) => _.outcome(settlement, options))
}

/**
 * Run an effect in a transaction, once for a key: its result is stored, encoded by `schema`, in the same transaction, and a
 * second call with that key, in this process or another, returns it without running the effect. Calls at the same time wait
 * for the first. Only successes are stored: after a failure the key is as new. An answer to COMMIT that gets lost is found
 * out as with `exactlyOnce`; and after `OutcomeUnknownError`, or the program's own death, the same call may simply be made
 * again.
 *
 * Inside another transaction the key is that one's: stored if it is committed. Uses the table `<ledger>_keys`, which
 * `createLedger` creates.
 */
export const once = <A, I, R1, E, R>(
  key: string,
  schema: Schema.Schema<A, I, R1>,
  effect: Effect.Effect<A, E, R>,
  options: OnceOptions = {}
): Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError | ParseResult.ParseError, R | R1 | Transactor> =>
  Effect.flatMap(Transactor, (_) => _.once(key, schema, effect, options))

const noSettlement = new PgError.InvalidOptionsError({
  message: "This error is not of work that was to happen exactly once: nothing was written down to ask for",
  phase: "Begin",
  outcome: "NotApplied",
  transient: false,
  attempts: 0,
  faults: [{ field: "settlement", value: undefined, expected: "an error of a transaction with exactlyOnce" }]
})

/**
 * Creates the ledger's table where it is not there, and changes nothing where it is. Run it at a program's start, or as a
 * migration; it is never created in silence. Needs the right to create a table in the ledger's schema.
 */
export const createLedger: Effect.Effect<void, PgError.PgError, Transactor> = Effect.flatMap(
  Transactor,
  (_) => _.createLedger
)

/**
 * `createLedger` as a migration, which needs nothing but the `SqlClient` that `PgMigrator` gives it. `ledger`: as the layer's
 * option of that name.
 *
 * @example
 * PgMigrator.layer({ loader: PgMigrator.fromRecord({ "0001_ledger": Transaction.ledgerMigration() }) })
 */
export const ledgerMigration = (
  ledger: { readonly schema?: string | undefined; readonly table?: string | undefined } = {}
): Effect.Effect<void, SqlError, SqlClient.SqlClient> => {
  const { schema = defaults.ledger.schema, table = defaults.ledger.table } = ledger
  return Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.withTransaction(Effect.forEach(create({ schema, table }), (text) => sql.unsafe(text), { discard: true }))
  )
}
