/** How the layer's connections are made: credentials, set-up, settings, and waiting for a server that answers. */
import { assert, layer } from "@effect/vitest"
import {
  Array as Arr,
  Cause,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Inspectable,
  Layer,
  Logger,
  LogLevel,
  Redacted,
  Ref
} from "effect"
import { Operation, type PgError, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { clientOf, failure, hold, proxied } from "./client/support.js"
import * as TestPg from "./support/TestPg.js"

/** A role of its own with a password, and the options that log in as it but for the password. */
const role = (password: string) =>
  Effect.gen(function* () {
    const { config, query } = yield* EmbeddedPostgres.EmbeddedPostgres
    const username = `role_${crypto.randomUUID().slice(0, 8)}`
    yield* Effect.acquireRelease(query(`CREATE ROLE ${username} LOGIN PASSWORD '${password}'`), () =>
      Effect.orDie(query(`DROP ROLE ${username}`))
    )
    return {
      rotate: (to: string) => query(`ALTER ROLE ${username} PASSWORD '${to}'`),
      options: { url: undefined, host: config.host, port: config.port, database: config.database, username }
    }
  })

/** An effect that gives the passwords one after the other, the last one for ever, and how often it was asked. */
const passwords = (...all: Arr.NonEmptyArray<string>) =>
  Effect.map(Ref.make(0), (asked) => ({
    asked: Ref.get(asked),
    password: Effect.map(
      Ref.getAndUpdate(asked, (n) => n + 1),
      (n) => Redacted.make(all[Math.min(n, all.length - 1)]!)
    )
  }))

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("ResilientPg: connections", (it) => {
  it.scoped("a password that is an effect is asked for each new connection, and wins over the URL's", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const url = new URL(Redacted.value(server.url))
      url.password = "not-this-one"
      const { asked, password } = yield* passwords(Redacted.value(server.config.password))
      const { sql } = yield* clientOf({ url: Redacted.make(url.href), password, maxConnections: 3 })
      yield* Effect.scoped(Effect.all([hold(sql), hold(sql)], { concurrency: 2 }))
      yield* sql`SELECT 1`
      assert.strictEqual(yield* asked, 2)
    })
  )

  it.scoped("a password that was rotated meanwhile is asked for once more, and nobody notices", () =>
    Effect.gen(function* () {
      const { options } = yield* role("new")
      const { asked, password } = yield* passwords("old", "new")
      const { sql } = yield* clientOf({ ...options, password, retry: false })
      assert.lengthOf(yield* sql`SELECT 1`, 1)
      assert.strictEqual(yield* asked, 2)
    })
  )

  it.scoped("a password that stays wrong fails at once, after two tries and no more", () =>
    Effect.gen(function* () {
      const { options } = yield* role("right")
      const { asked, password } = yield* passwords("wrong")
      const { sql } = yield* clientOf({ ...options, password })
      const error = yield* failure(sql`SELECT 1`)
      assert.strictEqual(error._tag, "AuthenticationError")
      assert.strictEqual(error.sqlState, "28P01")
      assert.isFalse(error.transient)
      assert.strictEqual(yield* asked, 2)
    })
  )

  it.scoped("ALTER ROLE while the program runs: old connections serve on, new ones log in with the new password", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { options, rotate } = yield* role("first")
      const vault = yield* Ref.make(Redacted.make("first"))
      const { pid } = yield* clientOf({ ...options, password: Ref.get(vault), maxConnections: 1 })
      const before = yield* pid
      yield* rotate("second")
      yield* Ref.set(vault, Redacted.make("second"))
      assert.strictEqual(yield* pid, before)
      yield* server.terminate(before)
      assert.notStrictEqual(yield* Effect.eventually(pid), before)
    })
  )

  it.scoped("a password effect that fails, dies or gives nothing in time is a typed error without its words", () =>
    Effect.gen(function* () {
      const { options } = yield* role("unused")
      const vaults = [
        Effect.fail(new Error("token s3cret has expired")),
        Effect.die(new Error("token s3cret has expired"))
      ]
      for (const password of vaults) {
        const { sql } = yield* clientOf({ ...options, password })
        const exit = yield* Effect.exit(sql`SELECT 1`)
        assert.isTrue(Exit.isFailure(exit) && Cause.isFailType(exit.cause))
        assert.notInclude(
          Inspectable.toStringUnknown(exit) +
            Cause.pretty((exit as Exit.Failure<never, never>).cause, { renderErrorCause: true }),
          "s3cret"
        )
        assert.strictEqual((yield* failure(sql`SELECT 1`))._tag, "AuthenticationError")
      }
      const { sql } = yield* clientOf({ ...options, password: Effect.never })
      const error = yield* Effect.flip(Operation.named("ask", { timeout: "100 millis" })(sql`SELECT 1`))
      assert.strictEqual(error._tag, "QueryTimeoutError")
    })
  )

  it.scoped("onConnect sets up each new connection before its first use, and once", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const runs = yield* Ref.make(0)
      const { pid, sql } = yield* clientOf({
        maxConnections: 1,
        onConnect: (connection) =>
          Effect.zipRight(
            connection.execute("SELECT set_config('app.number', $1, false)", ["7"], undefined),
            Ref.update(runs, (n) => n + 1)
          )
      })
      const number = Effect.map(sql`SELECT current_setting('app.number', true) AS number`, ([row]) => row!.number)
      assert.strictEqual(yield* number, "7")
      assert.strictEqual(yield* number, "7")
      assert.strictEqual(yield* Ref.get(runs), 1)
      yield* server.terminate(yield* pid)
      assert.strictEqual(yield* Effect.eventually(number), "7")
      assert.strictEqual(yield* Ref.get(runs), 2)
    })
  )

  it.scoped(
    "an onConnect that fails fails whoever waits, with the tag of what it failed with, and leaves no session",
    () =>
      Effect.gen(function* () {
        const { sessions, sql } = yield* clientOf({
          onConnect: (connection) => Effect.asVoid(connection.execute("SELECT nonsense", [], undefined))
        })
        const error = yield* failure(sql`SELECT 1`)
        assert.strictEqual(error._tag, "SqlSyntaxError")
        assert.strictEqual(error.sqlState, "42703")
        yield* TestPg.eventually(sessions, Arr.isEmptyReadonlyArray)
      })
  )

  it.scoped("parameters hold on every connection", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf({
        maxConnections: 2,
        parameters: { search_path: "app, public", TimeZone: "Asia/Tokyo", "app.tenant": 'it\'s "7"' }
      })
      const settings = (connection: Effect.Effect.Success<typeof sql.reserve>) =>
        connection.execute(
          "SELECT current_setting('search_path') AS path, current_setting('timezone') AS zone, current_setting('app.tenant') AS tenant",
          [],
          undefined
        )
      const all = yield* Effect.scoped(
        Effect.flatMap(Effect.all([hold(sql), hold(sql)]), (held) =>
          Effect.forEach(held, ({ connection }) => settings(connection))
        )
      )
      assert.deepStrictEqual(all, Arr.replicate([{ path: "app, public", zone: "Asia/Tokyo", tenant: 'it\'s "7"' }], 2))
    })
  )

  it.scoped("a parameter that the server does not know is a typed error that names it", () =>
    Effect.gen(function* () {
      const { sessions, sql } = yield* clientOf({ parameters: { nonsense: "1" } })
      const error = yield* failure(sql`SELECT 1`)
      assert.strictEqual(error._tag, "SqlSyntaxError")
      assert.strictEqual(error.sqlState, "42704")
      assert.include(error.message, "nonsense")
      yield* TestPg.eventually(sessions, Arr.isEmptyReadonlyArray)
    })
  )

  it.scoped("serverTimeouts are the session's own defaults, from the startup message on, and are kept", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf({
        serverTimeouts: { statement: "150 millis", lock: "2 seconds", idleInTransaction: "infinity" }
      })
      const settings = sql`SELECT name, setting, source FROM pg_settings
        WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout') ORDER BY name`
      assert.deepStrictEqual(yield* settings, [
        { name: "idle_in_transaction_session_timeout", setting: "0", source: "client" },
        { name: "lock_timeout", setting: "2000", source: "client" },
        { name: "statement_timeout", setting: "150", source: "client" }
      ])
      assert.strictEqual((yield* failure(sql`SELECT pg_sleep(600)`))._tag, "StatementTimeoutError")
    })
  )

  it.scoped("ready waits for a server that comes up, and says so as soon as a query is answered", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { context, ready } = yield* clientOf()
      yield* ready()
      yield* Effect.addFinalizer(() => Effect.orDie(server.start))
      yield* server.stop()
      const error = yield* Effect.flip(ready({ within: "1 second" }))
      assert.include(["ConnectionError", "ServerUnavailableError"], error._tag)
      const waiting = yield* Effect.fork(Effect.provide(ResilientPg.ready({ within: "infinity" }), context))
      yield* server.start
      yield* Fiber.join(waiting)
    })
  )

  it.scoped("ready fails at once on what no waiting mends", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const url = (change: (url: URL) => void) => {
        const changed = new URL(Redacted.value(server.url))
        change(changed)
        return Redacted.make(changed.href)
      }
      const wrongPassword = url((url) => {
        url.password = "wrong"
      })
      const wrongDatabase = url((url) => {
        url.pathname = "/nowhere"
      })
      const hopeless = [
        [{ url: wrongPassword }, "AuthenticationError"],
        [{ url: wrongDatabase }, "ConnectionError"],
        [{ url: server.url, ssl: true }, "ConnectionError"]
      ] as const
      for (const [options, tag] of hopeless) {
        const { ready } = yield* clientOf(options)
        const error = yield* Effect.flip(ready({ within: "infinity" }))
        assert.strictEqual(error._tag, tag)
        assert.isFalse(error.transient)
      }
    })
  )

  it.scoped("ready gives up after `within` when nobody answers at all", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      yield* proxy.blackHole({ new: true })
      const { ready } = yield* clientOf({ url })
      const error = yield* Effect.flip(ready({ within: "200 millis" }))
      assert.strictEqual(error._tag, "PoolTimeoutError")
      assert.match(error.message, /^No query could be answered within 200ms/)
    })
  )

  it.scoped("a ready that gave up gives its connection back, also from a network that went black", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { pool, ready, sql } = yield* clientOf({ url, maxConnections: 1, checkAfterIdle: "infinity" })
      yield* sql`SELECT 1`
      yield* proxy.blackHole({ existing: true })
      assert.strictEqual((yield* Effect.flip(ready({ within: "100 millis" })))._tag, "PoolTimeoutError")
      assert.lengthOf(yield* sql`SELECT 1`, 1)
      yield* TestPg.eventually(pool, ({ idle, quarantined }) => idle === 1 && quarantined === 0)
    })
  )

  it.scoped("the layer builds while the server is away, unless it requires one on start: then it waits", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      yield* Effect.addFinalizer(() => Effect.orDie(server.start))
      yield* server.stop()
      const lazy = yield* clientOf({ retry: false })
      const built = yield* Deferred.make<void>()
      const eager = yield* Effect.fork(
        Effect.tap(clientOf({ requireOnStart: true }), () => Deferred.succeed(built, undefined))
      )
      // The lazy one has tried and failed, so the eager one has had its chance, too.
      assert.strictEqual((yield* failure(lazy.sql`SELECT 1`))._tag, "ConnectionError")
      assert.isFalse(yield* Deferred.isDone(built))
      yield* server.start
      const { sql } = yield* Fiber.join(eager)
      assert.lengthOf(yield* sql`SELECT 1`, 1)
      assert.lengthOf(yield* Effect.eventually(lazy.sql`SELECT 1`), 1)
    })
  )

  it.scoped("a layer that requires a server on start fails typed where waiting is no help", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const url = server.urlOf("nowhere")
      const error = yield* Effect.flip(
        Layer.build(ResilientPg.layer({ url, requireOnStart: true })).pipe(Logger.withMinimumLogLevel(LogLevel.None))
      )
      assert.strictEqual(error._tag, "SqlError")
      assert.strictEqual((error.cause as PgError.PgError)._tag, "ConnectionError")
      assert.strictEqual((error.cause as PgError.PgError).sqlState, "3D000")
    })
  )

  it.scoped("options out of range are refused when the layer is built, all of them by name", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Layer.build(
          ResilientPg.layer({
            url: Redacted.make("postgres://localhost/db"),
            minConnections: 5,
            maxConnections: 2,
            acquireTimeout: -1,
            maxUses: Number.NaN,
            parameters: { "bad name": "secret-value" },
            breaker: { failureThreshold: 0 }
          })
        )
      )
      assert.strictEqual(error._tag, "SqlError")
      const invalid = error.cause as PgError.InvalidOptionsError
      assert.strictEqual(invalid._tag, "InvalidOptionsError")
      const fields = invalid.faults.map(({ field }) => field)
      for (const field of ["minConnections", "acquireTimeout", "maxUses", "parameters.bad name"]) {
        assert.include(fields, field)
        assert.include(error.message, field)
      }
      assert.notInclude(Inspectable.toStringUnknown(error) + error.message, "secret-value")
      const breaker = yield* Effect.flip(
        Layer.build(
          ResilientPg.layer({ url: Redacted.make("postgres://localhost/db"), breaker: { failureThreshold: 0 } })
        )
      )
      assert.match(breaker.message, /failureThreshold/)
    })
  )
})
