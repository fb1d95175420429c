/** A client on one connection, whatever that is: for migrations outside a transaction, and for plans. */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as PgError from "../../../error/PgError.js"
import * as ReadOnly from "../../../policy/ReadOnly.js"
import type { Session } from "./session.js"
import { unhurried } from "./sql.js"

/** The environment of migrations, its clients replaced by one that has that connection alone. */
export const services = (
  { client, services }: Session,
  connection: Connection
): Effect.Effect<Context.Context<PgClient.PgClient | SqlClient.SqlClient>> =>
  Effect.gen(function* () {
    const { config } = client
    const sql = yield* SqlClient.make({
      acquirer: Effect.succeed(connection),
      compiler: PgClient.makeCompiler(config.transformQueryNames, config.transformJson),
      spanAttributes: Object.entries(config.spanAttributes ?? {}),
      ...(config.transformResultNames && {
        transformRows: Statement.defaultTransforms(config.transformResultNames, config.transformJson).array
      })
    }).pipe(Effect.provide(Reactivity.layer))
    const single: PgClient.PgClient = Object.assign(sql, {
      [PgClient.TypeId as PgClient.TypeId]: PgClient.TypeId as PgClient.TypeId,
      config,
      json: client.json,
      listen: client.listen,
      notify: (channel: string, payload: string) => Effect.asVoid(sql`SELECT pg_notify(${channel}, ${payload})`)
    })
    return services.pipe(Context.add(PgClient.PgClient, single), Context.add(SqlClient.SqlClient, single))
  })

/** A connection in terms of one function that stands before each of its statements. */
export const around = (
  connection: Connection,
  each: <A, E>(sql: string, params: ReadonlyArray<unknown>, run: Effect.Effect<A, E>) => Effect.Effect<A, E>
): Connection => ({
  execute: (sql, params, transform) => each(sql, params, connection.execute(sql, params, transform)),
  executeRaw: (sql, params) => each(sql, params, connection.executeRaw(sql, params)),
  executeValues: (sql, params) => each(sql, params, connection.executeValues(sql, params)),
  executeUnprepared: (sql, params, transform) =>
    each(sql, params, connection.executeUnprepared(sql, params, transform)),
  executeStream: (sql, params, transform) =>
    Stream.unwrap(Effect.as(each(sql, params, Effect.void), connection.executeStream(sql, params, transform)))
})

/** The `PgError` in a failure, also in one that the program has wrapped: the first on the way along `cause`. */
export const viewOf = (error: unknown): PgError.PgError | undefined => {
  let at = error
  for (let depth = 0; depth < 8 && Predicate.isObject(at); depth++) {
    if (PgError.isPgError(at)) return at
    at = (at as { readonly cause?: unknown }).cause
  }
  return undefined
}

/** Failures after which the same statement, or transaction, may be tried again on the same connection. */
const contended = new Set<PgError.Tag>(["LockTimeoutError", "DeadlockError", "SerializationError"])
export const isContended = (error: unknown): boolean => contended.has(seenAs(error)._tag)

/** `viewOf`, total: what is not the database's is an `UnknownError`. */
export const seenAs = (error: unknown): PgError.PgError =>
  viewOf(error) ?? PgError.fromSqlError(new SqlError({ cause: error }))

/** Again, as the schedule says, while others are in the way; unless some of it may be there already. */
export const retried = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  schedule: Hurry["retry"],
  nothingLeft: (error: E) => boolean = () => true
): Effect.Effect<A, E, R> =>
  Effect.retry(self, {
    schedule: Schedule.mapInput(schedule, (error: E) => seenAs(error)),
    while: (error) => isContended(error) && nothingLeft(error)
  }) as Effect.Effect<A, E, R>

/** The server has refused it, and that is all: CALL and DO may have committed something on their way. */
const isWhole = (error: unknown): boolean => viewOf(error)?.outcome === "NotApplied"

export interface Hurry {
  /** Milliseconds; `Infinity` for none. */
  readonly lockTimeout: number
  readonly retry: Schedule.Schedule<unknown, PgError.PgError>
}

/** In the server's terms: 0 for none. */
export const serverMillis = (limit: number): number => (Number.isFinite(limit) ? Math.ceil(limit) : 0)

/** What is known of the statements of a migration outside a transaction. */
export interface Course {
  /** Those that were sent, in order. */
  readonly statements: Array<string>
  /** How many of them may have changed something. */
  effects: number
}

/**
 * A connection outside a transaction, whose statements wait for locks no longer than `lockTimeout`, and are then tried again, one
 * by one. Those with CONCURRENTLY wait as long as they must: they block nobody meanwhile, and given up they would leave an
 * invalid index.
 */
export const hurried = (connection: Connection, { lockTimeout, retry }: Hurry, course: Course): Connection => {
  let inForce: number | undefined
  const within = (limit: number) =>
    limit === inForce
      ? Effect.void
      : Effect.map(connection.executeRaw(`SET lock_timeout = ${limit}`, []), () => {
          inForce = limit
        })
  return around(connection, (sql, _, run) =>
    Effect.flatMap(Effect.serviceOption(SqlClient.TransactionConnection), (transaction) => {
      const patient = unhurried(sql)
      const sent = Effect.suspend(() => {
        course.statements.push(sql)
        if (ReadOnly.inspect(sql).readOnly) return run
        course.effects++
        return Effect.tapError(run, (error) =>
          Effect.sync(() => {
            if (!patient && isWhole(error)) course.effects--
          })
        )
      })
      const tried = Effect.zipRight(within(patient ? 0 : serverMillis(lockTimeout)) as Effect.Effect<void, any>, sent)
      if (patient || Option.isSome(transaction)) return tried
      return retried(tried, retry, isWhole)
    })
  )
}
