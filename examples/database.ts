/** The database of the examples: yours, if `DATABASE_URL` is set, or a PostgreSQL of its own that goes with the program. */
import { Config, Effect, Layer, Option } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const url = Effect.flatMap(Config.option(Config.redacted("DATABASE_URL")), (given) =>
  Option.isSome(given) ? Effect.succeed(given.value) : Effect.map(EmbeddedPostgres.make(), (server) => server.url)
)

/** `ResilientPg.layer` on that database; `options` are those of the layer, without the URL. */
export const database = (options: Omit<ResilientPg.Options, "url"> = {}) =>
  Layer.unwrapScoped(Effect.map(url, (url) => ResilientPg.layer({ ...options, url })))
