/** Work that runs once for a key, and its result for whoever comes with that key again. In a transaction. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as PgError from "../../error/PgError.js"
import type { OnceOptions } from "../Transaction.js"
import * as ledger from "./ledger.js"

const defaultTtl = "24 hours"

interface Taken {
  readonly fingerprint: string | null
  /** Null for what JSON has no word for: undefined. */
  readonly result: string | null
}

export const once = <A, I, R1, E, R>(
  options: ledger.Ledger,
  execute: (sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<any>, SqlError>,
  {
    effect,
    fingerprint,
    key,
    schema,
    ttl = defaultTtl
  }: OnceOptions & {
    readonly key: string
    readonly schema: Schema.Schema<A, I, R1>
    readonly effect: Effect.Effect<A, E, R>
  }
): Effect.Effect<A, E | SqlError | PgError.PgError | ParseResult.ParseError, R | R1> => {
  const run = Effect.gen(function* () {
    const value = yield* effect
    const encoded = yield* Schema.encode(schema)(value)
    const json = encoded === undefined ? null : yield* Schema.encode(Schema.parseJson())(encoded)
    yield* execute(ledger.storeResult(options), [key, json])
    return value
  })
  const replay = ({ fingerprint: known, result }: Taken) =>
    fingerprint !== undefined && known !== null && known !== fingerprint
      ? Effect.fail(reused)
      : result === null
        ? Schema.decodeUnknown(schema)(undefined)
        : Schema.decode(Schema.parseJson(schema))(result)
  const take = Effect.mapError(
    execute(ledger.takeKey(options), [key, fingerprint ?? null, Duration.toMillis(ttl)]),
    (error) =>
      PgError.toSqlError(ledger.explained(PgError.fromSqlError(error), `${options.schema}.${options.table}_keys`))
  )
  return Effect.gen(function* () {
    while (true) {
      const taken = yield* take
      if (taken.length > 0) return yield* run
      const [found] = (yield* execute(ledger.keyTaken(options), [key])) as ReadonlyArray<Taken>
      // Else it expired in this very moment, and somebody deleted it.
      if (found !== undefined) return yield* replay(found)
    }
  })
}

// Without the key, which is a parameter's value.
const reused = new PgError.IdempotencyKeyReusedError({
  message:
    "This idempotency key was used before for different work: nothing was applied. Use a key of its own for each piece of work",
  phase: "Execute",
  outcome: "NotApplied",
  transient: false,
  attempts: 1
})
