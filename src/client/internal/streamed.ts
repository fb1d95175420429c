/** Streams outside a transaction, each in one of its own. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { QueryArrayResult } from "pg"
import * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import * as ReadOnly from "../../policy/ReadOnly.js"
import { callerOf } from "../Connection.js"
import type { Lease } from "../Pool.js"
import { control } from "./attempt.js"
import { Grip } from "./beginning.js"
import { Held } from "./held.js"
import { beginNow, commit } from "./levels.js"
import { Request } from "./request.js"
import { type Reply, terminated } from "./session.js"
import type { Caller, Restore, Stages } from "./stages.js"

/** The COMMIT that a stream leaves behind is waited for this long, milliseconds of the live clock; then the connection goes. */
const commitLimit = 30_000

/**
 * A query's rows in portions, in a transaction made for them, so that each fetch is a message of its own: the server's
 * statement limit then holds per fetch, and a slow reader is not cut off as idle in transaction. On the pool's connections,
 * or on one that is held outside a transaction.
 */
export const makeStreamed =
  (stages: () => Stages): Stages["streamed"] =>
  (reserved, sql, params, transformRows) =>
    Stream.unwrapScoped(
      Effect.uninterruptibleMask((restore) =>
        Effect.withFiberRuntime<Stream.Stream<any, SqlError>, SqlError, Scope.Scope>((fiber) => {
          const caller = callerOf(fiber)
          const { readOnly } = ReadOnly.inspect(sql)
          const limits = "; SET LOCAL idle_in_transaction_session_timeout = 0"
          const opened =
            reserved === undefined
              ? beginNow(stages(), caller, {}, { span: caller.span, outer: undefined }, "guarded", restore, {
                  more: limits
                })
              : beginOn(reserved, caller, restore, limits)
          return Effect.map(Effect.mapError(opened, PgError.toSqlError), (held) => ({ held, readOnly, caller })).pipe(
            Effect.tap(({ held }) => Effect.addFinalizer((exit) => leave(stages(), caller, held, readOnly, exit))),
            Effect.map(({ held }) =>
              Stream.concat(
                held.fetched(sql, params, transformRows, false),
                Stream.execute(
                  Effect.uninterruptibleMask((restore) =>
                    Effect.mapError(commit(stages(), caller, held, restore), PgError.toSqlError)
                  )
                )
              )
            )
          )
        })
      )
    )

/** A transaction on a connection that is held already: a level of it, so that its other statements wait. */
const beginOn = (
  reserved: Held,
  caller: Caller,
  restore: Restore,
  more: string
): Effect.Effect<Held, PgError.PgError> => {
  const { lease, options, permit, stages } = reserved
  const { session } = lease
  let begun = false
  const kept: Lease = {
    session,
    get released() {
      return lease.released
    },
    span: lease.span,
    // What is still open is rolled back before anything else that the connection's holder sends.
    release: () => {
      if (!begun || lease.released || (session.status === "I" && !session.busy)) return
      if (!session.onWire || session.cancellable) session.submit(new Request("ROLLBACK"), () => {})
    }
  }
  const held = new Held(stages, new Grip(kept, permit), { readOnly: false, span: options.span, parent: reserved })
  const request = () => {
    begun = true
    return new Request(`BEGIN${more}`)
  }
  const unsent = () => {
    begun = false
  }
  const sent = Effect.zipRight(
    reserved.enter(caller, held, restore),
    restore(held.submit(caller, request, control("Begin", "begin"), unsent))
  )
  return Effect.onExit(sent, (exit) =>
    Effect.sync(() => {
      if (Exit.isSuccess(exit)) return
      held.end()
      kept.release()
    })
  ).pipe(Effect.as(held))
}

/**
 * The reader stopped before the end. What only reads is rolled back by whoever has the connection next; what may have written
 * is committed, as by the bare client, without waiting for it: there is nobody left to tell.
 */
const leave = (
  stages: Stages,
  caller: Caller,
  held: Held,
  readOnly: boolean,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> =>
  Effect.sync(() => {
    if (held.ended) return
    const { session } = held.lease
    if (Exit.isSuccess(exit) && !readOnly && session.lost === undefined) {
      operation.countWrite(caller.operation, 1, true)
      const timer = setTimeout(() => session.destroy(terminated("COMMIT was not answered in time")), commitLimit)
      const done = ({ answered, error, result }: Reply) => {
        clearTimeout(timer)
        if (error === undefined && (result as QueryArrayResult).command === "COMMIT") return
        if (answered) operation.countWrite(caller.operation, -1, true)
        stages.recorder.streamLost(error)
      }
      session.submit(new Request("COMMIT"), done, false)
    }
    held.end()
    held.lease.release()
  })
