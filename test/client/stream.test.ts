/** Streams: rows in portions, at the reader's pace, and the connection back however the reading ends. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Chunk, Deferred, Effect, Exit, Fiber, Ref, Stream } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, proxied } from "./support.js"

/** Rows that the layer fetches at a time, as the bare client does. */
const portion = 128

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Streams", (it) => {
  it.scoped("100,000 rows come in order, and never more of them than the reader has asked for, and a portion", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({ url, maxConnections: 1 })
      const kilobyte = 1_000
      const rows = sql<{
        n: number
      }>`SELECT n, repeat('x', ${kilobyte}::int) AS filling FROM generate_series(1, 100000) AS n`.stream
      const read = yield* Ref.make(0)
      const excess = yield* Ref.make(0)
      yield* rows.pipe(
        Stream.chunks,
        Stream.runForEach((chunk) =>
          Effect.gen(function* () {
            const before = yield* read
            assert.deepStrictEqual(
              Arr.map(Chunk.toReadonlyArray(chunk), ({ n }) => n),
              Arr.range(before + 1, before + chunk.length)
            )
            const after = before + chunk.length
            yield* Ref.set(read, after)
            const { bytesToClient } = yield* proxy.stats
            yield* Ref.update(excess, (most) => Math.max(most, bytesToClient - after * kilobyte))
          })
        )
      )
      assert.strictEqual(yield* read, 100_000)
      // What a row has beside its filling is part of the excess, too: less than 30 bytes.
      assert.isBelow(yield* excess, portion * kilobyte + 100_000 * 30)
      assert.strictEqual((yield* pool).idle, 1)
    })
  )

  it.scoped("a reader who stops early gets no more, costs no cancel, and gives the connection back", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pid, pool, sql } = yield* clientOf({ url, maxConnections: 1 })
      const before = yield* pid
      const rows = sql<{ n: number }>`SELECT n FROM generate_series(1, 1000000) AS n`.stream
      for (const count of [0, 1, portion, portion + 1, 5 * portion]) {
        const taken = yield* Stream.runCollect(Stream.take(rows, count))
        assert.deepStrictEqual(
          Chunk.toReadonlyArray(taken).map(({ n }) => n),
          Arr.makeBy(count, (i) => i + 1).slice(0, count)
        )
        assert.strictEqual(yield* pid, before)
      }
      assert.strictEqual((yield* proxy.stats).cancelRequests, 0)
      assert.isBelow((yield* proxy.stats).bytesToClient, 1_000_000)
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
    })
  )

  it.scoped("a reader interrupted between two portions gives the connection back", () =>
    Effect.gen(function* () {
      const { pid, sql } = yield* clientOf({ maxConnections: 1 })
      const before = yield* pid
      const reading = yield* Deferred.make<void>()
      const reader = yield* Effect.fork(
        Stream.runForEach(sql`SELECT n FROM generate_series(1, 1000) AS n`.stream, () =>
          Effect.zipRight(Deferred.succeed(reading, undefined), Effect.never)
        )
      )
      yield* Deferred.await(reading)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(reader)))
      assert.strictEqual(yield* pid, before)
    })
  )

  it.scoped("a reader that leaves while the network is black is not held up, and the pool is whole without it", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pid, sql } = yield* clientOf({ url, maxConnections: 1 })
      const before = yield* pid
      const left = yield* Stream.runCount(
        Stream.tap(Stream.take(sql`SELECT generate_series(1, 1000)`.stream, 1), () =>
          proxy.blackHole({ existing: true })
        )
      )
      assert.strictEqual(left, 1)
      // The old connection is still in the dark.
      assert.notStrictEqual(yield* pid, before)
    })
  )

  it.scoped("rows before a failure arrive, then the failure with its tag, and the connection serves again", () =>
    Effect.gen(function* () {
      const { pid, sql } = yield* clientOf({ maxConnections: 1 })
      const before = yield* pid
      const read = yield* Ref.make(0)
      const error = yield* failure(
        Stream.runForEach(sql`SELECT 1 / (300 - n) FROM generate_series(1, 1000) AS n`.stream, () =>
          Ref.update(read, (n) => n + 1)
        )
      )
      assert.strictEqual(error.sqlState, "22012")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.strictEqual(yield* read, 2 * portion)
      assert.strictEqual(yield* pid, before)
    })
  )

  it.scoped(
    "a connection lost between two portions fails the stream, which never starts again from the beginning",
    () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        const { sql } = yield* clientOf({ maxConnections: 1 })
        const read = yield* Ref.make<ReadonlyArray<number>>([])
        const error = yield* failure(
          Stream.runForEach(
            sql<{ n: number; pid: number }>`SELECT n, pg_backend_pid() AS pid FROM generate_series(1, 1000) AS n`
              .stream,
            ({ n, pid }) =>
              Effect.zipRight(Ref.update(read, Arr.append(n)), n === 10 ? server.terminate(pid) : Effect.void)
          )
        )
        assert.include(["ConnectionError", "ServerUnavailableError"], error._tag)
        assert.strictEqual(error.outcome, "NotApplied")
        const seen = yield* read
        assert.deepStrictEqual(seen, Arr.range(1, seen.length))
        assert.lengthOf(yield* sql`SELECT 1`, 1)
      })
  )

  it.scoped("in a transaction a stream goes on beside updates, nested transactions and other streams of it", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { sql } = yield* clientOf({ url })
      yield* sql`CREATE TABLE numbers AS SELECT n, 0 AS seen FROM generate_series(1, 400) AS n`
      const rows = sql<{ n: number }>`SELECT n FROM numbers ORDER BY n`.stream
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* Stream.runForEach(rows, ({ n }) =>
            Effect.gen(function* () {
              yield* sql`UPDATE numbers SET seen = seen + 1 WHERE n = ${n}`
              if (n % 100 === 0) {
                const undone = sql.withTransaction(
                  Effect.zipRight(sql`UPDATE numbers SET seen = 99`, Effect.fail("undone"))
                )
                yield* Effect.flip(undone)
                assert.lengthOf(yield* Stream.runCollect(Stream.take(rows, 3)), 3)
                assert.strictEqual(yield* Stream.runCount(rows), 400)
              }
            })
          )
          assert.deepStrictEqual(
            yield* Effect.all([Stream.runCount(rows), Stream.runCount(rows)], { concurrency: 2 }),
            [400, 400]
          )
        })
      )
      assert.deepStrictEqual(yield* sql`SELECT seen, count(*)::int FROM numbers GROUP BY seen`, [
        { seen: 1, count: 400 }
      ])
    })
  )

  it.scoped("a table that was streamed, to the end or in part, can be altered in the same transaction", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { sql } = yield* clientOf({ url })
      yield* sql`CREATE TABLE numbers AS SELECT n FROM generate_series(1, 1000) AS n`
      const rows = sql`SELECT n FROM numbers`.stream
      yield* sql.withTransaction(
        Effect.gen(function* () {
          assert.strictEqual(yield* Stream.runCount(rows), 1_000)
          assert.strictEqual(yield* Stream.runCount(Stream.take(rows, 10)), 10)
          yield* sql`ALTER TABLE numbers ADD COLUMN more int`
        })
      )
    })
  )

  it.scoped("a slow reader is not cut off by the server's limit on idle transactions", () =>
    Effect.gen(function* () {
      const { pid, sessions, sql } = yield* clientOf({ serverTimeouts: { idleInTransaction: "50 millis" } })
      const count = yield* sql`SELECT n FROM generate_series(1, 400) AS n`.stream.pipe(
        Stream.chunks,
        Stream.tap(() => TestPg.control("SELECT pg_sleep(0.3)")),
        Stream.runFold(0, (sum, chunk) => sum + chunk.length)
      )
      assert.strictEqual(count, 400)
      // Which does hold for other transactions.
      const idle = Effect.flatMap(pid, (pid) =>
        TestPg.eventually(sessions, (all) => all.every((session) => session.pid !== pid))
      )
      const error = yield* failure(sql.withTransaction(idle))
      assert.strictEqual(error._tag, "ConnectionError")
      assert.strictEqual(error.sqlState, "25P03")
    })
  )

  it.scoped("the server's limit on statements holds for each portion, not for the whole stream", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf({ serverTimeouts: { statement: "2 seconds" } })
      const began = performance.now()
      const rows = sql`SELECT CASE WHEN n % 128 = 0 THEN pg_sleep(0.3) END FROM generate_series(1, 1024) AS n`.stream
      assert.strictEqual(yield* Stream.runCount(rows), 8 * portion)
      assert.isAbove(performance.now() - began, 2_000)
      const error = yield* failure(Stream.runDrain(sql`SELECT pg_sleep(600)`.stream))
      assert.strictEqual(error._tag, "StatementTimeoutError")
    })
  )
})
