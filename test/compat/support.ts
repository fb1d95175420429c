/** The same program on `PgClient.layer` and on `ResilientPg.layer`, and what it takes to compare them. */
import { deepStrictEqual } from "node:assert/strict"
import { type SqlClient, SqlError } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Cause, Effect, Exit, Layer, type Redacted, type Scope } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"

/** What a program may use to run on either layer. */
export type Client = PgClient.PgClient | SqlClient.SqlClient

type Options = PgClient.PgClientConfig

/** A fresh database, `setup` run in it past any client, and one of the two layers on it. */
const on =
  (layerOf: (options: Options) => Layer.Layer<Client, SqlError.SqlError>) =>
  (url: Redacted.Redacted, options: Options) =>
    layerOf({ url, ...options })

/** Both layers, by name. */
export const layers = { bare: on(PgClient.layer), ours: on(ResilientPg.layer) }

/** Our layer, on a fresh database that is dropped with the scope. */
export const ours = (options: ResilientPg.Options = {}) =>
  Layer.unwrapScoped(Effect.map(TestPg.database, ({ url }) => ResilientPg.layer({ url, ...options })))

/**
 * A failure as programs look at it: the tags on the way to the driver's error, and its SQLSTATE. Messages are ours to
 * write, and hold no data.
 */
const seen = (error: unknown): unknown =>
  error instanceof SqlError.SqlError
    ? { _tag: error._tag, code: (error.cause as { readonly code?: unknown }).code }
    : error

const visible = <A, E>(exit: Exit.Exit<A, E>) =>
  Exit.match(exit, {
    onSuccess: (value) => ({ value }),
    onFailure: (cause) => ({
      failures: Array.from(Cause.failures(cause), seen),
      defects: Array.from(Cause.defects(cause))
    })
  })

/**
 * Runs the program once on each layer, on a fresh database each, after `setup`, and asserts that both end in the same way:
 * values of the same types in the same shape (prototypes included), or failures with the same tag and SQLSTATE. Ends as
 * ours did.
 */
export const agree = <A, E>(
  program: Effect.Effect<A, E, Client | Scope.Scope>,
  { setup = "", ...options }: Options & { readonly setup?: string } = {}
) =>
  Effect.gen(function* () {
    const run = (name: keyof typeof layers) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { url } = yield* TestPg.database
          if (setup !== "") yield* TestPg.control(setup, [], url)
          return yield* Effect.exit(Effect.provide(Effect.scoped(program), layers[name](url, options)))
        })
      )
    const bare = yield* run("bare")
    const ours = yield* run("ours")
    deepStrictEqual(visible(ours), visible(bare))
    return yield* ours
  })

/** A server that writes every statement into its log, for `statementsOf`. */
export const loggingServer = EmbeddedPostgres.layer({
  settings: { log_statement: "all", log_line_prefix: "%d %a|" }
})

/**
 * An effect, and the statements that the server got from programs under it: from `applicationName`'s own sessions, each
 * with its white space folded. The server logs a statement before it answers it.
 */
export const statementsOf = <A, E, R>(applicationName: string, self: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const before = (yield* Effect.orDie(server.log)).length
    const value = yield* self
    const entries = (yield* Effect.orDie(server.log)).slice(before).split(/\n(?!\t)/)
    const statements = entries.flatMap((entry) => {
      const [, name, text] = /^\S+ (.*?)\|LOG: {2}(?:statement|execute [^:]+): (.*)$/s.exec(entry) ?? []
      return text === undefined || name !== applicationName ? [] : [text.replace(/\s+/g, " ").trim()]
    })
    return { value, statements }
  })
