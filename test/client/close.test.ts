/** Closing the layer: what is in flight gets its time, then everything goes, on both sides. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Either, Exit, Fiber, Redacted, Stream } from "effect"
import { type PgError, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { commitWaitsFor, keeping, keepingThroughProxy } from "./kept.js"
import { advisoryLock, clientOf, failure, hold, proxied, waitingForLock } from "./support.js"

const active = (query: string) =>
  Arr.some<{ readonly query: string; readonly state: string }>(
    (session) => session.query === query && session.state === "active"
  )

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Closing", (it) => {
  it.scoped("what is in flight, and what waits behind it, ends within the grace as if nothing were", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { close, pool, sessions, sql } = yield* clientOf({
        url,
        maxConnections: 1,
        maxWaiting: 1,
        closeGrace: "30 seconds"
      })
      const held = yield* proxy.hold({ on: FaultProxy.query(/^SELECT 1 AS one/) })
      const running = yield* Effect.fork(sql`SELECT 1 AS one`)
      yield* held.happened()
      const waiting = yield* Effect.fork(sql`SELECT 2 AS two`)
      yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
      const closing = yield* Effect.fork(close)
      // The queue is full: whoever comes is refused, first for that and then because no more are taken.
      const error = yield* TestPg.eventually(failure(sql`SELECT 3`), ({ _tag }) => _tag === "PoolClosedError")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.isNull(closing.unsafePoll())
      yield* held.release
      assert.deepStrictEqual(yield* Fiber.join(running), [{ one: 1 }])
      assert.deepStrictEqual(yield* Fiber.join(waiting), [{ two: 2 }])
      yield* Fiber.join(closing)
      const { closing: open, connecting, total } = yield* pool
      assert.deepStrictEqual({ open, connecting, total }, { open: 0, connecting: 0, total: 0 })
      yield* TestPg.eventually(sessions, Arr.isEmptyReadonlyArray)
      yield* TestPg.eventually(proxy.stats, ({ open }) => open === 0)
    })
  )

  it.scoped("a transaction under way may go on to its COMMIT", () =>
    Effect.gen(function* () {
      const { close, insert, kept, sql } = yield* keeping({ closeGrace: "30 seconds" })
      const begun = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const transaction = yield* Effect.fork(
        sql.withTransaction(
          Effect.gen(function* () {
            yield* insert(1)
            yield* Deferred.succeed(begun, undefined)
            yield* Deferred.await(goOn)
            yield* insert(2)
          })
        )
      )
      yield* Deferred.await(begun)
      const closing = yield* Effect.fork(close)
      yield* TestPg.eventually(
        Effect.either(failure(sql`SELECT 1`)),
        (seen) => Either.isRight(seen) && seen.right._tag === "PoolClosedError"
      )
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.join(transaction)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* kept, [1, 2])
    })
  )

  it.scoped("a COMMIT under way is waited for within the grace, and its caller gets the answer", () =>
    Effect.gen(function* () {
      const { close, insert, kept, proxy, sql, url } = yield* keepingThroughProxy({ closeGrace: "30 seconds" })
      yield* TestPg.control(commitWaitsFor(44), [], url)
      const lock = yield* advisoryLock(44, url)
      const transaction = yield* Effect.fork(Effect.as(sql.withTransaction(insert(1)), "stored"))
      yield* TestPg.eventually(waitingForLock("COMMIT"), (count) => count === 1)
      const closing = yield* Effect.fork(close)
      yield* TestPg.eventually(
        Effect.either(failure(sql`SELECT 1`)),
        (seen) => Either.isRight(seen) && seen.right._tag === "PoolClosedError"
      )
      assert.isNull(closing.unsafePoll())
      assert.strictEqual(yield* waitingForLock("COMMIT"), 1)
      yield* lock.release
      assert.strictEqual(yield* Fiber.join(transaction), "stored")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* kept, [1])
      assert.strictEqual((yield* proxy.stats).cancelRequests, 0)
    })
  )

  it.scoped("a COMMIT that outlasts the grace is not cancelled: what it commits is stored, and nobody was told", () =>
    Effect.gen(function* () {
      const { close, insert, kept, proxy, sql, url } = yield* keepingThroughProxy({ closeGrace: "100 millis" })
      yield* TestPg.control(commitWaitsFor(43), [], url)
      const lock = yield* advisoryLock(43, url)
      const fiber = yield* Effect.fork(failure(sql.withTransaction(insert(1))))
      yield* TestPg.eventually(waitingForLock("COMMIT"), (count) => count === 1)
      yield* close
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "OutcomeUnknownError")
      assert.strictEqual((yield* proxy.stats).cancelRequests, 0)
      assert.strictEqual(yield* waitingForLock("COMMIT"), 1)
      yield* lock.release
      yield* TestPg.eventually(kept, (rows) => rows.length === 1)
    })
  )

  it.scoped("after the grace what is left is cancelled on the server, and its callers are told", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { close, pool, sessions, sql } = yield* clientOf({ url, maxConnections: 3, closeGrace: "100 millis" })
      const held = yield* hold(sql)
      const write = yield* Effect.fork(failure(sql`SELECT pg_sleep(600)`))
      const transaction = yield* Effect.fork(failure(sql.withTransaction(sql`SELECT pg_sleep(601)`)))
      yield* TestPg.eventually(sessions, active("SELECT pg_sleep(600)"))
      yield* TestPg.eventually(sessions, active("SELECT pg_sleep(601)"))
      const waiting = yield* Effect.fork(failure(sql`SELECT 1`))
      yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
      yield* close
      for (const error of yield* Effect.all([Fiber.join(write), Fiber.join(transaction)])) {
        assert.strictEqual(error._tag, "PoolClosedError")
        // The server has answered the cancel: what is known is said.
        assert.strictEqual(error.outcome, "NotApplied")
      }
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "PoolClosedError")
      assert.strictEqual((yield* failure(held.connection.execute("SELECT 1", [], undefined)))._tag, "ConnectionError")
      yield* TestPg.eventually(sessions, Arr.isEmptyReadonlyArray)
      yield* TestPg.eventually(proxy.stats, ({ open }) => open === 0)
      assert.strictEqual((yield* pool).closing, 0)
    })
  )

  it.scoped("a grace of zero cuts everything at once", () =>
    Effect.gen(function* () {
      const { close, sessions, sql } = yield* clientOf({ closeGrace: 0 })
      const fiber = yield* Effect.fork(failure(sql`SELECT pg_sleep(600)`))
      yield* TestPg.eventually(sessions, active("SELECT pg_sleep(600)"))
      yield* close
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "PoolClosedError")
      yield* TestPg.eventually(sessions, Arr.isEmptyReadonlyArray)
    })
  )

  it.scoped("connects on their way, held up by network, password or set-up, do not outlive the layer", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const startup = yield* proxy.hold({ on: FaultProxy.kind("StartupMessage"), times: Infinity })
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { database, host, port, username } = server.config
      const asked = yield* Deferred.make<void>()
      const setUp = yield* Deferred.make<void>()
      const clients = [
        yield* clientOf({ url }),
        yield* clientOf({
          url: undefined,
          host,
          port,
          database,
          username,
          password: Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never)
        }),
        yield* clientOf({ onConnect: () => Effect.zipRight(Deferred.succeed(setUp, undefined), Effect.never) })
      ]
      const queries = yield* Effect.forEach(clients, ({ sql }) => Effect.fork(failure(sql`SELECT 1`)))
      const listeners = yield* Effect.forEach(clients, ({ sql }) => Effect.fork(Stream.runDrain(sql.listen("c"))))
      yield* startup.happened(2)
      yield* Effect.all([Deferred.await(asked), Deferred.await(setUp)])
      yield* Effect.forEach(clients, ({ close }) => close, { concurrency: "unbounded" })
      for (const error of yield* Fiber.join(Fiber.all(queries))) assert.strictEqual(error._tag, "PoolClosedError")
      yield* Fiber.interruptAll(listeners)
      yield* Effect.forEach(clients, ({ sessions }) => TestPg.eventually(sessions, Arr.isEmptyReadonlyArray))
      yield* startup.release
      yield* TestPg.eventually(proxy.stats, ({ open }) => open === 0)
    })
  )

  it.scoped("with the network black-holed closing ends all the same, and no socket is left on this side", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { close, pool, sessions, sql } = yield* clientOf({ url, maxConnections: 3, closeGrace: "100 millis" })
      const fiber = yield* Effect.fork(failure(sql`SELECT pg_sleep(600)`))
      const held = yield* hold(sql)
      yield* sql`SELECT 1`
      yield* TestPg.eventually(sessions, active("SELECT pg_sleep(600)"))
      yield* held.release
      yield* proxy.blackHole({ existing: true, new: true })
      yield* close
      const unknown = yield* Fiber.join(fiber)
      assert.strictEqual(unknown._tag, "OutcomeUnknownError")
      assert.strictEqual((unknown as PgError.OutcomeUnknownError).reason._tag, "ConnectionError")
      assert.strictEqual((yield* pool).closing, 0)
      yield* proxy.heal
      yield* TestPg.eventually(proxy.stats, ({ open }) => open === 0)
      // The server hears of it with the first byte that it can not send.
      yield* Effect.forEach(yield* sessions, ({ pid }) => TestPg.control("SELECT pg_terminate_backend($1)", [pid]))
    })
  )

  it.scoped("a layer that is built, used and left where nothing can be interrupted closes no less", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const program = Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
        assert.lengthOf(yield* Stream.runCollect(sql`SELECT generate_series(1, 300) AS n`.stream), 300)
        const heard = yield* Effect.fork(Stream.runHead(sql.listen("calls")))
        yield* Effect.raceFirst(
          Effect.interruptible(Fiber.join(heard)),
          Effect.interruptible(Effect.forever(Effect.zipRight(sql.notify("calls", "hello"), Effect.sleep("20 millis"))))
        )
        // The prober and a check are under way when the layer ends.
        yield* proxy.reset
        yield* sql.withTransaction(sql`SELECT 2`)
        yield* proxy.blackHole({ existing: true, new: true })
        yield* Effect.interruptible(Effect.timeoutOption(sql`SELECT 3`, "50 millis"))
      })
      yield* Effect.uninterruptible(Effect.provide(program, ResilientPg.layer({ url, closeGrace: 0 }))).pipe(
        Effect.disconnect,
        Effect.timeoutFail({ duration: "20 seconds", onTimeout: () => new Error("it hangs") })
      )
    })
  )

  it.scoped("interrupting the program that provides the layer closes it no less", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const used = yield* Deferred.make<void>()
      const program = Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* Effect.forkDaemon(Effect.ignore(sql`SELECT pg_sleep(600)`))
        yield* Effect.all([sql`SELECT pg_sleep(0.1)`, sql`SELECT pg_sleep(0.1)`], { concurrency: 2 })
        yield* Deferred.succeed(used, undefined)
        yield* Effect.never
      }).pipe(
        Effect.provide(ResilientPg.layer({ url: server.url, closeGrace: "100 millis", applicationName: "interrupted" }))
      )
      const fiber = yield* Effect.fork(program)
      yield* Deferred.await(used)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      yield* TestPg.eventually(
        TestPg.control("SELECT FROM pg_stat_activity WHERE application_name = 'interrupted'"),
        Arr.isEmptyReadonlyArray
      )
    })
  )

  const program = fileURLToPath(new URL("programs/closing.ts", import.meta.url))

  /** The program with its standard input and output; ends with its scope at the latest. */
  const start = (url: Redacted.Redacted, hows: ReadonlyArray<string>) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(process.execPath, ["--import", "tsx", program, Redacted.value(url), ...hows])
        const output: Array<string> = []
        for (const stream of [child.stdout, child.stderr]) {
          stream.on("data", (chunk: Buffer) => output.push(String(chunk)))
        }
        const exited = Effect.async<{ code: number | null; signal: string | null }>((resume) => {
          if (child.exitCode !== null || child.signalCode !== null) {
            return resume(Effect.succeed({ code: child.exitCode, signal: child.signalCode }))
          }
          child.once("exit", (code, signal) => resume(Effect.succeed({ code, signal })))
        })
        return { child, exited, output: Effect.sync(() => output.join("")) }
      }),
      ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
    )

  it.scoped("a program exits by itself, whatever it leaves behind", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const hows = ["idle", "statements", "transaction", "listen", "waiting"]
      const { child, exited, output } = yield* start(server.url, hows)
      yield* TestPg.eventually(output, (text) => text.includes("ready"))
      child.stdin.write("go\n")
      yield* TestPg.eventually(output, (text) => hows.every((how) => text.includes(`closed: ${how}`)))
      assert.deepStrictEqual(yield* exited, { code: 0, signal: null }, yield* output)
      yield* TestPg.eventually(
        TestPg.control("SELECT FROM pg_stat_activity WHERE application_name = 'closing'"),
        Arr.isEmptyReadonlyArray
      )
    })
  )

  it.scoped("a program exits by itself although the network went black", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const hows = ["idle", "statements", "listen", "connecting"]
      const { child, exited, output } = yield* start(url, hows)
      yield* TestPg.eventually(output, (text) => text.includes("ready"))
      yield* proxy.blackHole({ existing: true, new: true })
      child.stdin.write("go\n")
      yield* TestPg.eventually(output, (text) => hows.every((how) => text.includes(`closed: ${how}`)))
      assert.deepStrictEqual(yield* exited, { code: 0, signal: null }, yield* output)
    })
  )
})
