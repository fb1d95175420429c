/** Prepared statements on a real server: which are named, what arrives, and what a change of tables makes of them. */

import { assert, layer } from "@effect/vitest"
import { Array as Arr, Chunk, Deferred, Effect, Fiber, Random, Ref, Stream } from "effect"
import { Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, executing, failure, hold, proxied } from "./support.js"

type Client = Effect.Effect.Success<ReturnType<typeof clientOf>>

/** What the server keeps for the next connection of the pool. */
const kept = (sql: Client["sql"]) =>
  Effect.map(
    sql.unsafe<{ statement: string }>(
      "SELECT statement FROM pg_prepared_statements WHERE NOT from_sql ORDER BY prepare_time, name"
    ).unprepared,
    (rows) => rows.map(({ statement }) => statement)
  )

/** A client of one connection on a database of its own. */
const single = (options: Parameters<typeof clientOf>[0] = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    return { url, ...(yield* clientOf({ url, maxConnections: 1, retry: false, ...options })) }
  })

const twice = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.zipRight(effect, effect)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Prepared statements", (it) => {
  it.scoped("are those that come for the second time on a connection", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      const read = sql`SELECT ${1}::int AS one`
      yield* read
      assert.isEmpty(yield* kept(sql))
      assert.deepStrictEqual(yield* read, [{ one: 1 }])
      assert.deepStrictEqual(yield* kept(sql), ["SELECT $1::int AS one"])
      assert.deepStrictEqual(yield* sql`SELECT ${2}::int AS one`, [{ one: 2 }])
      assert.lengthOf(yield* kept(sql), 1)
    })
  )

  it.scoped(
    "take one message less of each kind once they are known, and are repaired by one more try, sent whole",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        const { proxy } = yield* proxied
        const { sql } = yield* clientOf({ url: proxy.url(url), maxConnections: 1 })
        const messages: Array<FaultProxy.FrontendMessage> = []
        yield* proxy.cut({ on: (message) => messages.push(message) < 0, when: "before" })
        const sent = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.gen(function* () {
            messages.length = 0
            yield* effect
            return messages.map(({ kind }) => kind).join(" ")
          })
        const whole = "Parse Bind Describe Execute Sync"
        yield* sql`CREATE TABLE t (a int)`
        const insert = sql`INSERT INTO t VALUES (${1}) RETURNING *`
        assert.deepStrictEqual(yield* Effect.replicateEffect(sent(insert), 4), [
          whole,
          whole,
          "Bind Execute Sync",
          "Bind Execute Sync"
        ])
        yield* TestPg.control("ALTER TABLE t ADD COLUMN b int", [], url)
        assert.strictEqual(yield* sent(insert), `Bind Execute Sync ${whole}`)
        assert.deepStrictEqual(yield* Effect.replicateEffect(sent(insert), 2), [`Close ${whole}`, "Bind Execute Sync"])
        assert.deepStrictEqual(yield* sql`SELECT count(*)::int AS n FROM t`, [{ n: 7 }])
        // Wrong by itself, it is tried twice and its name kept; what was executed is not.
        const read = (value: unknown) => sql`SELECT a / ${value as number}::int AS n FROM t`
        yield* twice(read(1))
        assert.strictEqual(yield* sent(Effect.flip(read("x"))), `Bind Execute Sync ${whole}`)
        assert.strictEqual(yield* sent(Effect.flip(read(0))), "Bind Execute Sync")
        assert.strictEqual(yield* sent(read(1)), "Bind Execute Sync")
      })
  )

  it.scoped("are of reads, writes and common table expressions, with and without values", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      yield* sql`CREATE TABLE t (id int PRIMARY KEY, n int)`
      const texts = [
        "SELECT 1",
        "VALUES (1), (2)",
        "INSERT INTO t VALUES (1, 1) ON CONFLICT DO NOTHING",
        "UPDATE t SET n = n + 1",
        "MERGE INTO t USING (VALUES (1)) AS s (id) ON s.id = t.id WHEN MATCHED THEN DO NOTHING",
        "WITH gone AS (DELETE FROM t RETURNING id) SELECT count(*) FROM gone",
        "DELETE FROM t WHERE id = 5"
      ]
      for (const text of texts) yield* twice(sql.unsafe(text))
      assert.deepStrictEqual(yield* kept(sql), texts)
    })
  )

  it.scoped("are none of other commands, several commands, long texts, and what is asked for unprepared", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      const texts = [
        "SHOW work_mem",
        "SELECT 1; SELECT 2",
        "EXPLAIN SELECT 1",
        "SET work_mem = '5MB'",
        "",
        "-- nothing",
        `SELECT '${"x".repeat(8_200)}'`
      ]
      for (const text of texts) yield* twice(sql.unsafe(text))
      yield* twice(sql`SELECT ${1}::int`.unprepared)
      yield* sql.withTransaction(twice(sql`SELECT ${1}::int`.unprepared))
      yield* twice(Stream.runDrain(sql`SELECT generate_series(1, ${1_000}::int)`.stream))
      assert.isEmpty(yield* kept(sql))
    })
  )

  it.scoped("are none of texts with a literal that means the time of its reading", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      const texts = ["SELECT 'now'::timestamptz(6)::text AS at", "SELECT ('00:00 TODAY'::timestamptz)::text AS at"]
      for (const text of texts) yield* Effect.replicateEffect(sql.unsafe(text), 3)
      assert.isEmpty(yield* kept(sql))
      const times = yield* Effect.replicateEffect(sql.unsafe<{ at: string }>(texts[0]!), 4)
      assert.strictEqual(new Set(times.map(([row]) => row!.at)).size, 4)
      yield* twice(sql`SELECT now() AS at`)
      assert.lengthOf(yield* kept(sql), 1)
    })
  )

  it.scoped("read literals of time as the settings say that hold now", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      const read = sql<{
        hour: number
      }>`SELECT extract(hour FROM '2026-01-01 12:00'::timestamptz AT TIME ZONE 'UTC')::int AS hour`
      const inZone = (zone: string) => Effect.zipRight(sql.unsafe(zone), Effect.replicateEffect(read, 3))
      const hours = (results: ReadonlyArray<ReadonlyArray<{ hour: number }>>) => results.map(([row]) => row!.hour)
      assert.deepStrictEqual(hours(yield* inZone("SET TIME ZONE 'UTC'")), [12, 12, 12])
      assert.deepStrictEqual(hours(yield* inZone("SET TimeZone = 'Etc/GMT-2'")), [10, 10, 10])
      const inside = sql.withTransaction(inZone("SET LOCAL TIME ZONE 'Etc/GMT+3'"))
      assert.deepStrictEqual(hours(yield* inside), [15, 15, 15])
      assert.deepStrictEqual(hours(yield* Effect.replicateEffect(read, 3)), [10, 10, 10])
    })
  )

  it.scoped("are none with preparedStatements: false", () =>
    Effect.gen(function* () {
      const { sql } = yield* single({ preparedStatements: false })
      yield* Effect.replicateEffect(sql`SELECT ${1}::int AS one`, 3)
      assert.isEmpty(yield* kept(sql))
    })
  )

  it.scoped("come as late as the option `after` says, failures not counted", () =>
    Effect.gen(function* () {
      const { sql } = yield* single({ preparedStatements: { after: 3 } })
      const divide = (by: number) => sql`SELECT ${6}::int / ${by}::int AS result`
      yield* divide(2)
      yield* Effect.replicateEffect(failure(divide(0)), 3)
      yield* divide(3)
      assert.isEmpty(yield* kept(sql))
      yield* divide(6)
      assert.lengthOf(yield* kept(sql), 1)
    })
  )

  it.scoped("are at most `size`, those used last, here and on the server", () =>
    Effect.gen(function* () {
      const { sql } = yield* single({ preparedStatements: { size: 3 } })
      const read = (n: number) => sql.unsafe<{ n: number }>(`SELECT ${n} AS n`)
      for (const n of [1, 2, 3]) yield* twice(read(n))
      yield* read(1)
      yield* twice(read(4))
      assert.sameMembers(
        [...(yield* kept(sql))],
        [1, 3, 4].map((n) => `SELECT ${n} AS n`)
      )
      // What was closed comes back like any other.
      for (const n of Arr.range(1, 8)) {
        for (const [row] of yield* Effect.replicateEffect(read(n), 3)) assert.deepStrictEqual(row, { n })
        assert.isAtMost((yield* kept(sql)).length, 3)
      }
    })
  )

  it.scoped("take columns as arrays, objects and raw results in any order", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      const read = sql<{ a: number; b: string }>`SELECT ${7}::int AS a, ${"x"}::text AS b`
      for (let i = 0; i < 3; i++) {
        assert.deepStrictEqual(yield* read, [{ a: 7, b: "x" }])
        assert.deepStrictEqual(yield* read.values, [[7, "x"]])
        const raw = (yield* read.raw) as { rows: unknown; rowCount: number; command: string; fields: Array<any> }
        assert.deepStrictEqual(
          [raw.command, raw.rowCount, raw.rows, raw.fields.map(({ name }) => name)],
          ["SELECT", 1, [{ a: 7, b: "x" }], ["a", "b"]]
        )
      }
      const nothing = sql`SELECT 1 AS a WHERE false`
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* nothing, [])
    })
  )

  it.scoped("read by the program's own types, and what no parser understands is that statement's failure", () =>
    Effect.gen(function* () {
      const { sql } = yield* single({
        types: {
          getTypeParser: () => (text: string) => {
            if (text === "bad") throw new Error("not understood")
            return `<${text}>`
          }
        } as never
      })
      const read = (text: string) => sql`SELECT ${text}::text AS a`
      for (let i = 0; i < 3; i++) {
        assert.deepStrictEqual(yield* read("good"), [{ a: "<good>" }])
        assert.strictEqual((yield* failure(read("bad")))._tag, "UnknownError")
      }
      const [mixed] = yield* sql`SELECT count(*) AS n FROM pg_prepared_statements`.unprepared
      assert.deepStrictEqual(mixed, { n: "<1>" })
    })
  )

  it.scoped("work after a first execution that failed, whatever for", () =>
    Effect.gen(function* () {
      const { sql } = yield* single({ preparedStatements: { after: 1 } })
      yield* sql`CREATE TABLE t (id int PRIMARY KEY)`
      yield* sql.unsafe("INSERT INTO t VALUES (1)")
      const insert = (id: unknown) => sql`INSERT INTO t VALUES (${id as number}) RETURNING id`
      assert.strictEqual((yield* failure(insert(1)))._tag, "UniqueViolation")
      assert.deepStrictEqual(yield* insert(2), [{ id: 2 }])
      const insertMore = (id: unknown) => sql`INSERT INTO t (id) VALUES (${id as number})`
      assert.strictEqual((yield* failure(insertMore("x"))).sqlState, "22P02")
      yield* insertMore(3)
      for (let i = 0; i < 2; i++) assert.strictEqual((yield* failure(sql`SELEC 1`))._tag, "SqlSyntaxError")
      const missing = sql`SELECT * FROM later`
      for (let i = 0; i < 2; i++) assert.strictEqual((yield* failure(missing)).sqlState, "42P01")
      yield* sql`CREATE TABLE later (a int)`
      for (let i = 0; i < 3; i++) assert.isEmpty(yield* missing)
      assert.lengthOf(yield* sql`SELECT * FROM t`, 3)
      // A parameter without its value is told the same each time.
      const states = yield* Effect.replicateEffect(failure(sql.unsafe("SELECT $1::int AS a")), 3)
      assert.isAtMost(new Set(states.map(({ sqlState }) => sqlState)).size, 1)
    })
  )

  it.scoped("survive ROLLBACK, and what was rolled back does not", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      const read = sql`SELECT ${1}::int AS one`
      yield* Effect.flip(sql.withTransaction(Effect.zipRight(twice(read), Effect.fail("undone"))))
      assert.lengthOf(yield* kept(sql), 1)
      assert.deepStrictEqual(yield* read, [{ one: 1 }])
      assert.lengthOf(yield* kept(sql), 1)
      const inserted = sql`INSERT INTO t VALUES (${1})`
      yield* Effect.flip(
        sql.withTransaction(
          sql`CREATE TABLE t (a int)`.pipe(Effect.zipRight(twice(inserted)), Effect.zipRight(Effect.fail("undone")))
        )
      )
      assert.strictEqual((yield* failure(inserted)).sqlState, "42P01")
      yield* sql`CREATE TABLE t (a text)`
      yield* twice(sql`INSERT INTO t VALUES (${"one"})`)
      assert.deepStrictEqual(yield* sql`SELECT a FROM t`, [{ a: "one" }, { a: "one" }])
    })
  )

  for (const command of ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE", "DISCARD PLANS", "DEALLOCATE nobody"]) {
    it.scoped(`are missed by nobody after ${command}`, () =>
      Effect.gen(function* () {
        const { sql } = yield* single()
        const read = sql`SELECT ${1}::int AS one`
        for (let i = 0; i < 3; i++) {
          yield* twice(read)
          assert.lengthOf(yield* kept(sql), 1)
          const [{ name }] = (yield* sql`SELECT name FROM pg_prepared_statements`.unprepared) as [{ name: string }]
          const text = command === "DEALLOCATE" ? `DEALLOCATE "${name}"` : command
          yield* Effect.exit(sql.unsafe(text))
          assert.deepStrictEqual(yield* read, [{ one: 1 }])
          assert.deepStrictEqual(yield* sql.withTransaction(twice(read)), [{ one: 1 }])
        }
      })
    )
  }

  it.scoped("that a function made the server forget are repaired, unseen, and given up for good", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      yield* sql.unsafe("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'")
      const read = sql`SELECT ${1}::int AS one`
      yield* twice(read)
      yield* sql`SELECT f()`.unprepared
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* read, [{ one: 1 }])
      assert.isEmpty(yield* kept(sql))
    })
  )

  it.scoped("whose own function complains of a name are executed once, and fail with that", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      yield* sql`CREATE SEQUENCE calls`
      yield* sql.unsafe(
        `CREATE FUNCTION f(fails bool) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
           PERFORM nextval('calls');
           IF fails THEN RAISE EXCEPTION 'prepared statement "x" does not exist' USING ERRCODE = '26000'; END IF;
           RETURN 1;
         END $$`
      )
      const call = (fails: boolean) => sql`SELECT f(${fails}) AS n`
      yield* twice(call(false))
      assert.lengthOf(yield* kept(sql), 1)
      assert.strictEqual((yield* failure(call(true))).sqlState, "26000")
      assert.deepStrictEqual(yield* call(false), [{ n: 1 }])
      // Four calls, four executions; and nobody took it for a pooler.
      assert.deepStrictEqual(yield* sql`SELECT last_value::int AS n FROM calls`, [{ n: 4 }])
      assert.include(yield* kept(sql), "SELECT f($1) AS n")
    })
  )

  it.scoped("on a connection lost in between are parsed anew on the next", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { pid, sql } = yield* clientOf({ url, maxConnections: 1 })
      const read = sql`SELECT ${1}::int AS one`
      yield* twice(read)
      yield* TestPg.control("SELECT pg_terminate_backend($1)", [yield* pid])
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* read, [{ one: 1 }])
    })
  )

  it.scoped("interrupted in the execution that names them are good afterwards", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      const sleep = (seconds: number) => sql`SELECT pg_sleep(${seconds}::float8)::text AS slept`
      yield* sleep(0)
      const text = "SELECT pg_sleep($1::float8)::text AS slept"
      const fiber = yield* Effect.fork(sleep(600))
      yield* TestPg.eventually(executing(text), (n) => n === 1)
      yield* Fiber.interrupt(fiber)
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* sleep(0), [{ slept: "" }])
      assert.deepStrictEqual(yield* kept(sql), [text])
    })
  )

  it.scoped("whose Parse waits for a lock and is given up are good afterwards", () =>
    Effect.gen(function* () {
      const { url, sql } = yield* single()
      yield* sql`CREATE TABLE t (a int)`
      const read = sql`SELECT a FROM t`
      yield* read
      const other = yield* clientOf({ url, maxConnections: 1 })
      const { connection, release } = yield* hold(other.sql)
      yield* connection.execute("BEGIN", [], undefined)
      yield* connection.execute("LOCK TABLE t", [], undefined)
      const fiber = yield* Effect.fork(read)
      const waiting = TestPg.control(
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = 'SELECT a FROM t'"
      )
      yield* TestPg.eventually(waiting, ({ length }) => length === 1)
      yield* Fiber.interrupt(fiber)
      yield* connection.execute("COMMIT", [], undefined)
      yield* release
      for (let i = 0; i < 3; i++) assert.isEmpty(yield* read)
      assert.lengthOf(yield* kept(sql), 1)
    })
  )

  it.scoped("found stale when nobody waits any more are not sent again", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: config })
      const { pool, sql } = yield* clientOf({ url: proxy.url(url), maxConnections: 1 })
      const { sql: ddl } = yield* clientOf({ url, maxConnections: 1 })
      yield* ddl`CREATE TABLE t (a int)`
      const insert = sql`INSERT INTO t (a) VALUES (${1}) RETURNING *`
      yield* twice(insert)
      const held = yield* proxy.hold({ on: FaultProxy.query(/^INSERT/) })
      const fiber = yield* Effect.fork(insert)
      yield* held.happened()
      yield* ddl`ALTER TABLE t ADD COLUMN b int`
      yield* Fiber.interrupt(fiber)
      yield* held.release
      yield* TestPg.eventually(pool, ({ quarantined }) => quarantined === 0)
      yield* sql`SELECT 1`
      assert.deepStrictEqual(yield* ddl`SELECT count(*)::int AS n FROM t`, [{ n: 2 }])
      assert.deepStrictEqual(yield* insert, [{ a: 1, b: null }])
    })
  )

  it.scoped("with few names, many texts, interruptions and forgotten names, every answer belongs to its question", () =>
    Effect.gen(function* () {
      const { sql } = yield* single({ maxConnections: 3, preparedStatements: { size: 3 } })
      const seed = 42
      const ask = (n: number, text: number) => {
        const columns = Arr.makeBy(1 + (text % 3), (i) => `$${i + 1}::int AS c${text}_${i}`)
        const values = columns.map((_, i) => 1_000 * n + i)
        return Effect.map(sql.unsafe(`SELECT ${columns.join(", ")}`, values), (rows) =>
          assert.deepStrictEqual(rows, [
            Object.fromEntries(values.map((value, i) => [`c${text}_${i}`, value]))
          ] as unknown as typeof rows)
        )
      }
      const step = (n: number) =>
        Effect.gen(function* () {
          const asked = ask(n, yield* Random.nextIntBetween(0, 9))
          const chance = yield* Random.nextIntBetween(0, 100)
          if (chance < 3) yield* sql`DEALLOCATE ALL`
          else if (chance < 6) yield* sql`DISCARD ALL`
          if (chance > 90) {
            const fiber = yield* Effect.fork(asked)
            for (let i = 0; i < chance - 90; i++) yield* Effect.yieldNow()
            yield* Fiber.interrupt(fiber)
          } else if (chance > 80) yield* sql.withTransaction(twice(asked))
          else yield* asked
        })
      yield* Effect.forEach(Arr.range(1, 1_500), step, { concurrency: 20, discard: true }).pipe(
        Effect.withRandom(Random.make(seed))
      )
      // Nothing of it was taken for a pooler.
      yield* Effect.replicateEffect(ask(0, 0), 7)
      assert.isNotEmpty(yield* kept(sql))
    })
  )

  it.scoped("COPY is refused, and the connection goes on", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      yield* sql`CREATE TABLE t (a int)`
      for (let i = 0; i < 2; i++) {
        assert.strictEqual((yield* failure(sql.unsafe("COPY t FROM STDIN"))).sqlState, "57014")
        assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
      }
    })
  )

  it.scoped("writes with RETURNING can be streamed, and are named", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      yield* sql`CREATE TABLE t (a int)`
      const insert = Stream.runCollect(sql`INSERT INTO t SELECT generate_series(1, ${300}::int) RETURNING a`.stream)
      for (let i = 0; i < 3; i++) assert.strictEqual(Chunk.size(yield* insert), 300)
      assert.lengthOf(yield* kept(sql), 1)
    })
  )
})

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Prepared statements and DDL", (it) => {
  /** Two clients of one database: one whose statements are prepared, one that changes the tables. */
  const pair = (options: Parameters<typeof clientOf>[0] = {}) =>
    Effect.gen(function* () {
      const client = yield* single(options)
      const { sql: ddl } = yield* clientOf({ url: client.url, maxConnections: 1 })
      return { ...client, ddl }
    })

  it.scoped("under load no statement outside a transaction fails, and each row has the columns of its time", () =>
    Effect.gen(function* () {
      const { ddl, sql } = yield* pair({ maxConnections: 5 })
      yield* ddl`CREATE TABLE t (id int, a int, b text)`
      yield* ddl`INSERT INTO t VALUES (1, 2, 'three')`
      yield* ddl`CREATE SCHEMA other`
      const over = yield* Deferred.make<void>()
      const reads = yield* Ref.make(0)
      const read = Effect.flatMap(sql<Record<string, unknown>>`SELECT * FROM t WHERE id = ${1}`, ([row]) => {
        const { a, b, c, id, renamed, ...rest } = row!
        assert.deepStrictEqual([id, rest], [1, {}])
        assert.include([2, "2"], (a ?? renamed) as number)
        assert.strictEqual(b, "three")
        assert.include([undefined, null, 5], c as undefined)
        return Ref.update(reads, (n) => n + 1)
      })
      const readers = yield* Effect.forkAll(
        Arr.makeBy(20, () => Effect.repeat(read, { until: () => Deferred.isDone(over) }))
      )
      const changes = [
        "ALTER TABLE t ADD COLUMN c int",
        "UPDATE t SET c = 5",
        "ALTER TABLE t ALTER COLUMN a TYPE text",
        "ALTER TABLE t RENAME COLUMN a TO renamed",
        "ALTER TABLE t DROP COLUMN c",
        "ALTER TABLE t RENAME COLUMN renamed TO a",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int",
        "BEGIN; DROP TABLE t; CREATE TABLE t (b text, id int, a int); INSERT INTO t VALUES ('three', 1, 2); COMMIT",
        "BEGIN; DROP TABLE t; CREATE TABLE t (id int, a int, b text); INSERT INTO t VALUES (1, 2, 'three'); COMMIT"
      ]
      for (let round = 0; round < 3; round++) {
        for (const change of changes) {
          yield* ddl.unsafe(change)
          const before = yield* Ref.get(reads)
          yield* TestPg.eventually(Ref.get(reads), (n) => n >= before + 60)
        }
      }
      yield* Deferred.succeed(over, undefined)
      yield* Fiber.join(readers)
    })
  )

  it.scoped("search_path decides anew which table is meant", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      yield* sql.unsafe(
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 1 AS x; CREATE TABLE b.t AS SELECT 'b' AS y, 2 AS z"
      )
      const read = sql`SELECT * FROM t`
      for (let i = 0; i < 3; i++) {
        yield* sql`SET search_path = a`
        for (let n = 0; n < 3; n++) assert.deepStrictEqual(yield* read, [{ x: 1 }])
        yield* sql`SET search_path = b`
        for (let n = 0; n < 3; n++) assert.deepStrictEqual(yield* read, [{ y: "b", z: 2 }])
      }
    })
  )

  it.scoped("a temporary table hides the one that a prepared statement meant, as without", () =>
    Effect.gen(function* () {
      const { sql } = yield* single()
      yield* sql.unsafe("CREATE TABLE t AS SELECT 1 AS x")
      const read = sql`SELECT x FROM t`
      yield* twice(read)
      yield* sql.unsafe("CREATE TEMP TABLE t AS SELECT 2 AS x")
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* read, [{ x: 2 }])
      yield* sql.unsafe("DROP TABLE pg_temp.t")
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* read, [{ x: 1 }])
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* sql.unsafe("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 3 AS x")
          for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* read, [{ x: 3 }])
        })
      )
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* read, [{ x: 1 }])
    })
  )

  it.scoped("a parameter takes what its column takes by now", () =>
    Effect.gen(function* () {
      const { ddl, sql } = yield* pair()
      yield* ddl`CREATE TABLE t (id int)`
      const insert = (id: unknown) => sql`INSERT INTO t (id) VALUES (${id as number})`
      const count = (id: unknown) => sql<{ n: number }>`SELECT count(*)::int AS n FROM t WHERE id = ${id as number}`
      yield* Effect.zipRight(twice(insert(1)), twice(count(1)))
      yield* ddl`ALTER TABLE t ALTER COLUMN id TYPE bigint`
      yield* twice(insert("3000000000"))
      assert.deepStrictEqual(yield* count("3000000000"), [{ n: 2 }])
      yield* ddl`ALTER TABLE t ALTER COLUMN id TYPE text`
      for (let n = 1; n < 4; n++) {
        yield* insert("four")
        assert.deepStrictEqual(yield* count("four"), [{ n }])
      }
      // A value that is wrong stays wrong, and costs its name nothing.
      const read = (id: unknown) => sql`SELECT ${id as number}::int AS id`
      yield* twice(read(1))
      for (let i = 0; i < 3; i++) assert.strictEqual((yield* failure(read("x"))).sqlState, "22P02")
      assert.include(yield* kept(sql), "SELECT $1::int AS id")
    })
  )

  it.scoped("an ALTER over the client has all its connections take a parameter for what it is now", () =>
    Effect.gen(function* () {
      const { sql } = yield* single({ maxConnections: 2 })
      yield* sql`CREATE TABLE t (x float4)`
      const insert = (x: number) => sql`INSERT INTO t (x) VALUES (${x})`
      const { connection, release } = yield* hold(sql)
      const held = (x: number) => connection.execute("INSERT INTO t (x) VALUES ($1)", [x], undefined)
      yield* twice(insert(0.1))
      yield* twice(held(0.1))
      yield* sql`DELETE FROM t`
      yield* sql.withTransaction(
        Effect.zipRight(sql`ALTER TABLE t ALTER COLUMN x TYPE float8`, Effect.replicateEffect(insert(0.1), 3))
      )
      yield* Effect.replicateEffect(insert(0.1), 3)
      yield* Effect.replicateEffect(held(0.1), 3)
      yield* release
      const rows = yield* sql<{ x: number }>`SELECT x FROM t`
      assert.deepStrictEqual(
        rows.map(({ x }) => x),
        Arr.replicate(0.1, 9)
      )
    })
  )

  it.scoped(
    "in a transaction it is an UnknownError that is transient, and the transaction works when it is run again",
    () =>
      Effect.gen(function* () {
        const { ddl, sql } = yield* pair({ maxConnections: 2 })
        yield* ddl`CREATE TABLE t (a int)`
        yield* ddl`INSERT INTO t VALUES (1)`
        const read = sql`SELECT * FROM t`
        const { connection, release } = yield* hold(sql)
        yield* Effect.replicateEffect(connection.execute("SELECT * FROM t", [], undefined), 2)
        yield* twice(read)
        yield* ddl`ALTER TABLE t ADD COLUMN b int`
        yield* release
        const error = yield* failure(sql.withTransaction(read))
        assert.deepStrictEqual(
          [error._tag, error.sqlState, error.outcome, error.transient],
          ["UnknownError", "0A000", "NotApplied", true]
        )
        // On either connection.
        const all = Effect.replicateEffect(sql.withTransaction(read), 4)
        for (const rows of yield* all) assert.deepStrictEqual(rows, [{ a: 1, b: null }])
      })
  )

  it.scoped("Transaction.run runs again by itself, with several stale statements on several connections", () =>
    Effect.gen(function* () {
      const { ddl, url } = yield* pair()
      const { context, sql } = yield* clientOf({ url, maxConnections: 3 })
      yield* ddl`CREATE TABLE t (a int)`
      const reads = Effect.gen(function* () {
        for (const n of [1, 2, 3, 4, 5, 6]) yield* sql.unsafe(`SELECT *, ${n} AS n FROM t`)
        return yield* sql`INSERT INTO t VALUES (${1}) RETURNING *`
      })
      // As many at once as the retry budget lets repeat.
      const everywhere = Effect.all(Arr.replicate(Transaction.run(reads, { retry: true }), 3), {
        concurrency: 3
      }).pipe(Effect.provide(context))
      yield* Effect.replicateEffect(everywhere, 4)
      for (let n = 0; n < 3; n++) {
        yield* ddl.unsafe(`ALTER TABLE t ADD COLUMN c${n} int`)
        for (const [row] of yield* everywhere) {
          assert.property(row, `c${n}`)
        }
      }
      assert.deepStrictEqual(yield* ddl`SELECT count(*)::int AS n FROM t`, [{ n: 21 }])
    })
  )
})
