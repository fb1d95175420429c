/**
 * A transaction on a connection of its own: BEGIN, COMMIT, ROLLBACK, and what is known when one of them gets lost. Savepoints
 * are in `nested.ts`.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import type { QueryArrayResult } from "pg"
import * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import type { Lease } from "../Pool.js"
import type { Options } from "../Transaction.js"
import { control, send } from "./attempt.js"
import { Arrival, Beginning, beginWork, Grip, type Way } from "./beginning.js"
import { type Attempt, admitted, conclude, guard, type Permit, recover, tracked } from "./guard.js"
import { Held } from "./held.js"
import { acquired, hooks } from "./leasing.js"
import { Request } from "./request.js"
import { type Reply, terminated } from "./session.js"
import type { Caller, Restore, Stages } from "./stages.js"
import { suspended } from "./suspension.js"

/** A typed failure's ROLLBACK is waited for this long, milliseconds of the live clock; then the connection goes. */
const rollbackLimit = 250
/** Where it can be found out what became of it, an answer to COMMIT is waited for this long: more than a standby's word takes. */
const commitPatience = 5_000

const beginText = ({ deferrable, isolation, readOnly }: Options, setLocal: string): string =>
  `BEGIN${isolation === undefined ? "" : ` ISOLATION LEVEL ${isolation.toUpperCase()}`}${readOnly === true ? " READ ONLY" : ""}${
    deferrable === true ? " DEFERRABLE" : ""
  }${setLocal}`

/**
 * Who repeats a BEGIN that fails: it itself, or (`once`, and `again` from the second time on) whoever repeats the whole
 * transaction, so that no policy is gone through twice.
 */
export type Mode = "guarded" | "once" | "again"

/** BEGIN by itself: answered, it has begun. */
const sendBegin = (
  stages: Stages,
  caller: Caller,
  { lease, permit }: Pick<Grip, "lease" | "permit">,
  text: string
): Effect.Effect<Reply, PgError.PgError> =>
  suspended((resume) => {
    const { answered, ...rest } = hooks(stages, permit, lease.release)
    const keep = { ...rest, answered: (error: PgError.PgError | undefined, ms: number) => permit.settle(error, ms) }
    return send(stages, caller, lease, new Request(text), beginWork, keep, resume)
  })

/** One attempt to begin: a connection now or in turn, and BEGIN on it. `begun` is told where nothing can be interrupted. */
const attempt =
  (
    stages: Stages,
    caller: Caller,
    text: string,
    begun: (lease: Lease, permit: Permit, reply: Reply) => void
  ): Attempt<unknown> =>
  (permit) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(acquired(stages, caller, permit, restore), (lease) =>
        Effect.onExit(restore(sendBegin(stages, caller, { lease, permit }, text)), (exit) =>
          Effect.sync(() => (Exit.isSuccess(exit) ? begun(lease, permit, exit.value) : lease.release()))
        )
      )
    )

/** What is around the outermost level. */
type Around = Pick<Held["options"], "span" | "outer">

const outermost = (stages: Stages, grip: Grip, { readOnly }: Options, around: Around): Held => {
  grip.lease.span = around.span
  return new Held(stages, grip, { ...around, readOnly: readOnly === true })
}

/**
 * A transaction on a connection of its own, whose BEGIN travels with its first statement. In an uninterruptible region; what
 * waits inside can be interrupted.
 */
export const begin = (
  stages: Stages,
  caller: Caller,
  options: Options,
  around: Around,
  mode: Mode,
  restore: Restore
): Effect.Effect<Held, PgError.PgError> =>
  Effect.suspend(() => {
    const admission = stages.breaker.unsafeAdmit(caller.clock, caller.operation?.name)
    if (!Predicate.isNumber(admission)) return beginNow(stages, caller, options, around, mode, restore)
    const arrival = new Arrival(stages, caller, admission)
    const arrived = () => {
      const { error, lease, permit } = arrival
      if (lease === undefined) {
        return mode === "guarded"
          ? beginNow(stages, caller, options, around, mode, restore, { first: error! })
          : Effect.fail(error!)
      }
      const grip = new Grip(lease, permit)
      grip.beginning = new Beginning(grip, wayOf(stages, options, mode))
      return Effect.succeed(outermost(stages, grip, options, around))
    }
    if (arrival.over) return arrived()
    return Effect.flatMap(
      Effect.onError(restore(arrival.awaited), () => Effect.sync(() => arrival.giveUp())),
      arrived
    )
  })

const wayOf = (stages: Stages, options: Options, mode: Mode): Way => ({
  text: () => beginText(options, stages.setLocal()),
  // Limits of the server's that come with it are commands of their own.
  travels: () => stages.setLocal() === "",
  here: (caller, { lease, permit }) =>
    Effect.onError(sendBegin(stages, caller, { lease, permit }, beginText(options, stages.setLocal())), () =>
      Effect.sync(lease.release)
    ),
  elsewhere: (caller, grip, error) => {
    if (mode !== "guarded" || grip.over) return Effect.fail(error)
    const text = beginText(options, stages.setLocal())
    const once = attempt(stages, caller, text, (lease, permit) => grip.take(lease, permit))
    return tracked(stages, recover(stages, caller, once, true, error))
  }
})

/** `begin`, and BEGIN is sent at once. */
export const beginNow = (
  stages: Stages,
  caller: Caller,
  options: Options,
  around: Around,
  mode: Mode,
  restore: Restore,
  {
    first,
    more = "",
    onReply = () => {}
  }: {
    /** What the first attempt has failed with. */
    readonly first?: PgError.PgError
    /** What else is in BEGIN's message, and what that is answered with. */
    readonly more?: string
    readonly onReply?: (reply: Reply) => void
  } = {}
): Effect.Effect<Held, PgError.PgError> => {
  let opened: Held | undefined
  const once = attempt(stages, caller, beginText(options, stages.setLocal() + more), (lease, permit, reply) => {
    onReply(reply)
    opened = outermost(stages, new Grip(lease, permit), options, around)
  })
  const guarded =
    first !== undefined
      ? tracked(stages, recover(stages, caller, once, true, first))
      : mode === "guarded"
        ? guard(stages, caller, once, true)
        : admitted(stages, caller, once, mode === "again" || caller.operation?.whenOpen === "wait")
  // Interrupted at the very moment at which it succeeded: nobody else knows of it.
  return Effect.onExit(restore(guarded), (exit) =>
    Exit.isFailure(exit) && opened !== undefined ? Effect.sync(() => abandon(opened!)) : Effect.void
  ).pipe(Effect.map(() => opened!))
}

/** End a level whose caller has gone. The pool cleans the connection with ROLLBACK before anybody gets it. */
export const abandon = (held: Held): void => {
  if (held.grip.beginning?.pending) held.permit.neutral()
  held.end()
  // What a fiber left behind still executes would keep the connection; nothing of it can be kept anyway.
  held.lease.session.cutOff(held.outlived())
  held.lease.release()
}

/**
 * `settles`: an unknown outcome is not the last word, and neither recorded nor concluded from here. `onCommit`: a COMMIT that
 * has something to apply is sent.
 */
export const commit = (
  stages: Stages,
  caller: Caller,
  held: Held,
  restore: Restore,
  settles = false,
  onCommit: () => void = () => {}
): Effect.Effect<void, PgError.PgError> =>
  Effect.suspend(() => {
    const { beginning } = held.grip
    if (beginning === undefined || held.ended) return committed(stages, caller, held, restore, settles, onCommit)
    // A fiber that was not awaited has its first statement under way: without its answer there may be nothing to commit.
    if (!beginning.pending) {
      return Effect.zipRight(
        Effect.onError(restore(beginning.turn), () => Effect.sync(() => abandon(held))),
        commit(stages, caller, held, restore, settles, onCommit)
      )
    }
    // Nothing was executed in it.
    abandon(held)
    stages.recorder.transaction("committed")
    return Effect.void
  })

const committed = (
  stages: Stages,
  caller: Caller,
  held: Held,
  restore: Restore,
  settles: boolean,
  onCommit: () => void
): Effect.Effect<void, PgError.PgError> =>
  Effect.suspend((): Effect.Effect<Reply, PgError.PgError> => {
    // A stream on a reserved connection that is another's by now.
    if (held.ended) return Effect.fail(held.outlived(caller))
    if (held.spoiled !== undefined) {
      return Effect.zipRight(rollback(stages, held, false), Effect.fail(aborted(caller, "Commit", held.spoiled)))
    }
    const unfinished = held.stop()
    const { lease } = held
    let sent = false
    const reply = suspended<Reply, PgError.PgError>((resume) => {
      sent = true
      if (held.wrote) onCommit()
      // What a fiber that was not awaited left half-done in a nested transaction is not committed.
      if (unfinished !== undefined) lease.session.submit(new Request(`ROLLBACK TO SAVEPOINT ${unfinished}`), () => {})
      const after = hooks(stages, held.permit, lease.release)
      let patience: NodeJS.Timeout | undefined
      const givenUp = send(
        stages,
        caller,
        lease,
        new Request("COMMIT"),
        { ...control("Commit", "commit", !held.wrote), settles },
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
        (effect) => {
          clearTimeout(patience)
          resume(effect)
        }
      )
      if (settles) {
        patience = setTimeout(() => {
          givenUp()
          // To wait for it any longer would keep the place of a connection from whoever asks.
          lease.session.destroy(terminated("COMMIT was not answered in time"))
          // What else came through the same network is no better.
          stages.pool.suspect()
          resume(Effect.fail(silent(held.wrote ? "Unknown" : "NotApplied")))
        }, patienceOf(caller))
      }
      return () => {
        givenUp()
        clearTimeout(patience)
      }
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
      if (settles) return PgError.withContext(error, { operation: caller.operation?.name })
      const concluded = conclude(stages, caller, error, false, 1)
      if (concluded._tag === "OutcomeUnknownError") stages.recorder.transaction("unknown")
      return concluded
    })
  )

/** Milliseconds of the live clock: half of the time that is left, so that there is some to find out what became of it. */
const patienceOf = ({ clock, operation }: Caller): number =>
  Math.min(commitPatience, Math.max(0, (operation?.deadline ?? Infinity) - clock.unsafeCurrentTimeMillis()) / 2)

const silent = (outcome: PgError.Outcome) =>
  new PgError.ConnectionError({
    message: "COMMIT was not answered in time",
    phase: "Commit",
    outcome,
    transient: true,
    attempts: 1
  })

/** A failure of the transaction as such: nothing of it is stored. */
export const aborted = (caller: Caller, phase: PgError.Phase, message: string) =>
  new PgError.TransactionAbortedError({
    message,
    phase,
    outcome: "NotApplied",
    transient: false,
    attempts: 1,
    operation: caller.operation?.name
  })

/** The server has answered COMMIT or RELEASE with the news that there was nothing left to keep. */
export const rolledBack = (caller: Caller, phase: PgError.Phase, what: string) =>
  aborted(
    caller,
    phase,
    `${what}: a statement in it had failed, and the program went on. Let that failure end the transaction, or give the statement a nested transaction of its own`
  )

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
export const rollback = (stages: Stages, held: Held, background: boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { beginning, failed } = held.grip
    held.end()
    if (failed === undefined) stages.recorder.transaction("rolledBack")
    if (beginning?.pending) {
      held.permit.neutral()
      return Effect.sync(held.lease.release)
    }
    if (background) held.lease.session.cutOff(held.outlived())
    return Effect.zipRight(background ? Effect.void : undone(held, "ROLLBACK"), Effect.sync(held.lease.release))
  })
