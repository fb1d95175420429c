/**
 * What a run would do, found out by running the migrations on a client that only writes down. Statements that certainly only
 * read are executed, in transactions that the server keeps from writing; all others are answered with no rows.
 */
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as PgError from "../../../error/PgError.js"
import * as ReadOnly from "../../../policy/ReadOnly.js"
import * as load from "./load.js"
import type * as model from "./model.js"
import type { Config } from "./options.js"
import * as run from "./run.js"
import * as session from "./session.js"
import * as single from "./single.js"

/** A statement as it would be sent. */
export interface PlannedStatement {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/** A step that a run would do now. */
export interface Planned extends model.Step {
  readonly transaction: boolean
  readonly statements: ReadonlyArray<PlannedStatement>
  /** Why the statements after these are not known: the migration needs what it would itself have made, mostly. */
  readonly incomplete: string | undefined
}

const noRows = { command: "", rowCount: 0, oid: 0, fields: [], rows: [] }

/** A connection that writes down what comes, and lets through what certainly only reads. */
const recording = (
  { ask, connection }: session.Session,
  lockTimeout: number,
  statements: Array<PlannedStatement>
): Connection => {
  // By transactions, which hold behind a pooler too, and one for each, so that no lock is kept.
  const begin = Effect.zipRight(
    ask("BEGIN READ ONLY"),
    ask(`SET LOCAL lock_timeout = ${single.serverMillis(lockTimeout)}`)
  ).pipe(Effect.mapError(PgError.toSqlError))
  const planned = <A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    read: Effect.Effect<A, SqlError>,
    none: A
  ): Effect.Effect<A, SqlError> =>
    Effect.suspend(() => {
      statements.push({ sql, params })
      if (!ReadOnly.inspect(sql).readOnly) return Effect.succeed(none)
      return Effect.acquireUseRelease(
        begin,
        () => read,
        () => Effect.ignore(ask("ROLLBACK"))
      )
    })
  return {
    execute: (sql, params, transform) => planned(sql, params, connection.execute(sql, params, transform), []),
    executeRaw: (sql, params) => planned<unknown>(sql, params, connection.executeRaw(sql, params), noRows),
    executeValues: (sql, params) => planned(sql, params, connection.executeValues(sql, params), []),
    executeUnprepared: (sql, params, transform) =>
      planned(sql, params, connection.executeUnprepared(sql, params, transform), []),
    executeStream: (sql, params, transform) =>
      Stream.unwrap(
        Effect.map(planned(sql, params, connection.execute(sql, params, transform), []), Stream.fromIterable)
      )
  }
}

const planOne = (config: Config, opened: session.Session, step: model.Step, definition: load.Definition) =>
  Effect.gen(function* () {
    const statements: Array<PlannedStatement> = []
    const connection = recording(opened, config.lockTimeout, statements)
    const services = yield* single.services(opened, connection)
    const body = step.direction === "up" ? definition.up : definition.down!
    const done = yield* Effect.either(
      Effect.sandbox(session.onConnection(services, definition.transaction ? connection : undefined)(body))
    )
    return {
      ...step,
      transaction: definition.transaction,
      statements,
      incomplete: Either.isRight(done) ? undefined : load.messageOf(load.squashed(done.left))
    }
  })

/** Takes no lock, and changes nothing. */
export const plan = (
  config: Config,
  known: ReadonlyArray<model.Known>,
  target: model.Target
): Effect.Effect<ReadonlyArray<Planned>, run.Stopped, PgClient.PgClient> =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const opened = yield* session.open(client)
    const { entries } = yield* run.look(config, known, opened.ask)
    const steps = yield* run.due(config, entries, target, opened.ask)
    const ready = yield* run.definitions(known, steps).pipe(Effect.provide(opened.services))
    return yield* Effect.forEach(steps, (step) => planOne(config, opened, step, ready.get(step.id)!))
  }).pipe(Effect.scoped, Effect.withSpan("Migrations.plan"))
