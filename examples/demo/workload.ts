/**
 * What a program does all day: reads, single writes, and transfers between accounts. Every write carries an id of its own,
 * and every client keeps a book of what it was told about it, for the audit to compare with the database.
 */
import { randomUUID } from "node:crypto"
import { SqlClient, type SqlError } from "@effect/sql"
import { Cause, Effect, Exit, Option, Random } from "effect"
import { Operation, type PgError } from "effect-pg-resilience"

export const accounts = 100
export const openingBalance = 1_000

/** What the program was told about one write. A defect is told as nothing at all. */
export type Told = "acknowledged" | "failed" | "unknown" | "defect"
export type Kind = "read" | "write" | "transfer"

export interface Book {
  /** By the write's id. */
  readonly writes: Map<string, Told>
  readonly transfers: Map<string, Told>
  /** By tag. */
  readonly errors: Map<string, number>
  readonly latencies: Record<Kind, Array<number>>
  operations: number
  inFlight: number
  /** Milliseconds that an operation took at most, whatever its end. */
  longest: number
  /** Set to let every fiber end after the operation that it is at. */
  stopping: boolean
  /** Told once, when an operation succeeds that began after this was set. */
  onSuccess: { readonly since: number; readonly tell: () => void } | undefined
}

export const emptyBook = (): Book => ({
  writes: new Map(),
  transfers: new Map(),
  errors: new Map(),
  latencies: { read: [], write: [], transfer: [] },
  operations: 0,
  inFlight: 0,
  longest: 0,
  stopping: false,
  onSuccess: undefined
})

export const createTables = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql.unsafe(`
    CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE writes (id uuid NOT NULL);
    CREATE TABLE transfers (id uuid NOT NULL);
    INSERT INTO accounts SELECT id, ${openingBalance} FROM generate_series(1, ${accounts}) id
  `)
)

const read = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const id = yield* Random.nextIntBetween(1, accounts + 1)
  yield* sql`SELECT balance FROM accounts WHERE id = ${id}`
})

const write = (id: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO writes VALUES (${id})`)

/** The accounts in one order, so that two transfers never wait for each other in a circle. */
const transfer = (id: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const from = yield* Random.nextIntBetween(1, accounts)
    const to = yield* Random.nextIntBetween(from + 1, accounts + 1)
    const amount = yield* Random.nextIntBetween(-10, 11)
    yield* sql.withTransaction(
      Effect.gen(function* () {
        yield* sql`UPDATE accounts SET balance = balance - ${amount} WHERE id = ${from}`
        yield* sql`INSERT INTO transfers VALUES (${id})`
        yield* sql`UPDATE accounts SET balance = balance + ${amount} WHERE id = ${to}`
      })
    )
  })

const toldBy = (exit: Exit.Exit<unknown, PgError.PgError>): Told =>
  Exit.match(exit, {
    onSuccess: () => "acknowledged",
    onFailure: (cause) =>
      Option.match(Cause.failureOption(cause), {
        onNone: () => "defect",
        onSome: ({ outcome }) => (outcome === "Unknown" ? "unknown" : "failed")
      })
  })

/** One operation, its latency and its end in the book. Tells whether it succeeded; what went wrong is in the book. */
const booked = (
  book: Book,
  kind: Kind,
  effect: Effect.Effect<unknown, SqlError.SqlError, SqlClient.SqlClient>,
  tell: (told: Told) => void
) =>
  Effect.suspend(() => {
    const since = performance.now()
    book.inFlight++
    return Effect.exit(Operation.named(kind, { timeout: "3 seconds" })(effect)).pipe(
      Effect.onExit((outer) =>
        Effect.sync(() => {
          book.inFlight--
          const exit = Exit.flatten(outer)
          // Who is interrupted at the end learns nothing, like a program that is stopped.
          if (Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)) return tell("unknown")
          book.operations++
          book.longest = Math.max(book.longest, performance.now() - since)
          const told = toldBy(exit)
          tell(told)
          if (Exit.isSuccess(exit)) {
            book.latencies[kind].push(performance.now() - since)
            if (book.onSuccess !== undefined && since >= book.onSuccess.since) book.onSuccess.tell()
            return
          }
          const tag = Option.match(Cause.failureOption(exit.cause), {
            onNone: () => "defect",
            onSome: ({ _tag }) => _tag
          })
          book.errors.set(tag, (book.errors.get(tag) ?? 0) + 1)
        })
      ),
      Effect.map(Exit.isSuccess)
    )
  })

const once = (book: Book) =>
  Effect.flatMap(Random.nextIntBetween(0, 4), (n) => {
    if (n < 2) return booked(book, "read", read, () => {})
    const id = randomUUID()
    return n === 2
      ? booked(book, "write", write(id), (told) => book.writes.set(id, told))
      : booked(book, "transfer", transfer(id), (told) => book.transfers.set(id, told))
  })

/**
 * So many fibers, each with one operation after the other, until `book.stopping`. Like the visitors of a shop, a fiber takes
 * its time: more of it after a failure, else those who are refused at once would be all that the machine has time for.
 */
export const run = (book: Book, fibers: number) =>
  Effect.forEach(
    Array.from({ length: fibers }),
    () =>
      Effect.repeat(
        Effect.flatMap(once(book), (succeeded) => Effect.sleep(succeeded ? "5 millis" : "100 millis")),
        { until: () => book.stopping }
      ),
    { concurrency: "unbounded", discard: true }
  )
