/**
 * Changes of the schema, up and down: the migrations that `PgMigrator` runs, run so that years of deployments, crashes and busy
 * tables do them no harm.
 *
 * The migrator's table, file names and loaders are kept, so that a project adopts this without renaming anything, and can go
 * back. A second table beside it, `<table>_state`, has what the first has no room for: checksums, and marks of migrations
 * outside a transaction that were begun.
 *
 * ```ts
 * // 0003_orders.ts
 * export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE orders (id int PRIMARY KEY)`)
 * export const down = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`DROP TABLE orders`)
 * ```
 *
 * 1. One program migrates at a time; others that start meanwhile wait, and go on when it has ended, however it did.
 * 2. A migration and the row that says so are committed together. Outside a transaction a mark is committed before, so that
 *    what was cut off is reported, and never run a second time by itself.
 * 3. Nothing is done while something is wrong: an applied migration that was edited, one that was left out, one that was cut
 *    off, one to be undone that cannot be.
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import type * as Path from "@effect/platform/Path"
import type * as Migrator from "@effect/sql/Migrator"
import type { SqlClient } from "@effect/sql/SqlClient"
import type * as PgClient from "@effect/sql-pg/PgClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Schedule from "effect/Schedule"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as files from "./internal/migrations/files.js"
import * as load from "./internal/migrations/load.js"
import type * as model from "./internal/migrations/model.js"
import * as options from "./internal/migrations/options.js"
import * as internalPlan from "./internal/migrations/plan.js"
import * as internalRun from "./internal/migrations/run.js"
import * as settle from "./internal/migrations/settle.js"

export interface Options<R = never> {
  /**
   * Where the migrations come from: `fromDirectory`, or any loader of `PgMigrator`'s (`fromGlob`, `fromFileSystem`, `fromRecord`,
   * `fromBabelGlob`). Only `fromDirectory` sees the files' text, and so can tell when one was edited.
   */
  readonly loader: Migrator.Loader<R>
  /** The migrator's table, `schema.table` where it is in another schema; 57 bytes each. Default `effect_sql_migrations`. */
  readonly table?: string | undefined
  /**
   * How long a statement may wait for a lock, and so hold up everybody who comes after it, before the migration is rolled back
   * and tried again: 1 ms or more, or `"infinity"`. Default 3 seconds. Statements with CONCURRENTLY are exempt.
   */
  readonly lockTimeout?: Duration.DurationInput | "infinity" | undefined
  /**
   * When a migration is tried again whose locks were not to be had, that met a deadlock, or whose connection was lost. Default
   * `defaults.retry`: at most 20 times, after up to 1 s, doubling, capped at 15 s, full jitter.
   */
  readonly retry?: Schedule.Schedule<unknown, PgError.PgError> | undefined
  /** How long to wait for another program that migrates: 0 or more, or `"infinity"`. Default 10 minutes. */
  readonly waitForLock?: Duration.DurationInput | "infinity" | undefined
  /**
   * A migration's transaction in which nothing was sent for so long is ended by the server, so that a program that stands
   * still, or a network that went away in silence, does not keep its locks: 1 ms or more, or `"infinity"`. Default 1 minute.
   */
  readonly idleTimeout?: Duration.DurationInput | "infinity" | undefined
  /** Go on although applied migrations were edited or renamed. Default false. */
  readonly allowEdited?: boolean | undefined
  /** Apply migrations that were never applied although later ones were. Default false. `PgMigrator` leaves them out in silence. */
  readonly allowSkipped?: boolean | undefined
}

export const defaults = options.defaults

/** What is to be applied in the end. `to: 0`: nothing. `rollback`: all but the last so many. */
export type Target = model.Target

export type Direction = model.Direction
export type State = model.State
export type Check = model.Check
export type Entry = model.Entry
export type Step = model.Step
export type Done = internalRun.Done
export type Report = internalRun.Report
export type Planned = internalPlan.Planned
export type PlannedStatement = internalPlan.PlannedStatement

export {
  type InvalidIndex,
  MigrationFailed,
  MigrationIrreversible,
  MigrationsEdited,
  MigrationsLocked,
  MigrationsSkipped,
  MigrationUnfinished,
  MigrationUnknown,
  type Named,
  SessionNotKept
} from "./internal/migrations/errors.js"

/** Everything that can stop a run; `MigrationError` is the loader's. */
export type Stopped = internalRun.Stopped

/**
 * Migrations out of a folder: `<id>_<name>` with the ending `.ts`, `.js`, `.mts`, `.mjs` or `.sql`, other files left alone. The id
 * is a whole number from 1 to 2³¹ - 1, leading zeros as you like; the name has no dot.
 *
 * A module exports an Effect by `default`, and may export `down`, an Effect that undoes it, and `transaction: false`. TypeScript
 * needs a Node that can import it (`--import tsx`). `<id>_<name>.sql` holds statements, `<id>_<name>.down.sql` those that undo
 * them; a comment `-- transaction: false` before the first one has the meaning of the export.
 *
 * Its checksum is SHA-256 of the file alone, not of what it imports, with LF line ends and without a byte order mark.
 */
export const fromDirectory: (directory: string) => Migrator.Loader<FileSystem.FileSystem | Path.Path> =
  files.fromDirectory

/**
 * A migration as one value, for `fromRecord` or for a file's `default`: still the Effect `up` to every loader and migrator, with
 * `down` and `transaction` on it.
 */
export const define = <A, E>(
  up: Effect.Effect<A, E, SqlClient>,
  more: {
    readonly down?: Effect.Effect<unknown, unknown, SqlClient> | undefined
    readonly transaction?: boolean | undefined
  }
): Effect.Effect<A, E, SqlClient> =>
  Object.assign(
    Effect.suspend(() => up),
    more
  )

const within = <A, E, R1, R>(
  { loader, ...given }: Options<R>,
  use: (config: options.Config, known: ReadonlyArray<model.Known>) => Effect.Effect<A, E, R1>
) =>
  Effect.flatMap(options.decode(given), (config) => Effect.flatMap(load.known(loader), (known) => use(config, known)))

const checked = (target: Target): Effect.Effect<void, PgError.InvalidOptionsError> => {
  if (target === "latest") return Effect.void
  const [field, min] = "to" in target ? (["to", 0] as const) : (["rollback", 1] as const)
  return Effect.asVoid(validate.decode(validate.integer({ min }), field)(Object.values(target)[0]))
}

/** Brings the database to the target, and tells what was done. Fails at the first migration that fails; see `Stopped`. */
export const run = <R = never>(
  options: Options<R>,
  target: Target = "latest"
): Effect.Effect<Report, Stopped, PgClient.PgClient | R> =>
  Effect.zipRight(
    checked(target),
    within(options, (config, known) => internalRun.run(config, known, target))
  )

/** Applies what has not been applied. Started at several places at once, one does the work and the others wait for it. */
export const up = <R = never>(options: Options<R>): Effect.Effect<Report, Stopped, PgClient.PgClient | R> =>
  run(options, "latest")

/** Undoes the last so many that are applied, from the latest on: 1 or more. All of them must have a `down`, or nothing is done. */
export const rollback = <R = never>(
  options: Options<R>,
  steps: number
): Effect.Effect<Report, Stopped, PgClient.PgClient | R> => run(options, { rollback: steps })

/** Undoes what is above the id, and applies what is missing up to it. 0 undoes everything. */
export const to = <R = never>(options: Options<R>, id: number): Effect.Effect<Report, Stopped, PgClient.PgClient | R> =>
  run(options, { to: id })

/** `up` when the layer is built: before whatever is provided with it. */
export const layer = <R = never>(options: Options<R>): Layer.Layer<never, Stopped, PgClient.PgClient | R> =>
  Layer.effectDiscard(up(options))

/** One entry for each migration that files or database know, by id. Changes nothing, and does not wait for a run that is under way. */
export const status = <R = never>(
  options: Options<R>
): Effect.Effect<ReadonlyArray<Entry>, Stopped, PgClient.PgClient | R> => within(options, internalRun.status)

/**
 * The steps that `run` would do now, with the SQL of each. Fails as `run` would. Changes nothing and takes no lock.
 *
 * A migration is an Effect, so it is run, on a client that only writes its statements down. Those that certainly only read
 * are executed, in transactions that the server keeps from writing; all others are answered with no rows. Where a migration goes by
 * rows or tables that it would itself have made, its plan ends there, and says so in `incomplete`. What an Effect does beside
 * its client, such as writing a file or working on a client of its own, it does.
 */
export const plan = <R = never>(
  options: Options<R>,
  target: Target = "latest"
): Effect.Effect<ReadonlyArray<Planned>, Stopped, PgClient.PgClient | R> =>
  Effect.zipRight(
    checked(target),
    within(options, (config, known) => internalPlan.plan(config, known, target))
  )

/**
 * Says how a migration ended that was cut off outside a transaction: all of it is there (`applied`), or nothing of it
 * (`notApplied`). `applied` is also for one that has not been applied and need not run, because the database has it already.
 * Runs nothing. Fails with `MigrationUnknown` where there is nothing to say.
 */
export const resolve = <R = never>(
  options: Options<R>,
  id: number,
  as: "applied" | "notApplied"
): Effect.Effect<void, Stopped, PgClient.PgClient | R> =>
  within(options, (config, known) => settle.resolve(config, known, id, as))

/** Takes the name and the text that an applied migration has now for the right ones. Runs nothing. */
export const accept = <R = never>(
  options: Options<R>,
  id: number
): Effect.Effect<void, Stopped, PgClient.PgClient | R> =>
  within(options, (config, known) => settle.accept(config, known, id))
