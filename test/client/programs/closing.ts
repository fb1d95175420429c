/**
 * A program that uses the layer, says so on its standard output, waits for a word on its standard input, and then returns
 * from everything without `process.exit`. Arguments: the URL, and what is under way when it leaves.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { Array as Arr, Effect, Redacted, Stream } from "effect"
import { ResilientPg } from "../../../src/index.js"

const [url = "", how = "idle"] = process.argv.slice(2)

const word = Effect.async<void>((resume) => {
  process.stdin.once("data", () => {
    process.stdin.destroy()
    resume(Effect.void)
  })
})

/** Never ends. `Effect.never` itself would keep the process alive. */
const forgotten = Effect.async<never>(() => {})

const underWay = (sql: PgClient.PgClient) => {
  switch (how) {
    case "statements":
      return Effect.forEach(Arr.range(1, 3), () => Effect.forkDaemon(sql`SELECT pg_sleep(600)`))
    case "transaction":
      return Effect.forkDaemon(sql.withTransaction(Effect.zipRight(sql`SELECT 1`, forgotten)))
    case "listen":
      return Effect.forkDaemon(Stream.runDrain(sql.listen("closing")))
    case "waiting":
      return Effect.forEach(Arr.range(1, 20), () => Effect.forkDaemon(sql`SELECT pg_sleep(600)`))
    default:
      return Effect.void
  }
}

const program = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  yield* Effect.all(Arr.replicate(sql`SELECT pg_sleep(0.05)`, 3), { concurrency: "unbounded" })
  yield* underWay(sql)
  console.log("ready")
  yield* word
  // Connections that have to be opened now, if they can.
  if (how === "connecting")
    yield* Effect.forkDaemon(Effect.all(Arr.replicate(sql`SELECT pg_sleep(600)`, 8), { concurrency: "unbounded" }))
  yield* Effect.yieldNow()
}).pipe(
  Effect.provide(
    ResilientPg.layer({
      url: Redacted.make(url),
      minConnections: 2,
      maxConnections: 5,
      closeGrace: "200 millis",
      applicationName: `closing_${how}`
    })
  )
)

await Effect.runPromise(program)
console.log("closed")
