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
import type * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import { Pooled } from "../Connection.js"
import type { Claim } from "./claims.js"
import { conclude } from "./guard.js"
import * as ledger from "./ledger.js"
import type { Mode } from "./levels.js"
import { aborted } from "./levels.js"
import type { Caller, Stages } from "./stages.js"

/** One attempt of the transaction, with `body` in it; the failure of its COMMIT as it is. */
export type Attempt<R> = <A, E, R2>(
  body: Effect.Effect<A, E, R2>,
  mode: Mode,
  claim: Claim
) => Effect.Effect<A, E | PgError.PgError, R | R2>

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

/** One attempt, settled: its failure is that of a transaction which was not applied, or `OutcomeUnknownError` for good. */
export const settled = <A, E, R>(
  stages: Stages,
  caller: Caller,
  effect: Effect.Effect<A, E, R>,
  mode: Mode,
  attempt: Attempt<never>,
  view: (error: E | PgError.PgError) => PgError.PgError | undefined
): Effect.Effect<A, E | PgError.PgError, R> =>
  Effect.suspend(() => {
    const { clock } = caller
    const { recorder } = stages
    const now = () => clock.unsafeCurrentTimeMillis()
    const settlement: PgError.Settlement = {
      mode: "ledger",
      token: randomUUID(),
      askBefore: DateTime.unsafeMake(now() + stages.ledger.retention / 2)
    }
    const { token } = settlement
    let open: Open<A> | undefined
    let accepted = false
    let value = Option.none<A>()

    const closed = (outcome: "settledCommitted" | "settledAborted") => {
      if (open === undefined) return
      if (outcome === "settledAborted") operation.countWrite(caller.operation, -1, true)
      recorder.settled(outcome, (now() - open.since) / 1000)
      open = undefined
    }
    const body = Effect.suspend(() => {
      accepted = true
      value = Option.none()
      closed("settledAborted")
      return Effect.tap(effect, (done) => {
        value = Option.some(done)
      })
    })
    const run = (mode: Mode, first: boolean) =>
      Effect.suspend(() => {
        accepted = false
        return Effect.tapError(attempt(body, mode, { token, kind: "commit", first }), (error) =>
          Effect.sync(() => {
            const seen = accepted ? view(error) : undefined
            if (Option.isSome(value) && seen?.phase === "Commit" && seen.outcome === "Unknown") {
              open = { value: value.value, error: seen, since: now() }
            }
          })
        )
      })
    const deadline = caller.operation?.deadline ?? Number.POSITIVE_INFINITY

    const settle = (first: Open<A>) =>
      Effect.gen(function* () {
        const limit = deadline === Number.POSITIVE_INFINITY ? now() + settleLimit : deadline
        let asking = first
        for (let asked = 0; ; asked++) {
          const delay = yield* delayOf(asked)
          if (now() + delay >= limit) return yield* givenUp(stages, caller, asking.error, settlement)
          yield* Effect.sleep(delay)
          const result = yield* Effect.either(run("again", false))
          if (result._tag === "Right") return result.right
          if (accepted) {
            if (open === undefined) return yield* Effect.fail(result.left)
            // Its own COMMIT is open now, and the first question about that one is put at once.
            asking = open
            asked = -1
            continue
          }
          const seen = view(result.left)
          if (seen === undefined || !ledger.isRefusal(stages.ledger, seen)) continue
          const kind = yield* kindOf(stages, token)
          if (kind === undefined) continue
          closed(kind === "commit" ? "settledCommitted" : "settledAborted")
          return kind === "commit" ? asking.value : yield* Effect.fail(fenced(caller))
        }
      })

    return Effect.catchAll(run(mode, true), (error) => (open === undefined ? Effect.fail(error) : settle(open))).pipe(
      Effect.tap(() => Effect.sync(() => stages.acknowledged(token))),
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          if (open !== undefined) recorder.transaction("unknown")
        })
      ),
      operation.unsettled(caller.operation, settlement)
    )
  })

/**
 * The answer that stays true for ever: the token's row is there, or a fence is put in its place. Asked again and again until
 * the operation's deadline, as nothing but the ledger's own word settles.
 */
export const outcomeOf = (
  stages: Stages,
  caller: Caller,
  fence: (claim: Claim) => Effect.Effect<void, PgError.PgError>,
  { askBefore, token }: PgError.Settlement
): Effect.Effect<"Applied" | "NotApplied" | "Expired", PgError.PgError> =>
  Effect.gen(function* () {
    for (let asked = 0; ; asked++) {
      const delay = yield* delayOf(asked)
      const now = caller.clock.unsafeCurrentTimeMillis()
      if (now >= DateTime.toEpochMillis(askBefore)) return "Expired"
      yield* Effect.sleep(delay)
      const result = yield* Effect.either(fence({ token, kind: "fence", first: false }))
      if (result._tag === "Right") return "NotApplied"
      if (ledger.isRefusal(stages.ledger, result.left)) {
        const kind = yield* kindOf(stages, token)
        if (kind !== undefined) return kind === "commit" ? "Applied" : "NotApplied"
      } else if (!result.left.transient && result.left.outcome === "NotApplied") {
        return yield* Effect.fail(result.left)
      }
    }
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
  settlement: PgError.Settlement
): Effect.Effect<never, PgError.PgError> =>
  Effect.suspend(() => {
    stages.recorder.transaction("unknown")
    const concluded = conclude(stages, caller, error, false, 1)
    return Effect.fail(concluded._tag === "OutcomeUnknownError" ? copy(concluded, { settlement }) : concluded)
  })

const fenced = (caller: Caller) =>
  aborted(
    caller,
    "Begin",
    "Its outcome was asked for while it was open, and the answer was that it had not been applied: so it never will be"
  )
