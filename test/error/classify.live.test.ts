import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { PgClient } from "@effect/sql-pg"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as Pg from "pg"
import { classify, isFatal, isFinalAnswer, isStaleStatement } from "../../src/error/classify.js"
import * as PgError from "../../src/error/PgError.js"
import * as SqlState from "../../src/error/SqlState.js"
import * as Binaries from "../../src/testing/internal/binaries.js"
import * as TestPg from "../support/TestPg.js"
import { renderings } from "./renderings.js"

/** One statement of the simple or the extended protocol, made into an effect of what the driver rejects with. */
interface Client {
  readonly pid: number
  readonly run: (query: Pg.QueryConfig | string, values?: ReadonlyArray<unknown>) => Effect.Effect<void>
  readonly fail: (query: Pg.QueryConfig | string, values?: ReadonlyArray<unknown>) => Effect.Effect<Error>
  /** The first error that comes without a statement. */
  readonly lost: Effect.Effect<Error>
}

const text = (query: Pg.QueryConfig | string) => (typeof query === "string" ? query : query.text)

const open = (config: Pg.ClientConfig): Effect.Effect<Client, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const client = yield* Effect.acquireRelease(
      Effect.sync(() => new Pg.Client(config)),
      (client) => Effect.sync(() => client.connection.stream.destroy()) // also after a failed connect, which leaves it open
    )
    const lost = new Promise<Error>((resolve) => client.on("error", resolve))
    yield* Effect.tryPromise({ try: () => client.connect(), catch: (cause) => cause as Error })
    const query: Client["fail"] = (query, values) =>
      Effect.flip(
        Effect.tryPromise({ try: () => client.query(query as string, values?.slice()), catch: (e) => e as Error })
      ).pipe(Effect.catchAll(() => Effect.dieMessage(`did not fail: ${text(query)}`)))
    return {
      pid: (client as unknown as { readonly processID: number }).processID,
      run: (query, values) => Effect.promise(() => client.query(query as string, values?.slice())),
      fail: query,
      lost: Effect.promise(() => lost)
    }
  })

/** What every test here stands on: a database with some tables, and a role with few rights. */
class Fixture extends Context.Tag("test/Fixture")<
  Fixture,
  {
    readonly config: Pg.ClientConfig
    readonly client: Effect.Effect<Client, Error, Scope.Scope>
  }
>() {}

const schema = `
  CREATE TABLE city (id int PRIMARY KEY, name text);
  CREATE TABLE person (
    id int CONSTRAINT person_pkey PRIMARY KEY,
    email text NOT NULL CONSTRAINT person_email_key UNIQUE,
    nick varchar(5),
    age text CONSTRAINT person_age_check CHECK (age <> 'old' AND length(age) < 10),
    city int CONSTRAINT person_city_fkey REFERENCES city DEFERRABLE,
    zip text,
    away int4range,
    CONSTRAINT person_away_excl EXCLUDE USING gist (away WITH &&)
  );
  CREATE TABLE town (zip text PRIMARY KEY);
  ALTER TABLE person ADD CONSTRAINT person_zip_fkey FOREIGN KEY (zip) REFERENCES town;
  INSERT INTO person (id, email, away) VALUES (1, 'a@b.c', '[1,5)'), (2, 'd@e.f', NULL);
  CREATE FUNCTION complain(value text) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'cannot take %', value USING DETAIL = value, HINT = value; END $$;
  CREATE FUNCTION complain(value text, state text) RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'cannot take %', value USING ERRCODE = state; END $$;
  CREATE ROLE guest LOGIN PASSWORD 'guest';
  CREATE ROLE single LOGIN PASSWORD 'single' CONNECTION LIMIT 1;
  CREATE ROLE barred NOLOGIN PASSWORD 'barred';
`

const fixture = Layer.scoped(
  Fixture,
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    const config = { connectionString: Redacted.value(url) }
    yield* Effect.scoped(Effect.flatMap(open(config), (client) => client.run(schema)))
    return { config, client: open(config) }
  })
).pipe(Layer.provideMerge(TestPg.layer))

type Expected = readonly [sqlState: string | undefined, tag: PgError.Tag, transient: boolean]

const assertClassified = (cause: Error, [sqlState, tag, transient]: Expected, facts?: PgError.Facts) => {
  const error = classify(cause, facts)
  assert.deepStrictEqual([error.sqlState, error._tag, error.transient], [sqlState, tag, transient], error.message)
  assert.match(error.message, sqlState === undefined ? /\S/ : new RegExp(`\\(${sqlState}\\)`))
  assert.notInclude(error.message, "\n")
  assert.strictEqual(PgError.fromSqlError(PgError.toSqlError(error)), error)
  return error
}

/** As `sql` on a new connection, after `before`. */
const simple: ReadonlyArray<readonly [name: string, expected: Expected, sql: string, before?: string]> = [
  ["a key that exists", ["23505", "UniqueViolation", false], "INSERT INTO person VALUES (3, 'a@b.c')"],
  ["a reference to nothing", ["23503", "ConstraintError", false], "INSERT INTO person VALUES (3, 'x', NULL, NULL, 9)"],
  ["a missing value", ["23502", "ConstraintError", false], "INSERT INTO person VALUES (3)"],
  ["a check", ["23514", "ConstraintError", false], "INSERT INTO person VALUES (3, 'x', NULL, 'old')"],
  [
    "an exclusion",
    ["23P01", "ConstraintError", false],
    "INSERT INTO person (id, email, away) VALUES (3, 'x', '[2,3)')"
  ],
  [
    "a constraint that COMMIT checks",
    ["23503", "ConstraintError", false],
    "COMMIT",
    "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO person VALUES (3, 'x', NULL, NULL, 9)"
  ],
  ["a number that is none", ["22P02", "UnknownError", false], "SELECT 'x'::int"],
  ["a number out of range", ["22003", "UnknownError", false], "SELECT 99999::int2"],
  ["a text too long", ["22001", "UnknownError", false], "INSERT INTO person VALUES (3, 'x', 'too long')"],
  ["a division by zero", ["22012", "UnknownError", false], "SELECT 1 / 0"],
  ["a date that is none", ["22007", "UnknownError", false], "SELECT 'x'::date"],
  ["two rows where one is allowed", ["21000", "UnknownError", false], "SELECT (VALUES (1), (2))"],
  ["a syntax error", ["42601", "SqlSyntaxError", false], "SELEC 1"],
  ["an unknown table", ["42P01", "SqlSyntaxError", false], "SELECT * FROM nowhere"],
  ["an unknown column", ["42703", "SqlSyntaxError", false], "SELECT nothing FROM person"],
  ["an unknown function", ["42883", "SqlSyntaxError", false], "SELECT nothing(1)"],
  ["an unknown type", ["42704", "SqlSyntaxError", false], "SELECT 1::nothing"],
  ["an unknown schema", ["3F000", "SqlSyntaxError", false], "CREATE TABLE nowhere.t ()"],
  ["an unknown database to drop", ["3D000", "SqlSyntaxError", false], "DROP DATABASE nowhere"],
  ["a table that exists", ["42P07", "SqlSyntaxError", false], "CREATE TABLE person ()"],
  ["types that do not fit", ["42804", "SqlSyntaxError", false], "SELECT coalesce(1, 'x'::text)"],
  ["what the server does not support", ["0A000", "UnknownError", false], "SELECT DISTINCT 1 FOR UPDATE"],
  ["no permission", ["42501", "AuthorizationError", false], "SELECT * FROM person", "SET ROLE guest"],
  ["a write in a read-only transaction", ["25006", "ReadOnlyError", true], "DELETE FROM person", "BEGIN READ ONLY"],
  ["a savepoint outside a transaction", ["25P01", "UnknownError", false], "SAVEPOINT a"],
  ["VACUUM inside a transaction", ["25001", "UnknownError", false], "VACUUM", "BEGIN"],
  ["an unknown savepoint", ["3B001", "UnknownError", false], "ROLLBACK TO b", "BEGIN"],
  ["an unknown cursor", ["34000", "UnknownError", false], "FETCH nothing"],
  ["an object that others need", ["2BP01", "UnknownError", false], "DROP TABLE city"],
  ["a sequence not used yet", ["55000", "UnknownError", false], "SELECT lastval()"],
  ["a limit of the server", ["54000", "UnknownError", false], "SELECT repeat('x', 2000000000)"],
  [
    "a table in use",
    ["55006", "UnknownError", false],
    "DROP TABLE person CASCADE",
    "BEGIN; DECLARE c CURSOR FOR TABLE person; FETCH c"
  ],
  ["an unknown prepared statement", ["26000", "UnknownError", true], "EXECUTE nothing"],
  [
    "a prepared statement that exists",
    ["42P05", "UnknownError", true],
    "PREPARE p AS SELECT 1",
    "PREPARE p AS SELECT 1"
  ],
  ["RAISE", ["P0001", "UnknownError", false], "SELECT complain('x')"],
  [
    "RAISE with a SQLSTATE of the program's choice",
    ["40001", "SerializationError", true],
    "SELECT complain('x', '40001')"
  ],
  ...["57P01", "57P03", "08006", "53300", "25006"].map(
    (sqlState) =>
      [
        `RAISE with ${sqlState}, which is not about this session`,
        [sqlState, "UnknownError", false],
        `SELECT complain('x', '${sqlState}')`
      ] as const
  ),
  ["RAISE with 28000", ["28000", "AuthenticationError", false], "SELECT complain('x', '28000')"],
  [
    "another server that dblink cannot reach",
    ["08001", "UnknownError", true],
    "SELECT * FROM dblink('host=127.0.0.1 port=1', 'SELECT 1') AS t (n int)",
    "CREATE EXTENSION IF NOT EXISTS dblink"
  ],
  [
    "another server that postgres_fdw cannot reach",
    ["08001", "UnknownError", true],
    "SELECT * FROM far",
    `CREATE EXTENSION postgres_fdw;
     CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
     CREATE USER MAPPING FOR CURRENT_USER SERVER nowhere;
     CREATE FOREIGN TABLE far (n int) SERVER nowhere`
  ],
  [
    "a CASE without a branch",
    ["20000", "UnknownError", false],
    "DO $$ BEGIN CASE 1 WHEN 2 THEN NULL; END CASE; END $$"
  ],
  ["COPY without data", ["57014", "UnknownError", false], "COPY person FROM STDIN"],
  ["statement_timeout", ["57014", "StatementTimeoutError", true], "SELECT pg_sleep(60)", "SET statement_timeout = 20"],
  ["a file that the server cannot read", ["58P01", "ResourceError", false], "SELECT pg_read_file('nothing')"]
]

const provoked = new Set<string>()

layer(fixture, { excludeTestServices: true, timeout: "60 seconds" })("classify, on PostgreSQL", (it) => {
  /** The error is what the table says; counted for the test at the end. */
  const expectError = (cause: Error, expected: Expected, facts?: PgError.Facts) =>
    Effect.sync(() => {
      if (expected[0] !== undefined) provoked.add(expected[0])
      return assertClassified(cause, expected, facts)
    })

  it.scoped.each(simple)("knows %s", ([, expected, sql, before]) =>
    Effect.gen(function* () {
      const client = yield* Effect.flatMap(Fixture, (_) => _.client)
      if (before !== undefined) yield* client.run(before)
      const cause = yield* client.fail(sql)
      yield* expectError(cause, expected)
      assert.isFalse(isFatal(cause))
      assert.isTrue(isFinalAnswer(cause))
    })
  )

  it.scoped("knows a statement in a failed transaction", () =>
    Effect.gen(function* () {
      const client = yield* Effect.flatMap(Fixture, (_) => _.client)
      yield* client.run("BEGIN")
      yield* client.fail("SELECT 1 / 0")
      yield* expectError(yield* client.fail("SELECT 1"), ["25P02", "TransactionAbortedError", false])
    })
  )

  it.scoped("knows a wrong number of parameters for the program's mistake, although it is a protocol violation", () =>
    Effect.gen(function* () {
      const client = yield* Effect.flatMap(Fixture, (_) => _.client)
      const cause = yield* client.fail("SELECT $1::int", [1, 2])
      yield* expectError(cause, ["08P01", "SqlSyntaxError", false])
      assert.isFalse(isFatal(cause))
    })
  )

  it.scoped("knows prepared statements that are missing, doubled and out of date", () =>
    Effect.gen(function* () {
      const client = yield* Effect.flatMap(Fixture, (_) => _.client)
      yield* client.run("CREATE TABLE shape (a int)")
      yield* client.run({ name: "s", text: "SELECT * FROM shape" })
      yield* client.run("ALTER TABLE shape ADD COLUMN b int")
      const stale = yield* client.fail({ name: "s", text: "SELECT * FROM shape" })
      yield* expectError(stale, ["0A000", "UnknownError", true])
      yield* client.run("DEALLOCATE ALL")
      const missing = yield* client.fail({ name: "s", text: "SELECT * FROM shape" })
      yield* expectError(missing, ["26000", "UnknownError", true])
      yield* client.run("PREPARE t AS SELECT 1")
      const doubled = yield* client.fail({ name: "t", text: "SELECT 1" })
      yield* expectError(doubled, ["42P05", "UnknownError", true])
      for (const cause of [stale, missing, doubled]) assert.isTrue(isStaleStatement(cause))
    })
  )

  it.scoped("knows a lock that is not to be had: at once, and in time", () =>
    Effect.gen(function* () {
      const { client } = yield* Fixture
      const [holder, waiter] = yield* Effect.all([client, client])
      yield* holder.run("BEGIN; SELECT * FROM person WHERE id = 1 FOR UPDATE")
      const select = "SELECT * FROM person WHERE id = 1 FOR UPDATE"
      yield* expectError(yield* waiter.fail(`${select} NOWAIT`), ["55P03", "LockTimeoutError", true])
      yield* waiter.run("SET lock_timeout = 20")
      yield* expectError(yield* waiter.fail(select), ["55P03", "LockTimeoutError", true])
    })
  )

  it.scoped("knows a deadlock", () =>
    Effect.gen(function* () {
      const { client } = yield* Fixture
      const [one, two] = yield* Effect.all([client, client])
      const update = (id: number) => `UPDATE person SET nick = 'x' WHERE id = ${id}`
      yield* one.run(`SET deadlock_timeout = 20; BEGIN; ${update(1)}`)
      yield* two.run(`SET deadlock_timeout = '1h'; BEGIN; ${update(2)}`)
      yield* Effect.forkScoped(two.run(update(1)))
      yield* TestPg.eventually(
        TestPg.control<{ waits: boolean }>("SELECT cardinality(pg_blocking_pids($1)) > 0 AS waits", [two.pid]),
        (rows) => rows[0]?.waits === true
      )
      yield* expectError(yield* one.fail(update(2)), ["40P01", "DeadlockError", true])
    })
  )

  it.scoped("knows a serialization failure", () =>
    Effect.gen(function* () {
      const { client } = yield* Fixture
      const [one, two] = yield* Effect.all([client, client])
      yield* one.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM person")
      yield* two.run("UPDATE person SET nick = 'y' WHERE id = 1")
      yield* expectError(yield* one.fail("UPDATE person SET nick = 'z' WHERE id = 1"), [
        "40001",
        "SerializationError",
        true
      ])
    })
  )

  it.scoped("tells our cancel from somebody else's, by what the caller knows", () =>
    Effect.gen(function* () {
      const client = yield* Effect.flatMap(Fixture, (_) => _.client)
      const cause = yield* client.fail("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")
      yield* expectError(cause, ["57014", "UnknownError", true])
      yield* expectError(cause, ["57014", "UnknownError", false], { cancelledByUs: "interrupt" })
      yield* expectError(cause, ["57014", "QueryTimeoutError", true], { cancelledByUs: "timeout" })
      assert.isFalse(isFatal(cause))
    })
  )

  it.scoped("knows every way in which the server ends a session, and that the session is gone", () =>
    Effect.gen(function* () {
      const { client } = yield* Fixture
      const [idle, inTransaction, slow, victim] = yield* Effect.all([client, client, client, client])
      yield* idle.run("SET idle_session_timeout = 20")
      yield* inTransaction.run("SET idle_in_transaction_session_timeout = 20; BEGIN")
      yield* slow.run("SET transaction_timeout = 20")
      const causes: ReadonlyArray<readonly [Error, Expected]> = [
        [yield* idle.lost, ["57P05", "ConnectionError", true]],
        [yield* inTransaction.lost, ["25P03", "ConnectionError", false]],
        [yield* slow.fail("SELECT pg_sleep(60)"), ["25P04", "QueryTimeoutError", true]]
      ]
      for (const [cause, expected] of causes) {
        assert.strictEqual((yield* expectError(cause, expected)).severity, "FATAL")
        assert.isTrue(isFatal(cause))
        assert.isTrue(isFinalAnswer(cause), "the transaction cannot have been committed")
      }

      const killed = yield* victim.fail("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
      yield* expectError(killed, ["57P01", "ServerUnavailableError", true])
      assert.isTrue(isFatal(killed))
      assert.isFalse(isFinalAnswer(killed), "a commit may have come before")
      yield* expectError(yield* victim.fail("SELECT 1"), [undefined, "ConnectionError", true])
    })
  )

  it.scoped("knows why a connection cannot be made", () =>
    Effect.gen(function* () {
      const { config } = yield* Fixture
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { host, port } = server.config
      const guest = { host, port, user: "guest", password: "guest", database: "postgres" }
      yield* open({ ...guest, user: "single", password: "single" })
      const attempts: ReadonlyArray<readonly [Pg.ClientConfig, Expected, what: RegExp]> = [
        [{ ...guest, password: "wrong" }, ["28P01", "AuthenticationError", false], /user "guest"/],
        [{ ...guest, user: "nobody" }, ["28P01", "AuthenticationError", false], /user "nobody"/],
        [{ ...guest, user: "barred", password: "barred" }, ["28000", "AuthenticationError", false], /not permitted/],
        [{ ...guest, password: "" }, [undefined, "AuthenticationError", false], /password/],
        [{ ...guest, database: "nowhere" }, ["3D000", "ConnectionError", false], /database "nowhere"/],
        [{ ...guest, options: "-c nothing=1" }, ["42704", "ConnectionError", false], /parameter "nothing"/],
        [{ ...guest, options: "-c work_mem=x" }, ["22023", "UnknownError", false], /value/],
        [{ ...guest, user: "single", password: "single" }, ["53300", "TooManyConnectionsError", true], /role "single"/],
        [{ ...config, ssl: true }, [undefined, "ConnectionError", false], /TLS/],
        [
          { ...guest, host: "nowhere.invalid" },
          [undefined, "ConnectionError", false],
          /nowhere\.invalid \(ENOTFOUND\)/
        ],
        [{ ...guest, port: 1 }, [undefined, "ConnectionError", true], /127\.0\.0\.1:1 \(ECONNREFUSED\)/],
        [{ ...guest, host: "localhost", port: 1 }, [undefined, "ConnectionError", true], /:1 \(ECONNREFUSED\)/],
        [{ ...guest, host: "/nowhere" }, [undefined, "ConnectionError", true], /\/nowhere\/\S+ \(ENOENT\)/]
      ]
      for (const [attempt, expected, what] of attempts) {
        const cause = yield* Effect.flip(open(attempt))
        const error = yield* expectError(cause, expected, { phase: "Acquire" })
        assert.match(error.message, what)
      }
    })
  )

  it.scoped("knows a server without free slots", () =>
    Effect.gen(function* () {
      const { config } = yield* Fixture
      const { host, port } = (yield* EmbeddedPostgres.EmbeddedPostgres).config
      const guest = {
        ...config,
        connectionString: undefined,
        host,
        port,
        user: "guest",
        password: "guest",
        database: "postgres"
      }
      const cause = yield* Effect.flip(Effect.forever(open(guest)))
      yield* expectError(cause, ["53300", "TooManyConnectionsError", true], { phase: "Acquire" })
      assert.isTrue(isFinalAnswer(cause))
    })
  )

  it.scoped("classifies what the bare client fails with, so that catchTag works on it", () =>
    Effect.gen(function* () {
      const { config } = yield* Fixture
      const bare = yield* Layer.build(PgClient.layer({ url: Redacted.make(config.connectionString!) }))
      const sql = Context.get(bare, PgClient.PgClient)
      const insert = PgError.refine(sql`INSERT INTO person ${sql.insert({ id: 1, email: "new" })}`)
      const name = yield* insert.pipe(
        Effect.as(undefined),
        Effect.catchTag("UniqueViolation", (error) => Effect.succeed(error.constraint))
      )
      assert.strictEqual(name, "person_pkey")
    })
  )

  describe("secrets", () => {
    const secret = "s3cr3t"

    /** The rendered error holds nothing of the value that the server was given. */
    const assertHidden = (error: Error) =>
      Effect.map(renderings(error), (lines) => {
        for (const line of lines) assert.notInclude(line, secret)
      })

    /** Statements whose parameter the server quotes in its answer. */
    const quoting: ReadonlyArray<readonly [name: string, sqlState: string, sql: string, value?: string]> = [
      ["a number that is none", "22P02", "SELECT $1::int"],
      ["a key that exists", "23505", "INSERT INTO person (id, email) SELECT n, $1 FROM generate_series(8, 9) n"],
      ["a reference to nothing", "23503", "INSERT INTO person (id, email, zip) VALUES (8, 'x', $1)"],
      ["a check", "23514", "INSERT INTO person (id, email, age) VALUES (8, 'x', $1)", `${secret} and more`],
      ["a missing value", "23502", "INSERT INTO person (id, nick) VALUES (8, $1::text::varchar(5))", secret],
      ["RAISE", "P0001", "SELECT complain($1)"],
      ["RAISE with a SQLSTATE of the program's choice", "40001", "SELECT complain($1, '40001')"],
      ["a table named by a parameter", "42P01", "SELECT $1::text::regclass"],
      ["a role named by a parameter", "42704", "SELECT $1::text::regrole"],
      ["a type named by a parameter", "42601", "SELECT $1::text::regtype", `1 ${secret}`],
      ["a search text", "42601", "SELECT to_tsquery($1)", `${secret} ${secret}`],
      ["a regular expression", "22023", "SELECT set_config('work_mem', $1, false)"],
      ["a date", "22007", "SELECT $1::date"],
      ["a file", "58P01", "SELECT pg_read_file($1)"],
      ["a statement inside a function", "42703", "SELECT query_to_xml($1, true, true, '')", `SELECT ${secret}`]
    ]

    it.scoped.each(quoting)("are not shown of %s", ([, sqlState, sql, value = secret]) =>
      Effect.gen(function* () {
        const client = yield* Effect.flatMap(Fixture, (_) => _.client)
        const cause = yield* client.fail(sql, [value])
        const { detail, message, where } = cause as Pg.DatabaseError
        if (sqlState !== "23502") assert.include(`${message} ${detail} ${where}`, secret, "the server does quote it")
        const error = classify(cause)
        assert.strictEqual(error.sqlState, sqlState)
        yield* assertHidden(error)
        yield* assertHidden(PgError.toSqlError(error))
      })
    )

    it.scoped("are not shown of a text too long", () =>
      Effect.gen(function* () {
        const client = yield* Effect.flatMap(Fixture, (_) => _.client)
        const cause = yield* client.fail("INSERT INTO person (id, email, nick) VALUES (8, 'x', $1)", [secret])
        const error = yield* expectError(cause, ["22001", "UnknownError", false])
        yield* assertHidden(error)
      })
    )

    it.scoped("are not shown of a password, wrong or in a connection that fails otherwise", () =>
      Effect.gen(function* () {
        const { host, port } = (yield* EmbeddedPostgres.EmbeddedPostgres).config
        for (const target of [
          { host, port, database: "postgres" },
          { host, port: 1, database: "postgres" },
          { host: "nowhere.invalid", port, database: "postgres" }
        ]) {
          const cause = yield* Effect.flip(open({ ...target, user: "guest", password: secret }))
          yield* assertHidden(classify(cause, { phase: "Acquire" }))
        }
        const url = yield* Effect.flip(
          Effect.try({
            try: () => new Pg.Client(`postgres://guest:${secret}@[/postgres`),
            catch: (cause) => cause as Error
          })
        )
        yield* assertHidden(classify(url, { phase: "Acquire" }))
      })
    )
  })

  it.effect("has a row for the class of every SQLSTATE that this server knows", () =>
    Effect.gen(function* () {
      const home = yield* Binaries.locate
      const path = join(home, "native", "share", "postgresql", "errcodes.txt")
      const listed = yield* Effect.promise(() => readFile(path, "utf8"))
      const states = [...listed.matchAll(/^([0-9A-Z]{5})\s+[EWS]\s/gm)].map(([, sqlState]) => sqlState!)
      assert.isAbove(states.length, 200)
      for (const sqlState of states) assert.notStrictEqual(SqlState.bySqlState(sqlState), SqlState.unlisted, sqlState)
    })
  )

  it.scoped("knows a server that stops, has stopped, and crashes", () =>
    Effect.gen(function* () {
      const { client, config } = yield* Fixture
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const last = yield* client
      const stopping = yield* Effect.fork(server.stop({ mode: "smart" }))
      const refused = yield* TestPg.eventually(
        Effect.scoped(Effect.flip(Effect.zipRight(open(config), Effect.fail(new Error("still open"))))),
        (cause) => cause.message !== "still open"
      )
      yield* expectError(refused, ["57P03", "ServerUnavailableError", true], { phase: "Acquire" })
      assert.isTrue(isFinalAnswer(refused))
      const killed = yield* last.fail("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
      assert.isTrue(isFatal(killed))
      yield* stopping
      const stopped = yield* Effect.flip(open(config))
      const error = yield* expectError(stopped, [undefined, "ConnectionError", true], { phase: "Acquire" })
      assert.strictEqual(error.code, "ECONNREFUSED")
      yield* server.start
      const survivor = yield* client
      const sleeping = yield* Effect.fork(survivor.fail("SELECT pg_sleep(60)"))
      yield* TestPg.eventually(server.backends, (backends) =>
        backends.some((_) => _.pid === survivor.pid && _.state === "active")
      )
      yield* server.crash
      const crashed = yield* sleeping
      yield* expectError(crashed, [undefined, "ConnectionError", true])
      assert.isTrue(isFatal(crashed))
      assert.isFalse(isFinalAnswer(crashed))
      yield* server.start
    })
  )

  it("has provoked at least 50 SQLSTATEs for real", () => {
    assert.isAtLeast(provoked.size, 50, [...provoked].sort().join(" "))
  })
})
