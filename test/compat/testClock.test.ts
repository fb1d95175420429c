/**
 * A program under test: `it.effect` with the layer provided inside, so that everything of the program runs on `TestClock`.
 * What works must work without moving the clock; what ends by a deadline must end when the clock is moved onto it.
 */

import { Migrator, SqlClient, SqlSchema } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import {
  Array as Arr,
  Chunk,
  Clock,
  Context,
  DefaultServices,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberRef,
  Inspectable,
  Layer,
  Logger,
  Ref,
  Schema,
  type Scope,
  Stream,
  TestClock,
  TestLive,
  TestServices
} from "effect"
import { Operation, type PgError, ResilientPg, Transaction } from "effect-pg-resilience"
import type { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { ours } from "./support.js"

const Numbers = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE numbers (n int PRIMARY KEY, word text)`)

/** The program's own statement in flight on the server, as somebody else sees it. */
const running = (text: string, count = 1) =>
  TestPg.eventually(
    TestPg.control("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = $1", [text]),
    ({ length }) => length === count,
    { message: `"${text}" is not running ${count} times` }
  )
const gone = (text: string) => running(text, 0)

/** The failure of a statement, or of an operation, as the caller sees it. */
const failure = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(self), (error) => ((error as any).cause ?? error) as PgError.PgError)

/** Asserts that the effect ends although nobody moves the clock. */
const still = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = yield* Clock.currentTimeMillis
    const value = yield* self
    assert.strictEqual(yield* Clock.currentTimeMillis, before)
    return value
  })

const pool = Effect.flatMap(ResilientPg.ResilientPg, ({ pool }) => pool)

layer(TestPg.layer, { timeout: "60 seconds" })("A program under TestClock", (it) => {
  it.scoped("runs statements of every kind without anybody moving the clock", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const find = SqlSchema.findAll({
        Request: Schema.Number,
        Result: Schema.Struct({ n: Schema.Number }),
        execute: (above) => sql`SELECT n FROM numbers WHERE n > ${above} ORDER BY n`
      })
      const migrate = Migrator.make({})({ loader: Migrator.fromRecord({ "1_numbers": Numbers }) })
      const seen = yield* still(
        Effect.gen(function* () {
          yield* migrate
          yield* sql`INSERT INTO numbers ${sql.insert([{ n: 1 }, { n: 2 }])}`
          const streamed = yield* Stream.runCollect(
            sql<{ n: number }>`SELECT n FROM generate_series(1, 1000) AS n`.stream
          )
          const reserved = yield* Effect.scoped(
            Effect.flatMap(sql.reserve, (connection) => connection.executeValues("SELECT 1", []))
          )
          const failed = yield* failure(sql`INSERT INTO numbers ${sql.insert({ n: 1 })}`)
          return [yield* find(1), streamed.length, reserved, failed._tag, yield* sql`SELECT 1`.values] as const
        })
      )
      assert.deepStrictEqual(seen, [[{ n: 2 }], 1000, [[1]], "UniqueViolation", [[1]]])
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("commits, rolls back and nests transactions without anybody moving the clock", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const insert = (n: number) => sql`INSERT INTO numbers ${sql.insert({ n })}`
      yield* Numbers
      const stored = yield* still(
        Effect.gen(function* () {
          yield* sql.withTransaction(Effect.zipRight(insert(1), sql.withTransaction(insert(2))))
          yield* Effect.ignore(sql.withTransaction(Effect.zipRight(insert(3), Effect.fail("no"))))
          yield* Transaction.run(Effect.zipRight(insert(4), Effect.ignore(sql.withTransaction(insert(1)))))
          yield* Transaction.serializable(insert(5), { name: "five" })
          yield* sql.withTransaction(
            // Levels that wait for each other: whoever comes second waits for the first to end.
            Effect.all([sql.withTransaction(insert(6)), insert(7), sql.withTransaction(insert(8))], {
              concurrency: "unbounded"
            })
          )
          return yield* sql<{ n: number }>`SELECT n FROM numbers ORDER BY n`
        })
      )
      assert.deepStrictEqual(
        stored.map(({ n }) => n),
        [1, 2, 4, 5, 6, 7, 8]
      )
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("shares few connections among many fibers, cancels and closes, without anybody moving the clock", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const answers = yield* still(
        Effect.gen(function* () {
          const numbers = yield* Effect.forEach(
            Arr.range(1, 50),
            (n) => Effect.map(sql<{ n: number }>`SELECT ${n}::int AS n`, ([row]) => row!.n),
            { concurrency: "unbounded" }
          )
          const text = "SELECT pg_sleep(60)"
          const fiber = yield* Effect.fork(sql.unsafe(text))
          yield* running(text)
          const exit = yield* Fiber.interrupt(fiber)
          yield* gone(text)
          yield* TestPg.eventually(pool, ({ quarantined, used }) => quarantined + used === 0)
          return { numbers, interrupted: Exit.isInterrupted(exit) }
        })
      )
      assert.deepStrictEqual(answers, { numbers: Arr.range(1, 50), interrupted: true })
    }).pipe(Effect.provide(ours({ maxConnections: 2 })), still)
  )

  it.scoped("listens and notifies without anybody moving the clock", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const seen = yield* still(
        Effect.gen(function* () {
          const heard = yield* Deferred.make<string>()
          const fiber = yield* sql.listen("news").pipe(
            Stream.runForEach((payload) => Deferred.succeed(heard, payload)),
            Effect.fork
          )
          const again = TestPg.eventually(
            Effect.zipRight(sql.notify("news", "hello"), Deferred.isDone(heard)),
            (done) => done
          )
          yield* again
          yield* Fiber.interrupt(fiber)
          return yield* Deferred.await(heard)
        })
      )
      assert.strictEqual(seen, "hello")
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("closes the layer while the clock stands still, also with work in flight", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const text = "SELECT pg_sleep(61)"
      const fiber = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const fiber = yield* Effect.forkDaemon(failure(sql.unsafe(text)))
        yield* running(text)
        return fiber
      }).pipe(Effect.provide(ResilientPg.layer({ url, closeGrace: "100 millis" })), still)
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error.phase, "Execute")
      yield* gone(text)
    })
  )

  it.scoped("ends an operation when the clock reaches its deadline, and not a millisecond before", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const text = "SELECT pg_sleep(62)"
      for (const [options, limit] of [
        [{}, 5_000],
        [{ kind: "complex" }, 30_000],
        [{ kind: { batch: 100 } }, 6_000],
        [{ timeout: "90 seconds" }, 90_000]
      ] as const) {
        const fiber = yield* Effect.fork(
          failure(Operation.named("slow", { ...options, readOnly: true })(sql.unsafe(text)))
        )
        yield* running(text)
        yield* TestClock.adjust(limit - 1)
        assert.isNull(fiber.unsafePoll())
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error._tag, "QueryTimeoutError")
        assert.strictEqual(error.operation, "slow")
        yield* gone(text)
      }
      assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("ends a transaction when the clock reaches its deadline, and leaves nothing of it", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const text = "SELECT pg_sleep(63)"
      yield* Numbers
      const work = Effect.zipRight(sql`INSERT INTO numbers ${sql.insert({ n: 1 })}`, sql.unsafe(text))
      const fiber = yield* Effect.fork(failure(Transaction.run(work)))
      yield* running(text)
      yield* TestClock.adjust(29_999)
      assert.isNull(fiber.unsafePoll())
      yield* TestClock.adjust(1)
      const error = yield* Fiber.join(fiber)
      assert.deepStrictEqual([error._tag, error.outcome], ["QueryTimeoutError", "NotApplied"])
      yield* gone(text)
      assert.deepStrictEqual(yield* sql`SELECT * FROM numbers`, [])
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("ends the wait for a connection when the clock reaches acquireTimeout", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* sql.reserve
          const fiber = yield* Effect.fork(failure(sql`SELECT 1`))
          yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
          yield* TestClock.adjust("29999 millis")
          assert.isNull(fiber.unsafePoll())
          yield* TestClock.adjust("1 millis")
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "PoolTimeoutError")
        })
      )
      assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
    }).pipe(Effect.provide(ours({ maxConnections: 1 })))
  )

  it.scoped("waits on the clock before it repeats, and repeats when the clock has moved", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE SEQUENCE tries`
      yield* sql`
        CREATE FUNCTION third_time() RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
          IF nextval('tries') < 3 THEN RAISE EXCEPTION 'conflict' USING ERRCODE = 'serialization_failure'; END IF;
          RETURN currval('tries');
        END $$`
      const tries = Effect.map(sql<{ n: number }>`SELECT last_value::int AS n FROM tries`, ([row]) => row!.n)
      // Full jitter: 0 to 10 ms, then 0 to 20 ms. The program sleeps, and only the clock wakes it.
      const jitter = [7, 13] as const
      const fiber = yield* Effect.fork(Effect.withRandomFixed(sql`SELECT third_time()::int AS n`, [...jitter]))
      for (const [i, delay] of jitter.entries()) {
        const wakes = (yield* Clock.currentTimeMillis) + delay
        yield* TestPg.eventually(
          TestClock.sleeps(),
          Chunk.some((at) => at === wakes)
        )
        assert.strictEqual(yield* tries, i + 1)
        yield* TestClock.adjust(delay)
      }
      assert.deepStrictEqual(yield* Fiber.join(fiber), [{ n: 3 }])
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("replaces connections that grow old when the clock is moved, and goes on", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const pid = Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) => row!.pid)
      const first = yield* pid
      assert.strictEqual(yield* pid, first)
      yield* TestClock.adjust("1 hour")
      yield* TestPg.eventually(pool, ({ total }) => total === 0)
      assert.notStrictEqual(yield* still(pid), first)
    }).pipe(Effect.provide(ours()))
  )

  /**
   * What is logged about a program that uses time without moving the clock. The warning comes after five seconds: here
   * those of a second `TestClock`, which is moved by a minute when the program has ended.
   */
  const warnings = <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const logged = yield* Ref.make<ReadonlyArray<string>>([])
      const services = yield* FiberRef.get(DefaultServices.currentServices)
      const clock = TestClock.defaultTestClock.pipe(
        Layer.provide([Layer.succeed(TestLive.TestLive, TestLive.make(services)), TestServices.annotationsLayer()])
      )
      const logger = Logger.make(({ message }) => {
        Effect.runSync(Ref.update(logged, Arr.append(Inspectable.toStringUnknown(message))))
      })
      const ended = yield* Deferred.make<void, E>()
      const fiber = yield* Effect.scoped(
        Effect.zipRight(Effect.intoDeferred(Effect.asVoid(self), ended), Effect.never)
      ).pipe(Effect.provide(clock), Effect.provide(Logger.add(logger)), Effect.fork)
      yield* Deferred.await(ended)
      yield* TestClock.adjust("1 minute")
      const seen = yield* Ref.get(logged)
      yield* Fiber.interrupt(fiber)
      return seen.filter((message) => message.includes("not advancing the test clock"))
    })

  it.scoped("is not warned of a clock that nobody moves", () =>
    Effect.gen(function* () {
      // The warning is seen where it belongs.
      assert.lengthOf(yield* warnings(Effect.fork(Effect.sleep("1 day"))), 1)
      type Program = (
        sql: PgClient.PgClient
      ) => Effect.Effect<unknown, unknown, Scope.Scope | EmbeddedPostgres.EmbeddedPostgres>
      const programs: Record<string, Program> = {
        "a first statement": (sql) => sql`SELECT 1`,
        "a crowd": (sql) => Effect.all(Effect.replicate(sql`SELECT pg_sleep(0.01)`, 20), { concurrency: "unbounded" }),
        "a transaction": (sql) =>
          sql.withTransaction(
            Effect.all(Effect.replicate(sql.withTransaction(sql`SELECT 1`), 3), { concurrency: "unbounded" })
          ),
        "a stream": (sql) => Stream.runDrain(sql`SELECT n FROM generate_series(1, 1000) AS n`.stream),
        "an operation": (sql) => Operation.named("one")(sql`SELECT 1`),
        "a listener": (sql) => Effect.forkScoped(Stream.runDrain(sql.listen("news"))),
        "an interruption": (sql) =>
          Effect.flatMap(Effect.fork(sql`SELECT pg_sleep(60)`), (fiber) =>
            Effect.zipRight(running("SELECT pg_sleep(60)"), Fiber.interrupt(fiber))
          )
      }
      for (const [name, program] of Object.entries(programs)) {
        const run = Effect.flatMap(Layer.build(ours({ maxConnections: 2 })), (context) =>
          program(Context.get(context, PgClient.PgClient))
        )
        assert.deepStrictEqual([name, yield* warnings(run)], [name, []])
      }
    })
  )
})
