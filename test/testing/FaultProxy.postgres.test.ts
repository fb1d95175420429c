import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Pg from "pg"
import * as Tcp from "../support/Tcp.js"
import * as TestPg from "../support/TestPg.js"
import * as Wire from "../support/wire.js"

const connect = (url: Redacted.Redacted) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: Redacted.value(url) })
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.sync(() => client.connection.stream.destroy())
  )
/** Fails with the error's code, or its message where it has none. */
const run = (client: Pg.Client, sql: string | Pg.QueryConfig, values?: ReadonlyArray<unknown>) =>
  Effect.tryPromise({
    try: () => client.query(sql as string, values?.slice()),
    catch: (error) => (error as Pg.DatabaseError).code ?? (error as Error).message
  }).pipe(Effect.map(({ rows }) => rows))

/** A database with an empty table `kept(n)`, a client of it through the proxy, and a look at the table past the proxy. */
const fixture = Effect.gen(function* () {
  const proxy = yield* FaultProxy.FaultProxy
  yield* Effect.addFinalizer(() => Effect.orDie(proxy.heal))
  const { url } = yield* TestPg.database
  yield* TestPg.control("CREATE TABLE kept (n int PRIMARY KEY)", [], url)
  const client = yield* connect(proxy.url(url))
  const kept = Effect.map(TestPg.control<{ n: number }>("SELECT n FROM kept ORDER BY n", [], url), (rows) =>
    rows.map(({ n }) => n)
  )
  return { proxy, url, client, kept, connect: connect(proxy.url(url)) }
})

layer(Layer.provideMerge(FaultProxy.layerEmbedded, TestPg.layer), {
  excludeTestServices: true,
  timeout: "60 seconds"
})("FaultProxy before PostgreSQL", (it) => {
  it.scoped("cuts before COMMIT: nothing is stored", () =>
    Effect.gen(function* () {
      const { client, kept, proxy, url } = yield* fixture
      const cut = yield* proxy.cut({ on: FaultProxy.query(/^COMMIT/i), when: "before" })
      yield* run(client, "BEGIN")
      yield* run(client, "INSERT INTO kept VALUES (1)")
      assert.strictEqual(yield* Effect.flip(run(client, "COMMIT")), "ECONNRESET")
      yield* cut.happened()
      // The server has noticed when the backend is gone.
      yield* TestPg.eventually(
        TestPg.control(
          "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
          [],
          url
        ),
        (rows) => rows.length === 0
      )
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("cuts after COMMIT: it is applied", () =>
    Effect.gen(function* () {
      const { client, kept, proxy } = yield* fixture
      const cut = yield* proxy.cut({ on: FaultProxy.query(/^COMMIT/i), when: "after", ending: "close" })
      yield* run(client, "BEGIN")
      yield* run(client, "INSERT INTO kept VALUES (1)")
      assert.strictEqual(yield* Effect.flip(run(client, "COMMIT")), "Connection terminated unexpectedly")
      yield* cut.happened()
      yield* TestPg.eventually(kept, (rows) => rows.length === 1)
    })
  )

  it.scoped("cuts after an extended command: the command is applied as a whole", () =>
    Effect.gen(function* () {
      const { client, kept, proxy } = yield* fixture
      yield* proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "after" })
      yield* Effect.flip(run(client, "INSERT INTO kept VALUES ($1)", [7]))
      yield* TestPg.eventually(kept, (rows) => rows.length === 1)
    })
  )

  it.scoped("swallows the answer to COMMIT: the row is there when the connection ends", () =>
    Effect.gen(function* () {
      const { client, kept, proxy } = yield* fixture
      const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/i) })
      yield* run(client, "BEGIN")
      yield* run(client, "INSERT INTO kept VALUES (1)")
      assert.strictEqual(yield* Effect.flip(run(client, "COMMIT")), "ECONNRESET")
      assert.deepStrictEqual(yield* kept, [1])
      assert.strictEqual(yield* lost.count, 1)
    })
  )

  it.scoped("swallows the answer to an extended autocommit write, which is applied when the connection ends", () =>
    Effect.gen(function* () {
      const { client, kept, proxy, url } = yield* fixture
      yield* TestPg.control(
        `CREATE FUNCTION keep(int) RETURNS text
         AS $$ INSERT INTO kept VALUES ($1) RETURNING repeat('x', 20000) $$ LANGUAGE sql`,
        [],
        url
      )
      const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/keep/), ending: "close" })
      // The first row fills the server's buffer, so that part of the answer is sent well before the statement is done.
      const keep = "SELECT keep(n), CASE WHEN n = 2 THEN pg_sleep(0.3) END FROM generate_series($1::int, 2) n"
      assert.strictEqual(yield* Effect.flip(run(client, keep, [1])), "Connection terminated unexpectedly")
      assert.deepStrictEqual(yield* kept, [1, 2])
      assert.strictEqual(yield* lost.count, 1)
    })
  )

  it.scoped("swallows one of several pipelined answers and delivers those before it", () =>
    Effect.gen(function* () {
      const { client, kept, proxy } = yield* fixture
      yield* proxy.swallowReply({ on: FaultProxy.query(/VALUES \(2\)/) })
      // Written to the socket at once, past the driver's own queue.
      const answers: Array<string> = []
      client.connection.on("commandComplete", ({ text }: { readonly text: string }) => answers.push(text))
      const ended = Effect.async<void>((resume) => void client.connection.once("end", () => resume(Effect.void)))
      const waiting = yield* Effect.fork(ended)
      yield* Effect.yieldNow()
      client.connection.stream.cork()
      for (const n of [1, 2, 3]) client.connection.query(`INSERT INTO kept VALUES (${n})`)
      client.connection.stream.uncork()
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(answers, ["INSERT 0 1"])
      assert.includeMembers(yield* kept, [1, 2])
    })
  )

  it.scoped("swallows the answer and leaves the client waiting, until it is healed", () =>
    Effect.gen(function* () {
      const { client, kept, proxy } = yield* fixture
      const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/^INSERT/), ending: "blackHole" })
      const insert = yield* Effect.fork(Effect.flip(run(client, "INSERT INTO kept VALUES (1)")))
      yield* lost.happened()
      assert.deepStrictEqual(yield* kept, [1])
      assert.isTrue((yield* Fiber.poll(insert))._tag === "None")
      yield* proxy.heal
      assert.strictEqual(yield* Fiber.join(insert), "ECONNRESET")
    })
  )

  it.scoped("holds a message until it is released, while others pass", () =>
    Effect.gen(function* () {
      const { client, connect, kept, proxy } = yield* fixture
      const other = yield* connect
      const held = yield* proxy.hold({ on: FaultProxy.query(/^COMMIT/i) })
      yield* run(client, "BEGIN")
      yield* run(client, "INSERT INTO kept VALUES (1)")
      const commit = yield* Effect.fork(run(client, "COMMIT"))
      yield* held.happened()
      yield* run(other, "INSERT INTO kept VALUES (2)")
      assert.deepStrictEqual(yield* kept, [2])
      yield* held.release
      yield* Fiber.join(commit)
      assert.deepStrictEqual(yield* kept, [1, 2])
    })
  )

  it.scoped("lets go of what it holds when it is healed", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* fixture
      const held = yield* proxy.hold({ on: FaultProxy.kind("Query"), times: Infinity })
      const query = yield* Effect.fork(run(client, "SELECT 1 AS one"))
      yield* held.happened()
      yield* proxy.heal
      assert.deepStrictEqual(yield* Fiber.join(query), [{ one: 1 }])
      yield* run(client, "SELECT 2")
      assert.strictEqual(yield* held.count, 1)
    })
  )

  it.scoped("finds every execution of a named statement by its text, as often as told", () =>
    Effect.gen(function* () {
      const { client, connect, kept, proxy } = yield* fixture
      const insert = (client: Pg.Client, n: number) =>
        run(client, { name: "insert", text: "INSERT INTO kept VALUES ($1)", values: [n] })
      yield* insert(client, 1)
      const cut = yield* proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "before", times: 2 })
      // This connection has parsed the statement, the next one has not, the last one meets no rule any more.
      assert.strictEqual(yield* Effect.flip(insert(client, 2)), "ECONNRESET")
      assert.strictEqual(yield* Effect.flip(insert(yield* connect, 3)), "ECONNRESET")
      yield* insert(yield* connect, 4)
      assert.strictEqual(yield* cut.count, 2)
      assert.deepStrictEqual(yield* kept, [1, 4])
    })
  )

  it.scoped("applies no rule that was cancelled", () =>
    Effect.gen(function* () {
      const { client, proxy } = yield* fixture
      const cut = yield* proxy.cut({ on: FaultProxy.query(/./), when: "before" })
      yield* cut.cancel
      assert.deepStrictEqual(yield* run(client, "SELECT 1 AS one"), [{ one: 1 }])
      assert.strictEqual(yield* cut.count, 0)
    })
  )

  it.scoped("carries and counts cancel requests", () =>
    Effect.gen(function* () {
      const { client, proxy, url } = yield* fixture
      const before = yield* proxy.stats
      const sleeping = yield* Effect.fork(Effect.flip(run(client, "SELECT pg_sleep(600)")))
      yield* TestPg.eventually(
        TestPg.control(
          "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'",
          [],
          url
        ),
        (rows) => rows.length === 1
      )
      const { processID, secretKey } = client as unknown as { readonly processID: number; readonly secretKey: number }
      const request = yield* Tcp.connect(proxy.port)
      request.socket.write(Wire.cancel(processID, secretKey))
      assert.strictEqual(yield* Fiber.join(sleeping), "57014")
      assert.strictEqual((yield* proxy.stats).cancelRequests - before.cancelRequests, 1)
    })
  )

  it.scoped("can black-hole a session and give it back unharmed", () =>
    Effect.gen(function* () {
      const { client, connect, proxy } = yield* fixture
      yield* run(client, "SELECT")
      yield* proxy.blackHole({ existing: true })
      const waiting = yield* Effect.fork(run(client, "SELECT 1 AS one"))
      yield* run(yield* connect, "SELECT")
      assert.strictEqual((yield* Fiber.poll(waiting))._tag, "None")
      yield* proxy.blackHole({ existing: false })
      assert.deepStrictEqual(yield* Fiber.join(waiting), [{ one: 1 }])
    })
  )

  it.scoped("carries a large result and a large statement whole", () =>
    Effect.gen(function* () {
      const { client } = yield* fixture
      const text = "x".repeat(5_000_000)
      const [row] = yield* run(client, "SELECT repeat($1, 3) AS text, generate_series(1, 2)", [text])
      assert.strictEqual(row?.text.length, 15_000_000)
    })
  )

  it.scoped("follows the server through a crash", () =>
    Effect.gen(function* () {
      const { client, connect, url } = yield* fixture
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      yield* server.crash
      yield* Effect.flip(run(client, "SELECT"))
      yield* server.start
      assert.deepStrictEqual(yield* run(yield* connect, "SELECT 1 AS one"), [{ one: 1 }])
      assert.deepStrictEqual(yield* TestPg.control("SELECT n FROM kept", [], url), [])
    })
  )
})
