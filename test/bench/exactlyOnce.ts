/**
 * What `exactlyOnce` costs where nothing is lost, as ratios to a plain transaction in the same run: one INSERT in a
 * transaction, 10 connections, 20 fibers, the contenders in alternation.
 *
 *   npx tsx test/bench/exactlyOnce.ts [rounds]
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Array as Arr, Duration, Effect, Number as Num, Order } from "effect"
import { ResilientPg, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const rounds = Number(process.argv[2] ?? 15)
const fibers = 20
const perFiber = 25

const median = (values: ReadonlyArray<number>): number =>
  Arr.sort(values, Order.number)[Math.floor(values.length / 2)] ?? Number.NaN
const shown = (value: number) => value.toFixed(2)

/** Operations a second. */
const rate = <E, R>(operation: Effect.Effect<unknown, E, R>) =>
  Effect.repeatN(operation, perFiber - 1).pipe(
    Effect.replicateEffect(fibers, { concurrency: "unbounded", discard: true }),
    Effect.timed,
    Effect.map(([elapsed]) => (fibers * perFiber) / Duration.toSeconds(elapsed))
  )

const main = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE kept (id int GENERATED ALWAYS AS IDENTITY, n int)`
  yield* Transaction.createLedger
  const insert = sql`INSERT INTO kept (n) VALUES (7)`
  const contenders: Record<string, Effect.Effect<unknown, unknown, Transaction.Transactor>> = {
    "sql.withTransaction": sql.withTransaction(insert),
    "Transaction.run": Transaction.run(insert),
    'exactlyOnce: "ledger"': Transaction.run(insert, { exactlyOnce: "ledger" }),
    'exactlyOnce: "xid"': Transaction.run(insert, { exactlyOnce: "xid" })
  }
  const rates = new Map<string, Array<number>>()
  for (let round = -2; round < rounds; round++) {
    for (const [name, operation] of Object.entries(contenders)) {
      const measured = yield* rate(operation)
      if (round >= 0) rates.set(name, [...(rates.get(name) ?? []), measured])
    }
  }
  const plain = rates.get("sql.withTransaction") ?? []
  console.log(
    "| one INSERT in a transaction | per second | against withTransaction (lowest to highest) |\n| --- | --- | --- |"
  )
  for (const [name, values] of rates) {
    const ratios = values.map((value, round) => value / plain[round]!)
    const spread = `${shown(Arr.reduce(ratios, Infinity, Num.min))} to ${shown(Arr.reduce(ratios, 0, Num.max))}`
    console.log(`| ${name} | ${Math.round(median(values))} | ${shown(median(ratios))} (${spread}) |`)
  }
})

const layer = (url: ResilientPg.Options["url"]) => ResilientPg.layer({ url })

NodeRuntime.runMain(
  Effect.scoped(Effect.flatMap(EmbeddedPostgres.make(), ({ url }) => Effect.provide(main, layer(url))))
)
