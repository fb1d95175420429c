/** Limits and interruptions: the caller is back while what held it is still on, and nobody else is hit. */
import { Duration, Effect, Exit, Fiber, FiberStatus, Option, Stream } from "effect"
import * as TestPg from "../../support/TestPg.js"
import type { Row } from "../row.js"
import { ending, occupy, patiently, warm } from "../world.js"

/** Ends when the fiber has nothing to do but wait. */
const suspended = (fiber: Fiber.RuntimeFiber<unknown, unknown>) =>
  TestPg.eventually(fiber.status, (status) => FiberStatus.isSuspended(status) || FiberStatus.isDone(status))

/** How long beyond its limit an effect took to end. */
const lateness = ([took]: readonly [Duration.Duration, unknown], limit: Duration.DurationInput) =>
  `${Math.round(Duration.toMillis(took) - Duration.toMillis(limit))} ms late`

const slotLost: Row = {
  number: 7,
  what: "interruption while waiting in `reserve` or `.stream`",
  run: (world) =>
    Effect.gen(function* () {
      const sql = yield* world.connect(2)
      const pool = yield* occupy(sql, 2)
      const waiting = [
        yield* Effect.fork(Effect.scoped(sql.reserve)),
        yield* Effect.fork(Stream.runDrain(sql`SELECT 1`.stream))
      ]
      for (const fiber of waiting) yield* suspended(fiber)
      yield* Fiber.interruptAll(waiting)
      yield* pool.release
      const whole = Option.isSome(yield* patiently(world, warm(sql, 2)))
      return { held: whole, seen: whole ? "given back" : "the pool's connections are lost" }
    })
}

const transactionWaits: Row = {
  number: 8,
  what: "`Effect.timeout(200 ms)` around `withTransaction`, pool full",
  run: (world) =>
    Effect.gen(function* () {
      const limit = "200 millis"
      const sql = yield* world.connect(1)
      const pool = yield* occupy(sql, 1)
      const bounded = sql.withTransaction(sql`SELECT 1`).pipe(Effect.timeout(limit), Effect.exit, Effect.timed)
      const transaction = yield* Effect.fork(bounded)
      const back = yield* patiently(world, Fiber.join(transaction))
      yield* pool.release
      yield* Fiber.await(transaction)
      return {
        held: Option.isSome(back),
        seen: Option.isSome(back) ? "back while the pool was still full" : "not back before the pool had room",
        figure: Option.getOrUndefined(Option.map(back, (timed) => lateness(timed, limit)))
      }
    })
}

const queriesRun: Row = {
  number: 9,
  what: "`Effect.timeout(500 ms)` on running queries, pool full",
  run: (world) =>
    Effect.gen(function* () {
      const size = 4
      const limit = "500 millis"
      const sql = yield* world.connect(size)
      yield* warm(sql, size)
      const lock = yield* world.lock(9)
      const bounded = sql`SELECT pg_advisory_xact_lock(9)`.pipe(Effect.timeout(limit), Effect.exit)
      const queries = yield* Effect.fork(
        Effect.timed(Effect.replicateEffect(bounded, size, { concurrency: "unbounded" }))
      )
      const back = yield* patiently(world, Fiber.join(queries))
      const whole = Option.isSome(back)
        ? yield* patiently(world, Effect.timed(Effect.zipRight(lock.awaited(0), warm(sql, size))))
        : Option.none()
      yield* lock.release
      yield* Fiber.await(queries)
      const seen = Option.isNone(back)
        ? "not back while the queries ran"
        : Option.isNone(whole)
          ? "back, but the pool is not whole while the lock is on"
          : "back while the lock was still on; queries gone from the server, pool whole"
      return {
        held: Option.isSome(whole),
        seen,
        figure: Option.getOrUndefined(
          Option.zipWith(
            back,
            whole,
            (timed, [took]) => `${lateness(timed, limit)}, whole after ${Math.round(Duration.toMillis(took))} ms`
          )
        )
      }
    })
}

const cancelHitsAnother: Row = {
  number: 14,
  what: "a query is interrupted, and ends by itself before its cancel is sent",
  run: ({ connect, lock }) =>
    Effect.gen(function* () {
      const sql = yield* connect(2)
      const elsewhere = yield* occupy(sql, 1)
      const first = yield* lock(1)
      const second = yield* lock(2)
      const interrupted = yield* Effect.fork(sql`SELECT pg_advisory_xact_lock(1)`)
      yield* first.awaited(1)
      const innocent = yield* Effect.fork(Effect.exit(sql`SELECT pg_advisory_xact_lock(2)`))
      yield* suspended(innocent)
      const interruption = yield* Effect.fork(Fiber.interrupt(interrupted))
      yield* suspended(interruption)
      yield* first.release
      // The connection has a new holder; only now is there one for a cancel that goes through the pool.
      yield* second.awaited(1)
      yield* elsewhere.release
      yield* Fiber.await(interruption)
      yield* second.release
      const exit = yield* Fiber.join(innocent)
      return {
        held: Exit.isSuccess(exit),
        seen: Exit.isSuccess(exit)
          ? "the next query of the connection is unharmed"
          : `another fiber's query is killed: ${ending(exit)}`
      }
    })
}

const interruptedInTurn: Row = {
  number: 15,
  what: "interruption of a statement that waits behind another one of its transaction",
  run: ({ connect, lock }) =>
    Effect.gen(function* () {
      const sql = yield* connect(2)
      const { awaited, release } = yield* lock(1)
      const exit = yield* Effect.gen(function* () {
        const running = yield* Effect.fork(sql`SELECT pg_advisory_xact_lock(1)`)
        yield* awaited(1)
        const behind = yield* Effect.fork(sql`SELECT 1`)
        yield* suspended(behind)
        yield* Fiber.interrupt(behind)
        yield* release
        yield* Fiber.join(running)
      }).pipe(sql.withTransaction, Effect.exit)
      return {
        held: Exit.isSuccess(exit),
        seen: Exit.isSuccess(exit) ? "interruption, and nothing else" : `surfaces as ${ending(exit)} in the other one`
      }
    })
}

export const rows: ReadonlyArray<Row> = [slotLost, transactionWaits, queriesRun, cancelHitsAnother, interruptedInTurn]
