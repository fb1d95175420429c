/** Clients whose short statements share connections, seen by somebody between them and the server. */
import type { SqlError } from "@effect/sql/SqlError"
import { Array as Arr, Effect } from "effect"
import type { ResilientPg } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { clientOf } from "./support.js"
import { tapped } from "./tap.js"

/** A table of a thousand rows in a database of its own, and a client that gets there past a tap. */
export const laning = (options: ResilientPg.Options = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control(
      "CREATE TABLE t AS SELECT id, id AS n FROM generate_series(1, 1000) AS id; ALTER TABLE t ADD PRIMARY KEY (id)",
      [],
      url
    )
    const tap = yield* tapped(url)
    const client = yield* clientOf({ url: tap.url, maxConnections: 4, retry: false, ...options })
    const { sql } = client
    const read = (id: number) => sql<{ id: number; n: number }>`SELECT id, n FROM t WHERE id = ${id}`
    const write = (id: number, n: number) => sql`UPDATE t SET n = ${n} WHERE id = ${id}`
    return { ...client, tap, url, read, write }
  })

/** Of what goes over the wire by `read` and by `write`. */
export const reads = /^SELECT id, n FROM t/
export const writes = /^UPDATE t SET n/

export const burst = 40

/** Comes so often at the same time, again and again, that it is known to be short and shares connections. */
export const shares = <A>(
  tap: Effect.Effect.Success<ReturnType<typeof tapped>>,
  pattern: RegExp,
  statement: (n: number) => Effect.Effect<A, SqlError>
) =>
  TestPg.eventually(
    Effect.forEach(Arr.range(1, burst), statement, { concurrency: "unbounded" }).pipe(
      Effect.zipRight(tap.shared(pattern))
    ),
    ({ length }) => length >= burst / 2,
    { message: "nothing shares a connection" }
  ).pipe(Effect.zipRight(tap.clear))
