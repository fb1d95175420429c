/** What `migrate` does: loaded when it is asked for. */
import type { MigrationError } from "@effect/sql/Migrator"
import type { SqlError } from "@effect/sql/SqlError"
import type * as PgClient from "@effect/sql-pg/PgClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as ResilientPg from "../../../ResilientPg.js"
import * as Migrations from "../../Migrations.js"
import { print, Refused, UsageError } from "../shared.js"
import * as words from "./migrateWords.js"

export interface Place {
  readonly url: Redacted.Redacted
  readonly directory: string
  readonly table: string
  readonly json: boolean
}

export interface Running extends Place {
  readonly lockTimeout: Duration.DurationInput | "infinity"
  readonly waitForLock: Duration.DurationInput | "infinity"
  readonly allowEdited: boolean
  readonly allowSkipped: boolean
}

/** What a person has decided wrong, or has yet to decide, as the exit code that stands for it. */
const decided = (error: Migrations.Stopped | SqlError) => {
  switch (error._tag) {
    case "MigrationUnfinished":
    case "MigrationsEdited":
    case "MigrationsSkipped":
    case "MigrationIrreversible":
      return new Refused({ message: error.message })
    case "MigrationUnknown":
    case "InvalidOptionsError":
      return new UsageError({ message: error.message })
    default:
      return error
  }
}

/** On a client for the database, its failures told as the exit codes have them; in JSON they are the document. */
const on = <A, R>(
  { json, url }: Place,
  self: Effect.Effect<A, Migrations.Stopped | MigrationError, R | PgClient.PgClient>
) =>
  self.pipe(
    Effect.provide(ResilientPg.layer({ url, applicationName: "effect-pg-resilience", maxConnections: 2 })),
    Effect.tapError((error) => (json ? print(true, words.failure(error), () => "") : Effect.void)),
    Effect.mapError(decided)
  )

const optionsOf = <O extends Place>({ directory, json: _, url: __, ...options }: O) => ({
  ...options,
  loader: Migrations.fromDirectory(directory)
})

export const report = (given: Running, target: Migrations.Target) =>
  Effect.flatMap(on(given, Migrations.run(optionsOf(given), target)), (report) =>
    print(given.json, words.report(report), () => words.reportText(report))
  )

export const status = (given: Place) =>
  Effect.gen(function* () {
    const entries = yield* on(given, Migrations.status(optionsOf(given)))
    yield* print(given.json, words.status(entries), () => words.statusText(entries))
    const wrong = words.wrong(entries)
    if (wrong !== undefined) return yield* new Refused({ message: wrong })
  })

export const plan = (given: Running, target: Migrations.Target) =>
  Effect.flatMap(on(given, Migrations.plan(optionsOf(given), target)), (planned) =>
    print(given.json, words.plan(planned), () => words.planText(planned))
  )

export const resolve = (given: Place, id: number, as: "applied" | "notApplied") =>
  Effect.zipRight(
    on(given, Migrations.resolve(optionsOf(given), id, as)),
    print(given.json, { id, as }, () => `Migration ${id} is ${as === "applied" ? "" : "not "}applied`)
  )

export const accept = (given: Place, id: number) =>
  Effect.zipRight(
    on(given, Migrations.accept(optionsOf(given), id)),
    print(given.json, { id, accepted: true }, () => `Migration ${id} is accepted as it is now`)
  )
