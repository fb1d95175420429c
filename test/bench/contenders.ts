/** Who is measured, each with its pool and with what people put around it. */
import { SqlClient, Statement } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import * as Cockatiel from "cockatiel"
import { Context, type Duration, Effect, identity, Layer, Redacted, Schedule, type Scope } from "effect"
import { Operation, ResilientPg } from "effect-pg-resilience"
import Opossum from "opossum"
import Pg from "pg"
import postgres from "postgres"
import { type Around, type Contender, effectful, type Promised, promised } from "./driving.js"
import { alone, bare, byHand, cockatiel, everything, pg } from "./names.js"

export interface Target {
  readonly url: Redacted.Redacted
  readonly connections: number
  /** For all that limits a piece of work. Default: 5 seconds, which is ours. */
  readonly limit?: Duration.DurationInput
}

export type Maker = (target: Target) => Effect.Effect<Contender, unknown, Scope.Scope>
export type Makers = Readonly<Record<string, Maker>>

/** A pool that does not close in time, because somebody has its connections, is left to the server's end. */
const closing = (end: () => Promise<unknown>) =>
  Effect.promise(end).pipe(Effect.interruptible, Effect.timeoutOption("2 seconds"))

const pool = ({ connections, url }: Target) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const pool = new Pg.Pool({ connectionString: Redacted.value(url), max: connections })
      // Without a listener an idle connection that is lost ends the process. Whoever asks next is told by the query.
      return pool.on("error", () => {})
    }),
    (pool) => closing(() => pool.end())
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

const under = (self: Promised, policy: <A>(run: () => Promise<A>) => Promise<A>): Promised => ({
  query: (text, values) => policy(() => self.query(text, values)),
  transaction: (body) => policy(() => self.transaction(body))
})

const client = <E>(layer: Layer.Layer<SqlClient.SqlClient, E>) =>
  Effect.map(Layer.build(layer), Context.get(SqlClient.SqlClient))

/** `@effect/sql-pg`, of the same process, but without the look that ours takes at each statement's span. */
const theirs =
  (name: string, around: Around = identity): Maker =>
  ({ connections, url }) =>
    Effect.gen(function* () {
      const runtime = yield* Statement.withTransformerDisabled(Effect.runtime<never>())
      return effectful(name, runtime, yield* client(PgClient.layer({ url, maxConnections: connections })), around)
    })

const ours =
  (name: string, options: Partial<ResilientPg.Options>, around: Around = identity): Maker =>
  ({ connections, url }) =>
    Effect.gen(function* () {
      const services = yield* Layer.build(ResilientPg.layer({ url, maxConnections: connections, ...options }))
      // As in a program on the layer: operations find its limits.
      const runtime = yield* Effect.provide(Effect.runtime<never>(), services)
      return effectful(name, runtime, Context.get(services, SqlClient.SqlClient), around)
    })

/** As a service in production has it: the defaults, a limit that the server keeps, and a deadline for each piece of work. */
const withEverything =
  (name: string, but: Partial<ResilientPg.Options> = {}): Maker =>
  (target) => {
    const limited = target.limit === undefined ? {} : { timeouts: { query: target.limit } }
    const options = { serverTimeouts: { statement: "30 seconds" }, ...limited, ...but } as const
    return ours(name, options, (self, workload) => Operation.named(workload)(self))(target)
  }

export const makers: Makers = {
  [pg]: (target) => Effect.map(pool(target), (pool) => promised(pg, overPool(pool, false))),
  "pg, named": (target) => Effect.map(pool(target), (pool) => promised("pg, named", overPool(pool, true))),
  [cockatiel]: (target) =>
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
        cockatiel,
        under(overPool(pool, false), (run) => policy.execute(run))
      )
    }),
  "pg + opossum": (target) =>
    Effect.map(pool(target), (pool) => {
      const breaker = new Opossum((run: () => Promise<unknown>) => run(), { timeout: 5_000 })
      return promised(
        "pg + opossum",
        under(overPool(pool, false), (run) => breaker.fire(run) as ReturnType<typeof run>)
      )
    }),
  "postgres.js": ({ connections, url }) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => postgres(Redacted.value(url), { max: connections, onnotice: () => {} })),
        (sql) => closing(() => sql.end({ timeout: 1 }))
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
  [bare]: theirs(bare),
  [byHand]: (target) =>
    theirs(byHand, (self) =>
      Effect.retry(
        Effect.timeout(self, target.limit ?? "5 seconds"),
        Schedule.intersect(Schedule.exponential("100 millis"), Schedule.recurs(3))
      )
    )(target),
  [alone]: ours(alone, {}),
  [everything]: withEverything(everything)
}

/** Each policy by the options that leave it out of everything. */
const off: Readonly<Record<string, Partial<ResilientPg.Options>>> = {
  breaker: { breaker: false },
  retry: { retry: false, retryBudget: false },
  deadline: { timeouts: false },
  "statement timeout": { serverTimeouts: undefined },
  "prepared statements": { preparedStatements: false },
  lanes: { lanes: false },
  checks: { checkAfterIdle: "infinity" }
}

export const policies: Makers = {
  [bare]: makers[bare]!,
  [everything]: makers[everything]!,
  ...Object.fromEntries(
    Object.entries(off).map(([policy, but]) => [`without ${policy}`, withEverything(`without ${policy}`, but)])
  )
}

export const pick = (...names: ReadonlyArray<string>): Makers =>
  Object.fromEntries(names.map((name) => [name, makers[name]!]))

/** All of them at once on one server, each with its own connections. */
export const enter = (makers: Makers, target: Target): Effect.Effect<ReadonlyArray<Contender>, unknown, Scope.Scope> =>
  Effect.forEach(Object.values(makers), (make) => make(target))
