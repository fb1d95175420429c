/** Who is measured: each knows the same five pieces of work, and how to have many of them under way at once. */
import { SqlClient, Statement } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import * as Cockatiel from "cockatiel"
import { Array as Arr, Context, Effect, Layer, Redacted, Runtime, Schedule, type Scope } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import Opossum from "opossum"
import Pg from "pg"
import postgres from "postgres"

/** One piece of work after the other, by many workers at once. `work(i)` is the i-th piece. */
export type Drive = (workers: number, pieces: number, workload: Workload) => Promise<void>

export const workloads = ["read", "insert", "transaction", "rows", "mixed"] as const
export type Workload = (typeof workloads)[number]

/** The same text for all; `$1` is a key from 1 to `keys`. */
export const keys = 10_000
export const texts = {
  read: "SELECT id, name, balance FROM accounts WHERE id = $1",
  insert: "INSERT INTO entries (account, amount) VALUES ($1, 1)",
  update: "UPDATE accounts SET balance = balance + 1 WHERE id = $1",
  rows: "SELECT id, name, balance FROM accounts WHERE id >= $1 ORDER BY id LIMIT 100",
  slow: "SELECT pg_sleep(0.05)"
} as const

export const schema = `
  CREATE TABLE accounts (id int PRIMARY KEY, name text NOT NULL, balance bigint NOT NULL);
  INSERT INTO accounts SELECT i, 'account ' || i, 0 FROM generate_series(1, ${keys + 100}) i;
  CREATE TABLE entries (id bigint GENERATED ALWAYS AS IDENTITY, account int NOT NULL, amount int NOT NULL);
  ANALYZE accounts`

export interface Target {
  readonly url: Redacted.Redacted
  readonly connections: number
}

export interface Contender {
  readonly name: string
  readonly drive: Drive
}

export type Maker = (target: Target) => Effect.Effect<Contender, unknown, Scope.Scope>

/** A key for each piece of work: all over the table, and the same for every contender. */
const keyOf = (piece: number) => ((piece * 7919) % keys) + 1

/** One in twenty is slow. */
const isSlow = (piece: number) => piece % 20 === 7

/** Latencies of the pieces of the last drive, milliseconds. */
export const latencies = { taken: [] as Array<number> }

/** Statements, one by one and three in a transaction, as promises. */
interface Promised {
  readonly query: (text: string, values: ReadonlyArray<unknown>) => Promise<unknown>
  readonly transaction: (body: (query: Promised["query"]) => Promise<void>) => Promise<unknown>
}

const three = async (query: Promised["query"], key: number) => {
  await query(texts.read, [key])
  await query(texts.update, [key])
  await query(texts.insert, [key])
}

const promised = (name: string, { query, transaction }: Promised): Contender => {
  const work = (workload: Workload, piece: number): Promise<unknown> => {
    const key = keyOf(piece)
    switch (workload) {
      case "transaction":
        return transaction((query) => three(query, key))
      case "mixed":
        return isSlow(piece) ? query(texts.slow, []) : query(texts.read, [key])
      default:
        return query(texts[workload], [key])
    }
  }
  return {
    name,
    drive: async (workers, pieces, workload) => {
      const taken = new Array<number>(pieces)
      let next = 0
      const worker = async () => {
        for (let piece = next++; piece < pieces; piece = next++) {
          const since = performance.now()
          await work(workload, piece)
          taken[piece] = performance.now() - since
        }
      }
      await Promise.all(Arr.makeBy(workers, worker))
      latencies.taken = taken
    }
  }
}

const effectful = (
  name: string,
  runtime: Runtime.Runtime<never>,
  sql: SqlClient.SqlClient,
  around: <A, E>(self: Effect.Effect<A, E>) => Effect.Effect<A, unknown> = (self) => self
): Contender => {
  const read = (key: number) => sql`SELECT id, name, balance FROM accounts WHERE id = ${key}`
  const insert = (key: number) => sql`INSERT INTO entries (account, amount) VALUES (${key}, 1)`
  const update = (key: number) => sql`UPDATE accounts SET balance = balance + 1 WHERE id = ${key}`
  const work = (workload: Workload, piece: number): Effect.Effect<unknown, unknown> => {
    const key = keyOf(piece)
    switch (workload) {
      case "read":
        return around(read(key))
      case "insert":
        return around(insert(key))
      case "transaction":
        return around(sql.withTransaction(Effect.zipRight(read(key), Effect.zipRight(update(key), insert(key)))))
      case "rows":
        return around(sql`SELECT id, name, balance FROM accounts WHERE id >= ${key} ORDER BY id LIMIT 100`)
      case "mixed":
        return around(isSlow(piece) ? sql`SELECT pg_sleep(0.05)` : read(key))
    }
  }
  return {
    name,
    drive: (workers, pieces, workload) => {
      const taken = new Array<number>(pieces)
      let next = 0
      const one = Effect.suspend(() => {
        const piece = next++
        const since = performance.now()
        return Effect.map(work(workload, piece), () => {
          taken[piece] = performance.now() - since
        })
      })
      const worker = Effect.whileLoop({ while: () => next < pieces, body: () => one, step: () => {} })
      return Runtime.runPromise(runtime)(
        Effect.replicateEffect(worker, workers, { concurrency: "unbounded", discard: true })
      ).then(() => {
        latencies.taken = taken
      })
    }
  }
}

const pool = ({ connections, url }: Target) =>
  Effect.acquireRelease(
    Effect.sync(() => new Pg.Pool({ connectionString: Redacted.value(url), max: connections })),
    (pool) => Effect.promise(() => pool.end())
  )

const overPool = (pool: Pg.Pool, named: boolean): Promised => {
  const query = (client: Pg.Pool | Pg.PoolClient) => (text: string, values: ReadonlyArray<unknown>) =>
    client.query({ text, values: [...values], ...(named ? { name: text.slice(0, 40) } : {}) })
  return {
    query: query(pool),
    transaction: async (body) => {
      const client = await pool.connect()
      try {
        await client.query("BEGIN")
        await body(query(client))
        await client.query("COMMIT")
      } finally {
        client.release()
      }
    }
  }
}

const around = (self: Promised, policy: <A>(run: () => Promise<A>) => Promise<A>): Promised => ({
  query: (text, values) => policy(() => self.query(text, values)),
  transaction: (body) => policy(() => self.transaction(body))
})

const client = <E>(layer: Layer.Layer<SqlClient.SqlClient, E>) =>
  Effect.map(Layer.build(layer), Context.get(SqlClient.SqlClient))

/** Of the same process, but without the look that ours takes at each statement's span. */
const untouched = Statement.withTransformerDisabled(Effect.runtime<never>())

const bare = ({ connections, url }: Target) => client(PgClient.layer({ url, maxConnections: connections }))

/** Ours; `options` leaves policies out. */
export const ours =
  (name: string, options: Partial<ResilientPg.Options> = {}): Maker =>
  ({ connections, url }) =>
    Effect.gen(function* () {
      const runtime = yield* Effect.runtime<never>()
      return effectful(
        name,
        runtime,
        yield* client(ResilientPg.layer({ url, maxConnections: connections, ...options }))
      )
    })

export const makers: Readonly<Record<string, Maker>> = {
  pg: (target) => Effect.map(pool(target), (pool) => promised("pg", overPool(pool, false))),
  "pg, named": (target) => Effect.map(pool(target), (pool) => promised("pg, named", overPool(pool, true))),
  "pg + cockatiel": (target) =>
    Effect.map(pool(target), (pool) => {
      const policy = Cockatiel.wrap(
        Cockatiel.retry(Cockatiel.handleAll, { maxAttempts: 3, backoff: new Cockatiel.ExponentialBackoff() }),
        Cockatiel.circuitBreaker(Cockatiel.handleAll, {
          halfOpenAfter: 30_000,
          breaker: new Cockatiel.ConsecutiveBreaker(5)
        }),
        Cockatiel.timeout(5_000, Cockatiel.TimeoutStrategy.Aggressive)
      )
      return promised(
        "pg + cockatiel",
        around(overPool(pool, false), (run) => policy.execute(run))
      )
    }),
  "pg + opossum": (target) =>
    Effect.map(pool(target), (pool) => {
      const breaker = new Opossum((run: () => Promise<unknown>) => run(), { timeout: 5_000 })
      return promised(
        "pg + opossum",
        around(overPool(pool, false), (run) => breaker.fire(run) as ReturnType<typeof run>)
      )
    }),
  "postgres.js": ({ connections, url }) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => postgres(Redacted.value(url), { max: connections, onnotice: () => {} })),
        (sql) => Effect.promise(() => sql.end())
      ),
      (sql) =>
        promised("postgres.js", {
          // Only what is marked so is prepared there.
          query: (text, values) => sql.unsafe(text, [...values] as Array<number>, { prepare: true }),
          transaction: (body) =>
            sql.begin((sql) =>
              body((text, values) => sql.unsafe(text, [...values] as Array<number>, { prepare: true }))
            )
        })
    ),
  "@effect/sql-pg": (target) =>
    Effect.gen(function* () {
      return effectful("@effect/sql-pg", yield* untouched, yield* bare(target))
    }),
  "@effect/sql-pg by hand": (target) =>
    Effect.gen(function* () {
      const byHand = <A, E>(self: Effect.Effect<A, E>) =>
        Effect.retry(
          Effect.timeout(self, "5 seconds"),
          Schedule.intersect(Schedule.exponential("100 millis"), Schedule.recurs(3))
        )
      return effectful("@effect/sql-pg by hand", yield* untouched, yield* bare(target), byHand)
    }),
  ours: ours("ours")
}
