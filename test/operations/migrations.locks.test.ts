/** Busy tables, other programs that migrate, sessions that are lost or stand still, poolers. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Either, Fiber, Redacted, Ref, Schedule } from "effect"
import { Migrations } from "effect-pg-resilience"
import type { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { keyOf } from "../../src/operations/internal/migrations/lock.js"
import { hold, waitingForLock } from "../client/support.js"
import { pgbouncer, pooling } from "../support/PgBouncer.js"
import * as TestPg from "../support/TestPg.js"
import { applied, clientWith, fresh, once, record, sql, step, traced, traces } from "./migrationsSupport.js"

const loader = record({ "1_one": step("one"), "2_two": step("two") })

/** The session that migrates, of whoever does. */
const migrating = (url: Redacted.Redacted) =>
  TestPg.control<{ pid: number; state: string; query: string }>(
    "SELECT pid, state, query FROM pg_stat_activity WHERE application_name LIKE '%migrations' AND datname = current_database()",
    [],
    url
  )

/** A reader that keeps its transaction, and so its lock, open. */
const reading = (url: Redacted.Redacted) =>
  Effect.gen(function* () {
    const { client } = yield* clientWith(url)
    const { connection } = yield* hold(client.sql)
    yield* connection.execute("BEGIN", [], undefined)
    yield* connection.execute("SELECT FROM busy", [], undefined)
    return { release: connection.execute("COMMIT", [], undefined) }
  })

/** A schedule that goes on for ever, and how often it was asked. */
const counted = Effect.map(Ref.make(0), (count) => ({
  count: Ref.get(count),
  schedule: Schedule.spaced("20 millis").pipe(Schedule.tapInput(() => Ref.update(count, (n) => n + 1)))
}))

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Migrations and locks", (it) => {
  for (const transaction of [true, false]) {
    it.scoped(
      `${transaction ? "in" : "outside"} a transaction, one that waits for a busy table lets those behind it through, and gets there in the end`,
      () =>
        Effect.gen(function* () {
          const { control, on, url } = yield* fresh()
          yield* control("CREATE TABLE busy AS SELECT 1 AS id")
          const reader = yield* reading(url)
          const { count, schedule } = yield* counted
          const body = Effect.zipRight(traced("one"), sql("ALTER TABLE busy ADD COLUMN more int"))
          const options = {
            loader: record({ "1_one": Migrations.define(body, { transaction }) }),
            lockTimeout: "300 millis",
            retry: schedule
          } as const
          const fiber = yield* Effect.fork(on(Migrations.up(options)))
          yield* TestPg.eventually(waitingForLock("ALTER TABLE busy"), (n) => n === 1)
          // Queued behind the ALTER TABLE, and through before that has its lock: the first reader still has its own.
          assert.deepStrictEqual(yield* control("SELECT * FROM busy"), [{ id: 1 }])
          yield* TestPg.eventually(count, (n) => n >= 2)
          assert.deepStrictEqual(yield* control("SELECT * FROM busy"), [{ id: 1 }])
          yield* reader.release
          assert.lengthOf((yield* Fiber.join(fiber)).done, 1)
          assert.deepStrictEqual(yield* control("SELECT * FROM busy"), [{ id: 1, more: null }])
          assert.deepStrictEqual(yield* traces(url), ["one"])
        })
    )
  }

  it.scoped("fail with a lock that is not to be had when the schedule ends, and are rolled back", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      yield* control("CREATE TABLE busy AS SELECT 1 AS id")
      const reader = yield* reading(url)
      const body = Effect.zipRight(traced("one"), sql("ALTER TABLE busy ADD COLUMN more int"))
      const options = { loader: record({ "1_one": body }), lockTimeout: 10, retry: Schedule.recurs(2) }
      const error = yield* Effect.flip(on(Migrations.up(options)))
      assert(error instanceof Migrations.MigrationFailed)
      assert.strictEqual(error.state, "rolledBack")
      assert.match(error.message, /lock/)
      assert.deepStrictEqual(yield* traces(url), [])
      yield* reader.release
      yield* on(Migrations.up(options))
      assert.deepStrictEqual(yield* applied(url), ["1_one"])
    })
  )

  it.scoped("wait for another program as long as they may, name it, and go on when its session is ended", () =>
    Effect.gen(function* () {
      const { client, control, on, url } = yield* fresh()
      const { connection } = yield* hold(client.sql)
      yield* connection.execute("SELECT pg_advisory_lock($1)", [keyOf("effect_sql_migrations")], undefined)
      const [holder] = yield* connection.execute("SELECT pg_backend_pid() AS pid", [], undefined)
      const error = yield* Effect.flip(on(Migrations.up({ loader, waitForLock: 0 })))
      assert(error instanceof Migrations.MigrationsLocked)
      assert.include(error.holder, `process ${holder.pid}, "${client.applicationName}"`)
      // Whoever has nothing to do, or only looks, waits for nobody.
      assert.deepStrictEqual((yield* on(Migrations.up({ loader: record({}), waitForLock: 0 }))).done, [])
      assert.lengthOf(yield* on(Migrations.status({ loader })), 2)

      const waiting = yield* Effect.fork(on(Migrations.up({ loader })))
      yield* TestPg.eventually(migrating(url), (all) => all.some(({ query }) => query.includes("pg_try_advisory_lock")))
      yield* control(`SELECT pg_terminate_backend(${holder.pid})`)
      assert.lengthOf((yield* Fiber.join(waiting)).done, 2)
    })
  )

  it.scoped("that build an index concurrently are not held up by those that wait for them", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      yield* control("CREATE TABLE busy AS SELECT 1 AS id")
      const others = yield* Effect.replicateEffect(clientWith(url), 2)
      const allWait = TestPg.eventually(
        migrating(url),
        (all) => all.filter(({ query }) => query.includes("pg_try_advisory_lock")).length === others.length
      )
      const server = yield* Effect.context<EmbeddedPostgres.EmbeddedPostgres>()
      const body = Effect.zipRight(
        Effect.provide(allWait, server),
        sql("CREATE INDEX CONCURRENTLY busy_id ON busy (id)")
      )
      const options = { loader: record({ "1_index": Migrations.define(body, { transaction: false }) }) }
      const first = yield* Effect.fork(on(Migrations.up(options)))
      yield* TestPg.eventually(migrating(url), ({ length }) => length > 0)
      const started = Effect.forEach(others, ({ on }) => on(Migrations.up(options)), { concurrency: "unbounded" })
      const done = yield* Effect.zip(Fiber.join(first), started, { concurrent: true })
      assert.lengthOf(
        [done[0], ...done[1]].flatMap(({ done }) => done),
        1
      )
    })
  )

  it.scoped("go on, with nothing done twice, when the server ends their session in mid-migration", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      const cut = yield* Ref.make(0)
      const server = yield* Effect.context<EmbeddedPostgres.EmbeddedPostgres>()
      const suicidal = Effect.gen(function* () {
        yield* traced("one")
        if ((yield* Ref.getAndUpdate(cut, (n) => n + 1)) === 0) {
          const [session] = yield* Effect.provide(migrating(url), server)
          yield* Effect.provide(control(`SELECT pg_terminate_backend(${session!.pid})`), server)
        }
        yield* traced("one more")
      })
      const options = { loader: record({ "1_one": suicidal, "2_two": step("two") }), retry: Schedule.recurs(3) }
      assert.lengthOf((yield* on(Migrations.up(options))).done, 2)
      assert.deepStrictEqual(yield* traces(url), ["one", "one more", "two a", "two b"])
      assert.strictEqual(yield* Ref.get(cut), 2)
    })
  )

  it.scoped("that stand still in a transaction lose it, and another program takes their place", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const begun = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const still = Effect.gen(function* () {
        yield* traced("one")
        yield* Deferred.succeed(begun, undefined)
        yield* Deferred.await(goOn)
        yield* traced("one more")
      })
      const retry = Schedule.recurs(3)
      const first = yield* Effect.fork(
        on(Migrations.up({ loader: record({ "1_one": still }), idleTimeout: "50 millis", retry }))
      )
      yield* Deferred.await(begun)
      const second = yield* clientWith(url)
      assert.lengthOf((yield* second.on(Migrations.up({ loader: record({ "1_one": traced("other") }) }))).done, 1)
      yield* Deferred.succeed(goOn, undefined)
      const error = yield* Effect.flip(Fiber.join(first))
      assert(error instanceof Migrations.MigrationFailed)
      assert.strictEqual(error.state, "rolledBack")
      assert.match(error.message, /sat idle/)
      assert.deepStrictEqual(yield* traces(url), ["other"])
    })
  )

  it.scoped("interrupted leave nothing: no transaction, no lock, no session", () =>
    Effect.gen(function* () {
      const { control, on, url } = yield* fresh()
      for (const transaction of [true, false]) {
        const slow = Migrations.define(sql("SELECT pg_sleep(600)"), { transaction })
        const fiber = yield* Effect.fork(on(Migrations.up({ loader: record({ "1_slow": slow }) })))
        yield* TestPg.eventually(migrating(url), (all) => all.some(({ query }) => query.includes("pg_sleep")))
        yield* Fiber.interrupt(fiber)
        yield* TestPg.eventually(migrating(url), ({ length }) => length === 0)
        assert.deepStrictEqual(
          yield* control(
            "SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
          ),
          []
        )
      }
      assert.deepStrictEqual(yield* applied(url), [])
    })
  )

  const behind = pgbouncer === undefined ? it.scoped.skip : it.scoped
  const why = pgbouncer === undefined ? " (skipped: pgbouncer is not installed)" : ""

  for (const mode of ["transaction", "session"] as const) {
    behind(`behind PgBouncer in ${mode} mode ${mode === "session" ? "work" : "are refused"}${why}`, () =>
      Effect.gen(function* () {
        const { port } = yield* pooling(mode)
        const { url } = yield* fresh()
        const through = new URL(Redacted.value(url))
        through.port = `${port}`
        const { on } = yield* clientWith(Redacted.make(through.href))
        const result = yield* Effect.either(on(Migrations.up({ loader, retry: once })))
        if (mode === "session") assert.lengthOf(Either.getOrThrow(result).done, 2)
        else {
          const error = Either.getOrThrow(Either.flip(result))
          assert.strictEqual(error._tag, "SessionNotKept")
          assert.deepStrictEqual(yield* traces(url), [])
        }
      })
    )
  }
})
