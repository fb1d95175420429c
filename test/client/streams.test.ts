/** Streams: what becomes of writes in them, of a reader that leaves, and of who holds the connection beside and after them. */
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

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Streams, and who is beside them", (it) => {
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
      const ends: ReadonlyArray<Effect.Effect<void, string>> = [Effect.void, Effect.fail("its own"), Effect.interrupt]
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
      assert.strictEqual<unknown>(error, "undone")
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
