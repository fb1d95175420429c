/** A scenario as a user would write it, which has to prepare something first. */
import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { Operation } from "effect-pg-resilience"

export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* Effect.acquireRelease(sql`CREATE TABLE orders (id int PRIMARY KEY)`, () =>
    Effect.orDie(sql`DROP TABLE orders`)
  )
  return {
    count: { effect: Operation.named("count")(sql`SELECT count(*) FROM orders`), weight: 3 },
    collide: Operation.named("collide")(sql`INSERT INTO orders VALUES (1)`)
  }
})
