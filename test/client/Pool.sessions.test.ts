/** What becomes of connections between two uses: checked, cleaned, replaced, closed, kept. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber } from "effect"
import { Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { advisoryLock, clientOf, failure, hold, proxied, waitingForLock } from "./support.js"

/** So many connections of the pool, all idle. */
const warm = ({ pool, sql }: Effect.Effect.Success<ReturnType<typeof clientOf>>, count: number) =>
  Effect.gen(function* () {
    yield* Effect.scoped(Effect.forEach(Arr.range(1, count), () => hold(sql), { concurrency: "unbounded" }))
    yield* TestPg.eventually(pool, ({ connecting, idle, total }) => idle === count && total + connecting === count)
  })

/** `count` statements at once, each on a connection of its own: the server processes that they met. */
const pids = ({ sql }: Effect.Effect.Success<ReturnType<typeof clientOf>>, count: number) =>
  Effect.scoped(
    Effect.forEach(
      Arr.range(1, count),
      () =>
        Effect.flatMap(hold(sql), ({ connection }) =>
          Effect.map(connection.execute("SELECT pg_backend_pid() AS pid", [], undefined), ([row]) => row.pid as number)
        ),
      { concurrency: "unbounded" }
    )
  )

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Pool: sessions", (it) => {
  it.scoped("a backend that died while idle is replaced before anybody gets it", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const client = yield* clientOf({ maxConnections: 2, retry: false })
      const before = yield* client.pid
      assert.isTrue(yield* server.terminate(before))
      yield* TestPg.eventually(client.pool, ({ generation }) => generation === 1)
      assert.notStrictEqual(yield* client.pid, before)
    })
  )

  it.scoped("connections that are half open, unused for longer than checkAfterIdle, cost nobody a failure", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url, maxConnections: 4, checkAfterIdle: 0, retry: false })
      yield* warm(client, 4)
      const before = yield* client.sessions
      yield* proxy.blackHole({ existing: true })
      const after = yield* pids(client, 4)
      assert.lengthOf(Arr.dedupe(after), 4)
      assert.isEmpty(
        Arr.intersection(
          after,
          Arr.map(before, ({ pid }) => pid)
        )
      )
      assert.isAbove((yield* client.pool).generation, 0)
    })
  )

  it.scoped("checkAfterIdle 0 asks for a sign of life before each use, and serves all the same", () =>
    Effect.gen(function* () {
      const client = yield* clientOf({ maxConnections: 1, checkAfterIdle: 0 })
      const first = yield* client.pid
      assert.deepStrictEqual(yield* pids(client, 1), [first])
      const all = yield* Effect.forEach(Arr.range(1, 20), () => client.pid, { concurrency: "unbounded" })
      assert.deepStrictEqual(Arr.dedupe(all), [first])
    })
  )

  it.scoped("after one loss no other connection is handed out unchecked, however lately it was used", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url, maxConnections: 3, checkAfterIdle: "infinity" })
      yield* warm(client, 3)
      const [lost, ...others] = yield* client.sessions
      // Nothing new comes up meanwhile: the two others are all there is when they turn out half open.
      yield* proxy.refuse
      yield* server.terminate(lost!.pid)
      yield* TestPg.eventually(client.pool, ({ generation, total }) => generation === 1 && total === 2)
      yield* proxy.blackHole({ existing: true, new: false })
      yield* proxy.accept
      const after = yield* pids(client, 3)
      assert.lengthOf(Arr.dedupe(after), 3)
      assert.isEmpty(
        Arr.intersection(
          after,
          Arr.map([lost!, ...others], ({ pid }) => pid)
        )
      )
    })
  )

  it.scoped("minConnections are opened before anybody asks, and again after a loss", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { pool, sessions } = yield* clientOf({ minConnections: 3, maxConnections: 5, idleTimeout: "100 millis" })
      yield* TestPg.eventually(pool, ({ idle, total }) => idle === 3 && total === 3)
      const [first] = yield* TestPg.eventually(sessions, ({ length }) => length === 3)
      yield* server.terminate(first!.pid)
      yield* TestPg.eventually(pool, ({ generation, idle }) => generation === 1 && idle === 3)
      const kept = yield* TestPg.eventually(sessions, ({ length }) => length === 3)
      assert.notInclude(
        kept.map(({ pid }) => pid),
        first!.pid
      )
    })
  )

  it.scoped("connections above minConnections are closed once unused for idleTimeout, those below stay", () =>
    Effect.gen(function* () {
      const client = yield* clientOf({ minConnections: 1, maxConnections: 4, idleTimeout: "100 millis" })
      yield* warm(client, 4)
      yield* TestPg.eventually(client.sessions, ({ length }) => length === 1)
      const [left] = yield* client.sessions
      // The timeout goes by several times more.
      yield* TestPg.control("SELECT pg_sleep(1.5)")
      assert.deepStrictEqual(
        Arr.map(yield* client.sessions, ({ pid }) => pid),
        [left!.pid]
      )
    })
  )

  it.scoped("a connection is replaced at connectionTTL, idle or just used, but never while it is reserved", () =>
    Effect.gen(function* () {
      const { pool, sessions, sql } = yield* clientOf({ maxConnections: 1, connectionTTL: "300 millis" })
      const held = yield* hold(sql)
      const ask = Effect.map(
        held.connection.execute("SELECT pg_backend_pid() AS pid, pg_sleep(0.4)", [], undefined),
        ([row]) => row.pid
      )
      const first = yield* ask
      assert.strictEqual(yield* ask, first)
      yield* held.release
      const [next] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
      assert.notStrictEqual(next!.pid, first)
      // Unused, it goes too.
      yield* TestPg.eventually(pool, ({ total }) => total === 0)
      yield* TestPg.eventually(sessions, ({ length }) => length === 0)
    })
  )

  it.scoped("a connection is replaced after maxUses", () =>
    Effect.gen(function* () {
      const { pid } = yield* clientOf({ maxConnections: 1, maxUses: 3 })
      const seen = yield* Effect.all(Arr.replicate(pid, 7))
      const [a, b, c] = [seen[0]!, seen[3]!, seen[6]!]
      assert.deepStrictEqual(seen, [a, a, a, b, b, b, c])
      assert.lengthOf(Arr.dedupe([a, b, c]), 3)
    })
  )

  it.scoped("a transaction left open by raw SQL is rolled back before the next caller", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { pid, sql } = yield* clientOf({ url, maxConnections: 1 })
      const first = yield* pid
      yield* sql.unsafe("BEGIN; CREATE TABLE left_open (a int)")
      assert.deepStrictEqual(yield* sql`SELECT to_regclass('left_open') AS found`, [{ found: null }])
      assert.strictEqual(yield* pid, first)
    })
  )

  it.scoped("a failed transaction left open by raw SQL does not fail the next caller", () =>
    Effect.gen(function* () {
      const { pid, sql } = yield* clientOf({ maxConnections: 1, retry: false })
      const first = yield* pid
      const error = yield* failure(sql.unsafe("BEGIN; SELECT 1 / 0"))
      // what several commands with transaction control among them did cannot be told from an error
      assert.strictEqual(error._tag === "OutcomeUnknownError" && error.reason.sqlState, "22012")
      assert.strictEqual(yield* pid, first)
    })
  )

  it.scoped("what outlives a reserved connection is cut off on it, and only then is the connection used again", () =>
    Effect.gen(function* () {
      const { pid, pool, sql } = yield* clientOf({ maxConnections: 1 })
      const before = yield* pid
      const held = yield* hold(sql)
      yield* advisoryLock(77)
      const late = yield* Effect.fork(held.connection.execute("SELECT pg_advisory_xact_lock(77)", [], undefined))
      yield* TestPg.eventually(waitingForLock("SELECT pg_advisory_xact_lock(77)"), (count) => count === 1)
      yield* held.release
      const { idle, quarantined, used } = yield* pool
      assert.deepStrictEqual({ idle, quarantined, used }, { idle: 0, quarantined: 1, used: 0 })
      // The lock is still somebody else's.
      assert.strictEqual(yield* pid, before)
      assert.isTrue(Exit.isFailure(yield* Fiber.await(late)))
      assert.strictEqual(yield* waitingForLock("SELECT pg_advisory_xact_lock(77)"), 0)
    })
  )

  it.scoped("a server that turned read-only loses all its connections, and gets none of its writes lost", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      const client = yield* clientOf({ url, maxConnections: 3 })
      yield* client.sql`CREATE TABLE kept (n int)`
      yield* warm(client, 3)
      const before = Arr.map(yield* client.sessions, ({ pid }) => pid)
      yield* Effect.addFinalizer(() => Effect.orDie(server.setting("default_transaction_read_only", null)))
      yield* server.setting("default_transaction_read_only", true)
      const writer = yield* Effect.fork(client.sql`INSERT INTO kept VALUES (1)`)
      yield* TestPg.eventually(
        client.sessions,
        (sessions) =>
          Arr.intersection(
            before,
            sessions.map(({ pid }) => pid)
          ).length === 0
      )
      yield* server.setting("default_transaction_read_only", null)
      yield* Fiber.join(writer)
      assert.deepStrictEqual(yield* TestPg.control("SELECT n FROM kept", [], url), [{ n: 1 }])
    })
  )

  it.scoped("a write refused in a transaction that the program made READ ONLY costs no connection", () =>
    Effect.gen(function* () {
      const { context, pid, sql } = yield* clientOf({ maxConnections: 1 })
      const before = yield* pid
      const error = yield* Effect.flip(
        Effect.provide(Transaction.readOnly(sql`CREATE TABLE nowhere (n int)`, { retry: false }), context)
      )
      assert.strictEqual(error._tag, "ReadOnlyError")
      assert.strictEqual(yield* pid, before)
    })
  )
})
