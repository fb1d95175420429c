/** What can stop a run of migrations: one class per decision of whoever runs them. */
import * as Data from "effect/Data"
import type { Check, Direction, Step } from "./model.js"

/** A migration by its number and name. */
export interface Named {
  readonly id: number
  readonly name: string
}

/** An index that the server does not use, left by a statement with CONCURRENTLY that did not end well. */
export interface InvalidIndex {
  readonly index: string
  readonly table: string
  /** What takes it away. */
  readonly drop: string
}

export const title = ({ id, name }: Named): string => `${id}_${name}`

const list = (all: ReadonlyArray<Named>): string => all.map(title).join(", ")

const indexes = (invalid: ReadonlyArray<InvalidIndex>): string =>
  invalid.length === 0
    ? "No invalid index was found. "
    : `${invalid.map(({ index, table }) => `Index ${index} on ${table} is invalid`).join(", ")}: ${invalid
        .map(({ drop }) => drop)
        .join(" ")} `

const resolving = ({ id }: Named, direction: Direction) =>
  `resolve it as applied (\`migrate resolve ${id} --applied\`) if ${
    direction === "up" ? "all of it is there" : "nothing of it was undone"
  }, or as not applied (\`--not-applied\`) if ${direction === "up" ? "nothing is left of it" : "all of it was undone"}`

/** A migration failed, and nothing was done after it. */
export class MigrationFailed extends Data.TaggedError("MigrationFailed")<{
  readonly id: number
  readonly name: string
  readonly direction: Direction
  /**
   * `rolledBack`: the database is as it was before this migration. `halfDone`: it ran outside a transaction, and what it did
   * before it failed is there; the next run refuses to go on until that is resolved. `unknown`: the connection was lost while it
   * was being committed, and no other could be had in time; the next run sees what became of it.
   */
  readonly state: "rolledBack" | "halfDone" | "unknown"
  /** What this run had done before. */
  readonly done: ReadonlyArray<Step>
  /** What it did not come to. */
  readonly left: ReadonlyArray<Step>
  readonly invalidIndexes: ReadonlyArray<InvalidIndex>
  /** The failure: of the migration as it gave it, a defect included, or a `PgError`. */
  readonly cause: unknown
  readonly reason: string
}> {
  override get message() {
    const { direction, done, invalidIndexes, left, reason, state } = this
    const what = {
      rolledBack: "It was rolled back. ",
      halfDone: "What it did before that is in the database. ",
      unknown: "Whether it was committed is not known yet. "
    }[state]
    const then = {
      rolledBack: "Correct it and run again",
      halfDone: `${indexes(invalidIndexes)}Look, put it right, and ${resolving(this, direction)}`,
      unknown: "Run again: that finds it out"
    }[state]
    return (
      `Migration ${title(this)} (${direction}) failed: ${reason}. ${what}` +
      (done.length === 0 ? "" : `Done before: ${list(done)}. `) +
      (left.length === 0 ? "" : `Not begun: ${list(left)}. `) +
      then
    )
  }
}

/** A migration outside a transaction was begun by an earlier run, and nobody knows how far it came. Nothing was done. */
export class MigrationUnfinished extends Data.TaggedError("MigrationUnfinished")<{
  readonly id: number
  readonly name: string
  readonly direction: Direction
  readonly since: Date
  readonly invalidIndexes: ReadonlyArray<InvalidIndex>
}> {
  override get message() {
    return (
      `Migration ${title(this)} (${this.direction}) was begun at ${this.since.toISOString()} and did not end, so that a part of it ` +
      `may be in the database. Nothing else was done. ${indexes(this.invalidIndexes)}` +
      `Look, put it right, and ${resolving(this, this.direction)}`
    )
  }
}

/** Applied migrations whose file, or name, is not what it was. Nothing was done. */
export class MigrationsEdited extends Data.TaggedError("MigrationsEdited")<{
  readonly edited: ReadonlyArray<Named & { readonly check: Check; readonly recordedName: string }>
}> {
  override get message() {
    const each = this.edited.map((migration) =>
      migration.check === "renamed"
        ? `${title(migration)} was applied as ${migration.id}_${migration.recordedName}`
        : `${title(migration)} was edited after it was applied`
    )
    return (
      `${each.join("; ")}. Nothing was done. Undo the change, or give what is new an id of its own; where the change is of ` +
      `no consequence, accept it (\`migrate accept ${this.edited[0]?.id}\`)`
    )
  }
}

/** Migrations that were never applied, although later ones were. Nothing was done. */
export class MigrationsSkipped extends Data.TaggedError("MigrationsSkipped")<{
  readonly skipped: ReadonlyArray<Named>
}> {
  override get message() {
    return (
      `${list(this.skipped)} ${this.skipped.length === 1 ? "was" : "were"} never applied, although later migrations have been. ` +
      `Nothing was done. Give them ids after the latest; or apply them as they are (\`--allow-skipped\`), or say that they need ` +
      `not run (\`migrate resolve ${this.skipped[0]?.id} --applied\`)`
    )
  }
}

/** A migration that is to be undone has no `down`, or is not known to the loader. Nothing was done. */
export class MigrationIrreversible extends Data.TaggedError("MigrationIrreversible")<{
  readonly irreversible: ReadonlyArray<Named & { readonly reason: "missing" | "no down" }>
}> {
  override get message() {
    const each = this.irreversible.map((migration) =>
      migration.reason === "missing"
        ? `${title(migration)} is applied, but there is no such file`
        : `${title(migration)} has no \`down\``
    )
    return `Cannot be undone: ${each.join("; ")}. Nothing was done`
  }
}

/** Another program migrates, and has not ended within `waitForLock`. Nothing was done. */
export class MigrationsLocked extends Data.TaggedError("MigrationsLocked")<{
  /** Who holds the lock, as far as the server tells: its process, and what it calls itself. */
  readonly holder: string | undefined
  readonly waited: string
}> {
  override get message() {
    return (
      `Another program has been migrating for longer than ${this.waited}` +
      (this.holder === undefined ? "" : ` (${this.holder})`) +
      `. Nothing was done. Wait for it, or end its session with pg_terminate_backend`
    )
  }
}

/** Behind a pooler that gives each transaction another session no lock can be kept. Nothing was done. */
export class SessionNotKept extends Data.TaggedError("SessionNotKept")<{ readonly message: string }> {}

/** No migration has that id; or what was said of it is what is known already. Nothing was done. */
export class MigrationUnknown extends Data.TaggedError("MigrationUnknown")<{
  readonly id: number
  readonly message: string
}> {}
