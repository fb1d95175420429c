/**
 * Where a row of the failure matrix happens: a database and a proxy of its own on a real server, one client under test, and
 * a look past both at what the server has.
 */
import { SqlError } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Cause, Context, type Duration, Effect, Exit, Layer, Option, Predicate, Redacted, Scope } from "effect"
import { PgError } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Pg from "pg"
import * as TestPg from "../support/TestPg.js"

/** What is put in a row's hands: `PgClient.layer`, or `ResilientPg.layer`. Nothing else differs between the two runs. */
export interface Candidate {
  readonly name: string
  readonly layer: (config: PgClient.PgClientConfig) => Layer.Layer<PgClient.PgClient, SqlError.SqlError>
  /**
   * How long a row waits for what may never come. It decides nothing on a client that comes back, since what held it is
   * still on then: so it is short where the row expects to wait in vain, and a hang's bound where it does not.
   */
  readonly patience: Duration.DurationInput
}

/** Held on the server by a connection outside of every pool. Ends with the scope at the latest. */
export interface Lock {
  readonly release: Effect.Effect<void>
  /** Ends when so many backends wait for it. */
  readonly awaited: (backends: number) => Effect.Effect<void>
}

export interface World {
  readonly server: EmbeddedPostgres.EmbeddedPostgres["Type"]
  readonly proxy: FaultProxy.FaultProxy["Type"]
  readonly patience: Duration.DurationInput
  /** The run's database on the server itself, past the proxy. */
  readonly url: Redacted.Redacted
  /** The client under test with a pool of so many connections; to the run's database through the proxy unless told. */
  readonly connect: (
    maxConnections: number,
    url?: Redacted.Redacted
  ) => Effect.Effect<PgClient.PgClient, SqlError.SqlError, Scope.Scope>
  /** One statement past client and proxy. */
  readonly ask: <Row extends object = any>(sql: string) => Effect.Effect<ReadonlyArray<Row>>
  /** What is in the table `kept (n int)`, which every run finds empty. */
  readonly kept: Effect.Effect<ReadonlyArray<number>>
  /** Holds the advisory lock of this number. */
  readonly lock: (key: number) => Effect.Effect<Lock, never, Scope.Scope>
  /** One more, empty database. */
  readonly anotherDatabase: Effect.Effect<Redacted.Redacted, EmbeddedPostgres.EmbeddedPostgresError, Scope.Scope>
}

let databases = 0

const createDatabase = Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, (server) =>
  server.createDatabase(`matrix_${++databases}`)
)

const locked = (url: Redacted.Redacted, key: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: Redacted.value(url) })
      client.on("error", () => {})
      await client.connect()
      await client.query("SELECT pg_advisory_lock($1)", [key])
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )

const waitersSql = (key: number) =>
  `SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = ${key}
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

export const make = (
  candidate: Candidate
): Effect.Effect<
  World,
  EmbeddedPostgres.EmbeddedPostgresError | FaultProxy.FaultProxyError,
  EmbeddedPostgres.EmbeddedPostgres | Scope.Scope
> =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const url = yield* createDatabase
    const proxy = yield* FaultProxy.make({ upstream: server.config })
    const ask = <Row extends object = any>(sql: string) =>
      Effect.provideService(TestPg.control<Row>(sql, [], url), EmbeddedPostgres.EmbeddedPostgres, server)
    yield* ask("CREATE TABLE kept (n int)")
    return {
      server,
      proxy,
      patience: candidate.patience,
      url,
      connect: (maxConnections, through = proxy.url(url)) =>
        Effect.map(Layer.build(candidate.layer({ url: through, maxConnections })), Context.get(PgClient.PgClient)),
      ask,
      kept: Effect.map(ask<{ n: number }>("SELECT n FROM kept ORDER BY n"), (rows) => rows.map(({ n }) => n)),
      lock: (key) =>
        Effect.map(locked(url, key), (client) => ({
          release: Effect.promise(() => client.query("SELECT pg_advisory_unlock_all()")),
          awaited: (backends) => Effect.asVoid(TestPg.eventually(ask(waitersSql(key)), (_) => _.length === backends))
        })),
      anotherDatabase: Effect.provideService(createDatabase, EmbeddedPostgres.EmbeddedPostgres, server)
    }
  })

/** Takes so many connections of a client's pool at once, and so opens them; `release` gives them back. */
export const occupy = (sql: PgClient.PgClient, connections: number) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
    yield* Scope.extend(Effect.replicateEffect(sql.reserve, connections, { concurrency: "unbounded" }), scope)
    return { release: Scope.close(scope, Exit.void) }
  })

/** Opens so many connections of a client's pool, and leaves them idle. */
export const warm = (sql: PgClient.PgClient, connections: number) =>
  Effect.scoped(Effect.flatMap(occupy(sql, connections), ({ release }) => release))

/** The value, or nothing when it does not come within the world's patience. */
export const patiently = <A, E, R>({ patience }: World, effect: Effect.Effect<A, E, R>) =>
  Effect.timeoutOption(effect, patience)

/** Our error in what a program is handed, if it is one of ours. */
const pgErrorOf = (error: unknown): PgError.PgError | undefined => {
  const inner = error instanceof SqlError.SqlError ? error.cause : error
  return PgError.isPgError(inner) ? inner : undefined
}

const codeOf = ({ cause }: SqlError.SqlError) =>
  Predicate.hasProperty(cause, "code") && Predicate.isString(cause.code) ? ` ${cause.code}` : ""

const nameOf = (error: unknown): string => {
  const ours = pgErrorOf(error)
  if (ours !== undefined) return ours._tag
  return error instanceof SqlError.SqlError ? `SqlError${codeOf(error)}` : "a failure of the program's own"
}

/** How an effect ended, in a word: `success`, `defect`, `interrupted`, our tag, or `SqlError` with the code it carries. */
export const ending = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "success"
  if (Cause.isDie(exit.cause)) return "defect"
  return Option.match(Cause.failureOption(exit.cause), { onNone: () => "interrupted", onSome: nameOf })
}

/** Whether it failed with one of our tags, and with no defect beside it. */
export const isTyped = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
  !Cause.isDie(exit.cause) &&
  Option.exists(Cause.failureOption(exit.cause), (error) => pgErrorOf(error) !== undefined)
