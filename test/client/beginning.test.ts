/** The BEGIN that travels with a transaction's first statement: one packet, one answer, and never the one without the other. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber, Redacted, Stream } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import { Request } from "../../src/client/internal/request.js"
import { open, type Reply } from "../../src/client/internal/session.js"
import * as TestPg from "../support/TestPg.js"
import { keepingThroughProxy } from "./kept.js"
import { advisoryLock, failure, misplaced, waitingForLock } from "./support.js"

const begin = FaultProxy.query(/^BEGIN/)
const sync = ({ kind }: FaultProxy.FrontendMessage) => kind === "Sync" || kind === "Query"

/** The table, a client on it, and all that the client sends. */
const watched = (options?: Parameters<typeof keepingThroughProxy>[0]) =>
  Effect.gen(function* () {
    const client = yield* keepingThroughProxy({ lanes: false, ...options })
    yield* client.sql`SELECT 1`
    const messages: Array<FaultProxy.FrontendMessage> = []
    yield* client.proxy.cut({ on: (message) => messages.push(message) < 0, when: "before" })
    return { ...client, messages, texts: () => messages.map(({ text }) => text).filter((text) => text !== "") }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("BEGIN and the first statement", (it) => {
  it.scoped("travel together: a transaction of two statements is three trips", () =>
    Effect.gen(function* () {
      const { insert, kept, messages, sql, texts } = yield* watched()
      for (const n of [1, 3, 5, 7]) yield* sql.withTransaction(Effect.zipRight(insert(n), insert(n + 1)))
      assert.deepStrictEqual(texts().slice(0, 4), [
        "BEGIN",
        "INSERT INTO kept (n) VALUES ($1)",
        "INSERT INTO kept (n) VALUES ($1)",
        "COMMIT"
      ])
      assert.lengthOf(messages.filter(sync), 4 * 3)
      assert.deepStrictEqual(yield* kept, Arr.range(1, 8))
    })
  )

  it.scoped("are not sent where nothing is executed", () =>
    Effect.gen(function* () {
      const { messages, pool, sql } = yield* watched({ maxConnections: 1 })
      yield* sql.withTransaction(Effect.void)
      assert.strictEqual(yield* Effect.flip(sql.withTransaction(Effect.fail("no"))), "no")
      const started = yield* Deferred.make<void>()
      const waiting = yield* Effect.fork(
        sql.withTransaction(Effect.zipRight(Deferred.succeed(started, undefined), Effect.never))
      )
      yield* Deferred.await(started)
      yield* Fiber.interrupt(waiting)
      assert.deepStrictEqual(messages, [])
      assert.deepInclude(yield* pool, { idle: 1, used: 0 })
    })
  )

  it.scoped("one Sync for both: where BEGIN is refused the server does not execute the statement", () =>
    Effect.gen(function* () {
      const { kept, url } = yield* watched()
      const session = yield* Effect.acquireRelease(open({ connectionString: Redacted.value(url) }), (session) =>
        Effect.sync(() => session.destroy(new Error("The test is over")))
      )
      const send = (before: string, text: string) =>
        Effect.async<{ readonly reply: Reply; readonly begun: boolean }>((resume) => {
          const request = new Request(text, [], undefined, false, before)
          session.submit(request, (reply) => resume(Effect.sync(() => ({ reply, begun: request.begun }))))
        })
      const refused = yield* send("BEGIN ISOLATION LEVEL NONSENSE", "INSERT INTO kept (n) VALUES (1)")
      assert.deepInclude(refused.reply, { answered: true, inTransaction: true })
      assert.propertyVal(refused.reply.error, "code", "42601")
      assert.isFalse(refused.begun)
      assert.strictEqual(session.status, "I")
      const failed = yield* send("BEGIN", "INSERT INTO kept (n) VALUES (1 / 0)")
      assert.isTrue(failed.begun)
      assert.propertyVal(failed.reply.error, "code", "22012")
      assert.strictEqual(session.status, "E")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("are sent again, unseen, when their connection is lost: stored once, in one transaction", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* watched()
      let n = 0
      for (const when of ["before", "after"] as const) {
        for (const on of [begin, FaultProxy.query(/^INSERT/), sync]) {
          yield* proxy.cut({ on, when })
          yield* sql.withTransaction(Effect.zipRight(insert(++n), insert(++n)))
        }
      }
      yield* proxy.swallowReply({ on: begin })
      yield* sql.withTransaction(Effect.zipRight(insert(++n), insert(++n)))
      assert.deepStrictEqual(yield* kept, Arr.range(1, n))
      assert.deepStrictEqual(yield* misplaced, [])
    })
  )

  it.scoped("with retry: false in the layer, a loss is the program's to see, and nothing is stored", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* watched({ retry: false })
      yield* proxy.cut({ on: begin, when: "after" })
      const error = yield* failure(sql.withTransaction(insert(1)))
      assert.deepInclude(error, { _tag: "ConnectionError", phase: "Begin", outcome: "NotApplied" })
      yield* proxy.cut({ on: begin, when: "after" })
      const caught = yield* failure(sql.withTransaction(Effect.zipRight(Effect.ignore(insert(1)), insert(2))))
      assert.strictEqual(caught._tag, "TransactionAbortedError")
      yield* proxy.cut({ on: begin, when: "after" })
      const swallowed = yield* failure(sql.withTransaction(Effect.ignore(insert(1))))
      assert.strictEqual(swallowed._tag, "TransactionAbortedError")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("a failure of the statement itself is the statement's, and not repeated", () =>
    Effect.gen(function* () {
      const { insert, kept, sql, texts } = yield* watched()
      yield* insert(1)
      const error = yield* failure(sql.withTransaction(insert(1)))
      assert.deepInclude(error, { _tag: "UniqueViolation", phase: "Execute", outcome: "NotApplied" })
      assert.lengthOf(
        texts().filter((text) => text === "BEGIN"),
        1
      )
      assert.deepStrictEqual(yield* kept, [1])
    })
  )

  it.scoped("what may act outside of the database, or can not travel, waits for BEGIN's answer", () =>
    Effect.gen(function* () {
      const { insert, kept, messages, sql } = yield* watched()
      const first = <A, E>(body: Effect.Effect<A, E>) =>
        Effect.gen(function* () {
          messages.length = 0
          yield* sql.withTransaction(body)
          return messages.filter(({ kind }) => kind === "Query" || kind === "Parse").map(({ kind }) => kind)[0]
        })
      const kinds = {
        read: yield* first(sql`SELECT n FROM kept`),
        update: yield* first(sql`UPDATE kept SET value = 1`),
        function: yield* first(sql`SELECT set_config('app.name', 'x', true)`),
        several: yield* first(sql.unsafe("INSERT INTO kept (n) VALUES (1); INSERT INTO kept (n) VALUES (2)")),
        set: yield* first(sql`SET LOCAL lock_timeout = 0`),
        nested: yield* first(sql.withTransaction(insert(3))),
        stream: yield* first(Stream.runDrain(sql`SELECT n FROM kept`.stream))
      }
      const alone = "Query"
      const together = "Parse"
      assert.deepStrictEqual(kinds, {
        read: together,
        update: together,
        function: alone,
        several: alone,
        set: alone,
        nested: alone,
        stream: alone
      })
      assert.deepStrictEqual(yield* kept, [1, 2, 3])
    })
  )

  it.scoped("statements that come together wait for the first one, and go where it goes", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* watched()
      const body = (from: number) =>
        Effect.all([insert(from), insert(from + 1), sql.withTransaction(insert(from + 2)), insert(from + 3)], {
          concurrency: "unbounded"
        })
      yield* sql.withTransaction(body(1))
      yield* proxy.cut({ on: begin, when: "before" })
      yield* sql.withTransaction(body(5))
      yield* proxy.cut({ on: sync, when: "after" })
      yield* sql.withTransaction(body(9))
      assert.deepStrictEqual(yield* kept, Arr.range(1, 12))
      assert.deepStrictEqual(yield* misplaced, [])
    })
  )

  it.scoped("given up before BEGIN's answer, it takes the transaction with it", () =>
    Effect.gen(function* () {
      const { insert, kept, pool, sql, url } = yield* watched({ maxConnections: 1 })
      const lock = yield* advisoryLock(7, url)
      yield* TestPg.control(
        `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END';
         CREATE TRIGGER wait BEFORE INSERT ON kept FOR EACH ROW WHEN (NEW.n = 1) EXECUTE FUNCTION wait()`,
        [],
        url
      )
      const body = Effect.gen(function* () {
        const first = yield* Effect.fork(insert(1))
        yield* TestPg.eventually(waitingForLock("INSERT INTO kept"), (n) => n === 1)
        yield* Fiber.interrupt(first)
        yield* insert(2)
      })
      const error = yield* failure(sql.withTransaction(body))
      assert.strictEqual(error._tag, "TransactionAbortedError")
      yield* lock.release
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
      yield* sql.withTransaction(insert(3))
      assert.deepStrictEqual(yield* kept, [3])
    })
  )

  it.scoped("left behind by a fiber that is not awaited, COMMIT waits for it", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, sql } = yield* watched()
      yield* sql.withTransaction(Effect.zipLeft(Effect.forkDaemon(insert(1)), Effect.yieldNow()))
      assert.deepStrictEqual(yield* kept, [1])
      yield* proxy.cut({ on: begin, when: "before" })
      yield* sql.withTransaction(Effect.zipLeft(Effect.forkDaemon(insert(2)), Effect.yieldNow()))
      assert.deepStrictEqual(yield* kept, [1, 2])
      assert.deepStrictEqual(yield* misplaced, [])
    })
  )

  it.scoped("begun elsewhere after the transaction has ended, the connection comes back as it was", () =>
    Effect.gen(function* () {
      const { insert, kept, pool, proxy, sql } = yield* watched({ maxConnections: 1 })
      yield* proxy.cut({ on: begin, when: "before", times: 3 })
      const left = yield* Deferred.make<Fiber.RuntimeFiber<unknown, unknown>>()
      const body = Effect.gen(function* () {
        yield* Deferred.succeed(left, yield* Effect.forkDaemon(insert(1)))
        yield* Effect.yieldNow()
        return yield* Effect.fail("no")
      })
      assert.strictEqual(yield* Effect.flip(sql.withTransaction(body)), "no")
      yield* Fiber.await(yield* Deferred.await(left))
      yield* TestPg.eventually(pool, ({ used }) => used === 0)
      yield* insert(2)
      assert.deepStrictEqual(yield* kept, [2])
      assert.deepStrictEqual(yield* misplaced, [])
    })
  )

  it.scoped("a transaction that runs again as a whole does so when it loses them, too", () =>
    Effect.gen(function* () {
      const { insert, kept, proxy, run } = yield* watched()
      let runs = 0
      yield* proxy.cut({ on: begin, when: "after" })
      yield* run(
        Effect.suspend(() => {
          runs++
          return insert(1)
        }),
        { retry: true, isolation: "serializable" }
      )
      assert.strictEqual(runs, 2)
      assert.deepStrictEqual(yield* kept, [1])
    })
  )

  it.scoped("at random moments of interruption nothing of an interrupted transaction is stored", () =>
    Effect.gen(function* () {
      const { insert, kept, pool, sql } = yield* watched({ maxConnections: 3 })
      const outcomes = yield* Effect.forEach(
        Arr.range(1, 90),
        (n) =>
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(sql.withTransaction(Effect.zipRight(insert(n), insert(n + 1_000))))
            for (let turns = n % 15; turns > 0; turns--) yield* Effect.promise(() => new Promise(setImmediate))
            const exit = yield* Fiber.interrupt(fiber)
            return Exit.isSuccess(exit) ? [n, n + 1_000] : Exit.isInterrupted(exit) ? [] : [Number.NaN]
          }),
        { concurrency: 6 }
      )
      yield* TestPg.eventually(pool, ({ quarantined, used }) => used + quarantined === 0)
      const acknowledged = outcomes.flat()
      const stored = new Set(yield* kept)
      // A COMMIT that was on its way when its caller was interrupted may be stored: whole, then.
      for (const n of acknowledged) assert.isTrue(stored.has(n), `${n} was acknowledged, and is not stored`)
      for (const n of stored) assert.isTrue(stored.has(n > 1_000 ? n - 1_000 : n + 1_000), `${n} is stored alone`)
      assert.deepStrictEqual(yield* misplaced, [])
    })
  )
})
