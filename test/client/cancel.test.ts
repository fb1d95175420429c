/** Cancelling: the caller goes on at once, the server drops the statement, and nobody else is hit. */
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Random, Redacted, Ref, Stream } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Remains from "../support/Remains.js"
import * as TestPg from "../support/TestPg.js"
import { advisoryLock, clientOf, proxied, waitingForLock } from "./support.js"

type Client = Effect.Effect.Success<ReturnType<typeof clientOf>>

const statement = "SELECT pg_sleep(600)"

/** Run the statement until the server is at it, then interrupt it: the caller is back while it would still run. */
const interruptMidway = ({ sessions, sql }: Client) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(sql.unsafe(statement))
    yield* TestPg.eventually(
      sessions,
      Arr.some(({ query, state }) => query === statement && state === "active")
    )
    assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
  })

const noLonger = ({ sessions }: Client) =>
  TestPg.eventually(sessions, (all) => all.every(({ query, state }) => query !== statement || state !== "active"))

/** Interrupted, gone from the server, and its connection at work again: the same server process. */
const settles = (client: Client) =>
  Effect.gen(function* () {
    const pid = yield* client.pid
    yield* interruptMidway(client)
    yield* noLonger(client)
    assert.strictEqual(yield* client.pid, pid)
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Cancelling", (it) => {
  it.scoped("an interrupted statement is gone from the server, and its connection serves again", () =>
    Effect.flatMap(clientOf({ maxConnections: 1 }), settles)
  )

  it.scoped("a statement that ends by itself while it is given up leaves its connection as it was", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pid, pool, sql } = yield* clientOf({ url, maxConnections: 1 })
      const before = yield* pid
      const sent = yield* proxy.hold({ on: FaultProxy.query(/^SELECT 2/) })
      const fiber = yield* Effect.fork(sql`SELECT 2`)
      yield* sent.happened()
      const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* sent.release
      yield* Fiber.join(interrupting)
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
      assert.strictEqual(yield* pid, before)
    })
  )

  it.scoped(
    "after a cancel one empty query goes first, to be hit by what comes late, and nobody else's meanwhile",
    () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* proxied
        const client = yield* clientOf({ url, maxConnections: 1 })
        const before = yield* client.pid
        const empty = yield* proxy.hold({ on: ({ kind, text }) => kind === "Query" && text === "" })
        yield* interruptMidway(client)
        const next = yield* Effect.fork(client.sql`SELECT pg_backend_pid() AS pid`)
        yield* TestPg.eventually(empty.count, (n) => n === 1)
        assert.deepInclude(yield* client.pool, { quarantined: 1, idle: 0 })
        assert.isNull(next.unsafePoll())
        yield* empty.release
        assert.deepStrictEqual(yield* Fiber.join(next), [{ pid: before }])
      })
  )

  it.scoped("500 interruptions at random moments hit nobody who was not interrupted", () =>
    Effect.gen(function* () {
      const { pool, sessions, sql } = yield* clientOf({ maxConnections: 4, retry: false })
      const interrupted = yield* Ref.make(0)
      // The innocent share the connections with the interrupted, each right behind one of them.
      const round = Effect.gen(function* () {
        const millis = yield* Random.nextIntBetween(0, 15)
        const sleep = yield* Random.nextIntBetween(1, 20)
        const result = yield* Effect.timeoutOption(sql.unsafe(`SELECT pg_sleep(${sleep / 1000})`), millis)
        if (result._tag === "None") yield* Ref.update(interrupted, (n) => n + 1)
        const rows = yield* sql`SELECT ${sleep}::int AS sleep, pg_sleep(0.001)`
        assert.strictEqual(rows[0]!.sleep, sleep)
      })
      yield* Effect.forEach(Arr.range(1, 500), () => round, { concurrency: 12 }).pipe(
        Effect.withRandom(Random.make("innocent"))
      )
      assert.isAtLeast(yield* Ref.get(interrupted), 100)
      yield* TestPg.eventually(pool, ({ idle, total }) => idle === total)
      assert.isAtMost((yield* sessions).length, 4)
    })
  )

  it.scoped("no more than four cancels are under way at once", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url, maxConnections: 12 })
      const fibers = yield* Effect.forEach(Arr.range(1, 12), () => Effect.fork(client.sql.unsafe(statement)))
      yield* TestPg.eventually(
        client.sessions,
        (all) => Arr.filter(all, ({ state }) => state === "active").length === 12
      )
      const held = yield* proxy.hold({ on: FaultProxy.kind("CancelRequest"), times: Infinity })
      yield* Effect.forEach(fibers, Fiber.interruptFork)
      yield* held.happened(4)
      // Sessions and cancels share the proxy; one that gets no answer takes its session with it.
      assert.isAtMost((yield* proxy.stats).open, 12 + 4)
      yield* held.release
      yield* noLonger(client)
      yield* TestPg.eventually(client.pool, ({ quarantined, used }) => quarantined + used === 0)
    })
  )

  it.scoped("where the cancel gets no answer the connection is given up, and the server still serves", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url, maxConnections: 1 })
      const before = yield* client.pid
      const held = yield* proxy.hold({ on: FaultProxy.kind("CancelRequest"), times: Infinity })
      yield* interruptMidway(client)
      yield* held.happened()
      assert.notStrictEqual(yield* client.pid, before)
      assert.isAbove((yield* client.pool).generation, 0)
    })
  )

  it.scoped("a COMMIT in flight is never cancelled: what it commits stays committed", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      const { pid, pool, sql } = yield* clientOf({ url: proxy.url(url), maxConnections: 1 })
      // A deferred trigger keeps COMMIT at work until the lock comes free.
      yield* sql.unsafe(`
        CREATE TABLE kept (n int);
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION wait()`)
      const before = yield* pid
      const lock = yield* advisoryLock(42, url)
      const fiber = yield* Effect.fork(sql.withTransaction(sql`INSERT INTO kept VALUES (1)`))
      yield* TestPg.eventually(waitingForLock("COMMIT"), (count) => count === 1)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      assert.strictEqual((yield* pool).quarantined, 1)
      yield* TestPg.control("SELECT pg_sleep(0.2)")
      assert.strictEqual(yield* waitingForLock("COMMIT"), 1)
      yield* lock.release
      assert.strictEqual(yield* pid, before)
      assert.deepStrictEqual(yield* sql`SELECT n FROM kept`, [{ n: 1 }])
      assert.strictEqual((yield* proxy.stats).cancelRequests, 0)
    })
  )

  it.scoped("an interrupted fetch of a stream is cancelled, and the connection comes back clean", () =>
    Effect.gen(function* () {
      const client = yield* clientOf({ maxConnections: 1 })
      const before = yield* client.pid
      const fiber = yield* Effect.fork(
        Stream.runDrain(client.sql`SELECT pg_sleep(600) FROM generate_series(1, 3)`.stream)
      )
      yield* TestPg.eventually(
        client.sessions,
        Arr.some(({ query, state }) => query.includes("generate_series") && state === "active")
      )
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* client.pid, before)
    })
  )
})

layer(EmbeddedPostgres.layer(), { excludeTestServices: true, timeout: "60 seconds" })(
  "Cancelling by TLS and by socket file",
  (it) => {
    for (const negotiation of ["postgres", "direct"]) {
      it.scoped(`goes through TLS like the session itself, negotiated the ${negotiation} way`, () =>
        Effect.gen(function* () {
          const server = yield* EmbeddedPostgres.EmbeddedPostgres
          yield* certificate(server.dataDir)
          yield* server.setting("ssl", true)
          const { proxy, url } = yield* proxied
          const secure = new URL(Redacted.value(url))
          secure.search = `sslmode=no-verify&sslnegotiation=${negotiation}`
          const client = yield* clientOf({ url: Redacted.make(secure.href), maxConnections: 1 })
          assert.deepStrictEqual(yield* client.sql`SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`, [
            { ssl: true }
          ])
          yield* settles(client)
          // In the clear it would have been seen here.
          assert.strictEqual((yield* proxy.stats).cancelRequests, 0)
          assert.strictEqual((yield* proxy.stats).attempted, 2)
        })
      )
    }

    it.scoped("goes to the same socket file as the session itself", () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        const directory = yield* Remains.temporary
        yield* server.setting("unix_socket_directories", directory)
        const { database, password, port, username } = server.config
        const client = yield* clientOf({
          url: undefined,
          host: directory,
          port,
          database,
          username,
          password,
          maxConnections: 1
        })
        assert.deepStrictEqual(yield* client.sql`SELECT inet_server_addr() AS address`, [{ address: null }])
        yield* settles(client)
        assert.isTrue(Fs.existsSync(Path.join(directory, `.s.PGSQL.${port}`)))
      })
    )
  }
)

/** A certificate signed by itself, where the server looks for it. */
const certificate = (dataDir: string) =>
  Effect.sync(() => {
    const [key, crt] = [Path.join(dataDir, "server.key"), Path.join(dataDir, "server.crt")]
    execFileSync(
      "openssl",
      [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-keyout",
        key,
        "-out",
        crt
      ],
      { stdio: "ignore" }
    )
    const { gid, uid } = Fs.statSync(dataDir)
    for (const file of [key, crt]) {
      Fs.chownSync(file, uid, gid)
      Fs.chmodSync(file, 0o600)
    }
  })
