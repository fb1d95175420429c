/** The tables of the workloads, made and read on connections of their own, past any proxy and any pool. */
import { Effect, type Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import type { Final, StoredTransfer } from "./model.js"
import type { Shape } from "./plan.js"
import { balance } from "./workloads.js"

export interface Database {
  readonly name: string
  readonly url: Redacted.Redacted
}

/**
 * Empty lists, registers at version 0, and money in every account. Nothing but the tables themselves would refuse what is
 * done twice: no key on what the clients give.
 */
export const create = ({ url }: Database, { accounts, registers }: Shape) =>
  Effect.forEach(
    [
      "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)",
      `INSERT INTO accounts SELECT id, ${balance} FROM generate_series(0, ${accounts - 1}) id`,
      `CREATE TABLE transfers (row int GENERATED ALWAYS AS IDENTITY, id int NOT NULL, source int NOT NULL,
       target int NOT NULL, amount int NOT NULL)`,
      "CREATE TABLE lists (id int PRIMARY KEY, elements int[] NOT NULL)",
      "CREATE TABLE registers (id int PRIMARY KEY, value int NOT NULL, version int NOT NULL)",
      `INSERT INTO registers SELECT id, 0, 0 FROM generate_series(0, ${registers - 1}) id`
    ],
    (statement) => TestPg.control(statement, [], url),
    { discard: true }
  )

/** What they hold once no client has a connection any more, and so nothing is on its way. */
export const read = ({ name, url }: Database) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    yield* TestPg.eventually(server.backends, (all) => all.every(({ database }) => database !== name), {
      message: "clients are still connected"
    })
    const rows = <Row extends object>(sql: string) => TestPg.control<Row>(sql, [], url)
    const accounts = yield* rows<{ balance: number }>("SELECT balance FROM accounts ORDER BY id")
    const transfers = yield* rows<StoredTransfer>("SELECT row, id, source, target, amount FROM transfers ORDER BY row")
    const lists: Array<ReadonlyArray<number>> = []
    for (const { elements, id } of yield* rows<{ id: number; elements: ReadonlyArray<number> }>("TABLE lists")) {
      lists[id] = elements
    }
    const registers: Array<{ readonly value: number; readonly version: number }> = []
    for (const { id, value, version } of yield* rows<{ id: number; value: number; version: number }>(
      "TABLE registers"
    )) {
      registers[id] = { value, version }
    }
    const final: Final = { balances: accounts.map(({ balance }) => balance), transfers, lists, registers }
    return final
  })
