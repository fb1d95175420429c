/**
 * Transactions as a layer runs them: levels on a connection, BEGIN to COMMIT, and what is known when either gets lost.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { QueryArrayResult } from "pg"
import * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import * as ReadOnly from "../../policy/ReadOnly.js"
import { acquired, callerOf, currentLevel, Held, hooks } from "../Connection.js"
import type { Lease } from "../Pool.js"
import type { Options, Transactor } from "../Transaction.js"
import { send, type Work } from "./attempt.js"
import { admitted, conclude, guard, type Permit, repeat, tracked } from "./guard.js"
import { type Reply, Request, terminated } from "./session.js"
import type { Caller, Restore, Stages } from "./stages.js"

/** A typed failure's ROLLBACK is waited for this long, milliseconds of the live clock; then the connection goes. */
const rollbackLimit = 250
/** The COMMIT that a stream leaves behind is waited for this long, milliseconds of the live clock; then the connection goes. */
const commitLimit = 30_000

const control = (phase: PgError.Phase, command: string, readOnly = true): Work => ({
  phase,
  command,
  readOnly,
  pooled: false,
  opaque: false,
  transactionControl: true,
  isCommit: phase === "Commit"
})

const beginText = ({ deferrable, isolation, readOnly }: Options, setLocal: string): string =>
  `BEGIN${isolation === undefined ? "" : ` ISOLATION LEVEL ${isolation.toUpperCase()}`}${readOnly === true ? " READ ONLY" : ""}${
    deferrable === true ? " DEFERRABLE" : ""
  }${setLocal}`

/**
 * Who repeats a BEGIN that fails: it itself, or (`once`, and `again` from the second time on) whoever repeats the whole
 * transaction, so that no policy is gone through twice.
 */
type Mode = "guarded" | "once" | "again"

/** A transaction on a connection of its own. In an uninterruptible region; what waits inside can be interrupted. */
const begin = (
  stages: Stages,
  caller: Caller,
  options: Options,
  held: { readonly span: Tracer.AnySpan | undefined; readonly outer: Held["options"]["outer"] },
  mode: Mode,
  restore: Restore,
  more = ""
): Effect.Effect<Held, PgError.PgError> => {
  let opened: Held | undefined
  const work: Work = { ...control("Begin", "begin"), pooled: true }
  const attempt = (permit: Permit) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(acquired(stages, caller, permit, restore), (lease) => {
        lease.span = held.span
        const sent = Effect.async<Reply, PgError.PgError>((resume) => {
          const request = new Request(beginText(options, stages.setLocal() + more))
          const { answered, ...rest } = hooks(stages, permit, lease.release)
          const keep = {
            ...rest,
            answered: (error: PgError.PgError | undefined, ms: number) => permit.settle(error, ms)
          }
          return send(stages, caller, lease.session, request, work, keep, resume)
        })
        return Effect.onExit(restore(sent), (exit) =>
          Effect.sync(() => {
            if (Exit.isFailure(exit)) lease.release()
            else opened = new Held(stages, lease, permit, { ...held, readOnly: options.readOnly === true })
          })
        )
      })
    ).pipe(Effect.map(() => opened!))
  const guarded =
    mode === "guarded"
      ? guard(stages, caller, attempt, true)
      : admitted(stages, caller, attempt, mode === "again" || caller.operation?.whenOpen === "wait")
  // Interrupted at the very moment at which it succeeded: nobody else knows of it.
  return Effect.onExit(restore(guarded), (exit) =>
    Exit.isFailure(exit) && opened !== undefined ? Effect.sync(() => abandon(opened!)) : Effect.void
  )
}

/** End a level whose caller has gone. The pool cleans the connection with ROLLBACK before anybody gets it. */
const abandon = (held: Held): void => {
  held.end()
  // What a fiber left behind still executes would keep the connection; nothing of it can be kept anyway.
  held.lease.session.cutOff(held.outlived())
  held.lease.release()
}

const commit = (stages: Stages, caller: Caller, held: Held, restore: Restore): Effect.Effect<void, PgError.PgError> =>
  Effect.suspend((): Effect.Effect<Reply, PgError.PgError> => {
    // A stream on a reserved connection that is another's by now.
    if (held.ended) return Effect.fail(held.outlived(caller))
    if (held.spoiled !== undefined) {
      return Effect.zipRight(rollback(stages, held, false), Effect.fail(spoilt(caller, "Commit", held.spoiled)))
    }
    const unfinished = held.stop()
    const { lease } = held
    let sent = false
    const reply = Effect.async<Reply, PgError.PgError>((resume) => {
      sent = true
      // What a fiber that was not awaited left half-done in a nested transaction is not committed.
      if (unfinished !== undefined) lease.session.submit(new Request(`ROLLBACK TO SAVEPOINT ${unfinished}`), () => {})
      const after = hooks(stages, held.permit, lease.release)
      return send(
        stages,
        caller,
        lease.session,
        new Request("COMMIT"),
        control("Commit", "commit", !held.wrote),
        {
          ...after,
          answered: (error) => {
            if (error !== undefined) held.permit.report(error)
            lease.release()
          },
          abandoned: (inFlight) => {
            // Not even sent: what it waited behind is nobody's any more, and would keep the connection.
            if (!inFlight) lease.session.cutOff(held.outlived())
            after.abandoned()
          }
        },
        resume
      )
    })
    return Effect.onExit(restore(reply), () =>
      Effect.sync(() => {
        held.end()
        if (!sent) lease.release()
      })
    )
  }).pipe(
    Effect.flatMap(({ result }) => {
      if ((result as QueryArrayResult).command === "COMMIT") {
        stages.recorder.transaction("committed")
        return Effect.void
      }
      stages.recorder.transaction("aborted")
      if (held.wrote) operation.countWrite(caller.operation, -1, true)
      return Effect.fail(rolledBack(caller, "Commit", "The transaction was rolled back, and nothing of it is stored"))
    }),
    Effect.mapError((error) => {
      const concluded = conclude(stages, caller, error, false, 1)
      if (concluded._tag === "OutcomeUnknownError") stages.recorder.transaction("unknown")
      return concluded
    })
  )

const rolledBack = (caller: Caller, phase: PgError.Phase, what: string) =>
  new PgError.TransactionAbortedError({
    message: `${what}: a statement in it had failed, and the program went on. Let that failure end the transaction, or give the statement a nested transaction of its own`,
    phase,
    outcome: "NotApplied",
    transient: false,
    attempts: 1,
    operation: caller.operation?.name
  })

const spoilt = (caller: Caller, phase: PgError.Phase, message: string) =>
  new PgError.TransactionAbortedError({
    message,
    phase,
    outcome: "NotApplied",
    transient: false,
    attempts: 1,
    operation: caller.operation?.name
  })

/** Undo on the connection, awaited for 250 ms of the live clock; then the connection is destroyed. */
const undone = ({ lease }: Held, text: string): Effect.Effect<void> =>
  Effect.async((resume) => {
    const { session } = lease
    if (lease.released || session.lost !== undefined) return resume(Effect.void)
    const timer = setTimeout(() => session.destroy(terminated("ROLLBACK was not answered in time")), rollbackLimit)
    session.submit(new Request(text), () => {
      clearTimeout(timer)
      resume(Effect.void)
    })
  })

/** After a failure: awaited. After an interruption: the connection goes back as it is, and the pool cleans it. */
const rollback = (stages: Stages, held: Held, background: boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    held.end()
    stages.recorder.transaction("rolledBack")
    if (background) held.lease.session.cutOff(held.outlived())
    return Effect.zipRight(background ? Effect.void : undone(held, "ROLLBACK"), Effect.sync(held.lease.release))
  })

let savepoints = 0

const openNested = (
  stages: Stages,
  caller: Caller,
  parent: Held,
  /** What is around it: the parent, or another client's transaction inside the parent's. */
  outer: Held["options"]["outer"],
  span: Tracer.AnySpan | undefined,
  restore: Restore
): Effect.Effect<Held, PgError.PgError> =>
  Effect.suspend(() => {
    // Never the same name twice: two nested transactions may be open on one connection, each in the other's way.
    const savepoint = `effect_sql_${++savepoints}`
    const child = new Held(stages, parent.lease, parent.permit, {
      readOnly: parent.options.readOnly,
      span,
      parent,
      outer,
      savepoint
    })
    const sent = Effect.zipRight(
      parent.enter(caller, child, restore),
      restore(
        child.submit(
          caller,
          () => {
            child.opened = true
            return new Request(`SAVEPOINT ${savepoint}`)
          },
          control("Savepoint", "savepoint"),
          () => {
            child.opened = false
          }
        )
      )
    )
    return Effect.onExit(sent, (exit) =>
      Effect.sync(() => {
        if (Exit.isFailure(exit)) child.end()
      })
    ).pipe(Effect.as(child))
  })

/** Statements of a level that ends: past its own turn, as nothing else of it comes any more. */
const closing = (
  stages: Stages,
  caller: Caller,
  held: Held,
  text: string,
  resume: (effect: Effect.Effect<Reply, PgError.PgError>) => void
) =>
  send(
    stages,
    caller,
    held.lease.session,
    new Request(text),
    control("Savepoint", "savepoint"),
    {
      answered: () => {},
      abandoned: () => {},
      settled: hooks(stages, held.permit, () => {}).settled
    },
    resume
  )

const undo = (savepoint: string) => `ROLLBACK TO SAVEPOINT ${savepoint}; RELEASE SAVEPOINT ${savepoint}`

/** The transaction around it needs the connection: waited for like any statement of it, however far the server is. */
const undoneNested = ({ lease, options }: Held, restore: Restore): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (lease.released || lease.session.lost !== undefined) return Effect.void
    const answered = Deferred.unsafeMake<void>(FiberId.none)
    lease.session.submit(new Request(undo(options.savepoint!)), () => Deferred.unsafeDone(answered, Effect.void))
    return restore(Deferred.await(answered))
  })

/** The level around it waits until all of this is said: what it sends next is neither refused nor undone with the child. */
const closeNested = (
  stages: Stages,
  caller: Caller,
  child: Held,
  exit: Exit.Exit<unknown, unknown>,
  restore: Restore
): Effect.Effect<void, PgError.PgError> =>
  Effect.suspend((): Effect.Effect<unknown, PgError.PgError> => {
    const savepoint = child.options.savepoint!
    const { lease } = child
    // The transaction around it ended first, and undid what was open: the connection may be another's by now.
    if (child.ended) return Exit.isFailure(exit) ? Effect.void : Effect.fail(child.outlived(caller))
    const end = Effect.sync(() => child.end())
    if (Exit.isFailure(exit)) {
      child.stop()
      if (!Cause.isInterrupted(exit.cause)) return Effect.ensuring(undoneNested(child, restore), end)
      // Not waited for, and yet before anything that the level around it may send next.
      lease.session.submit(new Request(undo(savepoint)), () => {})
      return end
    }
    if (child.spoiled !== undefined) {
      child.stop()
      const failure = Effect.fail(spoilt(caller, "Savepoint", child.spoiled))
      return Effect.zipRight(Effect.ensuring(undoneNested(child, restore), end), failure)
    }
    let said: "nothing" | "release" | "answered" = "nothing"
    const release = Effect.async<Reply, PgError.PgError>((resume) => {
      if (child.ended) return resume(Effect.fail(child.outlived(caller)))
      const unfinished = child.stop()
      said = "release"
      const text = `${unfinished === undefined ? "" : `ROLLBACK TO SAVEPOINT ${unfinished}; `}RELEASE SAVEPOINT ${savepoint}`
      return closing(stages, caller, child, text, (effect) => {
        said = "answered"
        resume(effect)
      })
    })
    return Effect.catchAll(restore(release), (error) =>
      Effect.zipRight(
        said === "nothing" ? Effect.void : undoneNested(child, restore),
        Effect.fail(
          error._tag === "TransactionAbortedError" && said !== "nothing"
            ? rolledBack(caller, "Savepoint", "The nested transaction was rolled back")
            : error
        )
      )
    ).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          // Interrupted before a word was sent: undone like one that was interrupted a moment earlier.
          if (said === "nothing" && !child.ended) lease.session.submit(new Request(undo(savepoint)), () => {})
          // Interrupted with RELEASE on its way: its caller takes it for undone, and it can not be undone alone any more.
          if (said === "release" && child.options.parent !== undefined)
            child.options.parent.spoiled = interruptedRelease
          child.end()
        })
      )
    )
  }).pipe(Effect.asVoid)

const interruptedRelease =
  "A nested transaction was interrupted in the very moment of its release, and can not be undone alone: the transaction around it is rolled back"

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
        const held = new Held(stages, lease, permit, { readOnly: false, span })
        return Effect.as(
          Effect.addFinalizer(() => Effect.sync(() => abandon(held))),
          held
        )
      }).pipe(Effect.mapError(PgError.toSqlError))
    })
  )

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
              ? begin(stages(), caller, {}, { span: caller.span, outer: undefined }, "guarded", restore, limits)
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
  const held = new Held(stages, kept, permit, { readOnly: false, span: options.span, parent: reserved })
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
