/** Streams: rows in portions, what becomes of them when the reader leaves, and of what is beside them. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber, Ref, Stream } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { heldUp, turns } from "./heldUp.js"
import { clientOf, failure, hold } from "./support.js"

/** A client of one connection, through a proxy, with an empty table `kept (n)` in a database of its own. */
const fixture = (options: Parameters<typeof clientOf>[0] = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control("CREATE TABLE kept (n int PRIMARY KEY)", [], url)
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.make({ upstream: server.config })
    const client = yield* clientOf({ url: proxy.url(url), maxConnections: 1, ...options })
    const kept = Effect.map(
      TestPg.control<{ n: number }>("SELECT n FROM kept ORDER BY n", [], url),
      Arr.map(({ n }) => n)
    )
    return { ...client, kept, proxy, url }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Streams", (it) => {
  it.scoped("100,000 rows come in order, and no more of them than the reader asks for", () =>
    Effect.gen(function* () {
      const { proxy, sql } = yield* fixture()
      yield* sql`SELECT 1`
      const paused = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const rows = sql<{ n: number }>`SELECT n, repeat('x', 100) AS filler FROM generate_series(1, 100000) n`.stream
      const fiber = yield* Effect.fork(
        Stream.runFoldEffect(rows, 0, (last, { n }) =>
          n === 1
            ? Effect.as(Effect.zipRight(Deferred.succeed(paused, undefined), Deferred.await(goOn)), n)
            : Effect.sync(() => {
                if (n !== last + 1) throw new Error(`${n} after ${last}`)
                return n
              })
        )
      )
      yield* Deferred.await(paused)
      // The time in which a reader that does not ask would have had them all.
      yield* TestPg.control("SELECT pg_sleep(0.3)")
      const { bytesToClient: atFirst } = yield* proxy.stats
      yield* Deferred.succeed(goOn, undefined)
      assert.strictEqual(yield* Fiber.join(fiber), 100_000)
      const { bytesToClient: inAll } = yield* proxy.stats
      assert.isAbove(inAll, 10_000_000)
      assert.isBelow(atFirst, inAll / 100)
    })
  )

  it.scoped("a stream left early leaves its connection idle, and no transaction on it", () =>
    Effect.gen(function* () {
      const { pid, pool, sessions, sql } = yield* fixture()
      const before = yield* pid
      for (const count of [1, 128, 129, 1_000]) {
        const rows = yield* Stream.runCollect(
          Stream.take(sql<{ n: number }>`SELECT generate_series(1, 1000) AS n`.stream, count)
        )
        assert.lengthOf(rows, count)
        yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
        yield* TestPg.eventually(sessions, ([session]) => session?.state === "idle")
      }
      assert.strictEqual(yield* pid, before)
    })
  )

  it.scoped("a failure of the server midway ends the stream with its tag, after the rows before it", () =>
    Effect.gen(function* () {
      const { pid, sql } = yield* fixture()
      const before = yield* pid
      const seen = yield* Ref.make(0)
      const error = yield* failure(
        Stream.runForEach(sql`SELECT 1 / (300 - n) FROM generate_series(1, 1000) n`.stream, () =>
          Ref.update(seen, (n) => n + 1)
        )
      )
      assert.strictEqual(error.sqlState, "22012")
      assert.strictEqual(yield* Ref.get(seen), 256)
      assert.strictEqual(yield* pid, before)
    })
  )

  it.scoped("a write with RETURNING is applied once, read to its end or left at the first row", () =>
    Effect.gen(function* () {
      const { kept, sql } = yield* fixture()
      const insert = (from: number) =>
        sql<{ n: number }>`INSERT INTO kept SELECT generate_series(${from}::int, ${from + 299}::int) RETURNING n`.stream
      assert.lengthOf(yield* Stream.runCollect(insert(1)), 300)
      assert.deepStrictEqual(yield* kept, Arr.range(1, 300))
      assert.lengthOf(yield* Stream.runCollect(Stream.take(insert(301), 1)), 1)
      assert.deepStrictEqual(yield* kept, Arr.range(1, 600))
    })
  )

  it.scoped("a write with RETURNING that is refused when it commits gives no row, and the refusal", () =>
    Effect.gen(function* () {
      const { sql, url } = yield* fixture()
      yield* TestPg.control("CREATE TABLE child (n int REFERENCES kept DEFERRABLE INITIALLY DEFERRED)", [], url)
      for (const count of [1, 1_000]) {
        const rows = yield* Ref.make(0)
        const error = yield* failure(
          Stream.runForEach(
            Stream.take(sql`INSERT INTO child SELECT generate_series(1, 3) RETURNING n`.stream, count),
            () => Ref.update(rows, (n) => n + 1)
          )
        )
        assert.strictEqual(error._tag, "ConstraintError")
        assert.strictEqual(error.outcome, "NotApplied")
        assert.strictEqual(yield* Ref.get(rows), 0)
        assert.deepStrictEqual(yield* sql`SELECT n FROM child`, [])
      }
    })
  )

  it.scoped("a query with side effects that is left early keeps those of the rows that were read", () =>
    Effect.gen(function* () {
      const { kept, pid, sql, url } = yield* fixture()
      yield* TestPg.control(
        `CREATE SEQUENCE numbers;
         CREATE FUNCTION keep(n int) RETURNS int LANGUAGE sql AS 'INSERT INTO kept VALUES (n) RETURNING n'`,
        [],
        url
      )
      const before = yield* pid
      const first = <A, E>(stream: Stream.Stream<A, E>) => Stream.runCollect(Stream.take(stream, 2))
      yield* first(sql`SELECT keep(nextval('numbers')::int) FROM generate_series(1, 1000)`.stream)
      yield* TestPg.eventually(kept, (rows) => rows.length > 0)
      assert.includeMembers([...(yield* kept)], [1, 2])
      yield* first(sql`SELECT nextval('numbers') FROM generate_series(1, 1000)`.stream)
      const [next] = yield* sql<{ n: number }>`SELECT nextval('numbers')::int AS n`
      assert.isAtLeast(next!.n, (yield* kept).length + 3)
      assert.strictEqual(yield* pid, before)
    })
  )

  it.scoped("a reader that leaves while the network is black is not held up, and the pool is whole without it", () =>
    Effect.gen(function* () {
      const { pid, proxy, sql } = yield* fixture()
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

  it.scoped("in a transaction the table of a stream, left early or read to its end, can be altered", () =>
    Effect.gen(function* () {
      const { sql } = yield* fixture()
      yield* sql`INSERT INTO kept SELECT generate_series(1, 1000)`
      for (const [column, count] of [
        ["a", 5],
        ["b", 1_000],
        ["c", 1_001]
      ] as const) {
        const rows = yield* sql.withTransaction(
          Effect.zipLeft(
            Stream.runCount(Stream.take(sql`SELECT n FROM kept`.stream, count)),
            sql`ALTER TABLE kept ADD COLUMN ${sql(column)} int`
          )
        )
        assert.strictEqual(rows, Math.min(count, 1_000))
      }
      assert.deepStrictEqual(yield* sql`SELECT * FROM kept WHERE n = 1`, [{ n: 1, a: null, b: null, c: null }])
    })
  )

  it.scoped("on a reserved connection rows come in portions, too, and other statements wait for the stream's end", () =>
    Effect.gen(function* () {
      const { kept, proxy, sql } = yield* fixture()
      const count = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* sql.reserve
          return yield* Stream.runCount(connection.executeStream("SELECT generate_series(1, 1000)", [], undefined))
        })
      )
      assert.strictEqual(count, 1_000)
      // However the stream ends, what waited for it is stored.
      const ends = [Effect.void, Effect.fail("the reader's own"), Effect.interrupt]
      for (const [index, end] of ends.entries()) {
        const { connection, release } = yield* hold(sql)
        const reading = yield* Deferred.make<void>()
        const goOn = yield* Deferred.make<void>()
        const reader = yield* Effect.fork(
          Stream.runForEach(connection.executeStream("SELECT generate_series(1, 1000)", [], undefined), () =>
            Effect.zipRight(Deferred.succeed(reading, undefined), Effect.zipRight(Deferred.await(goOn), end))
          )
        )
        yield* Deferred.await(reading)
        const { bytesToServer } = yield* proxy.stats
        const beside = yield* Effect.fork(connection.execute("INSERT INTO kept VALUES ($1)", [index], undefined))
        yield* turns
        assert.isNull((beside as Fiber.RuntimeFiber<unknown, unknown>).unsafePoll())
        assert.strictEqual((yield* proxy.stats).bytesToServer, bytesToServer)
        yield* Deferred.succeed(goOn, undefined)
        assert.strictEqual(Exit.isSuccess(yield* Fiber.await(reader)), index === 0)
        yield* Fiber.join(beside)
        assert.deepStrictEqual(yield* kept, Arr.range(0, index))
        yield* release
      }
    })
  )

  it.scoped("a stream that outlives its reserved connection says nothing on the connection's next holder", () =>
    Effect.gen(function* () {
      const { kept, sql } = yield* fixture()
      const reading = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const { connection, release } = yield* hold(sql)
      const outliving = yield* Effect.fork(
        Stream.runForEach(connection.executeStream("SELECT 1, clock_timestamp()", [], undefined), () =>
          Effect.zipRight(Deferred.succeed(reading, undefined), Deferred.await(goOn))
        )
      )
      yield* Deferred.await(reading)
      yield* release
      const error = yield* Effect.flip(
        sql.withTransaction(
          Effect.gen(function* () {
            yield* sql`INSERT INTO kept VALUES (1)`
            yield* Deferred.succeed(goOn, undefined)
            // All rows were there: only the end of the stream was still to be said.
            assert.strictEqual((yield* failure(Fiber.join(outliving)))._tag, "TransactionAbortedError")
            return yield* Effect.fail("undone")
          })
        )
      )
      assert.strictEqual(error, "undone")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped(
    "a stream on a reserved connection that is interrupted at any moment leaves no transaction open on it",
    () =>
      Effect.gen(function* () {
        const { kept, sql } = yield* fixture()
        const { connection, release } = yield* hold(sql)
        let operations = 1
        for (let more = true; more; operations++) {
          const stream = yield* heldUp(
            Stream.runDrain(connection.executeStream("SELECT generate_series(1, 3)", [], undefined))
          )
          stream.holdAfter(operations)
          const reader = yield* Effect.fork(stream.effect)
          more = yield* stream.happened
          yield* Fiber.interruptFork(reader)
          yield* stream.letGo
          yield* Fiber.await(reader)
          yield* connection.execute("INSERT INTO kept VALUES ($1)", [operations], undefined)
        }
        yield* release
        assert.isAbove(operations, 100)
        assert.deepStrictEqual(yield* kept, Arr.range(1, operations - 1))
      })
  )

  it.scoped("what is no query is executed whole when streamed, so that it needs no transaction", () =>
    Effect.gen(function* () {
      const { kept, sql } = yield* fixture()
      const { connection, release } = yield* hold(sql)
      const stream = (text: string) => Stream.runCollect(connection.executeStream(text, [], undefined))
      assert.lengthOf(yield* stream("INSERT INTO kept SELECT generate_series(1, 3) RETURNING n"), 3)
      assert.lengthOf(yield* stream("VACUUM kept"), 0)
      yield* release
      assert.deepStrictEqual(yield* kept, [1, 2, 3])
    })
  )
})
