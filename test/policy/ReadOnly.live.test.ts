/** The lexer's verdicts against a real server, which parses for itself. */
import { assert, layer } from "@effect/vitest"
import { Effect, FastCheck as fc, Redacted } from "effect"
import * as Pg from "pg"
import { reservedWords } from "../../src/policy/internal/reservedWords.js"
import { inspect } from "../../src/policy/internal/sqlInspection.js"
import { stableFunctions } from "../../src/policy/internal/stableFunctions.js"
import * as TestPg from "../support/TestPg.js"
import * as arbitrary from "./ReadOnly.arbitrary.js"
import { reads, schema, writes } from "./ReadOnly.corpus.js"

interface Answer {
  /** SQLSTATE, "00000" for success. */
  readonly code: string
  readonly message: string
  /** Commands that the server saw in the text. */
  readonly commands: number
}

/** One connection, on a database of its own, that answers text after text in the simple protocol. */
const session = (setup: string) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    const client = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const client = new Pg.Client({ connectionString: Redacted.value(url) })
        await client.connect()
        return client
      }),
      (client) => Effect.promise(() => client.end())
    )
    const ask = (sql: string) =>
      Effect.promise(
        (): Promise<Answer> =>
          client.query(sql).then(
            (result: unknown) => ({ code: "00000", message: "", commands: Array.isArray(result) ? result.length : 1 }),
            (error: Pg.DatabaseError) => ({ code: String(error.code), message: error.message, commands: 0 })
          )
      )
    const prepared = yield* ask(setup)
    assert.strictEqual(prepared.code, "00000", prepared.message)
    return { ask, rows: (sql: string) => Effect.promise(() => client.query(sql).then((_) => _.rows as Array<any>)) }
  })

const readOnlyTransaction = "25006"
const undefinedFunction = "42883"

/** What the server would refuse to a read-only transaction, it refuses to these sessions. */
const refusing =
  "SET default_transaction_read_only = on; SET client_min_messages = error; SET statement_timeout = '5s';"

const backslashes = "SET standard_conforming_strings = off; SET escape_string_warning = off; SET backslash_quote = on;"

/** `count` texts that the lexer calls read-only, each with the server's answer. */
const answers = (
  { ask }: Effect.Effect.Success<ReturnType<typeof session>>,
  texts: fc.Arbitrary<string>,
  count: number,
  seed: number
) => {
  const sample = fc.sample(
    texts.filter((sql) => inspect(sql).readOnly),
    { numRuns: count, seed }
  )
  return Effect.forEach(new Set(sample), (sql) => Effect.map(ask(sql), (answer) => ({ sql, ...answer })))
}

/** New texts each time; a failure names the text, so that no seed is needed to repeat it. */
const seed = Effect.sync(() => Date.now() | 0)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("ReadOnly on PostgreSQL", (it) => {
  it.scoped("calls read-only what runs in a read-only transaction", () =>
    Effect.gen(function* () {
      const { ask } = yield* session(schema)
      for (const sql of reads) {
        yield* ask("BEGIN READ ONLY")
        const { code, message } = yield* ask(sql)
        yield* ask("ROLLBACK")
        assert.strictEqual(code, "00000", `${sql}: ${message}`)
        assert.isTrue(inspect(sql).readOnly, sql)
      }
    })
  )

  it.scoped("never calls read-only what a read-only transaction refuses", () =>
    Effect.gen(function* () {
      const { ask } = yield* session(schema)
      for (const sql of writes) {
        yield* ask("BEGIN READ ONLY")
        const { code, message } = yield* ask(sql)
        yield* ask("ROLLBACK")
        assert.strictEqual(code, readOnlyTransaction, `${sql}: ${message}`)
        assert.isFalse(inspect(sql).readOnly, sql)
      }
    })
  )

  for (const [setting, setup] of [
    ["on", ""],
    ["off", backslashes]
  ] as const) {
    it.scoped(`finds every write that the server finds, with standard_conforming_strings ${setting}`, () =>
      Effect.gen(function* () {
        const server = yield* session(`${schema}; ${refusing} ${setup}`)
        const results = yield* Effect.flatten(
          Effect.map(seed, (seed) => answers(server, fc.oneof(arbitrary.soup, arbitrary.grammar), 3_000, seed))
        )
        assert.deepStrictEqual(results.filter((_) => _.code === readOnlyTransaction).slice(0, 3), [])
        assert.isAbove(results.filter((_) => _.code === "00000").length, 50, "texts that ran")
      })
    )
  }

  it.scoped("finds every call that the server finds", () =>
    Effect.gen(function* () {
      // None of the called functions exists here, so that each call is an error whatever its place in the statement asks for.
      const server = yield* session(`CREATE TABLE t (id int PRIMARY KEY, name text); ${refusing}`)
      const results = yield* Effect.flatten(Effect.map(seed, (seed) => answers(server, arbitrary.grammar, 3_000, seed)))
      const called = results.flatMap((_) => {
        const name = /^(?:function|aggregate) (?:pg_catalog\.)?([\w.]+)\(/.exec(_.message)?.[1]
        return _.code !== undefinedFunction || name === undefined ? [] : [{ name, sql: _.sql }]
      })
      const operators = new Set(["timezone"]) // AT TIME ZONE
      assert.deepStrictEqual(
        called.filter(({ name }) => !stableFunctions.has(name) && !operators.has(name)).slice(0, 3),
        []
      )
      assert.isAbove(called.length, 0, "calls of listed functions")
    })
  )

  it.scoped("counts commands as the server does", () =>
    Effect.gen(function* () {
      const { ask } = yield* session(schema)
      const texts = [
        ...reads,
        ...["SELECT 1; SELECT 2", "SELECT ';'; SELECT $$;$$", ";; SELECT 1 ;; ;", "SELECT 1; /* ; */", "BEGIN; COMMIT"],
        ...["SELECT 1 -- ;\n;", "SELECT 1 -- ;\r; SELECT 2", "SELECT E'\\';'; VALUES (1)", "SELECT ''';'';'"],
        "CREATE RULE r AS ON DELETE TO data DO ALSO (INSERT INTO log DEFAULT VALUES; DELETE FROM log)",
        "CREATE FUNCTION one() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN (CASE 1 WHEN 1 THEN 2 END) END; END",
        "CREATE FUNCTION two() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 1"
      ]
      for (const sql of texts) {
        const { commands, message } = yield* ask(sql)
        assert.strictEqual(inspect(sql).command === "multiple", commands > 1, `${sql} ${message}`)
        assert.isAbove(commands, 0, `${sql}: ${message}`)
      }
    })
  )

  it.scoped("calls opaque every text that leaves something behind although its answer is an error", () =>
    Effect.gen(function* () {
      const { ask, rows } = yield* session(`${schema};
        CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN INSERT INTO log DEFAULT VALUES; COMMIT; PERFORM 1 / 0; END';
        INSERT INTO data VALUES (1), (1)`)
      const insert = "INSERT INTO log DEFAULT VALUES"
      const index = "INDEX CONCURRENTLY broken ON data (id)"
      const texts: ReadonlyArray<readonly [leavesSomething: boolean, sql: string]> = [
        [false, "INSERT INTO log SELECT 1 / 0"],
        [false, `${insert}; SELECT 1 / 0`],
        [false, `${insert}; ${insert}; SELECT nothing`],
        [false, `WITH a AS (${insert} RETURNING id) SELECT id / 0 FROM a`],
        [false, `CREATE FUNCTION x() RETURNS int BEGIN ATOMIC ${insert} RETURNING id; END; SELECT x() / 0`],
        [true, `${insert}; COMMIT; SELECT 1 / 0`],
        [true, `BEGIN; ${insert}; COMMIT; SELECT 1 / 0`],
        [true, `START TRANSACTION; ${insert}; END; SELECT 1 / 0`],
        [true, `DO $$BEGIN ${insert}; COMMIT; PERFORM 1 / 0; END$$`],
        [true, "CALL p()"],
        [true, `CREATE UNIQUE ${index}`]
      ]
      for (const [expected, sql] of texts) {
        yield* ask("ROLLBACK; DROP INDEX IF EXISTS broken; TRUNCATE log")
        const { code } = yield* ask(sql)
        assert.notStrictEqual(code, "00000", sql)
        yield* ask("ROLLBACK")
        const [left] = yield* rows(
          "SELECT EXISTS (SELECT FROM log) OR to_regclass('broken') IS NOT NULL OR to_regproc('x') IS NOT NULL AS something"
        )
        assert.strictEqual(left.something, expected, sql)
        assert.strictEqual(inspect(sql).opaque, expected, sql)
      }
    })
  )

  it.scoped("lists only functions that the server knows, and knows as immutable or stable in every overload", () =>
    Effect.gen(function* () {
      const { rows } = yield* session("SELECT 1")
      const known = yield* rows(`
        SELECT proname AS name, bool_and(provolatile IN ('i', 's') AND prokind IN ('f', 'a', 'w')) AS stable
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY proname`)
      const stable = new Set(known.filter((_) => _.stable).map((_) => _.name))
      assert.deepStrictEqual(
        [...stableFunctions].filter((name) => !stable.has(name)),
        []
      )
      assert.isAbove(stableFunctions.size, 2_000)
      for (const name of ["count", "sum", "now", "lower", "jsonb_agg", "row_number", "generate_series", "unnest"]) {
        assert.isTrue(stableFunctions.has(name), name)
      }
    })
  )

  it.scoped("lists only functions that assign no transaction id", () =>
    Effect.gen(function* () {
      const { ask, rows } = yield* session("SELECT 1")
      const assigned = () =>
        Effect.map(rows("SELECT pg_current_xact_id_if_assigned() IS NOT NULL AS yes"), ([_]) => _.yes)
      const callable = yield* rows(`
        SELECT proname AS name FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND pronargs = 0 AND prokind = 'f' AND provolatile IN ('i', 's')`)
      const unlisted: Array<string> = []
      for (const { name } of callable) {
        yield* ask("BEGIN")
        const { code } = yield* ask(`SELECT pg_catalog.${name}()`)
        if (code === "00000" && (yield* assigned())) unlisted.push(name)
        yield* ask("ROLLBACK")
      }
      assert.deepStrictEqual(unlisted.sort(), ["pg_current_xact_id", "txid_current"])
      assert.deepStrictEqual(
        unlisted.filter((name) => stableFunctions.has(name)),
        []
      )
    })
  )

  it.scoped("takes only those keywords for reserved that the server reserves", () =>
    Effect.gen(function* () {
      const { rows } = yield* session("SELECT 1")
      const reserved = new Set(
        (yield* rows("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'C')")).map((_) => _.word)
      )
      assert.deepStrictEqual(
        [...reservedWords].filter((word) => !reserved.has(word)),
        []
      )
      assert.isAbove(reservedWords.size, 100)
    })
  )
})
