/** Nested transactions: a savepoint each, as levels of the connection that the transaction around them holds. */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import type * as Tracer from "effect/Tracer"
import type * as PgError from "../../error/PgError.js"
import { control, send } from "./attempt.js"
import { Held } from "./held.js"
import { hooks } from "./leasing.js"
import { aborted, rolledBack } from "./levels.js"
import { Request } from "./request.js"
import type { Reply } from "./session.js"
import type { Caller, Restore, Stages } from "./stages.js"
import { suspended } from "./suspension.js"

let savepoints = 0

export const openNested = (
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
    const child = new Held(stages, parent.grip, {
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
    held.lease,
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
export const closeNested = (
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
      const failure = Effect.fail(aborted(caller, "Savepoint", child.spoiled))
      return Effect.zipRight(Effect.ensuring(undoneNested(child, restore), end), failure)
    }
    let said: "nothing" | "release" | "answered" = "nothing"
    const release = suspended<Reply, PgError.PgError>((resume) => {
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
