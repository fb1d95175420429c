import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Pg from "pg"
import * as Processes from "../../src/testing/internal/processes.js"
import * as TestPg from "../support/TestPg.js"

const connect = (url: Redacted.Redacted, config: Pg.ClientConfig = {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ ...config, connectionString: Redacted.value(url) })
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.sync(() => client.connection.stream.destroy())
  )
/** Fails with the error's code, or its message where it has none. */
const run = (client: Pg.Client, sql: string) =>
  Effect.tryPromise({
    try: () => client.query(sql),
    catch: (error) => (error as Pg.DatabaseError).code ?? (error as Error).message
  }).pipe(Effect.map(({ rows }) => rows))
const backendPid = (client: Pg.Client) => (client as unknown as { readonly processID: number }).processID

/** The file's server, running whatever the test before it did. */
const running = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.EmbeddedPostgres
  yield* server.resume
  yield* server.start
  return server
})

layer(EmbeddedPostgres.layer(), { excludeTestServices: true, timeout: "60 seconds" })("EmbeddedPostgres", (it) => {
  it.scoped("is PostgreSQL 18 with SCRAM authentication, UTC and the documented settings", () =>
    Effect.gen(function* () {
      const server = yield* running
      const [row] = yield* TestPg.control(`SELECT current_setting('server_version_num')::int / 10000 AS version,
        current_setting('max_connections') AS connections, current_setting('fsync') AS fsync,
        current_setting('timezone') AS zone, pg_encoding_to_char(encoding) AS encoding
        FROM pg_database WHERE datname = current_database()`)
      assert.deepStrictEqual(row, { version: 18, connections: "40", fsync: "on", zone: "UTC", encoding: "UTF8" })
      const wrong = new URL(Redacted.value(server.url))
      wrong.password = "wrong"
      const client = new Pg.Client({ connectionString: wrong.href })
      const refused = yield* Effect.flip(Effect.tryPromise(() => client.connect()))
      assert.strictEqual((refused.cause as Pg.DatabaseError).code, "28P01")
    })
  )

  it.scoped("keeps committed rows through a crash, which leaves no process", () =>
    Effect.gen(function* () {
      const server = yield* running
      const { url } = yield* TestPg.database
      yield* TestPg.control("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n", [], url)
      const client = yield* connect(url)
      yield* run(client, "BEGIN")
      yield* run(client, "INSERT INTO kept VALUES (1001)")
      const before = (yield* server.pid)!
      const family = Processes.family(before).map(({ pid }) => pid)
      yield* server.crash
      assert.deepStrictEqual(
        Processes.list().filter(({ pid }) => family.includes(pid)),
        []
      )
      assert.strictEqual(yield* server.state, "Stopped")
      assert.strictEqual(yield* server.pid, undefined)
      yield* server.start
      assert.notStrictEqual(yield* server.pid, before)
      assert.include(yield* server.log, "database system was not properly shut down")
      assert.deepStrictEqual(yield* TestPg.control("SELECT count(*)::int AS n FROM kept", [], url), [{ n: 1000 }])
    })
  )

  it.scoped("crashes while it is paused, too", () =>
    Effect.gen(function* () {
      const server = yield* running
      yield* server.pause
      yield* server.crash
      yield* server.start
      assert.strictEqual(yield* server.state, "Running")
    })
  )

  it.scoped("ends clients with 57P01 on a fast stop and without an error on an immediate one, and keeps its port", () =>
    Effect.gen(function* () {
      const server = yield* running
      for (const [mode, code] of [
        ["fast", "57P01"],
        ["immediate", "Connection terminated unexpectedly"]
      ] as const) {
        const client = yield* connect(server.url)
        const sleeping = yield* Effect.fork(Effect.flip(run(client, "SELECT pg_sleep(600)")))
        yield* TestPg.eventually(server.backends, (rows) => rows.some(({ state }) => state === "active"))
        yield* server.stop({ mode })
        assert.strictEqual(yield* Fiber.join(sleeping), code)
        assert.strictEqual(yield* server.state, "Stopped")
        yield* server.start
        yield* run(yield* connect(server.url), "SELECT")
      }
    })
  )

  it.scoped("waits for the last client on a smart stop", () =>
    Effect.gen(function* () {
      const server = yield* running
      const client = yield* connect(server.url)
      const stopping = yield* Effect.fork(server.stop({ mode: "smart" }))
      yield* TestPg.eventually(server.log, (log) => log.includes("received smart shutdown request"))
      assert.deepStrictEqual(yield* run(client, "SELECT 1 AS one"), [{ one: 1 }])
      assert.strictEqual((yield* Fiber.poll(stopping))._tag, "None")
      yield* Effect.promise(() => client.end())
      yield* Fiber.join(stopping)
      assert.strictEqual(yield* server.state, "Stopped")
    })
  )

  it.scoped("does nothing when asked to start while it runs, or to stop and crash while it is stopped", () =>
    Effect.gen(function* () {
      const server = yield* running
      const pid = yield* server.pid
      yield* server.start
      assert.strictEqual(yield* server.pid, pid)
      yield* server.stop()
      yield* server.stop()
      yield* server.crash
      assert.strictEqual(yield* server.state, "Stopped")
    })
  )

  it.scoped("answers nothing while it is paused, neither old connections nor new ones, and everything afterwards", () =>
    Effect.gen(function* () {
      const server = yield* running
      const client = yield* connect(server.url)
      const pid = (yield* server.pid)!
      yield* server.pause
      assert.strictEqual(yield* server.state, "Paused")
      assert.isTrue(Processes.family(pid).every(({ stopped }) => stopped))
      const old = yield* Effect.fork(run(client, "SELECT 1 AS one"))
      const young = yield* Effect.fork(Effect.flatMap(connect(server.url), (client) => run(client, "SELECT 2 AS two")))
      // A connection to a server that runs has its answer by now.
      const other = yield* EmbeddedPostgres.make()
      yield* run(yield* connect(other.url), "SELECT")
      assert.deepStrictEqual([(yield* Fiber.poll(old))._tag, (yield* Fiber.poll(young))._tag], ["None", "None"])
      yield* server.resume
      assert.deepStrictEqual(yield* Fiber.join(old), [{ one: 1 }])
      assert.deepStrictEqual(yield* Fiber.join(young), [{ two: 2 }])
      assert.isTrue(Processes.family(pid).every(({ stopped }) => !stopped))
    })
  )

  it.scoped("refuses to start or be asked while it is paused, and says so", () =>
    Effect.gen(function* () {
      const server = yield* running
      yield* server.pause
      assert.include((yield* Effect.flip(server.start)).message, "paused: resume it")
      yield* server.stop() // resumes first
      assert.include((yield* Effect.flip(server.pause)).message, "stopped")
      assert.include((yield* Effect.flip(server.query("SELECT"))).message, "ECONNREFUSED")
    })
  )

  it.scoped("terminates one backend and no other, also when no connection is to be had", () =>
    Effect.gen(function* () {
      const server = yield* running
      yield* server.createDatabase("full")
      yield* TestPg.control("CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'")
      const [victim, witness] = [yield* connect(server.url), yield* connect(server.url)]
      const rest = 40 - (yield* server.backends).length
      yield* Effect.replicateEffect(connect(server.url), rest)
      assert.include((yield* Effect.flip(server.query("SELECT"))).message, "too many clients")
      const sleeping = yield* Effect.fork(Effect.flip(run(victim, "SELECT pg_sleep(600)")))
      assert.isTrue(yield* server.terminate(backendPid(victim)))
      assert.strictEqual(yield* Fiber.join(sleeping), "57P01")
      assert.deepStrictEqual(yield* run(witness, "SELECT 1 AS one"), [{ one: 1 }])
      assert.isFalse(yield* TestPg.eventually(server.terminate(backendPid(victim)), (found) => !found))
    })
  )

  it.scoped("kills one backend, whereupon the server ends the others and recovers", () =>
    Effect.gen(function* () {
      const server = yield* running
      const [victim, witness] = [yield* connect(server.url), yield* connect(server.url)]
      const sleeping = yield* Effect.fork(Effect.flip(run(witness, "SELECT pg_sleep(600)")))
      yield* TestPg.eventually(server.backends, (rows) => rows.some(({ state }) => state === "active"))
      const pid = yield* server.pid
      assert.isTrue(yield* server.kill(backendPid(victim)))
      assert.strictEqual(yield* Fiber.join(sleeping), "Connection terminated unexpectedly")
      yield* TestPg.eventually(Effect.exit(server.query("SELECT")), Exit.isSuccess)
      assert.strictEqual(yield* server.pid, pid)
    })
  )

  it.scoped("signals no process that is not its own", () =>
    Effect.gen(function* () {
      const server = yield* running
      assert.isFalse(yield* server.kill(process.pid))
      assert.isFalse(yield* server.terminate((yield* server.pid)!))
      yield* server.query("SELECT")
    })
  )

  it.scoped("notices that its postmaster was ended by somebody else", () =>
    Effect.gen(function* () {
      const server = yield* running
      process.kill((yield* server.pid)!, "SIGQUIT")
      yield* TestPg.eventually(server.state, (state) => state === "Stopped")
      yield* server.start
      yield* server.query("SELECT")
    })
  )

  it.scoped("shows the connections of clients, and not its own", () =>
    Effect.gen(function* () {
      const server = yield* running
      const { name, url } = yield* TestPg.database
      const client = yield* connect(url, { application_name: "the client" })
      yield* run(client, "BEGIN; SELECT 'in it'")
      const [backend, ...others] = (yield* server.backends).filter(({ database }) => database === name)
      assert.deepInclude(backend, {
        pid: backendPid(client),
        username: "postgres",
        applicationName: "the client",
        state: "idle in transaction",
        query: "BEGIN; SELECT 'in it'"
      })
      assert.deepStrictEqual(others, [])
    })
  )

  it.scoped("changes settings by reload, by restart where needed, and back", () =>
    Effect.gen(function* () {
      const server = yield* running
      const show = (name: string) =>
        Effect.map(server.query<Record<string, string>>(`SHOW ${name}`), ([row]) => row?.[name])
      const pid = yield* server.pid
      yield* server.setting("statement_timeout", "1234ms")
      assert.strictEqual(yield* show("statement_timeout"), "1234ms")
      yield* server.setting("statement_timeout", null)
      assert.strictEqual(yield* show("statement_timeout"), "0")
      assert.strictEqual(yield* server.pid, pid)
      yield* server.setting("max_connections", 20)
      assert.strictEqual(yield* show("max_connections"), "20")
      assert.notStrictEqual(yield* server.pid, pid)
      yield* server.setting("max_connections", null)
      assert.strictEqual(yield* show("max_connections"), "40")
      assert.include((yield* Effect.flip(server.setting("no_such_setting", 1))).message, "no_such_setting")
    })
  )

  it.scoped("makes databases that go with their scope, whoever is still connected", () =>
    Effect.gen(function* () {
      const server = yield* running
      const databases = Effect.map(
        server.query<{ name: string }>("SELECT datname AS name FROM pg_database WHERE datname LIKE 'odd%'"),
        (rows) => rows.map(({ name }) => name)
      )
      const name = `odd "näme" 100%`
      const scope = yield* Scope.make()
      const url = yield* Scope.extend(server.createDatabase(name), scope)
      const client = yield* connect(url)
      assert.deepStrictEqual(yield* run(client, "SELECT current_database() AS name"), [{ name }])
      assert.deepStrictEqual(yield* databases, [name])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* databases, [])
    })
  )

  it.scoped("says in the error what the server's log says when it does not start", () =>
    Effect.gen(function* () {
      const server = yield* running
      yield* server.stop()
      const file = Path.join(server.dataDir, "postgresql.auto.conf")
      const good = Fs.readFileSync(file)
      Fs.writeFileSync(file, "shared_buffers = 'nonsense'\n")
      const error = yield* Effect.flip(server.start)
      assert.strictEqual(error._tag, "EmbeddedPostgresError")
      assert.include(error.message, `invalid value for parameter "shared_buffers": "nonsense"`)
      Fs.writeFileSync(file, good)
      yield* server.start
    })
  )

  it.scoped("shows no password in its errors, log or printed form", () =>
    Effect.gen(function* () {
      const server = yield* running
      const password = Redacted.value(server.config.password)
      yield* server.stop()
      const error = yield* Effect.flip(server.query("SELECT"))
      const shown = [JSON.stringify(server), String(server.url), JSON.stringify(error), error.stack, yield* server.log]
      assert.notInclude(shown.join("\n"), password)
    })
  )

  it.scoped("carries a proxy in front of it", () =>
    Effect.gen(function* () {
      const server = yield* running
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      assert.deepStrictEqual(yield* run(yield* connect(proxy.url(server.url)), "SELECT 1 AS one"), [{ one: 1 }])
    })
  )
})
