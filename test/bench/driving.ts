/** The same work written twice: in promises for drivers, in effects for clients of Effect. */
import type { SqlClient } from "@effect/sql"
import { Array as Arr, Effect, Runtime } from "effect"
import { type Drive, isHolder, isSlow, keyOf, texts, type Workload } from "./work.js"

export interface Contender {
  readonly name: string
  readonly drive: Drive
  /** A single point read. */
  readonly read: (key: number) => Promise<unknown>
}

/** Statements, one by one and three in a transaction, as promises. */
export interface Promised {
  readonly query: (text: string, values: ReadonlyArray<unknown>) => Promise<unknown>
  readonly transaction: (body: (query: Promised["query"]) => Promise<void>) => Promise<unknown>
}

const three = async (query: Promised["query"], key: number) => {
  await query(texts.read, [key])
  await query(texts.update, [key])
  await query(texts.insert, [key])
}

export const promised = (name: string, { query, transaction }: Promised): Contender => {
  const work = (workload: Workload, piece: number): Promise<unknown> => {
    const key = keyOf(piece)
    switch (workload) {
      case "transaction":
        return transaction((query) => three(query, key))
      case "mixed":
        return isSlow(piece) ? query(texts.slow, []) : query(texts.read, [key])
      case "queued":
        return isHolder(piece) ? query(texts.hold, []) : query(texts.read, [key])
      default:
        return query(texts[workload], [key])
    }
  }
  return {
    name,
    read: (key) => query(texts.read, [key]),
    drive: async (workers, workload, run) => {
      const worker = async () => {
        while (run.more()) {
          const piece = run.take()
          const since = performance.now()
          await work(workload, piece)
          run.done(performance.now() - since)
        }
      }
      await Promise.all(Arr.makeBy(workers, worker))
    }
  }
}

/** What is put around each piece of work. */
export type Around = <A, E>(self: Effect.Effect<A, E>, workload: Workload) => Effect.Effect<A, unknown>

export const effectful = (
  name: string,
  runtime: Runtime.Runtime<never>,
  sql: SqlClient.SqlClient,
  around: Around = (self) => self
): Contender => {
  const read = (key: number) => sql`SELECT id, name, balance FROM accounts WHERE id = ${key}`
  const insert = (key: number) => sql`INSERT INTO entries (account, amount) VALUES (${key}, 1)`
  const update = (key: number) => sql`UPDATE accounts SET balance = balance + 1 WHERE id = ${key}`
  const work = (workload: Workload, piece: number): Effect.Effect<unknown, unknown> => {
    const key = keyOf(piece)
    switch (workload) {
      case "read":
        return read(key)
      case "insert":
        return insert(key)
      case "transaction":
        return sql.withTransaction(Effect.zipRight(read(key), Effect.zipRight(update(key), insert(key))))
      case "rows":
        return sql`SELECT id, name, balance FROM accounts WHERE id >= ${key} ORDER BY id LIMIT 100`
      case "mixed":
        return isSlow(piece) ? sql`SELECT pg_sleep(0.05)` : read(key)
      case "queued":
        return isHolder(piece) ? sql`SELECT pg_advisory_xact_lock_shared(1)` : read(key)
    }
  }
  return {
    name,
    read: (key) => Runtime.runPromise(runtime)(around(read(key), "read")),
    drive: (workers, workload, run) => {
      const one = Effect.suspend(() => {
        const piece = run.take()
        const since = performance.now()
        return Effect.map(around(work(workload, piece), workload), () => run.done(performance.now() - since))
      })
      const worker = Effect.whileLoop({ while: run.more, body: () => one, step: () => {} })
      return Runtime.runPromise(runtime)(
        Effect.replicateEffect(worker, workers, { concurrency: "unbounded", discard: true })
      )
    }
  }
}
