/** Streams on a connection that is reserved: who else uses it meanwhile, and who has it afterwards. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber, Stream } from "effect"
import * as TestPg from "../support/TestPg.js"
import { heldUp, turns } from "./heldUp.js"
import { keepingThroughProxy } from "./kept.js"
import { failure, hold } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Streams on a reserved connection", (it) => {
  it.scoped("on a reserved connection rows come in portions, too, and other statements wait for the stream's end", () =>
    Effect.gen(function* () {
      const { kept, proxy, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
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
      const { kept, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
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
        const { kept, sql } = yield* keepingThroughProxy({ maxConnections: 1 })
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
})
