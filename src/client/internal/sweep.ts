/**
 * Keeping the ledger small: tokens of acknowledged transactions go soon and in batches, by the hand of who used them; what is
 * left (of programs that ended, of fences, of answers that came too late) goes when it is older than the retention.
 *
 * Nothing depends on it: what can not be deleted now is left to the retention.
 */
import * as Effect from "effect/Effect"
import * as ledger from "./ledger.js"

export interface Sweep {
  /** Nobody will ask for this token any more. */
  readonly acknowledged: (token: string) => void
  /** Delete what is acknowledged and still there. To be run before the pool closes. */
  readonly flush: Effect.Effect<void>
}

/** Between an acknowledgement and its deletion: short enough for a small table, long enough for few statements. */
const gathering = "1 second"
/** Tokens, or rows, a statement. */
const batch = 1_000
/** So many are kept for deletion at most, while the server is away; what comes then is left to the retention. */
const most = 100_000
/** Between two looks for what is older than the retention. */
const expiring = "1 hour"

/** `execute`: one statement of the pool, on the live clock. `fork`: in the background, until the scope closes. */
export const make = (
  options: ledger.Ledger,
  execute: (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<number, unknown>,
  fork: (effect: Effect.Effect<void>) => void
): Sweep => {
  const tokens: Array<string> = []
  let gathered = false
  let used = false

  /** So many: what comes while they are deleted is gathered again, or a busy program would delete it one by one. */
  const forget = (count: number): Effect.Effect<void, unknown> => {
    if (count <= 0) return Effect.void
    const some = tokens.splice(0, Math.min(batch, count))
    return execute(ledger.forget(options), [some]).pipe(
      // Whatever became of it: to delete them twice is as good as once.
      Effect.onError(() => Effect.sync(() => void tokens.unshift(...some))),
      Effect.zipRight(Effect.suspend(() => forget(count - batch)))
    )
  }
  const flush = Effect.ignore(Effect.suspend(() => forget(tokens.length)))

  const inBatches = (sql: string, params: ReadonlyArray<unknown>): Effect.Effect<void> =>
    Effect.flatMap(execute(sql, [...params, batch]), (deleted) =>
      deleted < batch ? Effect.void : inBatches(sql, params)
    ).pipe(Effect.ignore)
  const expire = Effect.zipRight(
    inBatches(ledger.expire(options), [options.retention]),
    inBatches(ledger.expireKeys(options), [])
  )

  return {
    acknowledged: (token) => {
      if (!used) {
        used = true
        fork(Effect.forever(Effect.zipRight(expire, Effect.sleep(expiring))))
      }
      if (tokens.length < most) tokens.push(token)
      if (gathered) return
      gathered = true
      const later = Effect.suspend(() => {
        gathered = false
        return flush
      })
      fork(Effect.zipRight(Effect.sleep(gathering), later))
    },
    flush
  }
}
