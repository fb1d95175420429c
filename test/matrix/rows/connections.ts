/** Connections that die, lie or are poisoned, and a server that is away. */
import { Effect, Exit, Fiber, Option, Schedule } from "effect"
import { PgError } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import type { Row } from "../row.js"
import { ending, patiently, type World, warm } from "../world.js"

const insertRepeated: Row = {
  number: 5,
  what: "an autocommit INSERT, its reply lost, in a program that retries what is transient",
  run: ({ connect, kept, proxy }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      yield* proxy.swallowReply({ on: FaultProxy.query(/^INSERT/) })
      const exit = yield* sql`INSERT INTO kept VALUES (1)`.pipe(
        Effect.retry({ times: 3, while: (error) => PgError.fromSqlError(error).transient }),
        Effect.exit
      )
      const rows = yield* kept
      return {
        held: ending(exit) === "OutcomeUnknownError" && rows.length === 1,
        seen: `${ending(exit)}, stored ${rows.length === 1 ? "once" : `${rows.length} times`}`
      }
    })
}

const halfOpen: Row = {
  number: 10,
  what: "all pooled sockets half-open (a load balancer forgot them), server reachable",
  run: (world) =>
    Effect.gen(function* () {
      const size = 8
      const sql = yield* world.connect(size)
      yield* warm(sql, size)
      yield* world.proxy.blackHole({ existing: true })
      let failed = 0
      const asked = sql`SELECT 1`.pipe(
        Effect.timeout("1 second"),
        Effect.tapError(() => Effect.sync(() => failed++)),
        Effect.orElse(() => sql`SELECT 1`)
      )
      const all = yield* Effect.fork(Effect.replicateEffect(asked, size, { concurrency: "unbounded" }))
      const answered = Option.isSome(yield* patiently(world, Fiber.join(all)))
      yield* world.proxy.heal
      yield* Fiber.await(all)
      return {
        held: answered,
        seen: answered ? `${failed} of ${size} queries fail, and all is well` : "no query is answered any more"
      }
    })
}

const backendEnded: Row = {
  number: 11,
  what: "the server ends a backend in mid-query (57P01)",
  run: ({ connect, lock, server }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      const [backend] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
      const { awaited } = yield* lock(1)
      const query = Effect.exit(sql`SELECT pg_advisory_xact_lock(1)`)
      const both = yield* Effect.fork(Effect.all([query, Effect.exit(sql`SELECT 1`)]))
      yield* awaited(1)
      yield* server.terminate(backend!.pid)
      const [, next] = yield* Fiber.join(both)
      return { held: Exit.isSuccess(next), seen: `the next caller: ${ending(next)}` }
    })
}

/** The server is down until it is started again, or the scope closes. */
const stopped = ({ server }: World) => Effect.acquireRelease(server.stop(), () => Effect.orDie(server.start))

const startsWithoutServer: Row = {
  number: 18,
  what: "the program starts while the database is down",
  run: (world) =>
    Effect.gen(function* () {
      yield* stopped(world)
      const layer = yield* Effect.exit(world.connect(2, world.url))
      if (Exit.isFailure(layer)) return { held: false, seen: "the layer fails" }
      const sql = layer.value
      const meanwhile = yield* Effect.exit(Effect.timeout(sql`SELECT 1`, "200 millis"))
      yield* world.server.start
      const served = yield* patiently(world, Effect.retry(sql`SELECT 1`, Schedule.spaced("50 millis")))
      const ready = Option.isSome(served) && ending(meanwhile) !== "defect"
      return { held: ready, seen: ready ? "the layer is built, and serves when the database is there" : "never serves" }
    })
}

const attemptsStorm: Row = {
  number: 19,
  what: "server away for a second, 50 fibers at work",
  run: (world) =>
    Effect.gen(function* () {
      const sql = yield* world.connect(10)
      yield* warm(sql, 10)
      const program = Effect.forever(Effect.zipRight(Effect.exit(sql`SELECT 1`), Effect.sleep("5 millis")))
      const fibers = yield* Effect.fork(Effect.replicateEffect(program, 50, { concurrency: "unbounded" }))
      yield* stopped(world)
      // The proxy accepts, finds no server and resets: so it can count what a server that is away never sees.
      const before = yield* world.proxy.stats
      yield* Effect.sleep("1 second")
      const attempts = (yield* world.proxy.stats).attempted - before.attempted
      yield* Fiber.interrupt(fibers)
      // One prober, which waits 25 ms at least and twice as long each time, comes to seven in a second.
      const few = attempts <= 10
      return {
        held: few,
        seen: few ? "one prober, a handful of connection attempts" : "a storm of connection attempts",
        figure: `${attempts} attempts`
      }
    })
}

const poisoned: Row = {
  number: 22,
  what: '`sql.unsafe("BEGIN; <failing>")` outside a transaction',
  run: ({ connect }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      yield* Effect.exit(sql.unsafe("BEGIN; SELECT 1 / 0"))
      const next = yield* Effect.exit(sql`SELECT 1`)
      return { held: Exit.isSuccess(next), seen: `the next caller: ${ending(next)}` }
    })
}

export const rows: ReadonlyArray<Row> = [
  insertRepeated,
  halfOpen,
  backendEnded,
  startsWithoutServer,
  attemptsStorm,
  poisoned
]
