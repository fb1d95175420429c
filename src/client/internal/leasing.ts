/** A connection taken from the pool with a permit of the breaker, used, and given back; and what both learn of it. */
import * as Effect from "effect/Effect"
import * as PgError from "../../error/PgError.js"
import type { Lease } from "../Pool.js"
import type { Permit } from "./guard.js"
import type { Caller, Restore, Stages } from "./stages.js"

/** Where the verdicts on a connection go: to the breaker, by the permit it was taken with. */
export type Verdicts = Pick<Permit, "settle" | "neutral" | "report">

/** For what the breaker has no part in. */
export const noVerdicts: Verdicts = { settle: () => {}, neutral: () => {}, report: () => {} }

/** Wait for a connection, use it, give it back. */
export const leased = <A>(
  stages: Stages,
  caller: Caller,
  permit: Permit,
  use: (lease: Lease) => Effect.Effect<A, PgError.PgError>
): Effect.Effect<A, PgError.PgError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(acquired(stages, caller, permit, restore), (lease) =>
      Effect.onExit(restore(use(lease)), () => {
        lease.release()
        return Effect.void
      })
    )
  )

/** There was no connection: that is an attempt's verdict. */
export const unserved = (stages: Stages, permit: Verdicts, error: PgError.PgError): void => {
  permit.settle(error, 0)
  stages.recorder.unserved(error)
}

/** `pool.acquire`, and what is learned of its failure. */
export const acquired = (
  stages: Stages,
  caller: Caller,
  permit: Permit,
  restore: Restore
): Effect.Effect<Lease, PgError.PgError> =>
  Effect.tapError(stages.pool.acquire(restore, caller.clock), (error) =>
    Effect.sync(() => unserved(stages, permit, error))
  )

/** What the breaker and the pool learn of one statement. */
export const hooks = (stages: Stages, permit: Verdicts, release: () => void) => ({
  answered: (error: PgError.PgError | undefined, elapsedMs: number) => {
    permit.settle(error, elapsedMs)
    release()
  },
  abandoned: () => {
    permit.neutral()
    release()
  },
  settled: (silent: boolean) => {
    if (silent) reportSilence(stages, permit)
  }
})

/** The server was silent: to the breaker as good as a lost connection, and to the pool a reason to ask the others. */
export const reportSilence = (stages: Stages, permit: Verdicts): void => {
  permit.report(silence)
  stages.pool.suspect()
}

/** A server that did not even answer a cancel. Never shown: its caller has gone. */
const silence = new PgError.ConnectionError({
  message: "The server did not answer a cancelled statement within a second",
  phase: "Execute",
  outcome: "Unknown",
  transient: true,
  attempts: 1
})
