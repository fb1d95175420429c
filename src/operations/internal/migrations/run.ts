/**
 * A whole run: under the lock, see what is there, say what is against it, and do one step after the other. A session that is
 * lost ends nothing: with the lock on a new one, what the tables say is the truth, whatever became of the last COMMIT.
 */
import type { MigrationError } from "@effect/sql/Migrator"
import type { SqlClient } from "@effect/sql/SqlClient"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schedule from "effect/Schedule"
import type * as PgError from "../../../error/PgError.js"
import { isPgError } from "../../../error/PgError.js"
import * as errors from "./errors.js"
import { invalidIndexes } from "./indexes.js"
import * as load from "./load.js"
import * as lock from "./lock.js"
import * as model from "./model.js"
import type { Config } from "./options.js"
import * as session from "./session.js"
import { seenAs } from "./single.js"
import * as step from "./step.js"
import * as tables from "./tables.js"

/** A step that was done. */
export interface Done extends model.Step {
  readonly duration: Duration.Duration
}

/** What a run did. */
export interface Report {
  /** In the order in which they were done; empty when nothing was to do. */
  readonly done: ReadonlyArray<Done>
  /** Migrations that had been applied before, whose files have been noted now. */
  readonly adopted: ReadonlyArray<errors.Named>
}

/** What can stop a run. */
export type Stopped =
  | errors.MigrationFailed
  | errors.MigrationUnfinished
  | errors.MigrationsEdited
  | errors.MigrationsSkipped
  | errors.MigrationIrreversible
  | errors.MigrationsLocked
  | errors.MigrationUnknown
  | errors.SessionNotKept
  | MigrationError
  | PgError.PgError

const named = ({ id, name }: errors.Named): errors.Named => ({ id, name })

/** On one of the program's own connections, as it is. */
const askOf = (client: PgClient.PgClient): tables.Ask =>
  tables.askBy((sql, params) => client.unsafe(sql, params).withoutTransform)

/** Why nothing may be done, as an error. */
const objected = (ask: tables.Ask, objection: model.Objection): Effect.Effect<never, Stopped> => {
  switch (objection._tag) {
    case "UnknownId":
      return Effect.fail(unknownId(objection.id))
    case "Edited":
      return Effect.fail(
        new errors.MigrationsEdited({
          edited: objection.entries.map(({ check, recordedName, ...entry }) => ({
            ...named(entry),
            check,
            recordedName: recordedName!
          }))
        })
      )
    case "Skipped":
      return Effect.fail(new errors.MigrationsSkipped({ skipped: objection.entries.map(named) }))
    case "Unfinished": {
      const [entry] = objection.entries
      const { direction, since } = entry!.mark!
      return Effect.flatMap(invalidIndexes(ask), (invalidIndexes) =>
        Effect.fail(new errors.MigrationUnfinished({ ...named(entry!), direction, since, invalidIndexes }))
      )
    }
  }
}

export const unknownId = (id: number) =>
  new errors.MigrationUnknown({ id, message: `There is no migration ${id}. Nothing was done` })

/** The files and the database, now. */
export const look = (config: Config, known: ReadonlyArray<model.Known>, ask: tables.Ask) =>
  Effect.map(tables.read(ask, config.tables), (recorded) => ({ recorded, entries: model.entries(known, recorded) }))

/** The migrations, one by one, asked for on the program's own client. */
export const status = (config: Config, known: ReadonlyArray<model.Known>) =>
  Effect.flatMap(PgClient.PgClient, (client) =>
    Effect.map(look(config, known, askOf(client)), ({ entries }) => entries)
  )

/** What is to be done, or why nothing may be. */
export const due = (
  config: Config,
  entries: ReadonlyArray<model.Entry>,
  target: model.Target,
  ask: tables.Ask
): Effect.Effect<ReadonlyArray<model.Step>, Stopped> =>
  Effect.suspend(() => {
    const objection = model.objection(entries, target, { edited: config.allowEdited, skipped: config.allowSkipped })
    return objection === undefined ? Effect.succeed(model.steps(entries, target)) : objected(ask, objection)
  })

/** All of them made ready before the first is run; what is to be undone must be able to. */
export const definitions = (
  known: ReadonlyArray<model.Known>,
  steps: ReadonlyArray<model.Step>
): Effect.Effect<ReadonlyMap<number, load.Definition>, MigrationError | errors.MigrationIrreversible, SqlClient> =>
  Effect.gen(function* () {
    const byId = new Map(known.map((migration) => [migration[0], migration]))
    const ready = new Map<number, load.Definition>()
    const irreversible: Array<errors.MigrationIrreversible["irreversible"][number]> = []
    for (const { direction, id, name } of steps) {
      const migration = byId.get(id)
      if (migration === undefined) irreversible.push({ id, name, reason: "missing" })
      else {
        const definition = yield* load.definition(migration)
        if (direction === "down" && definition.down === undefined) irreversible.push({ id, name, reason: "no down" })
        ready.set(id, definition)
      }
    }
    if (irreversible.length > 0) return yield* Effect.fail(new errors.MigrationIrreversible({ irreversible }))
    return ready
  })

/** What a run remembers when its session is lost. */
class Memory {
  readonly id = crypto.randomUUID()
  readonly done: Array<Done> = []
  readonly adopted: Array<errors.Named> = []
  /** What it set out to do. */
  steps: ReadonlyArray<model.Step> | undefined = undefined
  current: model.Step | undefined = undefined
  private readonly progress = new Map<number, step.Progress>()

  progressOf(id: number): step.Progress {
    const progress = this.progress.get(id) ?? { begun: false, finished: false }
    this.progress.set(id, progress)
    return progress
  }

  /** A mark of this run's own is no riddle to it, unless the work itself was cut off. */
  resumed(row: model.Recorded): model.Recorded {
    const { begun, finished } = this.progressOf(row.id)
    return row.mark !== undefined && row.run === this.id && (finished || !begun) ? { ...row, mark: undefined } : row
  }

  /** The connection was lost for good: what that means for what was being done. */
  lost({ cause, committing }: step.SessionLost): Stopped {
    const { current, done, steps } = this
    if (current === undefined) return cause
    return new errors.MigrationFailed({
      ...current,
      state: this.progressOf(current.id).begun ? "halfDone" : committing ? "unknown" : "rolledBack",
      done,
      left: (steps ?? []).slice((steps ?? []).indexOf(current) + 1),
      invalidIndexes: [],
      cause,
      reason: load.messageOf(cause)
    })
  }

  /** A step whose COMMIT was sent before the session was lost, and arrived. */
  settle(recorded: ReadonlyArray<model.Recorded>): void {
    const { current } = this
    if (current === undefined) return
    const row = recorded.find(({ id }) => id === current.id)
    const applied = row?.applied === true
    if (current.direction === "up" ? applied && row?.run === this.id : !applied) {
      this.done.push({ ...current, duration: Duration.zero })
    }
    this.current = undefined
  }
}

const isOpen = (recorded: ReadonlyArray<model.Recorded>) => {
  const applied = new Set(recorded.flatMap((row) => (row.applied ? [row.id] : [])))
  return ({ direction, id }: model.Step) => applied.has(id) === (direction === "down")
}

const one = (run: step.Run, memory: Memory, current: model.Step, known: model.Known, definition: load.Definition) => {
  const checksum = known[model.SourceId]?.checksum
  const title = errors.title(current)
  return Effect.suspend(() => {
    memory.current = current
    return definition.transaction
      ? step.inTransaction(run, current, definition, checksum)
      : step.outside(run, current, definition, checksum, memory.progressOf(current.id))
  }).pipe(
    Effect.timed,
    Effect.flatMap(([taken, done]) => {
      const duration = Duration.millis(Math.round(Duration.toMillis(taken)))
      memory.current = undefined
      if (!done) return Effect.logInfo(`Migration ${title} was done by another program in this moment`)
      memory.done.push({ ...current, duration })
      return Effect.logInfo(
        `Migration ${title} ${current.direction === "up" ? "applied" : "undone"} (${Duration.format(duration)})`
      )
    }),
    Effect.onInterrupt(() =>
      Effect.logWarning(
        `Migration ${title} was interrupted: ${
          definition.transaction
            ? "it is rolled back, unless it was being committed in that moment"
            : "what it did is in the database, and the next run asks what became of it"
        }`
      )
    ),
    Effect.withSpan("Migrations.step", {
      attributes: {
        "migration.id": current.id,
        "migration.name": current.name,
        "migration.direction": current.direction
      }
    })
  )
}

/** One session's worth of a run. */
const attempt = (
  config: Config,
  known: ReadonlyArray<model.Known>,
  target: model.Target,
  client: PgClient.PgClient,
  memory: Memory
) =>
  Effect.gen(function* () {
    const key = lock.keyOf(config.table)
    const opened = yield* session.locked(client, { ...config, key })
    const { ask } = opened
    const both = yield* tables.ensure(ask, config.tables)
    const recorded = (yield* tables.read(ask, both)).map((row) => memory.resumed(row))
    memory.settle(recorded)
    const fresh = yield* due(config, model.entries(known, recorded), target, ask)
    memory.steps ??= fresh
    const steps = memory.steps.filter(isOpen(recorded))
    const ready = yield* definitions(known, steps).pipe(Effect.provide(opened.services))
    for (const migration of model.toAdopt(known, recorded)) {
      const [id, name] = migration
      const checksum = migration[model.SourceId]?.checksum
      yield* tables.writeChecksum(ask, both, { id, name, checksum, run: memory.id, adopted: true })
      memory.adopted.push({ id, name })
    }
    const run: step.Run = {
      session: opened,
      tables: both,
      key,
      run: memory.id,
      lockTimeout: config.lockTimeout,
      retry: config.retry
    }
    for (const [n, current] of steps.entries()) {
      const migration = known.find(([id]) => id === current.id)!
      const done = yield* Effect.either(one(run, memory, current, migration, ready.get(current.id)!))
      if (Either.isRight(done)) continue
      if (done.left._tag !== "StepFailed") return yield* Effect.fail(done.left)
      const { cause, invalidIndexes, reason, state } = done.left
      const left = steps.slice(n + 1)
      return yield* Effect.fail(
        new errors.MigrationFailed({ ...current, state, done: memory.done, left, invalidIndexes, cause, reason })
      )
    }
  }).pipe(Effect.scoped)

/**
 * A failure of the connection as such, which a new session may mend. What is sent between the steps may be sent twice, so that
 * an unknown outcome of it is no more than that.
 */
const again = (error: Stopped | step.SessionLost): PgError.PgError | undefined => {
  const failure = error._tag === "SessionLost" ? error.cause : isPgError(error) ? error : undefined
  return failure?._tag === "OutcomeUnknownError" ? failure.reason : failure
}

/** Everything that is to be done, done; or one error that says what is and what is not. */
export const run = (
  config: Config,
  known: ReadonlyArray<model.Known>,
  target: model.Target
): Effect.Effect<Report, Stopped, PgClient.PgClient> =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const ask = askOf(client)
    const { entries, recorded } = yield* look(config, known, ask)
    const unmarked = entries.every(({ state }) => state !== "unfinished")
    // Most starts of a program find nothing to do, and ask nobody for leave.
    if (unmarked && model.toAdopt(known, recorded).length === 0) {
      if ((yield* due(config, entries, target, ask)).length === 0) return { done: [], adopted: [] }
    }
    const memory = new Memory()
    yield* Effect.tapError(attempt(config, known, target, client, memory), (error) =>
      again(error)?.transient === true
        ? Effect.logWarning(`The connection that migrates was lost: ${load.messageOf(again(error))}`)
        : Effect.void
    ).pipe(
      Effect.retry({
        schedule: Schedule.mapInput(config.retry, (error: Stopped | step.SessionLost) => seenAs(again(error) ?? error)),
        while: (error) => again(error)?.transient === true
      }),
      Effect.mapError((error) => (error._tag === "SessionLost" ? memory.lost(error) : error))
    )
    return { done: memory.done, adopted: memory.adopted }
  }).pipe(Effect.withSpan("Migrations.run"))
