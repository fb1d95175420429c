/** What functions put into their errors on purpose, on a real server: none of it is in an error, a log line or a span. */
import * as Fs from "node:fs"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Exit, HashMap, Layer, Logger, LogLevel, Redacted } from "effect"
import { Operation, type PgError, ResilientPg } from "effect-pg-resilience"
import { failure } from "../client/support.js"
import * as Remains from "../support/Remains.js"
import * as TestPg from "../support/TestPg.js"
import { telling } from "../support/telling.js"
import { renderings } from "./renderings.js"

const password = "mArK-password"
const value = "mArK-value"
const marks = [password, value]

const schema = `
  CREATE TABLE orders (
    id int CONSTRAINT orders_pkey PRIMARY KEY,
    note text CONSTRAINT orders_note_check CHECK (length(note) < 3),
    parent int CONSTRAINT orders_parent_fkey REFERENCES orders
  );
  INSERT INTO orders VALUES (1);
  CREATE DOMAIN short AS text CONSTRAINT short_check CHECK (length(VALUE) < 3);

  -- Every field that RAISE can fill, and a SQLSTATE of the caller's choice.
  CREATE FUNCTION raise(value text, state text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '% is not welcome', value USING ERRCODE = state, DETAIL = value, HINT = value,
      SCHEMA = value, TABLE = value, COLUMN = value, CONSTRAINT = value, DATATYPE = value;
  END $$;
  CREATE FUNCTION nested(value text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM raise(value, '23505'); END $$;
  CREATE FUNCTION again(value text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    PERFORM raise(value, '23505'); EXCEPTION WHEN unique_violation THEN RAISE;
  END $$;
  CREATE FUNCTION assertion(value text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN ASSERT false, value; END $$;
  CREATE FUNCTION rule(value text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    RAISE check_violation USING MESSAGE = value, TABLE = 'orders', CONSTRAINT = 'my_rule';
  END $$;

  CREATE TABLE guarded (note text);
  CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM raise(NEW.note, '23514'); RETURN NEW; END $$;
  CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
  CREATE TABLE guarded_late (note text);
  CREATE CONSTRAINT TRIGGER guard AFTER INSERT ON guarded_late DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION guard();

  -- The server's own error, caught and given on as it is.
  CREATE FUNCTION reraise(value text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO orders (id, note) VALUES (2, value); EXCEPTION WHEN OTHERS THEN RAISE;
  END $$;
`

/** A client that logs in with the marked password, and what it has written to log and spans. */
const watched = (options: ResilientPg.Options = {}) =>
  Effect.gen(function* () {
    const { name, url } = yield* TestPg.database
    yield* TestPg.control(schema, [], url)
    const role = `marked_${name}`
    yield* TestPg.control(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${password}'`)
    yield* Effect.addFinalizer(() => TestPg.control(`DROP ROLE ${role}`))
    const as = new URL(Redacted.value(url))
    as.username = role
    as.password = password

    const written: Array<string> = []
    const logger = Logger.make<unknown, void>((said) => {
      written.push(Logger.logfmtLogger.log(said), Logger.jsonLogger.log(said))
      written.push(JSON.stringify(HashMap.toEntries(said.annotations)))
    })
    const tracer = telling({
      attribute: (span, key, value) => void written.push(`${span}: ${key} ${value}`),
      event: (span, event, attributes) => void written.push(`${span}: ${event} ${JSON.stringify(attributes)}`),
      ended: (span, exit) =>
        void (Exit.isFailure(exit) && written.push(`${span}: ${exit.cause} ${JSON.stringify(exit.cause)}`))
    })
    const context = yield* Layer.build(
      ResilientPg.layer({ url: Redacted.make(as.href), slowQueryThreshold: 0, maxConnections: 2, ...options })
    ).pipe(
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Logger.withMinimumLogLevel(LogLevel.All),
      Effect.withTracer(tracer)
    )
    const sql = Context.get(context, PgClient.PgClient)
    return { sql, url, written, traced: Effect.withTracer(tracer) }
  })

type Row = readonly [name: string, sqlState: string, sql: string, names?: Partial<PgError.Failure>]

/** Statements with the marked value as their parameter, and the names that a program still gets. */
const provoking: ReadonlyArray<Row> = [
  ["a number that is none", "22P02", "SELECT $1::text::int"],
  ["a key that exists", "23505", "INSERT INTO orders (id) SELECT 1 WHERE $1 <> ''", { constraint: "orders_pkey" }],
  [
    "a reference to nothing",
    "23503",
    "INSERT INTO orders (id, parent) VALUES (3, length($1) * 7)",
    { constraint: "orders_parent_fkey", table: "orders", schema: "public" }
  ],
  [
    "a check",
    "23514",
    "INSERT INTO orders (id, note) VALUES (4, $1)",
    { constraint: "orders_note_check", table: "orders", schema: "public" }
  ],
  ["a missing value", "23502", "INSERT INTO orders (note) VALUES (left($1, 2))", { column: "id", table: "orders" }],
  ["a domain", "23514", "SELECT $1::text::short", { constraint: "short_check", schema: "public" }],
  [
    "a function that catches the server's error and says RAISE alone",
    "23514",
    "SELECT reraise($1)",
    { constraint: "orders_note_check", table: "orders" }
  ],
  ...["P0001", "23505", "23503", "23514", "22P02", "40001", "28000", "57P01", "42501", "08006", "AB1CD"].map(
    (state): Row => [`RAISE with ${state}`, state, `SELECT raise($1, '${state}')`]
  ),
  ["RAISE in a function that another one calls", "23505", "SELECT nested($1)"],
  ["a RAISE that is caught and raised again", "23505", "SELECT again($1)"],
  ["RAISE in a trigger", "23514", "INSERT INTO guarded VALUES ($1)"],
  ["RAISE in a trigger at COMMIT", "23514", "INSERT INTO guarded_late VALUES ($1)"],
  ["RAISE with a rule of the program's", "23514", "SELECT rule($1)"],
  ["ASSERT", "P0004", "SELECT assertion($1)"]
]

const nameFields = ["schema", "table", "column", "constraint"] as const

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Secrets, on PostgreSQL", (it) => {
  const assertHidden = (error: Error) =>
    Effect.map(renderings(error), (lines) => {
      for (const line of lines) for (const mark of marks) assert.notInclude(line, mark)
    })

  it.scoped("the marked parameter is in no error, log line or span, whoever words the error", () =>
    Effect.gen(function* () {
      const { sql, traced, written } = yield* watched({ retry: false })
      for (const [name, sqlState, text, names] of provoking) {
        const statement = sql.unsafe(text, [value])
        const forms: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          statement,
          Operation.named("provoke")(statement),
          sql.withTransaction(statement),
          sql.withTransaction(sql.withTransaction(statement))
        ]
        for (const form of forms) {
          const error = yield* failure(traced(form))
          assert.strictEqual(error.sqlState, sqlState, name)
          yield* assertHidden(error)
          const found = nameFields.filter((field) => error[field] !== undefined)
          if (names === undefined) assert.deepStrictEqual(found, [], name)
          else assert.include(error, names, name)
        }
      }
      assert.isTrue(written.some((line) => line.includes("Slow query")))
      assert.isTrue(written.some((line) => line.startsWith("sql.execute: ")))
      for (const line of written) for (const mark of marks) assert.notInclude(line, mark)
    })
  )

  it.scoped("the path of a file that the system refuses is not shown", () =>
    Effect.gen(function* () {
      const directory = yield* Remains.temporary
      Fs.mkdirSync(`${directory}/closed`, { mode: 0 })
      const { sql } = yield* watched({ retry: false })
      const path = `${directory}/closed/${value}`
      for (const statement of [
        sql`SELECT pg_read_file(${path})`,
        sql`SELECT pg_ls_dir(${path})`,
        sql`SELECT lo_import(${path})`
      ]) {
        const error = yield* failure(statement)
        assert.include(error, { _tag: "AuthorizationError", sqlState: "42501" })
        yield* assertHidden(error)
      }
    })
  )

  it.scoped("with exposeServerDetail a program gets the rule that RAISE names", () =>
    Effect.gen(function* () {
      const { sql } = yield* watched({ retry: false, exposeServerDetail: true })
      const error = yield* failure(sql`SELECT rule('too many')`)
      assert.include(error, { _tag: "ConstraintError", sqlState: "23514", constraint: "my_rule", table: "orders" })
      assert.include(error.message, "too many")
    })
  )
})
