/**
 * One migration, one way.
 *
 * In a transaction: what it does and the row that says so are stored together, or neither is. Outside one: a mark is committed
 * before, and the row after; whoever finds the mark knows that nobody knows.
 */
import * as Statement from "@effect/sql/Statement"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import type { QueryResult } from "pg"
import * as PgError from "../../../error/PgError.js"
import * as Operation from "../../../policy/Operation.js"
import { type InvalidIndex, SessionNotKept, title } from "./errors.js"
import { blamed, invalidIndexes } from "./indexes.js"
import { type Definition, messageOf, squashed } from "./load.js"
import * as lock from "./lock.js"
import type { Step } from "./model.js"
import { onConnection, type Session } from "./session.js"
import * as single from "./single.js"
import { endsTransaction } from "./sql.js"
import * as tables from "./tables.js"

/** What all steps of a run have in common. */
export interface Run extends single.Hurry {
  readonly session: Session
  readonly tables: tables.Tables
  readonly key: string
  /** Names this run in marks and notes. */
  readonly run: string
}

/** The connection is gone, and with it the lock and whatever was not committed: another session can see what is there. */
export class SessionLost extends Data.TaggedError("SessionLost")<{
  readonly cause: PgError.PgError
  /** COMMIT had been sent. */
  readonly committing: boolean
}> {}

/** It failed, and this is how things are now. */
export class StepFailed extends Data.TaggedError("StepFailed")<{
  readonly cause: unknown
  readonly reason: string
  readonly state: "rolledBack" | "halfDone"
  readonly invalidIndexes: ReadonlyArray<InvalidIndex>
}> {}

const failed = (
  state: StepFailed["state"],
  cause: unknown,
  reason = messageOf(cause),
  invalidIndexes: ReadonlyArray<InvalidIndex> = []
) => new StepFailed({ cause, reason, state, invalidIndexes })

/** Ends as soon as somebody else has done it already. */
class Elsewhere extends Data.TaggedError("Elsewhere")<{}> {}

/** What a step can end with, other than done. */
export type Ended = StepFailed | SessionLost | SessionNotKept

const isEnded = (error: unknown): error is Ended | Elsewhere =>
  error instanceof StepFailed ||
  error instanceof SessionLost ||
  error instanceof SessionNotKept ||
  error instanceof Elsewhere

/** What a migration failed with: its failure, or else its defect. */
class Found extends Data.TaggedError("Found")<{ readonly error: unknown }> {}

/** Its failures and defects as one failure of ours; interruption stays interruption. */
const judged = <A, E>(self: Effect.Effect<A, E>): Effect.Effect<A, Found> =>
  Effect.catchAllCause(self, (cause) =>
    Cause.isInterruptedOnly(cause)
      ? Effect.failCause(cause as Cause.Cause<never>)
      : Effect.fail(new Found({ error: squashed(cause) }))
  )

const lost = (cause: PgError.PgError) => new SessionLost({ cause, committing: false })

/**
 * A transaction on the run's own connection. Whether that is still there, ROLLBACK tells: a failure after which it is answered
 * is the work's own.
 */
const transaction = <A, E>(
  { key, lockTimeout, session, tables }: Run,
  work: Effect.Effect<A, E>
): Effect.Effect<A, E | PgError.PgError | Ended> => {
  const { ask, connection } = session
  const begin = Effect.gen(function* () {
    yield* ask("BEGIN")
    yield* ask(`SET LOCAL lock_timeout = ${single.serverMillis(lockTimeout)}`)
    // Against a migrator that knows nothing of our lock; whoever only reads goes on.
    yield* ask(`LOCK TABLE ${tables.migrations} IN SHARE ROW EXCLUSIVE MODE`)
    yield* lock.stillHeld(ask, key)
  })
  const undone = Effect.mapError(Effect.asVoid(ask("ROLLBACK")), lost)
  const commit = Effect.flatMap(
    Effect.mapError(connection.executeRaw("COMMIT", []), (error) => PgError.fromSqlError(error)),
    (result) => ((result as QueryResult).command === "COMMIT" ? Effect.void : Effect.fail(notCommitted))
  )
  return Effect.gen(function* () {
    const done = yield* Effect.exit(Effect.zipRight(begin, work))
    if (Exit.isFailure(done)) {
      // The session ends with the run, and takes the transaction with it.
      if (!Cause.isInterruptedOnly(done.cause)) yield* undone
      return yield* done
    }
    // A COMMIT that fails has been answered if the connection still works: then nothing is stored. Else nobody knows yet.
    yield* Effect.tapError(commit, () =>
      Effect.mapError(undone, ({ cause }) => new SessionLost({ cause, committing: true }))
    )
    return done.value
  })
}

const notCommitted = failed(
  "rolledBack",
  undefined,
  "a statement in it failed, and it went on, so that the server rolled it back: let that failure end it, or give the statement a nested transaction"
)

const isApplied = (ask: tables.Ask, { migrations }: tables.Tables, id: number) =>
  Effect.map(
    ask<{ there: boolean }>(`SELECT EXISTS (SELECT FROM ${migrations} WHERE migration_id = $1) AS there`, [id]),
    ([row]) => row!.there
  )

const record = ({ run, session: { ask }, tables: both }: Run, step: Step, checksum: string | undefined) =>
  step.direction === "up"
    ? tables.writeApplied(ask, both, { ...step, checksum, run })
    : tables.writeReverted(ask, both, step.id)

const unlessDone = ({ session: { ask }, tables }: Run, { direction, id }: Step) =>
  Effect.flatMap(isApplied(ask, tables, id), (applied) =>
    applied === (direction === "up") ? Effect.fail(new Elsewhere()) : Effect.void
  )

/**
 * Under one name, without a deadline. What a lost answer means is told by the rows and marks that are found afterwards, and not
 * by the error of the statement whose answer it was: to it all is as if it might be repeated, and nothing is.
 */
const bodyOf = (definition: Definition, { direction }: Step) =>
  (direction === "up" ? definition.up : (definition.down ?? Effect.void)).pipe(
    Operation.named("migration", { idempotent: true, timeout: "infinity" })
  )

/** A statement that would begin or end a transaction, in a migration that has one already. */
class TransactionControl extends Data.TaggedError("TransactionControl")<{}> {
  override readonly message =
    "it begins or ends a transaction, and a migration is one already: leave that out, or export `transaction = false`"
}

/** Keeps the migration from ending the transaction, after which a part of it would be stored without the row that says so. */
const withinTransaction = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(FiberRef.get(Statement.currentTransformer), (around) =>
    Statement.withTransformer(self, (statement, sql, refs, span) => {
      if (endsTransaction(statement.compile()[0])) return Effect.die(new TransactionControl())
      return Option.isNone(around) ? Effect.succeed(statement) : around.value(statement, sql, refs, span)
    })
  )

/** In a transaction, again and again while others are in the way. True: done; false: somebody else had done it. */
export const inTransaction = (
  run: Run,
  step: Step,
  definition: Definition,
  checksum: string | undefined
): Effect.Effect<boolean, Ended> => {
  const { session } = run
  const body = judged(onConnection(session.services, session.connection)(withinTransaction(bodyOf(definition, step))))
  const work = unlessDone(run, step).pipe(Effect.zipRight(body), Effect.zipRight(record(run, step, checksum)))
  const attempt = Effect.mapError(transaction(run, work), (error) => (error instanceof Found ? error.error : error))
  const told = Effect.tapError(attempt, (error) =>
    single.isContended(error)
      ? Effect.logInfo(`Migration ${title(step)}: ${messageOf(error)}. Rolled back; tried again in a while`)
      : Effect.void
  )
  return single.retried(told, run.retry).pipe(
    Effect.as(true),
    Effect.mapError((error) => (isEnded(error) ? error : failed("rolledBack", error))),
    Effect.catchTag("Elsewhere", () => Effect.succeed(false))
  )
}

/** How far a migration outside a transaction has come, as far as this program knows: a lost session does not take that away. */
export interface Progress {
  begun: boolean
  finished: boolean
}

/** Outside a transaction: marked, run once, and recorded. True: done; false: somebody else had done it. */
export const outside = (
  run: Run,
  step: Step,
  definition: Definition,
  checksum: string | undefined,
  progress: Progress
): Effect.Effect<boolean, Ended> => {
  const { session, tables: both } = run
  const { ask } = session
  const { direction, id } = step
  const invalid = Effect.mapError(invalidIndexes(ask), lost)
  const course: single.Course = { statements: [], effects: 0 }
  const short = <A, E>(work: Effect.Effect<A, E | PgError.PgError>, state: StepFailed["state"], what: string) =>
    Effect.mapError(single.retried(transaction(run, work), run.retry), (error) =>
      isEnded(error) ? error : failed(state, error, `${what}: ${messageOf(error)}`)
    )

  const mark = short(
    Effect.zipRight(unlessDone(run, step), tables.writeMark(ask, both, { ...step, run: run.run })),
    "rolledBack",
    "it could not be marked as begun"
  )
  const finish = short(
    Effect.zipRight(unlessDone(run, step), record(run, step, checksum)),
    "halfDone",
    "it ran to its end, and could not be recorded"
  )
  const failure = (before: ReadonlyArray<InvalidIndex>, cause: unknown, reason = messageOf(cause)) =>
    Effect.gen(function* () {
      const left = blamed(before, yield* invalid, course.statements)
      const untouched = course.effects === 0 && left.length === 0
      if (untouched) yield* short(tables.clearMark(ask, both, id, direction), "halfDone", reason)
      return yield* Effect.fail(failed(untouched ? "rolledBack" : "halfDone", cause, reason, left))
    })
  const work = Effect.gen(function* () {
    const before = yield* invalid
    const services = yield* single.services(session, single.hurried(session.connection, run, course))
    progress.begun = true
    yield* Effect.catchAll(judged(onConnection(services, undefined)(bodyOf(definition, step))), ({ error }) =>
      failure(before, error)
    )
    if (blamed(before, yield* invalid, course.statements).length > 0) {
      yield* failure(before, undefined, "it left an invalid index behind")
    }
    progress.finished = true
  })
  const begun = Effect.zipRight(mark, work)
  return Effect.suspend(() => (progress.finished ? finish : Effect.zipRight(begun, finish))).pipe(
    Effect.as(true),
    Effect.catchTag("Elsewhere", () => Effect.succeed(false))
  )
}
