/** A client through a proxy, a table of payments that numbers its rows, and a ledger: for transactions that get lost. */
import { SqlClient } from "@effect/sql"
import { Array as Arr, Effect, Ref } from "effect"
import { PgError, type ResilientPg, Transaction } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, proxied } from "./support.js"

export const commit = FaultProxy.query(/^COMMIT/)
/** BEGIN of an attempt that may meet an earlier one, and its insert. */
export const beginAgain = FaultProxy.query(/^BEGIN.*pg_backend_pid/)
export const claim = FaultProxy.query(/^INSERT INTO "public"."effect_pg_ledger"/)
export const insertion = FaultProxy.query(/^INSERT INTO kept/)

/** The same messages, from the n-th on. */
export const from = (n: number, match: FaultProxy.Match): FaultProxy.Match => {
  let seen = 0
  return (message) => match(message) && ++seen >= n
}

/** The error of work whose outcome is unknown, and how to find it out. */
export const unknown = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.flip(self), (error) =>
    PgError.isPgError(error) && error._tag === "OutcomeUnknownError"
      ? Effect.succeed(error)
      : Effect.dieMessage(`not an unknown outcome: ${error}`)
  )

/**
 * `alone`: with one connection, so that a network that takes no more of them leaves no way to the server but the one on which
 * COMMIT goes.
 */
export const ledgered = ({ alone = false, ...options }: ResilientPg.Options & { readonly alone?: boolean } = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control("CREATE TABLE kept (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int)", [], url)
    const { proxy } = yield* proxied
    const client = yield* clientOf({ url: proxy.url(url), ...options, ...(alone ? { maxConnections: 1 } : {}) })
    /** Past the proxy. */
    const direct = yield* clientOf({ url, ...options, poolName: "direct" })
    yield* Effect.provideService(Transaction.ledgerMigration(options.ledger), SqlClient.SqlClient, direct.sql)
    const messages: Array<FaultProxy.FrontendMessage> = []
    yield* proxy.cut({ on: (message) => messages.push(message) < 0, when: "before" })
    const runs = yield* Ref.make(0)
    const run =
      ({ context }: typeof client) =>
      <A, E, R>(effect: Effect.Effect<A, E, R>, options?: Transaction.Options) =>
        Effect.provide(Transaction.run(effect, { exactlyOnce: true, ...options }), context)
    const ask =
      ({ context }: typeof client) =>
      (asked: PgError.OutcomeUnknownError | PgError.Settlement) =>
        Effect.provide(Transaction.outcome(asked), context)
    return {
      ...client,
      direct,
      proxy,
      url,
      /** Everything that went through the proxy. */
      messages,
      runs: Ref.get(runs),
      /** A body: one row, its number. */
      insert: (n: number) =>
        Effect.zipRight(
          Ref.update(runs, (n) => n + 1),
          Effect.map(client.sql<{ id: number }>`INSERT INTO kept (n) VALUES (${n}) RETURNING id`, ([row]) => row!.id)
        ),
      kept: TestPg.control<{ id: number; n: number }>("SELECT id, n FROM kept ORDER BY id", [], url),
      ledger: Effect.map(
        TestPg.control<{ kind: string }>("SELECT kind FROM effect_pg_ledger", [], url),
        Arr.map(({ kind }) => kind)
      ),
      once: run(client),
      ask: ask(client),
      askDirectly: ask(direct),
      /** The tokens that were sent, in their order, each once. */
      tokens: () =>
        Arr.dedupe(
          messages.flatMap(({ text }) => /effect_pg_ledger" .*VALUES \('([0-9a-f-]{36})'/.exec(text)?.[1] ?? [])
        )
    }
  })
