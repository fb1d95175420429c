/** The service's database: `DATABASE_URL`, in a schema of the service's own, or a PostgreSQL that goes with the service. */
import { Config, Effect, Layer, Option, String } from "effect"
import { ResilienceConfig, ResilientPg, RetryPolicy } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { schema } from "./shop.js"

const options = {
  applicationName: "shop",
  poolName: "shop",
  parameters: { search_path: schema },
  ledger: { schema },
  transformQueryNames: String.camelToSnake,
  transformResultNames: String.snakeToCamel,
  // Callers wait: fail early, and let them come back.
  acquireTimeout: "2 seconds",
  retry: RetryPolicy.web,
  timeouts: { query: "3 seconds", transaction: "10 seconds" },
  serverTimeouts: { statement: "10 seconds", lock: "5 seconds", idleInTransaction: "15 seconds" },
  breaker: { resetTimeout: "10 seconds" }
} satisfies ResilientPg.Options

/** `DB_POOL_MAX` and the other variables have the last word. */
export const layer = Layer.unwrapScoped(
  Effect.gen(function* () {
    const given = yield* Config.option(Config.redacted("DATABASE_URL"))
    if (Option.isSome(given)) return ResilientPg.layer({ ...options, ...(yield* ResilienceConfig.fromEnv) })
    return ResilientPg.layer({ ...options, url: (yield* EmbeddedPostgres.make()).url })
  })
)

/** For people, without a secret. */
export const described = Effect.map(Config.option(Config.redacted("DATABASE_URL")), (given) => {
  if (Option.isNone(given)) return "a PostgreSQL of its own, gone with the service; DATABASE_URL chooses another"
  return `that of DATABASE_URL, schema ${schema}`
})
