/**
 * A load test of a program's own work: clients who come at a rate, whether the database keeps up or not, and what they must
 * not be kept waiting for.
 *
 *   npx tsx examples/load-test.ts
 */

import { FileSystem } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Config, Console, Effect, Layer, Option, Random } from "effect"
import { LoadTest, Operation, Transaction } from "effect-pg-resilience"
import { database } from "./database.js"

const products = 1000

const prepare = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE products (id int PRIMARY KEY, stock int NOT NULL)`
  yield* sql`CREATE TABLE sales (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, product int NOT NULL)`
  yield* sql`INSERT INTO products SELECT id, 1000000 FROM generate_series(1, ${products}::int) AS id`
})

/** What is random is drawn from `Random`, so that a seed draws it again. */
const anyProduct = Random.nextIntBetween(1, products + 1)

const look = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  return yield* sql`SELECT stock FROM products WHERE id = ${yield* anyProduct}`
}).pipe(Operation.named("look", { timeout: "1 second" }))

const buy = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const id = yield* anyProduct
  yield* sql`UPDATE products SET stock = stock - 1 WHERE id = ${id}`
  yield* sql`INSERT INTO sales (product) VALUES (${id})`
}).pipe((body) => Transaction.run(body, { name: "buy", timeout: "2 seconds", retry: true }))

const program = Effect.gen(function* () {
  yield* prepare
  const result = yield* LoadTest.run({
    // nine look for each that buys
    scenario: { look: { effect: look, weight: 9 }, buy: { effect: buy, weight: 1 } },
    rate: 100,
    arrivals: "poisson",
    duration: "2 seconds",
    ramp: "500 millis",
    warmUp: "500 millis",
    thresholds: ["p99<200ms", "errors<0.1%", "buy:p50<50ms"],
    label: "the shop"
  })
  yield* Console.log(LoadTest.summary(result))

  const file = yield* Config.option(Config.string("REPORT"))
  if (Option.isSome(file)) {
    yield* Effect.flatMap(FileSystem.FileSystem, (fs) => fs.writeFileString(file.value, LoadTest.html(result)))
  }
  if (!LoadTest.passed(result)) return yield* Effect.fail("the shop is too slow")
})

NodeRuntime.runMain(Effect.provide(program, Layer.merge(database(), NodeContext.layer)))
