/** What programs do, the messages that it sends one after the other, and how each may end when one of them gets lost. */
import { SqlClient, type SqlError } from "@effect/sql"
import { Data, Effect } from "effect"
import { Operation, type PgError, Transaction } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"

/** Rows of `part` 0 are there from the beginning, with `n` 0. */
export const table = "CREATE TABLE steps (id text NOT NULL, part int NOT NULL, n int NOT NULL)"

/** A failure of the program's own, for which it is rolled back. */
export class Refused extends Data.TaggedError("Refused") {}

/**
 * How work ends. `success`: stored, or read. `lost`: ConnectionError or its like, nothing applied; `timeout`:
 * QueryTimeoutError, nothing applied. `unknown`: OutcomeUnknownError; `open`: one of the others, for work that may be
 * repeated. `refused`: the program's own failure, nothing applied.
 */
export type End = "success" | "lost" | "timeout" | "unknown" | "open" | "refused"

/** One message of the client that a fault may meet. */
export interface Step {
  readonly name: string
  /** A new one for each case: it may remember what came by. */
  readonly match: () => FaultProxy.Match
  /** The first message of its command: only there it differs whether the reply is lost, or what comes behind it. */
  readonly first: boolean
  readonly end: End
  /** The same when nothing is heard any more. Default: `timeout` in the place of `success` and `lost`. */
  readonly silent?: End | undefined
}

export interface Work {
  readonly name: string
  readonly run: (
    id: string
  ) => Effect.Effect<
    unknown,
    SqlError.SqlError | PgError.PgError | Refused,
    SqlClient.SqlClient | Transaction.Transactor
  >
  /** What is stored when it was applied: how much `n` each part has in all. */
  readonly stored: { readonly [part: number]: number }
  readonly steps: ReadonlyArray<Step>
}

/** A command of one message. */
const simple = (pattern: RegExp, end: End): ReadonlyArray<Step> => [
  { name: pattern.source.replace(/^\^/, ""), match: () => FaultProxy.query(pattern), first: true, end }
]

const kinds = ["Parse", "Bind", "Describe", "Execute", "Sync"] as const

/** The first command with parameters of a work: five messages, and before them BEGIN's three where that comes along. */
const extended = (name: string, end: End, silent?: End): ReadonlyArray<Step> =>
  kinds.map((kind) => ({
    name: `${name} (${kind})`,
    match: () => FaultProxy.kind(kind),
    first: kind === "Parse",
    end,
    silent
  }))

/** The second one. */
const second = (name: string, end: End): ReadonlyArray<Step> =>
  kinds.map((kind) => ({
    name: `${name} (${kind})`,
    match: () => {
      let synced = false
      return (message) => {
        const matches = synced && message.kind === kind
        synced ||= message.kind === "Sync"
        return matches
      }
    },
    first: kind === "Parse",
    end
  }))

const sql = SqlClient.SqlClient
const insert = (id: string, part: number) =>
  Effect.flatMap(sql, (sql) => sql`INSERT INTO steps VALUES (${id}, ${part}, 1)`)
/** As no other, so that no connection has parsed it before. */
const insertOnce = (id: string, part: number) =>
  Effect.flatMap(sql, (sql) => sql.unsafe(`INSERT INTO steps VALUES ($1, $2, 1) -- ${id}`, [id, part]))
/** Without parameters: one message. */
const plain = (id: string, part: number) =>
  Effect.flatMap(sql, (sql) => sql.unsafe(`INSERT INTO steps VALUES ('${id}', ${part}, 1)`))
const read = (id: string) =>
  Effect.flatMap(
    Effect.flatMap(sql, (sql) => sql<{ id: string }>`SELECT id FROM steps WHERE id = ${id} AND part = 0`),
    (rows) => (rows.length === 1 && rows[0]?.id === id ? Effect.void : Effect.dieMessage("read what was not asked for"))
  )
const withTransaction = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.flatMap(sql, (sql) => sql.withTransaction(self))

const transfer = (id: string) => Effect.all([insert(id, 1), insertOnce(id, 3), withTransaction(plain(id, 2))])
const transferSteps = (begin: End, inside: End) => [
  ...extended("BEGIN and INSERT", begin),
  ...second("INSERT", inside),
  ...simple(/^SAVEPOINT/, inside),
  ...simple(/^INSERT INTO steps VALUES \('/, inside),
  ...simple(/^RELEASE/, inside),
  ...simple(/^COMMIT/, "unknown")
]

export const works: ReadonlyArray<Work> = [
  {
    name: "an autocommit INSERT",
    run: (id) => insert(id, 1),
    stored: { 1: 1 },
    steps: extended("INSERT", "unknown")
  },
  {
    name: "an autocommit UPDATE",
    run: (id) => Effect.flatMap(sql, (sql) => sql.unsafe(`UPDATE steps SET n = n + 1 WHERE id = '${id}' AND part = 0`)),
    stored: { 0: 1 },
    steps: simple(/^UPDATE/, "unknown")
  },
  {
    name: "a SELECT",
    run: read,
    stored: {},
    steps: extended("SELECT", "success")
  },
  {
    name: "an idempotent UPDATE",
    run: (id) =>
      Effect.flatMap(sql, (sql) => sql`UPDATE steps SET n = 1 WHERE id = ${id} AND part = 0`).pipe(
        Operation.named("set", { idempotent: true })
      ),
    stored: { 0: 1 },
    steps: extended("UPDATE", "success", "open")
  },
  {
    name: "an INSERT on a reserved connection",
    run: (id) =>
      Effect.scoped(
        Effect.flatMap(
          Effect.flatMap(sql, ({ reserve }) => reserve),
          (connection) => connection.execute("INSERT INTO steps VALUES ($1, 1, 1)", [id], undefined)
        )
      ),
    stored: { 1: 1 },
    steps: extended("INSERT", "unknown").slice(0, 1)
  },
  {
    name: "withTransaction",
    run: (id) => withTransaction(transfer(id)),
    stored: { 1: 1, 2: 1, 3: 1 },
    steps: transferSteps("success", "lost")
  },
  {
    name: "Transaction.run",
    run: (id) => Transaction.run(transfer(id)),
    stored: { 1: 1, 2: 1, 3: 1 },
    steps: transferSteps("success", "lost")
  },
  {
    name: "Transaction.run with retry",
    run: (id) => Transaction.run(transfer(id), { retry: true }),
    stored: { 1: 1, 2: 1, 3: 1 },
    steps: transferSteps("success", "success")
  },
  {
    name: "Transaction.readOnly",
    run: (id) => Transaction.readOnly(read(id)),
    stored: {},
    steps: [...extended("BEGIN and SELECT", "success"), ...simple(/^COMMIT/, "success")]
  },
  {
    name: "a transaction that goes on after a nested one failed",
    run: (id) =>
      withTransaction(
        Effect.all([
          insert(id, 1),
          Effect.catchTag(withTransaction(Effect.zipRight(plain(id, 2), new Refused())), "Refused", () => Effect.void),
          plain(id, 3)
        ])
      ),
    stored: { 1: 1, 3: 1 },
    steps: simple(/^ROLLBACK TO/, "lost")
  },
  {
    name: "a transaction that the program ends with a failure",
    run: (id) => withTransaction(Effect.zipRight(insert(id, 1), new Refused())),
    stored: { 1: 1 },
    steps: simple(/^ROLLBACK/, "refused")
  }
]
