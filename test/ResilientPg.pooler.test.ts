/**
 * Behind a pooler: one that takes no settings in the startup message, and PgBouncer in transaction mode where its program
 * is installed.
 */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Logger, LogLevel, Option, Random, Redacted, Stream } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { clientOf, failure } from "./client/support.js"
import { tapped } from "./client/tap.js"
import { pgbouncer, pooling } from "./support/PgBouncer.js"
import * as TestPg from "./support/TestPg.js"

const serverTimeouts = { statement: "1234 millis", lock: "2 seconds", idleInTransaction: "infinity" } as const

const limits = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]

/** Poolers answer so, and close. Source: PostgreSQL manual, "Message Formats"; PgBouncer, src/client.c. */
const refusal = (message: string) => {
  const fields = Buffer.from(`SFATAL\0C08P01\0M${message}\0\0`)
  const head = Buffer.alloc(5)
  head.write("E")
  head.writeInt32BE(fields.length + 4, 1)
  return Buffer.concat([head, fields])
}

/** Passes everything on to the server, but a startup message that sets one of the limits. Counts both. */
const strict = Effect.gen(function* () {
  const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
  const counts = { refused: 0, passed: 0 }
  const sockets = new Set<Net.Socket>()
  const own = (socket: Net.Socket) => {
    sockets.add(socket)
    return socket.on("error", () => socket.destroy())
  }
  const server = Net.createServer((client) => {
    own(client).once("data", (startup: Buffer) => {
      const unsupported = limits.find((name) => startup.includes(`\0${name}\0`))
      if (unsupported !== undefined) {
        counts.refused++
        client.end(refusal(`unsupported startup parameter: ${unsupported}`))
        return
      }
      counts.passed++
      const upstream = own(Net.connect(config.port, config.host))
      upstream.write(startup)
      client.pipe(upstream).pipe(client)
    })
  })
  yield* Effect.acquireRelease(
    Effect.async<void>((resume) => void server.listen(0, config.host, () => resume(Effect.void))),
    () =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
  )
  return { counts, port: (server.address() as Net.AddressInfo).port }
})

const at = (port: number, database = "postgres") =>
  Effect.map(EmbeddedPostgres.EmbeddedPostgres, ({ config: { host, password, username } }) => ({
    url: undefined,
    host,
    port,
    database,
    username,
    password
  }))

const settings = (sql: Effect.Effect.Success<ReturnType<typeof clientOf>>["sql"]) =>
  Effect.map(
    sql<{ name: string; setting: string }>`SELECT name, setting FROM pg_settings WHERE ${sql.in("name", limits)}`,
    (rows) => Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))
  )
const unlimited = { statement_timeout: "0", lock_timeout: "0", idle_in_transaction_session_timeout: "0" }
const limited = { statement_timeout: "1234", lock_timeout: "2000", idle_in_transaction_session_timeout: "0" }

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })(
  "ResilientPg behind a strict pooler",
  (it) => {
    it.scoped(
      "limits that the startup message can not carry hold in every transaction, and the refusal is remembered",
      () =>
        Effect.gen(function* () {
          const { counts, port } = yield* strict
          const { sql } = yield* clientOf({ ...(yield* at(port)), serverTimeouts, maxConnections: 1, maxUses: 1 })
          assert.deepStrictEqual(yield* settings(sql), unlimited)
          assert.deepStrictEqual(yield* sql.withTransaction(settings(sql)), limited)
          assert.deepStrictEqual(yield* settings(sql), unlimited)
          // A connection each; only the first knew no better.
          assert.deepStrictEqual(counts, { refused: 1, passed: 3 })
          assert.strictEqual(
            (yield* failure(sql.withTransaction(sql`SELECT pg_sleep(600)`)))._tag,
            "StatementTimeoutError"
          )
        })
    )

    it.scoped("without limits of ours nothing is refused", () =>
      Effect.gen(function* () {
        const { counts, port } = yield* strict
        const { sql } = yield* clientOf({ ...(yield* at(port)), parameters: { work_mem: "5MB" } })
        assert.deepStrictEqual(yield* sql`SHOW work_mem`, [{ work_mem: "5MB" }])
        assert.deepStrictEqual(counts, { refused: 0, passed: 1 })
      })
    )
  }
)

const pooler = pooling("transaction")

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("ResilientPg behind PgBouncer", (it) => {
  const test = pgbouncer === undefined ? it.scoped.skip : it.scoped
  const why = pgbouncer === undefined ? " (skipped: pgbouncer is not installed)" : ""

  test(`limits go into BEGIN${why}`, () =>
    Effect.gen(function* () {
      const { output, port } = yield* pooler
      const { sql } = yield* clientOf({ ...(yield* at(port)), serverTimeouts })
      assert.deepStrictEqual(yield* sql.withTransaction(settings(sql)), limited, yield* output)
      assert.deepStrictEqual(yield* settings(sql), unlimited)
    }))

  test(`statements, transactions, nested ones and streams of many clients share two server connections${why}`, () =>
    Effect.gen(function* () {
      const { port } = yield* pooler
      const { name, url } = yield* TestPg.database
      const { sql } = yield* clientOf({ ...(yield* at(port, name)), maxConnections: 6 })
      yield* sql`CREATE TABLE kept (n int PRIMARY KEY)`
      yield* Effect.forEach(
        Arr.range(1, 30),
        (n) =>
          sql.withTransaction(
            Effect.zipRight(
              sql`INSERT INTO kept VALUES (${n})`,
              Effect.ignore(
                sql.withTransaction(Effect.zipRight(sql`INSERT INTO kept VALUES (${-n})`, Effect.fail("undone")))
              )
            )
          ),
        { concurrency: "unbounded" }
      )
      const [a, b] = yield* Effect.all(
        [
          Stream.runCount(sql`SELECT generate_series(1, 1000)`.stream),
          Stream.runCount(sql`SELECT generate_series(1, 700)`.stream)
        ],
        { concurrency: 2 }
      )
      assert.deepStrictEqual([a, b], [1_000, 700])
      assert.lengthOf(yield* TestPg.control("SELECT FROM kept", [], url), 30)
    }))

  test(`a cancel reaches the statement behind the pooler, and nobody else's${why}`, () =>
    Effect.gen(function* () {
      const { port } = yield* pooler
      const { pool, sql } = yield* clientOf({ ...(yield* at(port)), maxConnections: 4, retry: false })
      const asleep = TestPg.control(
        "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
      )
      const fiber = yield* Effect.fork(sql`SELECT pg_sleep(600)`)
      yield* TestPg.eventually(asleep, ({ length }) => length === 1)
      yield* Fiber.interrupt(fiber)
      yield* TestPg.eventually(asleep, ({ length }) => length === 0)
      const round = Effect.gen(function* () {
        const millis = yield* Random.nextIntBetween(0, 15)
        const cut = yield* Effect.timeoutOption(sql`SELECT pg_sleep(0.01)`, millis)
        yield* sql`SELECT pg_sleep(0.001)`
        return Option.isNone(cut)
      })
      const cuts = yield* Effect.forEach(Arr.range(1, 100), () => round, { concurrency: 8 }).pipe(
        Effect.withRandom(Random.make("pooler"))
      )
      assert.isAbove(Arr.filter(cuts, (cut) => cut).length, 10)
      yield* TestPg.eventually(pool, ({ idle, total }) => idle === total)
    }))

  test(`prepared statements are found out to be of no use, once in the log, and no result is another's${why}`, () =>
    Effect.gen(function* () {
      const { port } = yield* pooler
      const { name, url } = yield* TestPg.database
      yield* TestPg.control("CREATE TABLE t AS SELECT 1 AS shape", [], url)
      const said: Array<unknown> = []
      const logger = Logger.make(({ message }) => void said.push(message))
      const clients = yield* Effect.replicateEffect(
        Effect.flatMap(at(port, name), (target) => clientOf({ ...target, maxConnections: 4 }, LogLevel.Warning)),
        2
      ).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      // Texts that both have, each time in another order, and texts of their own; the table keeps changing its shape.
      const rounds = Arr.range(1, 40)
      const reads = clients.flatMap(({ sql }, client) =>
        Arr.range(1, 5).map((n) =>
          Effect.forEach(rounds, (round) =>
            Effect.gen(function* () {
              const own = `own_${client}_${n % 2}`
              assert.deepStrictEqual(yield* sql.unsafe(`SELECT $1::int AS ${own}`, [round]), [{ [own]: round }])
              assert.deepStrictEqual(yield* sql`SELECT ${n}::int AS n, ${`${round}`}::text AS r`, [
                { n, r: `${round}` }
              ])
              assert.deepStrictEqual(yield* sql`SELECT ${`${round}`}::text AS r, ${n}::int AS n`, [
                { n, r: `${round}` }
              ])
              const [row] = yield* sql<object>`SELECT * FROM t`
              assert.match(JSON.stringify(row), /^({"shape":1}|{"shape":1,"more":null}|{"more":null,"shape":1})$/)
            })
          )
        )
      )
      const changes = Effect.forEach(Arr.range(1, 5), () =>
        Effect.zipRight(
          TestPg.control("ALTER TABLE t ADD COLUMN more text", [], url),
          TestPg.control("ALTER TABLE t DROP COLUMN more", [], url)
        )
      )
      yield* Effect.all([...reads, changes], { concurrency: "unbounded" })
      assert.isAtMost(said.length, 2)
      assert.isAtLeast(said.length, 1)
      for (const message of said) assert.include(JSON.stringify(message), "a pooler?")
    }))

  test(`transactions name nothing, and so none fails for a name that the pooler lost${why}`, () =>
    Effect.gen(function* () {
      const { port } = yield* pooler
      const { sql } = yield* clientOf({ ...(yield* at(port)), maxConnections: 6, retry: false })
      const read = sql`SELECT ${1}::int AS one`
      const transaction = sql.withTransaction(Effect.replicateEffect(read, 3))
      yield* Effect.all([read, read, transaction, read, transaction, Effect.replicateEffect(transaction, 10)])
      yield* Effect.forEach(
        Arr.range(1, 60),
        (n) =>
          Effect.map(n % 3 === 0 ? Effect.map(read, Arr.of) : transaction, (results) => {
            for (const rows of results) assert.deepStrictEqual(rows, [{ one: 1 }])
          }),
        { concurrency: "unbounded" }
      )
    }))

  test(`no two statements share a connection${why}`, () =>
    Effect.gen(function* () {
      const { port } = yield* pooler
      const { database, host, password, username } = yield* at(port)
      const url = `postgres://${username}:${Redacted.value(password)}@${host}:${port}/${database}`
      const tap = yield* tapped(Redacted.make(url))
      const { sql } = yield* clientOf({ url: tap.url, maxConnections: 4 })
      const reads = Effect.forEach(Arr.range(1, 40), (n) => sql`SELECT ${n}::int AS n`, { concurrency: "unbounded" })
      yield* Effect.replicateEffect(reads, 20)
      // One and another once more, without the name that the pooler lost.
      assert.isAtLeast((yield* tap.sent(/AS n/)).length, 800)
      assert.isEmpty(yield* tap.shared())
    }))

  test(`in session mode prepared statements are of use${why}`, () =>
    Effect.gen(function* () {
      const { port } = yield* pooling("session")
      const { sql } = yield* clientOf({ ...(yield* at(port)), maxConnections: 1 })
      yield* Effect.replicateEffect(sql`SELECT ${1}::int AS one`, 3)
      const statements = sql`SELECT count(*)::int AS n FROM pg_prepared_statements WHERE statement LIKE '%AS one'`
      assert.deepStrictEqual(yield* statements, [{ n: 1 }])
      yield* Effect.replicateEffect(sql.withTransaction(sql`SELECT ${1}::int AS one`), 10)
      assert.deepStrictEqual(yield* statements, [{ n: 1 }])
    }))
})
