/** One transaction under way: its attempts, and which of them is open. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as PgError from "../../error/PgError.js"
import * as operation from "../../policy/internal/operation.js"
import type { Claim } from "./claims.js"
import type { Mode } from "./levels.js"
import type { Caller, Stages } from "./stages.js"

/** One attempt of the transaction, with `body` in it; the failure of its COMMIT as it is. */
export type Attempt<R> = <A, E, R2>(
  body: Effect.Effect<A, E, R2>,
  mode: Mode,
  claim: Claim
) => Effect.Effect<A, E | PgError.PgError, R | R2>

/** What of a failure is ours to judge. */
export type View<E> = (error: E | PgError.PgError) => PgError.PgError | undefined

/** An attempt whose COMMIT was sent, and what it would be worth. */
export interface Open<A> {
  readonly value: A
  readonly error: PgError.PgError
  /** Milliseconds of the caller's clock. */
  readonly since: number
}

export interface Course<A, E, R> {
  readonly run: (mode: Mode, claim: Claim) => Effect.Effect<A, E | PgError.PgError, R>
  readonly open: () => Open<A> | undefined
  /** Whether the last attempt began, which means that all before it are dead. */
  readonly accepted: () => boolean
  /** A COMMIT of it was sent, and its caller has not learned yet what became of that. */
  readonly pending: () => boolean
  /** What became of the open one is known. */
  readonly close: (outcome: "settledCommitted" | "settledAborted") => void
  /** It is committed, and nobody will ask. */
  readonly acknowledge: () => void
}

export const make = <A, E, R>(
  stages: Stages,
  caller: Caller,
  effect: Effect.Effect<A, E, R>,
  attempt: Attempt<never>,
  view: View<E>
): Course<A, E, R> => {
  const now = () => caller.clock.unsafeCurrentTimeMillis()
  let open: Open<A> | undefined
  let accepted = false
  let committing = false
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
  const onCommit = () => {
    committing = true
  }
  return {
    run: (mode, claim) =>
      Effect.suspend(() => {
        accepted = false
        return Effect.tapError(attempt(body, mode, { ...claim, onCommit }), (error) =>
          Effect.sync(() => {
            committing = false
            const seen = accepted ? view(error) : undefined
            if (Option.isSome(value) && seen?.phase === "Commit" && seen.outcome === "Unknown") {
              open = { value: value.value, error: seen, since: now() }
            }
          })
        )
      }),
    open: () => open,
    accepted: () => accepted,
    pending: () => committing || open !== undefined,
    close,
    acknowledge: () => {
      committing = false
      open = undefined
    }
  }
}
