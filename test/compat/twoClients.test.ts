/** Two clients in one program: each statement runs on its own client's database, whatever transaction is around it. */

import { type SqlClient, SqlResolver, SqlSchema } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Context, Deferred, Effect, Exit, Fiber, Layer, Schema, Stream } from "effect"
import { type PgError, ResilientPg, Transaction } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"

const setup = "CREATE TABLE log (n serial PRIMARY KEY, word text UNIQUE NOT NULL)"

/** A database and one of our clients on it. `stored` looks past the client. */
const client = (options: ResilientPg.Options = {}) =>
  Effect.gen(function* () {
    const { name, url } = yield* TestPg.database
    yield* TestPg.control(setup, [], url)
    const context = yield* Layer.build(ResilientPg.layer({ url, ...options }))
    const sql = Context.get(context, PgClient.PgClient)
    const { pool } = Context.get(context, ResilientPg.ResilientPg)
    const words = TestPg.control<{ word: string }>("SELECT word FROM log ORDER BY n", [], url)
    return {
      name,
      sql,
      context,
      pool,
      log: (word: string) => sql`INSERT INTO log ${sql.insert({ word })}`,
      database: Effect.map(sql<{ name: string }>`SELECT current_database() AS name`, ([row]) => row!.name),
      pid: Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) => row!.pid),
      stored: Effect.map(
        words,
        Arr.map(({ word }) => word)
      )
    }
  })

const clients = Effect.all({ a: client(), b: client() })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Two clients in one program", (it) => {
  it.scoped("a statement of B within a transaction of A runs on B, outside of A's transaction", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      const seen = yield* a.sql.withTransaction(
        Effect.gen(function* () {
          yield* a.log("in A")
          yield* b.log("in B")
          // Autocommitted: there for everyone before A's transaction ends.
          assert.deepStrictEqual(yield* b.stored, ["in B"])
          assert.deepStrictEqual(yield* a.stored, [])
          return [yield* a.database, yield* b.database]
        })
      )
      assert.deepStrictEqual(seen, [a.name, b.name])
      assert.deepStrictEqual(yield* a.stored, ["in A"])
    })
  )

  it.scoped("a rollback of A leaves what B did, and the other way round", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      const failing = <A, E>(self: Effect.Effect<A, E>) => Effect.zipRight(self, Effect.fail("no"))
      yield* Effect.flip(a.sql.withTransaction(failing(Effect.zipRight(a.log("lost"), b.log("kept")))))
      yield* Effect.flip(b.sql.withTransaction(failing(Effect.zipRight(b.log("lost"), a.log("kept")))))
      assert.deepStrictEqual(yield* a.stored, ["kept"])
      assert.deepStrictEqual(yield* b.stored, ["kept"])
    })
  )

  it.scoped("transactions inside each other are two transactions, in both orders", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      for (const [outer, inner] of [
        [a, b],
        [b, a]
      ] as const) {
        const error = yield* Effect.flip(
          outer.sql.withTransaction(
            Effect.gen(function* () {
              yield* outer.log("outer")
              yield* inner.sql.withTransaction(Effect.zipRight(inner.log("inner"), outer.log("outer from inner")))
              assert.include(yield* inner.stored, "inner")
              return yield* Effect.fail("no")
            })
          )
        )
        assert.strictEqual(error, "no")
      }
      assert.deepStrictEqual(yield* a.stored, ["inner"])
      assert.deepStrictEqual(yield* b.stored, ["inner"])
    })
  )

  it.scoped("the failure of an inner transaction of B rolls B back, and A only if the program lets it", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      const inner = b.sql.withTransaction(Effect.zipRight(b.log("x"), b.log("x")))
      yield* a.sql.withTransaction(Effect.zipRight(a.log("caught"), Effect.flip(inner)))
      const error = yield* Effect.flip(a.sql.withTransaction(Effect.zipRight(a.log("not caught"), inner)))
      assert.strictEqual((error.cause as PgError.PgError)._tag, "UniqueViolation")
      assert.deepStrictEqual(yield* a.stored, ["caught"])
      assert.deepStrictEqual(yield* b.stored, [])
    })
  )

  it.scoped("A in B in A: the innermost is a savepoint of the outermost, on its connection", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      yield* a.sql.withTransaction(
        Effect.gen(function* () {
          yield* a.log("outermost")
          const pids = [yield* a.pid, yield* b.pid]
          yield* b.sql.withTransaction(
            Effect.gen(function* () {
              yield* b.log("middle")
              const middle = yield* b.pid
              yield* Effect.ignore(
                a.sql.withTransaction(
                  Effect.gen(function* () {
                    assert.strictEqual(yield* a.pid, pids[0])
                    assert.strictEqual(yield* b.pid, middle)
                    yield* a.log("undone")
                    yield* b.log("middle from innermost")
                    yield* Effect.fail("no")
                  })
                )
              )
              yield* a.sql.withTransaction(
                Effect.gen(function* () {
                  yield* a.log("innermost")
                  // And once more, to and fro.
                  yield* b.sql.withTransaction(Effect.zipRight(b.log("inmost"), a.sql.withTransaction(a.log("inmost"))))
                })
              )
              yield* a.log("after innermost")
            })
          )
          assert.deepStrictEqual(yield* b.stored, ["middle", "middle from innermost", "inmost"])
          assert.deepStrictEqual(yield* a.stored, [])
          yield* a.log("last")
        })
      )
      assert.deepStrictEqual(yield* a.stored, ["outermost", "innermost", "inmost", "after innermost", "last"])
      // One connection each for all of it: nobody waited for a second one, nobody holds one.
      for (const { pool } of [a, b]) {
        const { idle, total } = yield* pool
        assert.deepStrictEqual({ idle, total }, { idle: 1, total: 1 })
      }
    })
  )

  it.scoped("a failed A in B in A leaves A usable, and the failure of the middle leaves A's outer work", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      yield* a.sql.withTransaction(
        Effect.gen(function* () {
          yield* a.log("first")
          const exit = yield* Effect.exit(
            b.sql.withTransaction(
              Effect.zipRight(b.log("lost"), a.sql.withTransaction(Effect.zipRight(a.log("gone"), a.log("first"))))
            )
          )
          assert.isTrue(Exit.isFailure(exit))
          yield* a.log("second")
        })
      )
      assert.deepStrictEqual(yield* a.stored, ["first", "second"])
      assert.deepStrictEqual(yield* b.stored, [])
    })
  )

  it.scoped("many transactions of both clients inside each other never meet", () =>
    Effect.gen(function* () {
      const { a, b } = yield* Effect.all({ a: client({ maxConnections: 4 }), b: client({ maxConnections: 4 }) })
      const names = Arr.range(1, 40)
      yield* Effect.forEach(
        names,
        (n) => {
          const [outer, inner] = n % 2 === 0 ? [a, b] : [b, a]
          const work = outer.sql.withTransaction(
            Effect.gen(function* () {
              yield* outer.log(`outer ${n}`)
              assert.strictEqual(yield* inner.database, inner.name)
              yield* inner.sql.withTransaction(Effect.zipRight(inner.log(`inner ${n}`), outer.database))
              assert.strictEqual(yield* outer.database, outer.name)
              if (n % 5 === 0) yield* Effect.fail("no" as const)
            })
          )
          return Effect.catchIf(
            work,
            (error) => error === "no",
            () => Effect.void
          )
        },
        // Fewer at once than connections: an outer transaction that waits for an inner connection holds one itself.
        { concurrency: 4, discard: true }
      )
      const outers = (even: boolean) =>
        names.filter((n) => (n % 2 === 0) === even && n % 5 !== 0).map((n) => `outer ${n}`)
      const inners = (even: boolean) => names.filter((n) => (n % 2 === 0) === even).map((n) => `inner ${n}`)
      assert.sameMembers([...(yield* a.stored)], [...outers(true), ...inners(false)])
      assert.sameMembers([...(yield* b.stored)], [...outers(false), ...inners(true)])
    })
  )

  it.scoped("streams, resolvers, schemas and Transaction.run of B keep to B within a transaction of A", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      const current = (sql: SqlClient.SqlClient) => sql<{ name: string }>`SELECT current_database()::text AS name`
      const find = SqlSchema.findAll({
        Request: Schema.Void,
        Result: Schema.Struct({ name: Schema.String }),
        execute: () => current(b.sql)
      })
      const resolver = yield* SqlResolver.ordered("Database", {
        Request: Schema.Number,
        Result: Schema.Struct({ name: Schema.String }),
        execute: (requests) =>
          b.sql<{
            name: string
          }>`SELECT current_database()::text AS name FROM generate_series(1, ${requests.length}::int)`
      })
      const seen = yield* a.sql.withTransaction(
        Effect.gen(function* () {
          yield* a.log("in A")
          const run = Transaction.run(Effect.all([b.database, a.database])).pipe(Effect.provide(b.context))
          const streamed = yield* Stream.runCollect(current(b.sql).stream)
          const resolved = yield* Effect.forEach([1, 2], (n) => resolver.execute(n), { batching: true })
          return [...(yield* find()), ...streamed, ...resolved].map(({ name }) => name).concat(yield* run)
        })
      )
      assert.deepStrictEqual(seen, [b.name, b.name, b.name, b.name, b.name, a.name])
    })
  )

  it.scoped("interrupting A's transaction while B's statement runs rolls A back, and leaves both pools whole", () =>
    Effect.gen(function* () {
      const { a, b } = yield* clients
      const reached = yield* Deferred.make<void>()
      const work = a.sql.withTransaction(
        Effect.zipRight(
          a.log("lost"),
          b.sql.withTransaction(
            Effect.all([b.log("lost"), Deferred.succeed(reached, undefined), b.sql`SELECT pg_sleep(30)`], {
              discard: true
            })
          )
        )
      )
      const fiber = yield* Effect.fork(work)
      yield* Deferred.await(reached)
      yield* TestPg.eventually(
        TestPg.control("SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND query LIKE '%pg_sleep%'", [b.name]),
        ({ length }) => length === 1
      )
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      for (const one of [a, b]) {
        yield* TestPg.eventually(one.pool, ({ idle, total, used }) => used === 0 && idle === total)
        assert.strictEqual(yield* one.database, one.name)
        assert.deepStrictEqual(yield* one.stored, [])
      }
    })
  )
})
