/** What a person says of a migration, written down under the lock. Nothing is run. */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import { MigrationUnknown, title } from "./errors.js"
import * as lock from "./lock.js"
import * as model from "./model.js"
import type { Config } from "./options.js"
import * as run from "./run.js"
import * as session from "./session.js"
import * as tables from "./tables.js"

interface Found {
  readonly entry: model.Entry
  readonly migration: model.Known | undefined
  readonly ask: tables.Ask
}

/** The migration of that id, and a transaction of its own for what is written about it. */
const settling = (
  config: Config,
  known: ReadonlyArray<model.Known>,
  id: number,
  write: (found: Found) => Effect.Effect<unknown, run.Stopped>
): Effect.Effect<void, run.Stopped, PgClient.PgClient> =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const { ask } = yield* session.locked(client, { ...config, key: lock.keyOf(config.table) })
    yield* tables.ensure(ask, config.tables)
    const { entries } = yield* run.look(config, known, ask)
    const entry = entries.find((entry) => entry.id === id)
    if (entry === undefined) return yield* Effect.fail(run.unknownId(id))
    const migration = known.find(([other]) => other === id)
    yield* ask("BEGIN")
    yield* write({ entry, migration, ask })
    yield* ask("COMMIT")
  }).pipe(Effect.scoped, Effect.withSpan("Migrations.settle", { attributes: { "migration.id": id } }))

const nothingToSay = (entry: model.Entry, message: string) =>
  Effect.fail(new MigrationUnknown({ id: entry.id, message: `Migration ${title(entry)} ${message}. Nothing was done` }))

export const resolve = (config: Config, known: ReadonlyArray<model.Known>, id: number, as: "applied" | "notApplied") =>
  settling(config, known, id, ({ ask, entry, migration }) => {
    const { mark, name, state } = entry
    const checksum = migration?.[model.SourceId]?.checksum
    if (mark !== undefined) {
      if (as === (mark.direction === "up" ? "notApplied" : "applied")) {
        return tables.clearMark(ask, config.tables, id, mark.direction)
      }
      return mark.direction === "up"
        ? tables.writeApplied(ask, config.tables, { id, name, checksum, run: crypto.randomUUID() })
        : tables.writeReverted(ask, config.tables, id)
    }
    if (state === "applied" || state === "missing") {
      return nothingToSay(
        entry,
        `is applied, and nothing about that is open${as === "applied" ? "" : ": to undo it, roll it back"}`
      )
    }
    return as === "applied"
      ? tables.writeApplied(ask, config.tables, { id, name, checksum, run: crypto.randomUUID() })
      : nothingToSay(entry, "is not applied, and nothing about that is open")
  })

export const accept = (config: Config, known: ReadonlyArray<model.Known>, id: number) =>
  settling(config, known, id, ({ ask, entry, migration }) => {
    if (migration === undefined) return nothingToSay(entry, "is in no file, so that there is nothing to accept")
    if (entry.state !== "applied") return nothingToSay(entry, "is not applied, so that there is nothing to accept")
    const [, name] = migration
    const checksum = migration[model.SourceId]?.checksum
    const run = crypto.randomUUID()
    return tables.writeChecksum(ask, config.tables, { id, name, checksum, run, adopted: false })
  })
