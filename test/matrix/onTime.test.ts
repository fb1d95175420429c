/** A limit ends the wait for it on time, whatever holds the work up: the caller is back while that is still on. */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Layer, Logger, LogLevel, Option, type Scope, Stream } from "effect"
import { Operation, ResilientPg, Transaction } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import * as Matrix from "./matrix.js"
import { ending, make, occupy, type World, warm } from "./world.js"

const limit = Duration.millis(200)
const size = 6

/** Each on a connection of its own, waiting for a lock where nothing else holds it up. */
const operations = (
  sql: PgClient.PgClient
): Readonly<Record<string, Effect.Effect<unknown, unknown, Transaction.Transactor>>> => {
  const statement = sql`SELECT pg_advisory_xact_lock(7)`
  return {
    query: Effect.timeout(statement, limit),
    stream: Effect.timeout(Stream.runDrain(statement.stream), limit),
    transaction: Effect.timeout(sql.withTransaction(statement), limit),
    "nested transaction": Effect.timeout(sql.withTransaction(sql.withTransaction(statement)), limit),
    "Transaction.run": Transaction.run(statement, { timeout: limit }),
    "Operation.named": Operation.named("held", { timeout: limit })(statement)
  }
}

interface Hold {
  readonly what: string
  /** Whether what is asked meanwhile is written to a socket. */
  readonly sent: boolean
  /** Begins to hold, and returns what ends it. */
  readonly begin: (
    world: World,
    sql: PgClient.PgClient
  ) => Effect.Effect<Effect.Effect<unknown, unknown>, unknown, Scope.Scope>
}

const holds: ReadonlyArray<Hold> = [
  {
    what: "the pool is full",
    sent: false,
    begin: (_, sql) => Effect.map(occupy(sql, size), ({ release }) => release)
  },
  {
    what: "a lock is held",
    sent: true,
    begin: ({ lock }, sql) =>
      Effect.zipRight(
        warm(sql, size),
        Effect.map(lock(7), ({ release }) => release)
      )
  },
  {
    what: "the server is paused",
    sent: true,
    begin: ({ server }, sql) =>
      Effect.zipRight(
        warm(sql, size),
        Effect.acquireRelease(Effect.as(server.pause, server.resume), () => Effect.orDie(server.resume))
      )
  },
  {
    what: "existing connections are black holes",
    sent: true,
    begin: ({ proxy }, sql) =>
      Effect.zipRight(warm(sql, size), Effect.as(proxy.blackHole({ existing: true }), proxy.heal))
  },
  {
    what: "new connections are black holes",
    sent: false,
    begin: ({ proxy }) => Effect.as(proxy.blackHole({ new: true }), proxy.heal)
  },
  {
    what: "the whole network is a black hole",
    sent: true,
    begin: ({ proxy }, sql) =>
      Effect.zipRight(warm(sql, size), Effect.as(proxy.blackHole({ existing: true, new: true }), proxy.heal))
  }
]

layer(Matrix.server, { excludeTestServices: true, timeout: "60 seconds" })("A limit is on time while", (it) => {
  for (const { begin, sent, what } of holds) {
    it.scoped(what, () =>
      Effect.gen(function* () {
        const world = yield* make(Matrix.ours)
        const url = world.proxy.url(world.url)
        const client = yield* Layer.build(ResilientPg.layer({ url, maxConnections: size, checkAfterIdle: "infinity" }))
        const sql = Context.get(client, PgClient.PgClient)

        const end = yield* begin(world, sql)
        // Lateness that this process made itself is nobody else's.
        const loop = monitorEventLoopDelay({ resolution: 5 })
        loop.enable()
        const waiting = yield* Effect.forEach(Object.entries(operations(sql)), ([name, operation]) =>
          Effect.map(Effect.fork(Effect.timed(Effect.exit(Effect.provide(operation, client)))), (fiber) => ({
            name,
            fiber
          }))
        )
        const late: Array<string> = []
        for (const { fiber, name } of waiting) {
          const back = yield* Effect.timeoutOption(Fiber.join(fiber), world.patience)
          if (Option.isNone(back)) return assert.fail(`${name} is not back while ${what}`)
          const [took, exit] = back.value
          late.push(`${name} ${Math.round(Duration.toMillis(took) - Duration.toMillis(limit))} ms`)
          assert.isTrue(Exit.isFailure(exit), `${name} was not held up`)
          if (name === "Transaction.run") assert.strictEqual(ending(exit), "QueryTimeoutError")
          // What was sent takes a lock, so that it may have been a write.
          if (name === "Operation.named") {
            assert.strictEqual(ending(exit), sent ? "OutcomeUnknownError" : "QueryTimeoutError")
          }
        }
        loop.disable()
        const stood = `the event loop stood still for up to ${Math.round(loop.max / 1e6)} ms`
        console.log(`late while ${what}: ${late.join(", ")}; ${stood}`)

        yield* end
        yield* TestPg.eventually(Effect.exit(sql`SELECT 1`), Exit.isSuccess, { message: "it does not recover" })
        const { pool } = Context.get(client, ResilientPg.ResilientPg)
        yield* TestPg.eventually(pool, ({ quarantined, used, waiting }) => quarantined + used + waiting === 0)
      }).pipe(Logger.withMinimumLogLevel(LogLevel.None))
    )
  }
})
