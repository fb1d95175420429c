/**
 * A program that uses the layer, says so on its standard output, waits for a word on its standard input, and then returns
 * from everything without `process.exit`. Arguments: the URL, and what is under way when it leaves, each of these with a
 * layer of its own, all at once.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { Array as Arr, Deferred, Effect, Redacted, Stream } from "effect"
import { ResilientPg } from "../../../src/index.js"

const [url = "", ...hows] = process.argv.slice(2)

/** Never ends. `Effect.never` itself would keep the process alive. */
const forgotten = Effect.async<never>(() => {})

const asleep = (sql: PgClient.PgClient, count: number) =>
  Effect.forEach(Arr.range(1, count), () => Effect.forkDaemon(sql`SELECT pg_sleep(600)`), { discard: true })

const underWay = (sql: PgClient.PgClient): Record<string, Effect.Effect<unknown>> => ({
  statements: asleep(sql, 3),
  transaction: Effect.forkDaemon(sql.withTransaction(Effect.zipRight(sql`SELECT 1`, forgotten))),
  listen: Effect.forkDaemon(Stream.runDrain(sql.listen("closing"))),
  waiting: asleep(sql, 20)
})

const program = (how: string, ready: Deferred.Deferred<void>, word: Deferred.Deferred<void>) =>
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    yield* Effect.all(Arr.replicate(sql`SELECT pg_sleep(0.05)`, 3), { concurrency: "unbounded" })
    yield* underWay(sql)[how] ?? Effect.void
    yield* Deferred.succeed(ready, undefined)
    yield* Deferred.await(word)
    // Connections that have to be opened now, if they can.
    if (how === "connecting") yield* asleep(sql, 8)
    yield* Effect.yieldNow()
  }).pipe(
    Effect.provide(
      ResilientPg.layer({
        url: Redacted.make(url),
        minConnections: 2,
        maxConnections: 5,
        closeGrace: "200 millis",
        applicationName: "closing"
      })
    ),
    Effect.zipRight(Effect.sync(() => console.log(`closed: ${how}`)))
  )

await Effect.runPromise(
  Effect.gen(function* () {
    const word = yield* Deferred.make<void>()
    const fibers = yield* Effect.forEach(hows, (how) =>
      Effect.gen(function* () {
        const ready = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(program(how, ready, word))
        yield* Deferred.await(ready)
        return fiber
      })
    )
    console.log("ready")
    yield* Effect.async<void>((resume) => {
      process.stdin.once("data", () => {
        process.stdin.destroy()
        resume(Effect.void)
      })
    })
    yield* Deferred.succeed(word, undefined)
    yield* Effect.forEach(fibers, (fiber) => fiber.await, { discard: true })
  })
)
