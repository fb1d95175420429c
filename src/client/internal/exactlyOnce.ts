/**
 * Transactions whose COMMIT may get lost, and yet happen exactly once.
 *
 * 1. An attempt whose COMMIT was never sent is not applied, and never will be: what follows it has a new token, unless an
 *    earlier one had come to COMMIT. From then on somebody may ask by its token, and it stays the transaction's.
 * 2. An attempt whose COMMIT was sent and not answered is open. Its token is inserted again with the next attempt: refused,
 *    the open one was committed; accepted, it is dead, and so are all before it. Any other failure settles nothing.
 * 3. So at most one attempt is open at any time, the latest one that was accepted and whose COMMIT was sent. If one was
 *    committed it is that one, and its value is the caller's.
 * 4. Who asks and gives up leaves the answer to others: the error carries the token (`Transaction.outcome`). A fence, left
 *    by who was told "not applied", refuses every attempt that comes after.
 */
import { randomUUID } from "node:crypto"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import { copy } from "../../error/internal/build.js"
import * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import { type Asked, delayOf, kindOf } from "./asking.js"
import type { Claim } from "./claims.js"
import * as course from "./course.js"
import { conclude } from "./guard.js"
import * as ledger from "./ledger.js"
import { aborted, type Mode } from "./levels.js"
import type { Caller, Stages } from "./stages.js"
import * as xid from "./xid.js"

type Open<A> = course.Open<A>
type View<E> = course.View<E>

/** For a transaction without a deadline, milliseconds: after so long no new question is put. */
const settleLimit = 30_000

/** What a question about an open attempt came to. `Value`: a new attempt was made, and committed. */
type Verdict<A> =
  | { readonly _tag: "Committed" }
  | { readonly _tag: "Value"; readonly value: A }
  | { readonly _tag: "Open" }
  | { readonly _tag: "Lost" }

/** How an open attempt is settled. */
interface Way<A, E, R> {
  readonly claim: Claim
  /** Milliseconds of the caller's clock: afterwards an answer is not to be believed. */
  readonly askBefore: number
  readonly settlement: () => PgError.Settlement | undefined
  /** Fails with what the transaction fails with when it was not applied. */
  readonly question: (asking: Open<A>) => Effect.Effect<Verdict<A>, E | PgError.PgError, R>
}

/** A token that was sent. */
interface Known {
  readonly token: string
  readonly askBefore: DateTime.Utc
}

const byLedger = <A, E, R>(
  stages: Stages,
  caller: Caller,
  { accepted, close, open, run }: course.Course<A, E, R>,
  view: View<E>,
  asked: Asked,
  { askBefore, token }: Known,
  first: boolean
): Way<A, E, R> => {
  const claim = { token, kind: "commit", first } as const
  const read = Effect.flatMap(kindOf(stages, asked, token), (kind): Effect.Effect<Verdict<A>, PgError.PgError> => {
    if (kind === undefined) return Effect.succeed({ _tag: "Open" })
    close(kind === "commit" ? "settledCommitted" : "settledAborted")
    return kind === "commit" ? Effect.succeed({ _tag: "Committed" }) : Effect.fail(fenced(caller))
  })
  return {
    claim,
    askBefore: DateTime.toEpochMillis(askBefore),
    settlement: () => ({ mode: "ledger", token, askBefore }),
    question: () =>
      Effect.matchEffect(run("again", { ...claim, first: false }), {
        onSuccess: (value) => Effect.succeed<Verdict<A>>({ _tag: "Value", value }),
        onFailure: (error): Effect.Effect<Verdict<A>, E | PgError.PgError> => {
          if (accepted() && open() === undefined) return Effect.fail(error)
          const seen = view(error)
          return !accepted() && seen !== undefined && ledger.isRefusal(stages.ledger, seen)
            ? read
            : Effect.succeed({ _tag: "Open" })
        }
      })
  }
}

const byXid = <A, E, R>(caller: Caller, { close }: course.Course<A, E, R>, asked: Asked): Way<A, E, R> => {
  let facts: xid.Facts | undefined
  return {
    askBefore: Number.POSITIVE_INFINITY,
    claim: {
      kind: "xid",
      onFacts: (told) => {
        facts = told
      }
    },
    settlement: () => facts && { mode: "xid", ...facts },
    question: ({ error }) =>
      Effect.matchEffect(xid.ask(asked, facts!), {
        onFailure: () => Effect.succeed<Verdict<A>>({ _tag: "Open" }),
        onSuccess: (answer): Effect.Effect<Verdict<A>, PgError.PgError> => {
          if (answer === "Open" || answer === "Lost") return Effect.succeed({ _tag: answer })
          close(answer === "Applied" ? "settledCommitted" : "settledAborted")
          return answer === "Applied"
            ? Effect.succeed({ _tag: "Committed" })
            : Effect.fail(PgError.withContext(error, { outcome: "NotApplied", operation: caller.operation?.name }))
        }
      })
  }
}

/**
 * The attempts of one transaction, each of them settled: its failure is that of a transaction which was not applied, or
 * `OutcomeUnknownError` for good.
 */
export const settling = <A, E, R>(
  stages: Stages,
  caller: Caller,
  effect: Effect.Effect<A, E, R>,
  how: "ledger" | "xid",
  attempt: course.Attempt<never>,
  asked: Asked,
  view: View<E>
): ((mode: Mode) => Effect.Effect<A, E | PgError.PgError, R>) => {
  const { clock } = caller
  const { recorder } = stages
  /** Its COMMIT was sent. */
  let kept: Known | undefined
  const once = (mode: Mode): Effect.Effect<A, E | PgError.PgError, R> => {
    const under = course.make(stages, caller, effect, attempt, view)
    const now = clock.unsafeCurrentTimeMillis()
    const again = kept !== undefined && now < DateTime.toEpochMillis(kept.askBefore) ? kept : undefined
    const token = again ?? { token: randomUUID(), askBefore: DateTime.unsafeMake(now + stages.ledger.retention / 2) }
    const way =
      how === "xid"
        ? byXid(caller, under, asked)
        : byLedger(stages, caller, under, view, asked, token, again === undefined)
    /** Somebody has the settlement, and may ask. */
    let told = false
    const settlement = () => {
      if (!under.pending()) return undefined
      told = true
      return way.settlement()
    }
    const deadline = caller.operation?.deadline ?? Number.POSITIVE_INFINITY
    const settle = (first: Open<A>) =>
      Effect.gen(function* () {
        const limit = Math.min(
          deadline === Number.POSITIVE_INFINITY ? clock.unsafeCurrentTimeMillis() + settleLimit : deadline,
          way.askBefore
        )
        let asking = first
        for (let asked = 0; ; asked++) {
          const delay = yield* delayOf(asked)
          if (clock.unsafeCurrentTimeMillis() + delay >= limit) {
            return yield* givenUp(stages, caller, asking.error, way.settlement())
          }
          yield* Effect.sleep(delay)
          const verdict = yield* way.question(asking)
          if (verdict._tag === "Value") return verdict.value
          if (verdict._tag === "Committed") return asking.value
          if (verdict._tag === "Lost") return yield* givenUp(stages, caller, asking.error, undefined)
          const open = under.open()
          if (open === undefined || open === asking) continue
          // The COMMIT of a new attempt is open now, and the first question about that one is put at once.
          asking = open
          asked = -1
        }
      })
    return Effect.catchAll(under.run(mode, way.claim), (error): Effect.Effect<A, E | PgError.PgError, R> => {
      const open = under.open()
      if (open !== undefined) {
        kept = token
        return settle(open)
      }
      const seen = under.accepted() ? undefined : view(error)
      // All attempts before this one are dead, or it would not have been made: what is there can be a fence only.
      return Effect.fail(seen !== undefined && ledger.isRefusal(stages.ledger, seen) ? fenced(caller) : error)
    }).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          under.acknowledge()
          if (way.claim.kind !== "xid" && !told) stages.acknowledged(way.claim.token)
        })
      ),
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          if (!under.pending()) return
          recorder.interruptedWrite(caller.operation, "COMMIT")
          recorder.transaction("unknown")
        })
      ),
      operation.unsettled(caller.operation, settlement)
    )
  }
  return (mode) => Effect.suspend(() => once(mode))
}

const givenUp = (
  stages: Stages,
  caller: Caller,
  error: PgError.PgError,
  settlement: PgError.Settlement | undefined
): Effect.Effect<never, PgError.PgError> =>
  Effect.suspend(() => {
    stages.recorder.transaction("unknown")
    const concluded = conclude(stages, caller, error, false, 1)
    return Effect.fail(copy(concluded, { settlement }))
  })

const fenced = (caller: Caller) =>
  aborted(
    caller,
    "Begin",
    "Its outcome was asked for while it was open, and the answer was that it had not been applied: so it never will be"
  )
