/** Clients at work on a real server, each of which writes down what it did and what it was told. */
import { SqlClient, type SqlError } from "@effect/sql"
import { Cause, Chunk, Data, Effect, Exit, Option, Predicate } from "effect"
import { PgError } from "effect-pg-resilience"
import type { How } from "./hows.js"
import { type History, Operation, type Recorded, type Told } from "./model.js"
import * as Plan from "./plan.js"

/** A failure of the program's own: its transaction is rolled back. */
export class Refused extends Data.TaggedError("Refused") {
  readonly outcome = "NotApplied"
  static in(cause: Cause.Cause<unknown>): boolean {
    return Chunk.some(Cause.failures(cause), (failure) => failure instanceof Refused)
  }
}

export interface Options<R> {
  readonly shape: Plan.Shape
  /** The clients do these in turn: the first client the first, the next the next, and so on. */
  readonly kinds: ReadonlyArray<Plan.Kind>
  readonly how: How<R>
  /** Clients end after the transaction at which this says no more. */
  readonly going: () => boolean
}

/** What is written down while it goes on. */
export interface Book {
  readonly transactions: Array<Recorded>
  /** Defects: no failure of server or network may be one. */
  readonly defects: Array<string>
}

export const emptyBook = (): Book => ({ transactions: [], defects: [] })

/** What each account begins with. */
export const balance = 1_000

export const history = <R>({ how, shape }: Options<R>, { transactions }: Book): History => ({
  isolation: how.isolation,
  bank: { accounts: shape.accounts, balance },
  transactions
})

/** One operation on the server; what it returns has what was seen. */
const perform = (sql: SqlClient.SqlClient): ((operation: Operation) => Effect.Effect<Operation, SqlError.SqlError>) => {
  const add = (account: number, amount: number) =>
    sql`UPDATE accounts SET balance = balance + ${amount} WHERE id = ${account}`
  return Operation.$match({
    Transfer: (operation) => {
      const { amount, id, source, target } = operation
      const moves = [add(source, -amount), add(target, amount)]
      return sql<{ row: number }>`
        INSERT INTO transfers (id, source, target, amount) VALUES (${id}, ${source}, ${target}, ${amount}) RETURNING row
      `.pipe(
        Effect.zipLeft(Effect.all(source < target ? moves : moves.reverse())), // in one order, so that none deadlock
        Effect.map(([stored]) => Operation.Transfer({ ...operation, row: stored?.row }))
      )
    },
    ReadBalances: () =>
      Effect.map(sql<{ balance: number }>`SELECT balance FROM accounts ORDER BY id`, (rows) =>
        Operation.ReadBalances({ balances: rows.map(({ balance }) => balance) })
      ),
    Append: (operation) =>
      Effect.as(
        sql`
          INSERT INTO lists VALUES (${operation.list}, ARRAY[${operation.value}::int])
          ON CONFLICT (id) DO UPDATE SET elements = lists.elements || EXCLUDED.elements
        `,
        operation
      ),
    ReadList: (operation) =>
      Effect.map(
        sql<{ elements: ReadonlyArray<number> }>`SELECT elements FROM lists WHERE id = ${operation.list}`,
        ([row]) => Operation.ReadList({ ...operation, values: row?.elements ?? [] })
      ),
    Write: (operation) =>
      Effect.map(
        sql<{ version: number }>`
          UPDATE registers SET value = ${operation.value}, version = version + 1 WHERE id = ${operation.register}
          RETURNING version
        `,
        ([row]) => Operation.Write({ ...operation, version: row?.version })
      ),
    ReadRegister: (operation) =>
      Effect.map(
        sql<{ value: number; version: number }>`SELECT value, version FROM registers WHERE id = ${operation.register}`,
        ([row]) => Operation.ReadRegister({ ...operation, ...row })
      )
  })
}

/** What a client may believe of how its transaction ended. */
export const toldOf = (exit: Exit.Exit<unknown, unknown>): Told => {
  if (Exit.isSuccess(exit)) return "ok"
  const failure = Cause.failureOption(exit.cause)
  const notApplied = Option.exists(failure, (_) => Predicate.hasProperty(_, "outcome") && _.outcome === "NotApplied")
  return notApplied ? "failed" : "unknown"
}

const errorOf = (cause: Cause.Cause<unknown>): string =>
  Option.match(Cause.failureOption(cause), {
    onNone: () => `defect: ${Cause.pretty(cause)}`,
    onSome: (error) => (PgError.isPgError(error) ? `${error._tag}: ${error.message}` : String(error))
  })

/** Before the next transaction of a client whose last one did not succeed: a server that is away needs no hurry. */
const afterFailure = "20 millis"

/** All clients, until they are told to end. What they returned and were told goes to the book as soon as it is known. */
export const run = <R>(
  { going, how, kinds, shape }: Options<R>,
  book: Book
): Effect.Effect<void, never, R | SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const execute = perform(sql)
    const one = (client: number, n: number) =>
      Effect.gen(function* () {
        const planned = Plan.transaction(shape, kinds[client % kinds.length]!, client, n)
        const body = Effect.forEach(planned.operations, execute)
        const invoked = performance.now()
        const exit = yield* Effect.exit(how.run(planned.refused ? Effect.zipRight(body, new Refused()) : body))
        const record = { id: planned.id, client, invoked, completed: performance.now(), told: toldOf(exit) }
        if (Exit.isSuccess(exit)) {
          book.transactions.push({ ...record, operations: exit.value })
          return
        }
        const error = errorOf(exit.cause)
        book.transactions.push({ ...record, operations: planned.operations, error })
        for (const defect of Cause.defects(exit.cause)) book.defects.push(String(defect))
        yield* Effect.sleep(afterFailure)
      })
    const client = (client: number) => {
      let n = 0
      return Effect.whileLoop({ while: going, body: () => one(client, n++), step: () => {} })
    }
    yield* Effect.forEach(Array.from({ length: shape.clients }).keys(), client, {
      concurrency: "unbounded",
      discard: true
    })
  })
