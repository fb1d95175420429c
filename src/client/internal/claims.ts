/**
 * A transaction that begins with its token in the ledger.
 *
 * A first attempt can not meet anybody: its insert travels with BEGIN. One that asks for the fate of an earlier attempt may:
 * its insert waits while that one is open, and is refused when it was committed. What keeps it open may be a session whose
 * client has long gone, which is ended.
 */
import * as Effect from "effect/Effect"
import type { QueryArrayResult } from "pg"
import type * as PgError from "../../error/PgError.js"
import type { Options } from "../Transaction.js"
import { control } from "./attempt.js"
import type { Held } from "./held.js"
import * as ledger from "./ledger.js"
import { abandon, beginNow, type Mode } from "./levels.js"
import { Request } from "./request.js"
import type { Caller, Restore, Stages } from "./stages.js"
import * as xid from "./xid.js"

/** What is written down of a transaction when it begins, or asked. */
export type Claim = Token | Id

interface Claiming {
  /** A COMMIT that has something to apply is on its way. */
  readonly onCommit?: (() => void) | undefined
}

/** The server's own id of it. */
export interface Id extends Claiming {
  readonly kind: "xid"
  readonly onFacts: (facts: xid.Facts) => void
}

/** Its token in the ledger. */
export interface Token extends Claiming {
  readonly token: string
  readonly kind: ledger.Kind
  /** Nobody has used this token before. */
  readonly first: boolean
}

/** An earlier attempt that still runs ends by itself in this time, if it ends by itself. */
const grace = "250 millis"
/** Between two looks for what blocks us. */
const pause = "1 second"

/** As `beginNow`. Refused, it fails with the ledger's `UniqueViolation`; see `ledger.isRefusal`. */
export const beginClaimed = (
  stages: Stages,
  caller: Caller,
  options: Options,
  held: Parameters<typeof beginNow>[3],
  mode: Mode,
  restore: Restore,
  claim: Claim
): Effect.Effect<Held, PgError.PgError> => {
  if (claim.kind === "xid") {
    const onReply = ({ result }: { readonly result: unknown }) => {
      for (const { rows } of result as ReadonlyArray<QueryArrayResult>) {
        if (rows[0] !== undefined) claim.onFacts(rows[0] as unknown as xid.Facts)
      }
    }
    return beginNow(stages, caller, options, held, mode, restore, { more: xid.begun, onReply })
  }
  if (claim.first) {
    const more = `; ${ledger.insert(stages.ledger, claim.token, claim.kind)}`
    return Effect.mapError(beginNow(stages, caller, options, held, mode, restore, { more }), explained(stages))
  }
  let facts: Facts | undefined
  const onReply = ({ result }: { readonly result: unknown }) => {
    for (const { rows } of result as ReadonlyArray<QueryArrayResult>) facts ??= rows[0] as Facts | undefined
  }
  return beginNow(stages, caller, options, held, mode, restore, { more: ledger.prepare, onReply }).pipe(
    Effect.tap((opened) =>
      Effect.onError(restore(claimed(stages, caller, opened, claim, facts!)), () => Effect.sync(() => abandon(opened)))
    ),
    Effect.mapError(explained(stages))
  )
}

interface Facts {
  readonly pid: number
  readonly lock_timeout: string
}

const claimed = (stages: Stages, caller: Caller, held: Held, { kind, token }: Token, { lock_timeout, pid }: Facts) => {
  const request = () => new Request(ledger.claim(stages.ledger, token, kind, lock_timeout))
  // Where nothing can be interrupted, this must be all the same: it has no end of its own.
  const unblocking = Effect.sleep(grace).pipe(
    Effect.zipRight(
      Effect.forever(Effect.zipRight(Effect.ignore(stages.aside(ledger.unblock, [pid])), Effect.sleep(pause)))
    ),
    stages.live,
    Effect.interruptible
  )
  return Effect.raceFirst(held.submit(caller, request, control("Begin", "begin")), unblocking)
}

/** Used without its table, it says how to create it. */
const explained =
  ({ ledger: { schema, table } }: Stages) =>
  (error: PgError.PgError): PgError.PgError =>
    error.phase === "Begin" ? ledger.explained(error, `${schema}.${table}`) : error
