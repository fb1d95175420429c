/** The failure matrix: all rows, run on the bare client and on ours, and what was seen as a table. */
import { PgClient } from "@effect/sql-pg"
import { Effect, Logger, LogLevel } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import type { Observation, Row } from "./row.js"
import * as Connections from "./rows/connections.js"
import * as Notifications from "./rows/notifications.js"
import * as Transactions from "./rows/transactions.js"
import * as Waiting from "./rows/waiting.js"
import * as World from "./world.js"

export const rows: ReadonlyArray<Row> = [
  ...Transactions.rows,
  ...Waiting.rows,
  ...Connections.rows,
  ...Notifications.rows
].sort((a, b) => a.number - b.number)

/** The client that programs use today. Where it waits it waits in vain, so three seconds show it. */
export const bare: World.Candidate = { name: "PgClient.layer", layer: PgClient.layer, patience: "3 seconds" }

export const ours: World.Candidate = { name: "ResilientPg.layer", layer: ResilientPg.layer, patience: "30 seconds" }

/** Its databases come and go by the dozen and it is never crashed: it need not write through to the disk. */
export const server = EmbeddedPostgres.layer({ settings: { fsync: false } })

/** One run of a row, in a world of its own. What the client logs is not what is looked at here. */
export const observe = (row: Row, candidate: World.Candidate) =>
  Effect.scoped(Effect.flatMap(World.make(candidate), row.run)).pipe(Logger.withMinimumLogLevel(LogLevel.None))

/** A row, and what it showed on both. */
export interface Result {
  readonly row: Row
  readonly bare: Observation
  readonly ours: Observation
}

export const compare = (row: Row) =>
  Effect.map(Effect.all({ bare: observe(row, bare), ours: observe(row, ours) }), (both): Result => ({ row, ...both }))

const cells = (values: ReadonlyArray<string | number>) => `| ${values.join(" | ")} |`

const mark = ({ held, seen }: Observation) => `${held ? "✓" : "✗"} ${seen}`

/** As Markdown, without the figures of this one run. */
export const table = (results: ReadonlyArray<Result>): string =>
  [
    cells(["#", "what happens", `\`${bare.name}\``, `\`${ours.name}\``]),
    cells(["---", "---", "---", "---"]),
    ...results.map(({ bare, ours, row }) => cells([row.number, row.what, mark(bare), mark(ours)]))
  ].join("\n")

/** The figures of these runs, a line each. */
export const figures = (results: ReadonlyArray<Result>): string =>
  results
    .flatMap(({ bare: onBare, ours: onOurs, row }) =>
      [[bare, onBare] as const, [ours, onOurs] as const].flatMap(([{ name }, { figure }]) =>
        figure === undefined ? [] : [`${row.number} on ${name}: ${figure}`]
      )
    )
    .join("\n")
