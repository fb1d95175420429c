/** What an `Operation` says of its statements, and what retrying costs, as a layer keeps to it. */
import * as Net from "node:net"
import { SqlResolver } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Ref, Schedule, Schema } from "effect"
import { CircuitBreaker, Operation, RetryPolicy } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import { current } from "../src/policy/internal/operation.js"
import { advisoryLock, clientOf, failure, proxied, waitingForLock } from "./client/support.js"
import * as TestPg from "./support/TestPg.js"

const never = { min: 0, ratio: 0 }

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("ResilientPg: operations", (it) => {
  it.scoped('with whenOpen "wait" its statements wait for the circuit, and those of another one inside it do not', () =>
    Effect.gen(function* () {
      const changes: Array<string> = []
      const { context, sql } = yield* clientOf({ breaker: { onChange: ({ to }) => changes.push(to) } })
      const breaker = Context.get(context, CircuitBreaker.CircuitBreaker)
      yield* breaker.forceOpen
      const one = sql`SELECT 1 AS one`
      const wait = Operation.named("patient", { whenOpen: "wait", timeout: "infinity" })
      const waiting = yield* Effect.fork(wait(one))
      yield* TestPg.eventually(breaker.snapshot, ({ waiting }) => waiting === 1)
      const refused = yield* failure(wait(Operation.named("inner")(one)))
      assert.deepInclude({ ...refused }, { _tag: "CircuitOpenError", operation: "inner", outcome: "NotApplied" })
      assert.isNull(waiting.unsafePoll())
      yield* breaker.reset
      assert.deepStrictEqual(yield* Fiber.join(waiting), [{ one: 1 }])
      // The program's own listener hears of it beside ours.
      assert.deepStrictEqual(changes, ["ForcedOpen", "Closed"])
    })
  )

  it.scoped("without a deadline wait for the circuit no longer than for a connection", () =>
    Effect.gen(function* () {
      const { context, sql } = yield* clientOf({ acquireTimeout: "100 millis" })
      yield* Context.get(context, CircuitBreaker.CircuitBreaker).forceOpen
      const wait = Operation.named("patient", { whenOpen: "wait", timeout: "infinity" })
      assert.strictEqual((yield* failure(wait(sql`SELECT 1`)))._tag, "CircuitOpenError")
    })
  )

  it.scoped("marked idempotent, a write whose answer gets lost is made again; inside another operation it is not", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { sql } = yield* clientOf({ url, maxConnections: 1 })
      yield* sql`CREATE TABLE marked (n int)`
      yield* Effect.addFinalizer(() => TestPg.control("DROP TABLE marked"))
      const insert = sql`INSERT INTO marked VALUES (1)`
      const stored = Effect.map(TestPg.control("SELECT FROM marked"), ({ length }) => length)
      const idempotent = Operation.named("outer", { idempotent: true, timeout: "30 seconds" })
      yield* proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "after" })
      yield* idempotent(insert)
      assert.strictEqual(yield* stored, 2)
      yield* proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "after" })
      assert.strictEqual((yield* failure(idempotent(Operation.named("inner")(insert))))._tag, "OutcomeUnknownError")
      yield* TestPg.eventually(stored, (n) => n === 3)
    })
  )

  it.scoped("around a batched request bounds who waits for it; inside the resolver it bounds the statement", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf()
      const rows = (ids: ReadonlyArray<number>) =>
        sql<{ id: number }>`SELECT id FROM (SELECT pg_advisory_xact_lock_shared(31)) locked, unnest(${ids}::int[]) id`
      const resolver = (tag: string, around: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, any, R>) =>
        SqlResolver.findById(tag, {
          Id: Schema.Number,
          Result: Schema.Struct({ id: Schema.Number }),
          ResultId: ({ id }) => id,
          execute: (ids) => around(rows(ids))
        })
      const brief = Operation.named("brief", { timeout: "200 millis" })
      const outside = yield* resolver("Outside", (self) => self)
      const inside = yield* resolver("Inside", brief)

      const lock = yield* advisoryLock(31)
      const late = yield* Deferred.make<string>()
      const both = yield* Effect.fork(
        Effect.all(
          [
            outside.execute(1),
            brief(outside.execute(2)).pipe(
              Effect.catchAll((error) => Deferred.succeed(late, "_tag" in error ? error._tag : "none"))
            )
          ],
          { batching: true, concurrency: "unbounded" }
        )
      )
      // Back while the one statement of both waits for the lock, and goes on to do so.
      assert.include(["QueryTimeoutError", "OutcomeUnknownError"], yield* Deferred.await(late))
      yield* TestPg.eventually(waitingForLock("SELECT id FROM"), (n) => n === 1)
      assert.isNull(both.unsafePoll())
      yield* failure(inside.execute(3))
      yield* TestPg.eventually(waitingForLock("SELECT id FROM"), (n) => n === 1)
      yield* lock.release
      const [first] = yield* Fiber.join(both)
      assert.deepStrictEqual(first, yield* outside.execute(1))
    })
  )

  it.scoped("is none of the layer's own fibers', though the layer be built in one", () =>
    Effect.gen(function* () {
      const seen = yield* Ref.make<ReadonlyArray<string | undefined>>([])
      const onConnect = () =>
        Effect.withFiberRuntime<void>((fiber) => Ref.update(seen, (all) => [...all, current(fiber)?.name]))
      yield* Effect.flatMap(clientOf({ onConnect }), ({ sql }) => sql`SELECT 1`).pipe(
        Operation.named("building", { timeout: "infinity" })
      )
      assert.deepStrictEqual(yield* Ref.get(seen), [undefined])
    })
  )
})

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("ResilientPg: retries", (it) => {
  it.scoped("of getting a connection need no permit: the prober bounds those", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const retries = yield* Ref.make(0)
      const ConnectionError = RetryPolicy.backoff({ retries: "infinity", first: "20 millis", cap: "50 millis" }).pipe(
        Schedule.tapInput(() => Ref.update(retries, (n) => n + 1))
      )
      const { sql } = yield* clientOf({
        url,
        retry: { ConnectionError, maxRetries: "infinity" },
        retryBudget: never
      })
      yield* proxy.refuse
      const fiber = yield* Effect.fork(sql`SELECT 1 AS one`)
      yield* TestPg.eventually(Ref.get(retries), (n) => n >= 2 || fiber.unsafePoll() !== null)
      yield* proxy.accept
      assert.deepStrictEqual(yield* Fiber.join(fiber), [{ one: 1 }])
    })
  )

  it.scoped("whose delay would cross the deadline are not waited for: the failure comes at once", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { sql } = yield* clientOf({ url, retry: { ConnectionError: Schedule.spaced("1 minute") } })
      yield* proxy.cut({ on: FaultProxy.query(/^SELECT 1/), when: "before" })
      const error = yield* failure(Operation.named("brief", { timeout: "50 seconds" })(sql`SELECT 1`))
      assert.deepInclude({ ...error }, { _tag: "ConnectionError", attempts: 1, operation: "brief" })
    })
  )

  it.scoped("of work that is under way wait for the circuit, which refuses newcomers", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      let opened: Effect.Effect<void> = Effect.void
      const ConnectionError = Schedule.tapInput(Schedule.recurs(1), () => opened)
      const { context, sql } = yield* clientOf({ url, retry: { ConnectionError } })
      const breaker = Context.get(context, CircuitBreaker.CircuitBreaker)
      opened = breaker.forceOpen
      yield* proxy.cut({ on: FaultProxy.query(/^SELECT 1/), when: "before" })
      const fiber = yield* Effect.fork(sql`SELECT 1 AS one`)
      yield* TestPg.eventually(breaker.snapshot, ({ waiting }) => waiting === 1 || fiber.unsafePoll() !== null)
      assert.strictEqual((yield* failure(sql`SELECT 1`))._tag, "CircuitOpenError")
      yield* breaker.reset
      assert.deepStrictEqual(yield* Fiber.join(fiber), [{ one: 1 }])
    })
  )

  it.scoped("are counted in the error, which names the operation", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf({ retry: { SerializationError: Schedule.recurs(2) } })
      yield* sql`CREATE FUNCTION contend() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE serialization_failure; END'`
      yield* Effect.addFinalizer(() => TestPg.control("DROP FUNCTION contend"))
      const error = yield* failure(Operation.named("contended")(sql`SELECT contend()`))
      assert.deepInclude({ ...error }, { _tag: "SerializationError", attempts: 3, operation: "contended" })
    })
  )

  it.scoped("on a connection that turns out dead before anything was sent are free and at once", () =>
    Effect.gen(function* () {
      const sockets: Array<Net.Socket> = []
      const stream = () => {
        const socket = new Net.Socket()
        sockets.push(socket)
        return socket
      }
      // A policy that repeats nothing, and no permits: what is repeated all the same cost neither.
      const { sql } = yield* clientOf({ stream, retry: RetryPolicy.none, retryBudget: never, maxConnections: 1 })
      yield* sql`SELECT 1`
      const dies = Effect.sync(() => sockets[0]!.destroy())
      assert.deepStrictEqual(yield* Effect.zipRight(dies, sql`SELECT 2 AS two`), [{ two: 2 }])
      assert.lengthOf(sockets, 2)
    })
  )
})
