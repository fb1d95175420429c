/** Each stage's off switch leaves exactly that stage out: the same fault, with the stage and without it. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Context, Effect, Fiber, Option, Random, Ref, TestClock, TestContext } from "effect"
import { CircuitBreaker, Operation, PgError, ResilientPg, RetryPolicy } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import { clientOf, failure, hold, proxied } from "./client/support.js"
import * as TestPg from "./support/TestPg.js"

type Options = Parameters<typeof clientOf>[0]

/** A client through a proxy of its own. */
const through = (options: Options = {}) =>
  Effect.flatMap(proxied, ({ proxy, url }) =>
    Effect.map(clientOf({ url, ...options }), (client) => ({ ...client, proxy }))
  )

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("ResilientPg: off switches", (it) => {
  it.scoped("retry: false fails with the first failure, where the standard policy tries again", () =>
    Effect.gen(function* () {
      const read = (options: Options) =>
        Effect.gen(function* () {
          const { proxy, sql } = yield* through(options)
          yield* proxy.cut({ on: FaultProxy.query(/^SELECT 1/), when: "before" })
          return yield* Effect.either(sql`SELECT 1 AS one`)
        })
      assert.deepStrictEqual(Option.getOrThrow(Option.getRight(yield* read({}))), [{ one: 1 }])
      const error = yield* failure(Effect.flatten(read({ retry: false })))
      assert.strictEqual(error._tag, "ConnectionError")
      assert.strictEqual(error.attempts, 1)
    })
  )

  it.scoped("breaker: false goes on asking a server that is away, where the breaker refuses after five failures", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      yield* Effect.addFinalizer(() => Effect.orDie(server.start))
      yield* server.stop()
      const tags = (options: Options) =>
        Effect.gen(function* () {
          const { context, sql } = yield* clientOf({ retry: false, ...options })
          const errors = yield* Effect.replicateEffect(failure(sql`SELECT 1`), 8)
          const breaker = Context.get(context, CircuitBreaker.CircuitBreaker)
          return { context, sql, state: breaker.state, errors, tags: errors.map(({ _tag }) => _tag) }
        })
      const without = yield* tags({ breaker: false })
      assert.deepStrictEqual(without.tags, Arr.replicate("ConnectionError", 8))
      assert.strictEqual(yield* without.state, "Closed")
      const standard = yield* tags({})
      assert.deepStrictEqual(standard.tags, [
        ...Arr.replicate("ConnectionError" as const, 5),
        ...Arr.replicate("CircuitOpenError" as const, 3)
      ])
      assert.strictEqual(yield* standard.state, "Open")
      assert.isDefined(standard.errors[7]!.retryAfter)
      // Not the 30 seconds of the breaker end it, but the prober's first connection.
      yield* server.start
      yield* TestPg.eventually(standard.state, (state) => state === "HalfOpen")
      yield* Effect.replicateEffect(standard.sql`SELECT 1`, 2)
      assert.strictEqual(yield* standard.state, "Closed")
    })
  )

  it.scoped(
    "timeouts: false ends no operation that gives no limit of its own; else 5 seconds do, or what the layer says",
    () =>
      Effect.gen(function* () {
        /** An operation that waits for the pool, after so much of the Clock. */
        const after = (millis: number, options: Options, operation: Operation.Options = {}) =>
          Effect.gen(function* () {
            const { context, pool, sql } = yield* clientOf({
              maxConnections: 1,
              acquireTimeout: "infinity",
              ...options
            })
            const held = yield* hold(sql)
            const result = yield* Effect.gen(function* () {
              const fiber = yield* Effect.fork(
                Effect.either(Effect.provide(Operation.named("ask", operation)(sql`SELECT 1`), context))
              )
              yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
              yield* TestClock.adjust(millis)
              return yield* Effect.map(Fiber.poll(fiber), Option.getOrUndefined)
            }).pipe(Effect.provide(TestContext.TestContext))
            yield* held.release
            return result?._tag === "Success" && result.value._tag === "Left" ? result.value.left._tag : undefined
          }).pipe(Effect.scoped)
        assert.isUndefined(yield* after(4_999, {}))
        assert.strictEqual(yield* after(5_000, {}), "QueryTimeoutError")
        assert.isUndefined(yield* after(29_999, {}, { kind: "complex" }))
        assert.strictEqual(yield* after(30_000, {}, { kind: "complex" }), "QueryTimeoutError")
        assert.isUndefined(yield* after(5_999, {}, { kind: { batch: 100 } }))
        assert.strictEqual(yield* after(6_000, {}, { kind: { batch: 100 } }), "QueryTimeoutError")
        assert.isUndefined(yield* after(199, { timeouts: { query: "200 millis" } }))
        assert.strictEqual(yield* after(200, { timeouts: { query: "200 millis" } }), "QueryTimeoutError")
        assert.isUndefined(yield* after(86_400_000, { timeouts: false }))
        assert.strictEqual(yield* after(100, { timeouts: false }, { timeout: 100 }), "QueryTimeoutError")
      })
  )

  it.scoped("retryBudget: false lets everybody try again at once, where the budget lets three of ten", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control("CREATE TABLE locked AS SELECT 1 AS n", [], url)
      const holder = yield* clientOf({ url })
      yield* hold(holder.sql).pipe(
        Effect.flatMap(({ connection }) => connection.execute("BEGIN; SELECT FROM locked FOR UPDATE", [], undefined))
      )
      const retry = { LockTimeoutError: RetryPolicy.backoff({ retries: 1, first: "1 minute", cap: "1 minute" }) }
      const tries = (options: Options) =>
        Effect.gen(function* () {
          const { pool, sql } = yield* clientOf({ url, retry, maxConnections: 10, ...options })
          const failed = yield* Ref.make(0)
          const once = Effect.tapError(sql`SELECT n FROM locked FOR UPDATE NOWAIT`, () =>
            Ref.update(failed, (n) => n + 1)
          )
          const held = yield* Effect.replicateEffect(hold(sql), 10)
          // Retries come after the minute, and no earlier.
          const fiber = yield* Effect.fork(
            Effect.all(Arr.replicate(Effect.exit(once), 10), { concurrency: "unbounded" }).pipe(
              Effect.withRandom(Random.fixed([60_000]))
            )
          )
          yield* TestPg.eventually(pool, ({ waiting }) => waiting === 10)
          yield* Effect.forEach(held, ({ release }) => release)
          yield* TestPg.eventually(pool, ({ idle, waiting }) => idle === 10 && waiting === 0)
          yield* Effect.repeat(Effect.yieldNow(), { times: 20 })
          return { failed: yield* failed, poll: yield* Fiber.poll(fiber) }
        }).pipe(Effect.scoped)
      assert.strictEqual((yield* tries({})).failed, 7)
      assert.deepStrictEqual(yield* tries({ retryBudget: false }), { failed: 0, poll: Option.none() })
      assert.strictEqual((yield* tries({ retryBudget: { min: 5, ratio: 0 } })).failed, 5)
    })
  )

  it.scoped("autoRetryReads: false repeats after an unknown outcome only what the program marks", () =>
    Effect.gen(function* () {
      /** The answer to one SELECT is lost, the server having given it. */
      const read = (options: Options, operation?: Operation.Options) =>
        Effect.gen(function* () {
          const { proxy, sql } = yield* through(options)
          const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/^SELECT 1/) })
          const statement = sql`SELECT 1 AS one`
          const result = yield* Effect.either(
            operation === undefined ? PgError.refine(statement) : Operation.named("read", operation)(statement)
          )
          yield* lost.happened()
          return result
        })
      assert.strictEqual((yield* read({}))._tag, "Right")
      const error = yield* failure(Effect.flatten(read({ autoRetryReads: false })))
      assert.strictEqual(error._tag, "OutcomeUnknownError")
      assert.strictEqual(error.attempts, 1)
      assert.strictEqual((yield* read({ autoRetryReads: false }, { readOnly: true }))._tag, "Right")
      assert.strictEqual((yield* read({ autoRetryReads: false }, { idempotent: true }))._tag, "Right")
      const denied = yield* failure(Effect.flatten(read({}, { readOnly: false })))
      assert.strictEqual(denied._tag, "OutcomeUnknownError")
    })
  )

  it.scoped("ResilientPg.pool is a snapshot: it does not change with the pool", () =>
    Effect.gen(function* () {
      const { context, sql } = yield* clientOf({ minConnections: 0, maxConnections: 3 })
      const pool = Effect.provide(ResilientPg.pool, context)
      const before = yield* pool
      const held = yield* hold(sql)
      assert.deepStrictEqual(before, {
        max: 3,
        min: 0,
        total: 0,
        idle: 0,
        used: 0,
        quarantined: 0,
        leaked: 0,
        connecting: 0,
        waiting: 0,
        generation: 0,
        closing: 0
      })
      assert.deepStrictEqual(yield* pool, { ...before, total: 1, used: 1 })
      yield* held.release
      assert.deepStrictEqual(yield* pool, { ...before, total: 1, idle: 1 })
    })
  )
})
