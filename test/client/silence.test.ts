/** A network that went silent: noticed by what was given up on it, by LISTEN's own pings, and by TCP in the long run. */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import {
  Array as Arr,
  Clock,
  Context,
  Effect,
  Fiber,
  identity,
  Redacted,
  Ref,
  Stream,
  TestClock,
  TestContext
} from "effect"
import { CircuitBreaker, Listen, type PgError, ResilienceConfig } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as connector from "../../src/client/internal/connect.js"
import * as TestPg from "../support/TestPg.js"
import { clientOf, executing, hold, proxied } from "./support.js"

/** Sockets that keep what they are asked for. */
const recorded = () => {
  const sockets: Array<{
    readonly socket: Net.Socket
    readonly connects: Array<unknown>
    readonly keepAlive: Array<unknown>
  }> = []
  const stream = () => {
    const socket = new Net.Socket()
    const { connect, setKeepAlive } = socket
    const record = { socket, connects: [] as Array<unknown>, keepAlive: [] as Array<unknown> }
    sockets.push(record)
    socket.connect = (...args: ReadonlyArray<unknown>) => {
      record.connects.push(args)
      return connect.apply(socket, args as never)
    }
    socket.setKeepAlive = (...args) => {
      record.keepAlive.push(args[0])
      return setKeepAlive.apply(socket, args)
    }
    return socket
  }
  return { sockets, stream }
}

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Silence", (it) => {
  it.scoped("after a cancel counts for the breaker as one lost connection, and raises the pool's generation", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const changes: Array<CircuitBreaker.Change> = []
      const { context, pool, sql } = yield* clientOf({
        url,
        breaker: { failureThreshold: 2, onChange: (change) => changes.push(change) }
      })
      const { snapshot } = Context.get(context, CircuitBreaker.CircuitBreaker)
      yield* sql`SELECT 1`
      const before = yield* pool
      yield* proxy.blackHole({ existing: true, new: true })
      const givenUp = Effect.timeoutOption(sql`SELECT pg_sleep(600)`, "50 millis")
      // What the program does with `Effect.timeout` says nothing by itself.
      yield* givenUp
      assert.strictEqual((yield* snapshot).failures, 0)
      yield* TestPg.eventually(snapshot, ({ failures }) => failures === 1)
      assert.isAbove((yield* pool).generation, before.generation)
      assert.isEmpty(changes)
    })
  )

  it.scoped("on a reserved connection makes all others suspect while it is still held", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({ url })
      const { connection } = yield* hold(sql)
      yield* connection.executeRaw("SELECT 1", [])
      const before = yield* pool
      yield* proxy.blackHole({ existing: true, new: true })
      yield* Effect.timeoutOption(connection.executeRaw("SELECT pg_sleep(600)", []), "50 millis")
      yield* TestPg.eventually(pool, ({ generation }) => generation > before.generation)
      assert.strictEqual((yield* pool).used, 1)
    })
  )

  it.scoped("of a LISTEN connection is noticed 5 seconds after a ping, one every 30, and told as a gap", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const config = yield* ResilienceConfig.decode({ url })
      const errors: Array<PgError.PgError> = []
      const listener = yield* Listen.make({
        connect: Effect.withClock(connector.make(config, undefined, () => {}, undefined).connect, Clock.make()),
        live: identity,
        random: () => 0,
        onLost: (error) => errors.push(error)
      })
      const events = yield* Ref.make<ReadonlyArray<string>>([])
      yield* Effect.forkScoped(
        Stream.runForEach(listener.listen("quiet"), (event) => Ref.update(events, Arr.append(event._tag)))
      )
      const sessions = (query: string) =>
        TestPg.control<{ pid: number }>(
          `SELECT pid FROM pg_stat_activity WHERE query = $1 AND state = 'idle' AND backend_type = 'client backend'
             AND state_change < clock_timestamp() - interval '100 ms' ORDER BY backend_start`,
          [query]
        )
      const listening = (query: string, than?: number) =>
        TestPg.eventually(sessions(query), (all) => all.some(({ pid }) => pid !== than))
      const [first] = yield* listening('LISTEN "quiet"')

      yield* TestClock.adjust("30 seconds")
      yield* listening("")
      assert.isEmpty(errors)

      yield* proxy.blackHole({ existing: true })
      yield* TestClock.adjust("34999 millis")
      assert.isEmpty(errors)
      yield* TestClock.adjust("1 millis")
      yield* TestPg.eventually(
        Effect.sync(() => errors),
        ({ length }) => length === 1
      )
      assert.strictEqual(errors[0]!._tag, "ConnectionError")
      yield* TestClock.adjust("50 millis")
      yield* listening('LISTEN "quiet"', first!.pid)
      yield* TestPg.control("SELECT pg_notify('quiet', 'again')")
      yield* TestPg.eventually(Ref.get(events), ({ length }) => length === 2)
      assert.deepStrictEqual(yield* Ref.get(events), ["Gap", "Notification"])
    }).pipe(Effect.provide(TestContext.TestContext))
  )

  it.scoped("of a ROLLBACK after a failure costs the connection, and the caller a moment", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, sql } = yield* clientOf({ url, maxConnections: 1 })
      const failing = Effect.gen(function* () {
        yield* sql`SELECT 1`
        yield* proxy.blackHole({ existing: true })
        return yield* Effect.fail("mine" as const)
      })
      const since = performance.now()
      // Back by the live clock, although the program's own stands still.
      const error = yield* Effect.flip(Effect.provide(sql.withTransaction(failing), TestContext.TestContext))
      const took = performance.now() - since
      assert.strictEqual(error, "mine")
      console.log(`a transaction whose ROLLBACK met silence: back after ${Math.round(took)} ms`)
      assert.deepInclude(yield* pool, { total: 0, used: 0 })
      assert.lengthOf(yield* sql`SELECT 1`, 1)
    })
  )

  it.scoped(
    "after goodbye costs no place in the pool; the socket is counted until it is closed, half a second later",
    () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* proxied
        const { pool, sql } = yield* clientOf({ url, maxConnections: 1, maxUses: 1 })
        yield* proxy.hold({ on: FaultProxy.kind("Terminate"), times: Number.POSITIVE_INFINITY })
        yield* sql`SELECT 1`
        assert.deepInclude(yield* pool, { total: 0, closing: 1 })
        yield* sql`SELECT 1`
        yield* TestPg.eventually(pool, ({ closing }) => closing === 0)
      })
  )

  for (const keepAlive of [undefined, false]) {
    it.scoped(`is left to TCP keep-alive in the long run, with keepAlive ${keepAlive}`, () =>
      Effect.gen(function* () {
        const { sockets, stream } = recorded()
        const { sql } = yield* clientOf({
          stream,
          maxConnections: 1,
          ...(keepAlive === undefined ? {} : { keepAlive })
        })
        yield* sql`SELECT 1`
        assert.deepStrictEqual(sockets[0]!.keepAlive, keepAlive === false ? [] : [true])
      })
    )
  }

  it.scoped("or not, a cancel goes to the address that the session's own socket has reached", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const byName = new URL(Redacted.value(url))
      byName.hostname = "localhost"
      const { sockets, stream } = recorded()
      const { pool, sql } = yield* clientOf({ url: Redacted.make(byName.href), stream, maxConnections: 1 })
      yield* sql`SELECT 1`
      const reached = sockets[0]!.socket.remoteAddress
      const fiber = yield* Effect.fork(sql`SELECT pg_sleep(601)`)
      yield* TestPg.eventually(executing("SELECT pg_sleep(601)"), (n) => n === 1)
      yield* Fiber.interrupt(fiber)
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
      assert.strictEqual((yield* proxy.stats).cancelRequests, 1)
      assert.deepStrictEqual(sockets[0]!.connects, [[Number(byName.port), "localhost"]])
      // Of a name with several addresses another one may be another server.
      assert.deepStrictEqual(sockets[1]!.connects, [[Number(byName.port), reached]])
    })
  )
})
