/**
 * Transactions whose COMMIT may get lost, and yet happen exactly once (DESIGN: "Transactions and exactly once").
 *
 * 1. An attempt whose COMMIT was never sent is not applied, and never will be: what follows it has a new token.
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
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import { copy } from "../../error/internal/build.js"
import * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import { Pooled } from "../Connection.js"
import type { Outcome } from "../Transaction.js"
import type { Claim } from "./claims.js"
import { conclude } from "./guard.js"
import * as ledger from "./ledger.js"
import type { Mode } from "./levels.js"
import { aborted } from "./levels.js"
import type { Caller, Stages } from "./stages.js"
import * as xid from "./xid.js"

/** One attempt of the transaction, with `body` in it; the failure of its COMMIT as it is. */
export type Attempt<R> = <A, E, R2>(
  body: Effect.Effect<A, E, R2>,
  mode: Mode,
  claim: Claim
) => Effect.Effect<A, E | PgError.PgError, R | R2>

/** A question put in a transaction of its own. */
export type Asked = Parameters<typeof xid.ask>[0]

/** What of a failure is ours to judge. */
export type View<E> = (error: E | PgError.PgError) => PgError.PgError | undefined

/** For a transaction without a deadline, milliseconds: how long it is tried to settle it. */
const settleLimit = 30_000
/** Before an open attempt is asked for again, milliseconds: doubling, half of it jitter. The first time at once. */
const askDelay = { first: 50, cap: 1_000 }

const delayOf = (asked: number): Effect.Effect<number> =>
  asked === 0
    ? Effect.succeed(0)
    : Effect.map(Random.next, (n) => Math.min(askDelay.cap, askDelay.first * 2 ** (asked - 1)) * (0.5 + n / 2))

/** An attempt whose COMMIT was sent, and what it would be worth. */
interface Open<A> {
  readonly value: A
  readonly error: PgError.PgError
  /** Milliseconds of the caller's clock. */
  readonly since: number
}

/** What a question about an open attempt came to. `Value`: a new attempt was made, and committed. */
type Verdict<A> =
  | { readonly _tag: "Committed" }
  | { readonly _tag: "Value"; readonly value: A }
  | { readonly _tag: "Open" }
  | { readonly _tag: "Lost" }

/** One transaction under way: its attempts, and which of them is open. */
interface Course<A, E, R> {
  readonly run: (mode: Mode, claim: Claim) => Effect.Effect<A, E | PgError.PgError, R>
  readonly open: () => Open<A> | undefined
  /** Whether the last attempt began, which means that all before it are dead. */
  readonly accepted: () => boolean
  /** What became of the open one is known. */
  readonly close: (outcome: "settledCommitted" | "settledAborted") => void
}

const makeCourse = <A, E, R>(
  stages: Stages,
  caller: Caller,
  effect: Effect.Effect<A, E, R>,
  attempt: Attempt<never>,
  view: View<E>
): Course<A, E, R> => {
  const now = () => caller.clock.unsafeCurrentTimeMillis()
  let open: Open<A> | undefined
  let accepted = false
  let value = Option.none<A>()
  const close: Course<A, E, R>["close"] = (outcome) => {
    if (open === undefined) return
    if (outcome === "settledAborted") operation.countWrite(caller.operation, -1, true)
    stages.recorder.settled(outcome, (now() - open.since) / 1000)
    open = undefined
  }
  const body = Effect.suspend(() => {
    accepted = true
    value = Option.none()
    close("settledAborted")
    return Effect.tap(effect, (done) => {
      value = Option.some(done)
    })
  })
  return {
    run: (mode, claim) =>
      Effect.suspend(() => {
        accepted = false
        return Effect.tapError(attempt(body, mode, claim), (error) =>
          Effect.sync(() => {
            const seen = accepted ? view(error) : undefined
            if (Option.isSome(value) && seen?.phase === "Commit" && seen.outcome === "Unknown") {
              open = { value: value.value, error: seen, since: now() }
            }
          })
        )
      }),
    open: () => open,
    accepted: () => accepted,
    close
  }
}

/** How an open attempt is settled. */
interface Way<A, E, R> {
  readonly claim: Claim
  /** Milliseconds of the caller's clock: afterwards an answer is not to be believed. */
  readonly askBefore: number
  readonly settlement: () => PgError.Settlement | undefined
  /** Fails with what the transaction fails with when it was not applied. */
  readonly question: (asking: Open<A>) => Effect.Effect<Verdict<A>, E | PgError.PgError, R>
}

const byLedger = <A, E, R>(
  stages: Stages,
  caller: Caller,
  { accepted, close, open, run }: Course<A, E, R>,
  view: View<E>
): Way<A, E, R> => {
  const token = randomUUID()
  const askBefore = DateTime.unsafeMake(caller.clock.unsafeCurrentTimeMillis() + stages.ledger.retention / 2)
  const claim = { token, kind: "commit", first: true } as const
  const read = Effect.flatMap(kindOf(stages, token), (kind): Effect.Effect<Verdict<A>, PgError.PgError> => {
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

const byXid = <A, E, R>(caller: Caller, { close }: Course<A, E, R>, asked: Asked): Way<A, E, R> => {
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

/** One attempt, settled: its failure is that of a transaction which was not applied, or `OutcomeUnknownError` for good. */
export const settled = <A, E, R>(
  stages: Stages,
  caller: Caller,
  effect: Effect.Effect<A, E, R>,
  how: "ledger" | "xid",
  mode: Mode,
  attempt: Attempt<never>,
  asked: Asked,
  view: View<E>
): Effect.Effect<A, E | PgError.PgError, R> =>
  Effect.suspend(() => {
    const { clock } = caller
    const { recorder } = stages
    const course = makeCourse(stages, caller, effect, attempt, view)
    const way = how === "xid" ? byXid(caller, course, asked) : byLedger(stages, caller, course, view)
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
          const open = course.open()
          if (open === undefined || open === asking) continue
          // The COMMIT of a new attempt is open now, and the first question about that one is put at once.
          asking = open
          asked = -1
        }
      })
    return Effect.catchAll(course.run(mode, way.claim), (error) => {
      const open = course.open()
      return open === undefined ? Effect.fail(error) : settle(open)
    }).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          if (way.claim.kind !== "xid") stages.acknowledged(way.claim.token)
        })
      ),
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          if (course.open() !== undefined) recorder.transaction("unknown")
        })
      ),
      operation.unsettled(caller.operation, way.settlement)
    )
  })

/**
 * The answer that stays true for ever: the token's row is there, or a fence is put in its place. Asked again and again until
 * the operation's deadline, as nothing but the ledger's own word, or the server's about an id, settles.
 */
export const outcomeOf = (
  stages: Stages,
  caller: Caller,
  fence: (claim: Claim) => Effect.Effect<void, PgError.PgError>,
  asked: Asked,
  settlement: PgError.Settlement
): Effect.Effect<Outcome, PgError.PgError> =>
  Effect.gen(function* () {
    for (let n = 0; ; n++) {
      yield* Effect.sleep(yield* delayOf(n))
      const answer = yield* Effect.either(
        settlement.mode === "xid" ? xid.ask(asked, settlement) : askLedger(stages, caller, fence, settlement)
      )
      if (answer._tag === "Right") {
        if (answer.right === "Lost") return "Expired"
        if (answer.right !== "Open") return answer.right
      } else if (!answer.left.transient && answer.left.outcome === "NotApplied") {
        return yield* Effect.fail(answer.left)
      }
    }
  })

const askLedger = (
  stages: Stages,
  { clock }: Caller,
  fence: (claim: Claim) => Effect.Effect<void, PgError.PgError>,
  { askBefore, token }: Extract<PgError.Settlement, { readonly mode: "ledger" }>
): Effect.Effect<xid.Answer, PgError.PgError> =>
  clock.unsafeCurrentTimeMillis() >= DateTime.toEpochMillis(askBefore)
    ? Effect.succeed("Lost")
    : Effect.matchEffect(fence({ token, kind: "fence", first: false }), {
        onSuccess: () => Effect.succeed<xid.Answer>("NotApplied"),
        onFailure: (error): Effect.Effect<xid.Answer, PgError.PgError> =>
          ledger.isRefusal(stages.ledger, error)
            ? Effect.map(kindOf(stages, token), (kind) =>
                kind === undefined ? "Open" : kind === "commit" ? "Applied" : "NotApplied"
              )
            : Effect.fail(error)
      })

/** What the token's row says; undefined if that can not be read now. */
export const kindOf = (stages: Stages, token: string): Effect.Effect<ledger.Kind | undefined> =>
  new Pooled(stages).execute(ledger.kindOf(stages.ledger), [token], undefined).pipe(
    Effect.map((rows) => (rows[0] as { readonly kind: ledger.Kind } | undefined)?.kind),
    Effect.orElseSucceed(() => undefined)
  )

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
