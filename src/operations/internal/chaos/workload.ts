/** What a program does all day: reads, single writes, and transfers between accounts that happen exactly once. */
import * as SqlClient from "@effect/sql/SqlClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as Transaction from "../../../client/Transaction.js"
import type * as PgError from "../../../error/PgError.js"
import * as Operation from "../../../policy/Operation.js"
import type { EmbeddedPostgres } from "../../../testing/EmbeddedPostgres.js"
import * as Book from "./book.js"

const accounts = 20
const openingBalance = 1_000
export const total = accounts * openingBalance

export const createTables = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Effect.zipRight(
    sql.unsafe(`
      CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
      CREATE TABLE writes (id uuid NOT NULL);
      INSERT INTO accounts SELECT id, ${openingBalance} FROM generate_series(1, ${accounts}) id
    `),
    Transaction.createLedger
  )
)

/** By the service that gives randomness, so that the same seed does the same work. */
const uuid = Effect.map(Effect.replicateEffect(Random.nextIntBetween(0, 2 ** 16), 8), (parts) => {
  const [a, b, c, d, e, f, g, h] = parts.map((part) => part.toString(16).padStart(4, "0"))
  return `${a}${b}-${c}-${d}-${e}-${f}${g}${h}`
})

const pair = Effect.gen(function* () {
  const from = yield* Random.nextIntBetween(1, accounts)
  return [from, yield* Random.nextIntBetween(from + 1, accounts + 1)] as const
})

export const read = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT sum(balance) FROM accounts`).pipe(
  Operation.named("read", { timeout: "2 seconds" })
)

export const write = (id: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO writes VALUES (${id})`).pipe(
    Operation.named("write", { timeout: "2 seconds" })
  )

export interface MoveOptions {
  /** Runs after the first lock was taken. */
  readonly between?: Effect.Effect<void> | undefined
  readonly timeout: Duration.DurationInput
}

/** In the order given: two that take them in opposite orders may meet in a deadlock. */
export const move = (
  id: string,
  from: number,
  to: number,
  { between = Effect.void, timeout }: MoveOptions
): Effect.Effect<void, PgError.PgError, SqlClient.SqlClient | Transaction.Transactor> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.gen(function* () {
      yield* sql`UPDATE accounts SET balance = balance - 1 WHERE id = ${from}`
      yield* between
      yield* sql`INSERT INTO writes VALUES (${id})`
      yield* sql`UPDATE accounts SET balance = balance + 1 WHERE id = ${to}`
    }).pipe((body) => Transaction.run(body, { name: "transfer", exactlyOnce: true, timeout }))
  )

export type Work = Effect.Effect<unknown, PgError.PgError, SqlClient.SqlClient | Transaction.Transactor>

/** One operation, with its end in the book. Tells whether it succeeded. */
export const noted = (book: Book.Book, id: string | undefined, work: Work) =>
  Effect.suspend(() => {
    const began = performance.now()
    return Effect.map(Effect.exit(work), (exit) => {
      Book.note(book, began, id, exit)
      return Exit.isSuccess(exit)
    })
  })

/** Where nothing keeps a connection silent, nobody needs to give up early. */
const unhurried = "20 seconds"

export const transfer = (book: Book.Book, timeout: Duration.DurationInput = unhurried) =>
  Effect.gen(function* () {
    const id = yield* uuid
    const [from, to] = yield* pair
    return yield* noted(book, id, move(id, from, to, { timeout }))
  })

const anything = (book: Book.Book) =>
  Effect.gen(function* () {
    const kind = yield* Random.nextIntBetween(0, 4)
    if (kind < 2) return yield* noted(book, undefined, read)
    if (kind === 3) return yield* transfer(book, "5 seconds")
    const id = yield* uuid
    return yield* noted(book, id, write(id))
  })

export type Kind = "anything" | "transfers"

/** So many fibers, one operation after the other, until `book.stopping`; with more time to think after a failure. */
export const run = (book: Book.Book, workers: number, kind: Kind) =>
  Effect.forEach(
    Array.from({ length: workers }),
    () =>
      Effect.repeat(
        Effect.flatMap(kind === "anything" ? anything(book) : transfer(book), (succeeded) =>
          Effect.sleep(succeeded ? "5 millis" : "50 millis")
        ),
        { until: () => book.stopping }
      ),
    { concurrency: "unbounded", discard: true }
  )

/** The book against the database, asked past proxy and pool. */
export const audit = (server: EmbeddedPostgres["Type"], database: string, book: Book.Book) =>
  Effect.gen(function* () {
    const rows = yield* server.query<{ id: string; n: number }>(
      "SELECT id::text, count(*)::int AS n FROM writes GROUP BY id",
      [],
      database
    )
    const [sum] = yield* server.query<{ found: string }>("SELECT sum(balance) AS found FROM accounts", [], database)
    return {
      audit: Book.compare(book.told, new Map(rows.map(({ id, n }) => [id, n]))),
      sum: { expected: total, found: Number(sum?.found) }
    }
  })
