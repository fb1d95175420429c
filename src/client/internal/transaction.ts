/** `withTransaction` and `Transaction.run`: which level an effect runs in, how it ends, and whether it runs again. */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import { callerOf } from "../Connection.js"
import type { Options, Transactor } from "../Transaction.js"
import { type Asked, outcomeOf } from "./asking.js"
import { beginClaimed, type Claim } from "./claims.js"
import { settling } from "./exactlyOnce.js"
import { repeat, tracked } from "./guard.js"
import { currentLevel, type Held } from "./held.js"
import { create as createText } from "./ledger.js"
import { begin, commit, type Mode, rollback } from "./levels.js"
import { closeNested, openNested } from "./nested.js"
import { once as onceIn } from "./once.js"
import type { Caller, Stages } from "./stages.js"

/** The effect in a transaction of this client, or in a nested one. `own`: what our own failures are to be; not the effect's. */
const within = <A, E, R, E2>(
  stages: Stages,
  effect: Effect.Effect<A, E, R>,
  options: Options,
  attributes: ReadonlyArray<readonly [string, unknown]>,
  mode: Mode,
  own: (error: PgError.PgError) => E2,
  claim?: Claim
): Effect.Effect<A, E | E2, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) =>
      Effect.withFiberRuntime<A, E | E2, R>((fiber) => {
        for (const [key, value] of attributes) span.attribute(key, value)
        const context = fiber.currentContext
        const caller = callerOf(fiber, span)
        const parent = currentLevel(stages, context)
        const around = Option.getOrUndefined(Context.getOption(context, SqlClient.TransactionConnection))
        const outermost = { span, outer: around?.[0] }
        const open =
          parent !== undefined
            ? openNested(stages, caller, parent, around?.[0], span, restore)
            : claim === undefined
              ? begin(stages, caller, options, outermost, mode, restore)
              : beginClaimed(stages, caller, options, outermost, mode, restore, claim)
        return Effect.flatMap(Effect.mapError(open, own), (held) => {
          const inside = Context.add(context, SqlClient.TransactionConnection, [
            held,
            parent === undefined ? 0 : (around?.[1] ?? 0) + 1
          ]).pipe(Context.add(Tracer.ParentSpan, span))
          return Effect.exit(restore(Effect.locally(effect, FiberRef.currentContext, inside))).pipe(
            Effect.flatMap((exit): Effect.Effect<A, E | E2> => {
              const event = (name: string) =>
                span.event(`db.transaction.${name}`, caller.clock.unsafeCurrentTimeNanos())
              if (parent !== undefined) {
                event(Exit.isSuccess(exit) ? "savepoint" : "rollback")
                return Effect.zipRight(Effect.mapError(closeNested(stages, caller, held, exit, restore), own), exit)
              }
              event(Exit.isSuccess(exit) ? "commit" : "rollback")
              return Exit.isSuccess(exit)
                ? Effect.zipRight(
                    Effect.mapError(commit(stages, caller, held, restore, claim !== undefined, claim?.onCommit), own),
                    exit
                  )
                : Effect.zipRight(rollback(stages, held, Cause.isInterrupted(exit.cause)), exit)
            })
          )
        })
      })
    )
  )

/** What of a failure in a transaction is ours to judge. */
const view = (error: unknown): PgError.PgError | undefined => {
  if (PgError.isPgError(error)) return error
  const cause = error instanceof SqlError ? error.cause : undefined
  return PgError.isPgError(cause) ? cause : undefined
}

/** `sql.withTransaction`: the meaning programs know, its failures as `SqlError`. */
export const makeWithTransaction =
  (stages: Stages, attributes: ReadonlyArray<readonly [string, unknown]>): SqlClient.SqlClient["withTransaction"] =>
  (effect) =>
    within(stages, effect, {}, attributes, "guarded", PgError.toSqlError)

/** `Transaction.run` within the operation that the fiber works for. */
const makeTransaction =
  (stages: Stages, attributes: ReadonlyArray<readonly [string, unknown]>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>, options: Options) =>
    Effect.withFiberRuntime<A, E | PgError.PgError, R>((fiber) => {
      const caller = callerOf(fiber)
      const inside = <A, E, R>(body: Effect.Effect<A, E, R>, mode: Mode, claim?: Claim) =>
        within(stages, body, options, attributes, mode, (error) => error, claim)
      const nested = currentLevel(stages, fiber.currentContext) !== undefined
      if (nested && (options.isolation !== undefined || options.deferrable === true)) {
        return Effect.fail(nestedOptions(caller, options))
      }
      const once = !nested && options.readOnly !== true && options.exactlyOnce
      const attempt: (mode: Mode) => Effect.Effect<A, E | PgError.PgError, R> = once
        ? settling(stages, caller, effect, once === "xid" ? once : "ledger", inside, asking(stages, attributes), view)
        : (mode) => inside(effect, mode)
      const again = Effect.suspend(() => {
        stages.recorder.transaction("repeated")
        return attempt("again")
      })
      const retry = options.retry ?? Boolean(options.exactlyOnce)
      if (nested || !(retry || once)) return attempt("guarded")
      const repeated = Effect.catchAll(attempt("once"), (first) =>
        repeat(stages, caller, again, first, {
          // Without `retry` it is tried again to begin, as always; with a token of its own until a COMMIT was sent.
          view: (error) => {
            const seen = view(error)
            return retry || seen?.phase === "Acquire" || seen?.phase === "Begin" ? seen : undefined
          },
          repeatable: false,
          conclude: (error, attempts) => {
            const seen = view(error)
            if (seen === undefined) return error
            const counted = PgError.withContext(seen, { attempts })
            return (PgError.isPgError(error) ? counted : PgError.toSqlError(counted)) as typeof error
          }
        })
      )
      return tracked(stages, repeated)
    })

/** What is executed on the transaction that the fiber is in. */
const onLevel = <A>(stages: Stages, use: (held: Held) => Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
  Effect.withFiberRuntime((fiber) => use(currentLevel(stages, fiber.currentContext)!))

/** A question, in a transaction that reads only, apart from whatever transaction it is put in. */
const asking =
  (stages: Stages, attributes: ReadonlyArray<readonly [string, unknown]>): Asked =>
  (use) =>
    Effect.mapError(
      apart(within(uncounted(stages), onLevel(stages, use), { readOnly: true }, attributes, "again", (error) => error)),
      (error) => (PgError.isPgError(error) ? error : PgError.fromSqlError(error))
    )

/** What is asked about transactions is none of the program's. */
const uncounted = (stages: Stages): Stages => ({
  ...stages,
  recorder: { ...stages.recorder, transaction: () => {} }
})

/** Not part of whatever transaction the fiber is in: the answer is to stay true without it. */
const apart = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) =>
    Effect.locally(
      self,
      FiberRef.currentContext,
      Context.omit(SqlClient.TransactionConnection)(
        fiber.currentContext as Context.Context<SqlClient.TransactionConnection>
      )
    )
  )

/** Behind what of a pool's statements wants a transaction. */
export const makeTransacted =
  (stages: () => Stages, attributes: ReadonlyArray<readonly [string, unknown]>): Stages["transacted"] =>
  (use, options) =>
    Effect.mapError(makeTransaction(stages(), attributes)(onLevel(stages(), use), options), (error) =>
      PgError.isPgError(error) ? PgError.toSqlError(error) : error
    )

/** Behind the functions of `Transaction`. */
export const makeTransactor = (
  stages: Stages,
  attributes: ReadonlyArray<readonly [string, unknown]>
): Transactor["Type"] => {
  const transaction = makeTransaction(stages, attributes)
  const bounded = <A, E, R>(effect: Effect.Effect<A, E, R>, { name, timeout }: Options) =>
    PgError.refine(operation.bounded(effect, name, { timeout }, (limits) => limits.transaction))
  return {
    run: (effect, options) => bounded(transaction(effect, options), options),
    outcome: (settlement, options) =>
      bounded(
        Effect.withFiberRuntime((fiber) => {
          const caller = callerOf(fiber)
          const fence = (claim: Claim) =>
            apart(within(uncounted(stages), Effect.void, {}, attributes, "again", (error) => error, claim))
          return tracked(stages, outcomeOf(stages, caller, fence, asking(stages, attributes), settlement))
        }),
        options
      ),
    once: (key, schema, effect, options) =>
      bounded(
        transaction(
          onceIn(stages.ledger, (sql, params) => onLevel(stages, (held) => held.execute(sql, params, undefined)), {
            key,
            schema,
            effect,
            ...options
          }),
          { exactlyOnce: true }
        ),
        options
      ),
    createLedger: bounded(
      transaction(
        onLevel(stages, (held) =>
          Effect.forEach(createText(stages.ledger), (text) => held.execute(text, [], undefined), { discard: true })
        ),
        {}
      ),
      { name: "create-ledger" }
    )
  }
}

const nestedOptions = (caller: Caller, { deferrable, isolation }: Options) =>
  new PgError.InvalidOptionsError({
    message: "isolation and deferrable can be set for the outermost transaction only: set them there",
    phase: "Savepoint",
    outcome: "NotApplied",
    transient: false,
    attempts: 0,
    operation: caller.operation?.name,
    faults: Object.entries({ isolation, deferrable }).flatMap(([field, value]) =>
      value === undefined ? [] : [{ field, value, expected: "to be given at the outermost transaction" }]
    )
  })
