/** Every way to run a statement gives on our layer what it gives on the bare client: types, shapes, results, errors. */

import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Chunk, Effect, Stream } from "effect"
import * as Pg from "pg"
import * as TestPg from "../support/TestPg.js"
import { agree } from "./support.js"

const setup = `
  CREATE TYPE mood AS ENUM ('sad', 'happy');
  CREATE TABLE people (id int PRIMARY KEY, full_name text NOT NULL UNIQUE, born date, mood mood DEFAULT 'happy');
  INSERT INTO people VALUES (1, 'Ada', '1815-12-10'), (2, 'Grace', NULL);
  CREATE FUNCTION refuse() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'ZZ001'; END $$;
`

/** A value of each kind of type that the driver parses, or leaves alone. */
const everyType = `
  SELECT 1::int2 AS int2, 2::int4 AS int4, 9007199254740993::int8 AS int8, 1.50::numeric AS numeric, 'NaN'::numeric AS nan,
         1.5::float4 AS float4, 'Infinity'::float8 AS float8, true AS bool, 'text' AS text, 'c'::char(3) AS "char",
         null AS nothing, '\\x00ff'::bytea AS bytea, '2024-02-29'::date AS date,
         '2024-02-29 12:34:56.789+02'::timestamptz AS timestamptz, '2024-02-29 12:34:56.789'::timestamp AS timestamp,
         '12:34:56'::time AS time, '1 year 2 mons 3 days 04:05:06.7'::interval AS interval,
         '{"a": [1, null, {"b_c": "d"}]}'::json AS json, '[1, "two"]'::jsonb AS jsonb, 'null'::jsonb AS jsonb_null,
         '8e1f9a1e-93f5-4a5b-8a86-3f4a3ae3a3b0'::uuid AS uuid, '{1,null,3}'::int[] AS ints, '{{a,b},{c,d}}'::text[] AS texts,
         '{2024-02-29 00:00:00+00}'::timestamptz[] AS times, '(1,2)'::point AS point, '<(1,2),3>'::circle AS circle,
         '[1,5)'::int4range AS range, '192.168.0.1/24'::inet AS inet, 'happy'::mood AS mood, row(1, 'x') AS record,
         '101'::bit(3) AS bits, 42::oid AS oid, 12.34::money AS money, ''::text AS empty`

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Statements, as on the bare client", (it) => {
  it.effect("gives values of every type as the driver parses them, in text and in bound form", () =>
    Effect.gen(function* () {
      const rows = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const statement = sql.unsafe<Record<string, unknown>>(everyType)
          const bound = sql.unsafe<Record<string, unknown>>(`${everyType}, $1::int AS bound`, [7])
          return yield* Effect.all([
            statement,
            statement.values,
            statement.unprepared,
            statement.withoutTransform,
            bound
          ])
        }),
        { setup }
      )
      assert.strictEqual(rows[0][0]?.["int8"], "9007199254740993")
      assert.instanceOf(rows[0][0]?.["timestamptz"], Date)
      assert.isTrue(Buffer.isBuffer(rows[0][0]?.["bytea"]))
    })
  )

  it.effect("binds parameters of every type as the driver does", () =>
    Effect.gen(function* () {
      const [row] = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const instant = new Date("2024-02-29T12:34:56.789Z")
          return yield* sql<Record<string, unknown>>`
            SELECT ${1}::int AS n, ${1.5}::float8 AS x, ${"s"}::text AS s, ${true}::bool AS b, ${null}::text AS nothing,
                   ${instant}::timestamptz AS at, ${10n as any}::int8 AS big, ${Buffer.from([0, 255])}::bytea AS bytes,
                   ${new Uint8Array([1, 2, 3])}::bytea AS view, ${["a", null, 'q"\\'] as any}::text[] AS texts,
                   ${
                     [
                       [1, 2],
                       [3, 4]
                     ] as any
                   }::int[] AS grid, ${{ a: { b: [1] } } as any}::jsonb AS object,
                   ${{ toPostgres: () => "own" } as any}::text AS own, ${undefined as any}::int AS missing`
        })
      )
      assert.deepStrictEqual(row?.["texts"], ["a", null, 'q"\\'])
      assert.deepStrictEqual(row?.["object"], { a: { b: [1] } })
    })
  )

  it.effect("gives the driver's own result for .raw: command, counts, fields", () =>
    Effect.gen(function* () {
      const [select, insert] = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          // The table's number differs from database to database; everything else is compared.
          const plain = (result: any) => ({
            ...result,
            proto: Object.getPrototypeOf(result) === (Pg as any).default.Result.prototype,
            fields: result.fields.map((field: any) => ({ ...field, tableID: field.tableID > 0, dataTypeID: 0 }))
          })
          const raws = [
            sql`SELECT * FROM people ORDER BY id`.raw,
            sql`INSERT INTO people ${sql.insert([{ id: 3, full_name: "Edsger" }])}`.raw,
            sql`UPDATE people SET born = now() WHERE id = ${99}`.raw,
            sql`DELETE FROM people WHERE id = ${3} RETURNING id`.raw,
            sql`CREATE TABLE made (id int)`.raw,
            sql.unsafe("").raw,
            sql`SELECT`.raw
          ]
          return yield* Effect.forEach(raws, (raw) => Effect.map(raw, plain))
        }),
        { setup }
      )
      assert.deepStrictEqual([select!.command, select!.rowCount, select!.rows.length], ["SELECT", 2, 2])
      assert.deepStrictEqual([insert!.command, insert!.rowCount], ["INSERT", 1])
    })
  )

  it.effect("gives one result for each command of a text that holds several", () =>
    Effect.gen(function* () {
      const { rows } = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const text = `
            CREATE TABLE several (id int);
            INSERT INTO several VALUES (1), (2);
            SELECT id FROM several ORDER BY id;
            SELECT 'last' AS word, 1 AS word_count`
          const rows = yield* sql.unsafe(text)
          const raw: any = yield* sql.unsafe("SELECT 1 AS a; SELECT 2 AS b").raw
          const unprepared = yield* sql.unsafe("SELECT 1 AS a; SELECT 2 AS b").unprepared
          return { rows, raw: raw.map((result: any) => ({ command: result.command, rows: result.rows })), unprepared }
        })
      )
      assert.deepStrictEqual(rows as unknown, [[], [], [{ id: 1 }, { id: 2 }], [{ word: "last", word_count: 1 }]])
    })
  )

  it.effect("leaves nothing of a text of several commands when one of them fails", () =>
    Effect.gen(function* () {
      const rows = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const failed = yield* Effect.flip(sql.unsafe("INSERT INTO people VALUES (7, 'Alan'); SELECT 1 / 0"))
          assert.strictEqual((failed.cause as any).code, "22012")
          return yield* sql`SELECT id FROM people ORDER BY id`
        }),
        { setup }
      )
      assert.deepStrictEqual(rows, [{ id: 1 }, { id: 2 }])
    })
  )

  it.effect("gives rows as arrays for .values, duplicate column names included", () =>
    Effect.gen(function* () {
      const rows = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const joined = sql`SELECT p.id, q.id, p.full_name FROM people p, people q ORDER BY 1, 2`
          return [yield* joined.values, yield* joined, yield* sql`SELECT 1 WHERE false`.values] as const
        }),
        { setup }
      )
      assert.deepStrictEqual(rows[0][1], [1, 2, "Ada"])
    })
  )

  it.effect("builds statements with every helper of the client", () =>
    agree(
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`INSERT INTO people ${sql.insert([
          { id: 3, full_name: "Edsger", born: null },
          { id: 4, full_name: "Barbara", born: new Date("1939-11-07T00:00:00Z") }
        ])}`
        const updated = yield* sql`
          UPDATE people SET ${sql.update({ id: 3, full_name: "Dijkstra" }, ["id"])} WHERE id = 3 RETURNING *`
        const many = yield* sql`
          UPDATE people SET full_name = data.full_name
          FROM ${sql.updateValues([{ id: 1, full_name: "Lovelace" }], "data")} WHERE people.id = data.id::int`.raw
        const found = yield* sql`
          SELECT ${sql("full_name")} FROM ${sql("people")}
          WHERE ${sql.and([sql.in("id", [1, 2, 3]), sql`born IS NULL`, sql.or([sql`id > 1`, "false"])])}
          ORDER BY id ${sql.literal("DESC")}`
        const dialect = sql.onDialectOrElse({ pg: () => "pg", orElse: () => "other" })
        return { updated, many: (many as any).rowCount, found, dialect, text: sql`SELECT ${1} + ${2}`.compile() }
      }),
      { setup }
    )
  )

  it.effect("streams rows in order, in and outside of a transaction, to the end or in part", () =>
    Effect.gen(function* () {
      const { inside, outside, part } = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const numbers = sql<{ n: number }>`SELECT n FROM generate_series(1, ${1000}::int) AS n`.stream
          const outside = yield* Stream.runCollect(numbers)
          const inside = yield* sql.withTransaction(Stream.runCollect(numbers))
          const part = yield* Stream.runCollect(Stream.take(numbers, 3))
          const none = yield* Stream.runCollect(sql`SELECT 1 WHERE false`.stream)
          const failing = yield* Effect.flip(
            Stream.runDrain(sql`SELECT 1 / (500 - n) FROM generate_series(1, 1000) n`.stream)
          )
          const returned = yield* Stream.runCollect(
            sql`INSERT INTO people (id, full_name) SELECT n, n::text FROM generate_series(10, 12) n RETURNING id`.stream
          )
          const stored = yield* sql`SELECT count(*)::int AS n FROM people`
          return { outside, inside, part, none, failing: (failing.cause as any).code, returned, stored }
        }),
        { setup }
      )
      assert.strictEqual(Chunk.size(outside), 1000)
      assert.deepStrictEqual(Chunk.toReadonlyArray(inside), Chunk.toReadonlyArray(outside))
      assert.deepStrictEqual(Chunk.toReadonlyArray(part), [{ n: 1 }, { n: 2 }, { n: 3 }])
    })
  )

  it.effect("reserves one session until the scope closes, with everything that a connection can do", () =>
    Effect.gen(function* () {
      const { pids } = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          return yield* Effect.scoped(
            Effect.gen(function* () {
              const connection = yield* sql.reserve
              yield* connection.executeRaw("SET application_name = 'reserved'", [])
              const pid = Effect.map(connection.executeValues("SELECT pg_backend_pid()", []), ([row]) => row![0])
              return {
                pids: new Set([yield* pid, yield* pid]).size,
                name: yield* connection.execute("SHOW application_name", [], undefined),
                unprepared: yield* connection.executeUnprepared("SELECT 1 AS a; SELECT 2 AS b", [], undefined),
                bound: yield* connection.execute(
                  "SELECT $1::int + 1 AS n",
                  [1],
                  (rows) => rows.map((row) => ({ row })) as any
                ),
                raw: ((yield* connection.executeRaw("SELECT 1 AS one", [])) as any).rows,
                streamed: yield* sql.withTransaction(Stream.runCollect(sql`SELECT 1 AS one UNION ALL SELECT 2`.stream)),
                failed: (yield* Effect.flip(connection.execute("SELECT nothing", [], undefined))).cause
                  ? "SqlError"
                  : "",
                after: yield* connection.execute("SELECT 'still here' AS word", [], undefined)
              }
            })
          )
        })
      )
      assert.strictEqual(pids, 1)
    })
  )
  it.effect("parses with the program's own types, text and binary format alike", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const types: Pg.CustomTypesConfig = {
        getTypeParser: (oid: number, format?: any) => {
          if (oid === 20) return (value: string) => BigInt(value)
          if (oid === 1082) return (value: string) => `date:${value}`
          if (oid === 16) asked.push(format)
          return Pg.types.getTypeParser(oid, format)
        }
      }
      const [row] = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const select = sql<{
            big: bigint
          }>`SELECT 9007199254740993::int8 AS big, '2024-02-29'::date AS day, true AS b`
          const [streamed] = Chunk.toReadonlyArray(yield* Stream.runCollect(select.stream))
          return [...(yield* select), streamed, ...(yield* select.values)]
        }),
        { types }
      )
      assert.deepStrictEqual<unknown>(row, { big: 9007199254740993n, day: "date:2024-02-29", b: true })
      assert.isNotEmpty(asked)
    })
  )

  it.effect("fails with the server's SQLSTATE where programs look for it", () =>
    Effect.gen(function* () {
      const failing = [
        "INSERT INTO people VALUES (1, 'again')",
        "INSERT INTO people VALUES (9, NULL)",
        "SELECT 1 / 0",
        "SELECT 'x'::int",
        "SELECT * FROM nowhere",
        "SELEC 1",
        "SELECT pg_terminate_backend(0, -1)",
        "SELECT refuse()"
      ]
      const codes = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          return yield* Effect.forEach(failing, (text) =>
            Effect.map(Effect.flip(sql.unsafe(text)), (error) => {
              const cause = error.cause as Pg.DatabaseError
              const { code, column, constraint, schema, severity, table } = cause
              return {
                tag: error._tag,
                isError: cause instanceof Error,
                code,
                column,
                constraint,
                schema,
                severity,
                table
              }
            })
          )
        }),
        { setup }
      )
      assert.deepStrictEqual(
        codes.map(({ code }) => code),
        ["23505", "23502", "22012", "22P02", "42P01", "42601", "22003", "ZZ001"]
      )
      assert.strictEqual(codes[0]?.constraint, "people_pkey")
    })
  )

  it.effect("fails a parameter that can not be sent, as a failure and not as a defect, and goes on", () =>
    Effect.gen(function* () {
      const circular: { self?: unknown } = {}
      circular.self = circular
      const refusing = {
        toPostgres: () => {
          throw new Error("not to be stored")
        }
      }
      const [tags, rows] = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const tags = yield* Effect.forEach(["a\0b", circular, refusing], (value) =>
            Effect.map(Effect.flip(sql`SELECT ${value as string}::text`), ({ _tag }) => _tag)
          )
          return [tags, yield* sql`SELECT 1 AS one`] as const
        })
      )
      assert.deepStrictEqual(tags, ["SqlError", "SqlError", "SqlError"])
      assert.deepStrictEqual(rows, [{ one: 1 }])
    })
  )
})
