/** `reserve`: one connection until a scope closes. */
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import * as PgError from "../../error/PgError.js"
import { callerOf } from "../Connection.js"
import type { Lease } from "../Pool.js"
import { Grip } from "./beginning.js"
import { guard, type Permit } from "./guard.js"
import { Held } from "./held.js"
import { acquired } from "./leasing.js"
import { abandon } from "./levels.js"
import type { Stages } from "./stages.js"

/** One connection until the scope closes, outside of all deadlines, lifetimes and evictions. */
export const makeReserve = (stages: Stages): SqlClient.SqlClient["reserve"] =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiberRuntime((fiber) => {
      const caller = callerOf(fiber)
      const span = Option.getOrUndefined(Context.getOption(fiber.currentContext, Tracer.ParentSpan))
      let lent: { readonly lease: Lease; readonly permit: Permit } | undefined
      const attempt = (permit: Permit) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.map(acquired(stages, caller, permit, restore), (lease) => {
            lease.span = span
            lent = { lease, permit }
            return lent
          })
        )
      const taken = Effect.onExit(restore(guard(stages, caller, attempt, true)), (exit) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) lent?.lease.release()
        })
      )
      return Effect.flatMap(taken, ({ lease, permit }) => {
        const held = new Held(stages, new Grip(lease, permit), { readOnly: false, span })
        return Effect.as(
          Effect.addFinalizer(() => Effect.sync(() => abandon(held))),
          held
        )
      }).pipe(Effect.mapError(PgError.toSqlError))
    })
  )
