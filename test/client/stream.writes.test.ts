/** Streams of what writes: applied once and as a whole, or as far as it was read. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Ref, Stream } from "effect"
import * as TestPg from "../support/TestPg.js"
import { keeping } from "./kept.js"
import { failure, hold } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Streams of writes", (it) => {
  it.scoped("a write with RETURNING is applied once, read to its end or left at the first row", () =>
    Effect.gen(function* () {
      const { kept, sql } = yield* keeping({ maxConnections: 1 })
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
      const { sql, url } = yield* keeping({ maxConnections: 1 })
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
      const { kept, pid, sql, url } = yield* keeping({ maxConnections: 1 })
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

  it.scoped("what is no query is executed whole when streamed, so that it needs no transaction", () =>
    Effect.gen(function* () {
      const { kept, sql } = yield* keeping({ maxConnections: 1 })
      const { connection, release } = yield* hold(sql)
      const stream = (text: string) => Stream.runCollect(connection.executeStream(text, [], undefined))
      assert.lengthOf(yield* stream("INSERT INTO kept SELECT generate_series(1, 3) RETURNING n"), 3)
      assert.lengthOf(yield* stream("VACUUM kept"), 0)
      yield* release
      assert.deepStrictEqual(yield* kept, [1, 2, 3])
    })
  )
})
