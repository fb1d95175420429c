/** Questions about a transaction whose outcome is open, and how often they are put. */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as PgError from "../../error/PgError.js"
import type { Outcome } from "../Transaction.js"
import type { Claim } from "./claims.js"
import * as ledger from "./ledger.js"
import type { Caller, Stages } from "./stages.js"
import * as xid from "./xid.js"

/** A question put in a transaction of its own. */
export type Asked = Parameters<typeof xid.ask>[0]

/** Before an open attempt is asked for again, milliseconds: doubling, half of it jitter. The first time at once. */
const askDelay = { first: 50, cap: 1_000 }

export const delayOf = (asked: number): Effect.Effect<number> =>
  asked === 0
    ? Effect.succeed(0)
    : Effect.map(Random.next, (n) => Math.min(askDelay.cap, askDelay.first * 2 ** (asked - 1)) * (0.5 + n / 2))

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
        settlement.mode === "xid" ? xid.ask(asked, settlement) : askLedger(stages, caller, fence, asked, settlement)
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
  asked: Asked,
  { askBefore, token }: Extract<PgError.Settlement, { readonly mode: "ledger" }>
): Effect.Effect<xid.Answer, PgError.PgError> =>
  clock.unsafeCurrentTimeMillis() >= DateTime.toEpochMillis(askBefore)
    ? Effect.succeed("Lost")
    : Effect.matchEffect(fence({ token, kind: "fence", first: false }), {
        onSuccess: () => Effect.succeed<xid.Answer>("NotApplied"),
        onFailure: (error): Effect.Effect<xid.Answer, PgError.PgError> =>
          ledger.isRefusal(stages.ledger, error)
            ? Effect.map(kindOf(stages, asked, token), (kind) =>
                kind === undefined ? "Open" : kind === "commit" ? "Applied" : "NotApplied"
              )
            : Effect.fail(error)
      })

/** What the token's row says; undefined if that can not be read now. */
export const kindOf = (stages: Stages, asked: Asked, token: string): Effect.Effect<ledger.Kind | undefined> =>
  asked((held) => held.execute(ledger.kindOf(stages.ledger), [token], undefined)).pipe(
    Effect.map((rows) => (rows[0] as { readonly kind: ledger.Kind } | undefined)?.kind),
    Effect.orElseSucceed(() => undefined)
  )
