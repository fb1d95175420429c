/**
 * Exactly once: a network that loses the answers to COMMIT, and payments that are made once all the same. It
 * brings a server of its own, whatever `DATABASE_URL` says, and logs at INFO and ERROR what the network does to it.
 *
 *   npx tsx examples/exactly-once.ts
 */

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Effect, Schema } from "effect"
import { ResilientPg, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"

const pay = (amount: number) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [row] = yield* sql<{ id: number }>`INSERT INTO payments (amount) VALUES (${amount}) RETURNING id`
    return row!.id
  })

const payments = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ count: number }>`SELECT count(*)::int AS count FROM payments`
  return row!.count
})

const program = (proxy: FaultProxy.FaultProxy["Type"]) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE payments (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, amount int NOT NULL)`
    yield* Transaction.createLedger
    const loseAnAnswer = proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/), times: 1, ending: "reset" })

    // Without it nobody knows, and whoever tries again may pay twice.
    yield* loseAnAnswer
    const unknown = yield* Effect.flip(Transaction.run(pay(10), { name: "pay" }))
    yield* Effect.log(`plain: ${unknown._tag}, ${yield* payments} payment stored`)

    // It is found out, and the value is that of what was stored.
    yield* loseAnAnswer
    const id = yield* Transaction.run(pay(20), { name: "pay", exactlyOnce: true })
    yield* Effect.log(`exactly once: payment ${id} of ${yield* payments}`)

    // Once for its key: also when the request is sent again, or another process takes it up.
    yield* loseAnAnswer
    const order = Transaction.once("request-4711", Schema.Number, pay(30), { fingerprint: "30" })
    yield* Effect.log(`once: payment ${yield* order}, again ${yield* order}, ${yield* payments} stored`)
    const other = Transaction.once("request-4711", Schema.Number, pay(99), { fingerprint: "99" })
    yield* Effect.log(`for other work: ${(yield* Effect.flip(other))._tag}`)
  }).pipe(Effect.asVoid)

const main = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.make()
  const proxy = yield* FaultProxy.make({ upstream: server.config })
  yield* Effect.provide(program(proxy), ResilientPg.layer({ url: proxy.url(server.url) }))
}).pipe(Effect.scoped)

NodeRuntime.runMain(main)
