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
import { repeat, tracked } from "./guard.js"
import { currentLevel } from "./held.js"
import { begin, commit, type Mode, rollback } from "./levels.js"
import { closeNested, openNested } from "./nested.js"
import type { Caller, Stages } from "./stages.js"

/** The effect in a transaction of this client, or in a nested one. `own`: what our own failures are to be; not the effect's. */
const within = <A, E, R, E2>(
  stages: Stages,
  effect: Effect.Effect<A, E, R>,
  options: Options,
  attributes: ReadonlyArray<readonly [string, unknown]>,
  mode: Mode,
  own: (error: PgError.PgError) => E2
): Effect.Effect<A, E | E2, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) =>
      Effect.withFiberRuntime<A, E | E2, R>((fiber) => {
        for (const [key, value] of attributes) span.attribute(key, value)
        const context = fiber.currentContext
        const caller = callerOf(fiber, span)
        const parent = currentLevel(stages, context)
        const around = Option.getOrUndefined(Context.getOption(context, SqlClient.TransactionConnection))
        const open =
          parent === undefined
            ? begin(stages, caller, options, { span, outer: around?.[0] }, mode, restore)
            : openNested(stages, caller, parent, around?.[0], span, restore)
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
                ? Effect.zipRight(Effect.mapError(commit(stages, caller, held, restore), own), exit)
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

/** Behind `Transaction.run`. */
export const makeTransactor = (
  stages: Stages,
  attributes: ReadonlyArray<readonly [string, unknown]>
): Transactor["Type"] => {
  const transaction = <A, E, R>(effect: Effect.Effect<A, E, R>, options: Options) =>
    Effect.withFiberRuntime<A, E | PgError.PgError, R>((fiber) => {
      const caller = callerOf(fiber)
      const nested = currentLevel(stages, fiber.currentContext) !== undefined
      if (nested && (options.isolation !== undefined || options.deferrable === true)) {
        return Effect.fail(nestedOptions(caller, options))
      }
      const attempt = (mode: Mode) => within(stages, effect, options, attributes, mode, (error) => error)
      if (options.retry !== true || nested) return attempt("guarded")
      const repeated = Effect.catchAll(attempt("once"), (first) =>
        repeat(stages, caller, attempt("again"), first, {
          view,
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
  return {
    run: (effect, options) =>
      PgError.refine(
        operation.bounded(
          transaction(effect, options),
          options.name,
          { timeout: options.timeout },
          (limits) => limits.transaction
        )
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
