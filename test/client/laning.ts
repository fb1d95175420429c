/** Clients whose short statements share connections, seen by somebody between them and the server. */
import type { SqlError } from "@effect/sql/SqlError"
import { Array as Arr, Effect, type Redacted } from "effect"
import type { ResilientPg } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { clientOf, hold, waitingForLock } from "./support.js"
import { type Tap, tapped } from "./tap.js"

/** A table of a thousand rows in a database of its own, and a client that gets there past a tap, and `through` what is behind that. */
export const laning = ({
  through = (url) => url,
  ...options
}: ResilientPg.Options & { readonly through?: (url: Redacted.Redacted) => Redacted.Redacted } = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control(
      "CREATE TABLE t AS SELECT id, id AS n FROM generate_series(1, 1000) AS id; ALTER TABLE t ADD PRIMARY KEY (id)",
      [],
      url
    )
    const tap = yield* tapped(through(url))
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
/** The most that tests put on one lane. */
const together = 7

/**
 * Comes so often at the same time, again and again, that it is known to be short, and shares connections with as many as
 * tests put on one. (It is only so short on a machine that has the time.)
 */
export const shares = <A>(tap: Tap, pattern: RegExp, statement: (n: number) => Effect.Effect<A, SqlError>) =>
  TestPg.eventually(
    tap.clear.pipe(Effect.zipRight(all(burst, statement)), Effect.zipRight(tap.shared(pattern))),
    (shared) => shared.length >= burst / 2 && shared.some(({ ahead }) => ahead.length >= together),
    { message: "nothing shares a connection" }
  ).pipe(Effect.zipRight(tap.clear))

export type Laning = Effect.Effect.Success<ReturnType<typeof laning>>

/** So many at the same time. */
export const all = <A, E, R>(count: number, effect: (n: number) => Effect.Effect<A, E, R>) =>
  Effect.forEach(Arr.range(1, count), effect, { concurrency: "unbounded" })

/** All connections are idle again. */
export const settled = ({ pool }: Pick<Laning, "pool">) =>
  TestPg.eventually(pool, ({ idle, total, waiting }) => idle === total && waiting === 0)

/** Somebody waits for a lock, and has done so for long. */
export const waitsFor = (beginning: string) =>
  Effect.zipRight(
    TestPg.eventually(waitingForLock(beginning), (count) => count >= 1),
    TestPg.control("SELECT pg_sleep(0.1)")
  )

/** A row that somebody else has locked until `release`. */
export const lockedRow = (url: Redacted.Redacted, id: number) =>
  Effect.gen(function* () {
    const { sql } = yield* clientOf({ url, maxConnections: 1 })
    const { connection, release } = yield* hold(sql)
    yield* connection.execute("BEGIN", [], undefined)
    yield* connection.execute(`SELECT FROM t WHERE id = ${id} FOR UPDATE`, [], undefined)
    return { release: Effect.zipRight(connection.execute("ROLLBACK", [], undefined), release) }
  })
