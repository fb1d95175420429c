/** What the layer says in the log, and what nobody may ever read there or in an error or a span: values and passwords. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, layer, it as plainIt } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, HashMap, Layer, List, Logger, LogLevel, Redacted, Stream } from "effect"
import { Operation, PgError, ResilientPg, RetryPolicy, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as logLines from "../src/telemetry/internal/logLines.js"
import { advisoryLock, failure, hold, proxied, waitingForLock } from "./client/support.js"
import { renderings } from "./error/renderings.js"
import * as TestPg from "./support/TestPg.js"
import { telling } from "./support/telling.js"

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Record<string, unknown>
  readonly text: string
}

/** The client's layer with a logger that keeps what is said. */
const heard = (options: ResilientPg.Options = {}) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const lines: Array<Line> = []
    const logger = Logger.make<unknown, void>((said) => {
      lines.push({
        level: said.logLevel.label,
        message: Arr.ensure(said.message).join(" "),
        annotations: Object.fromEntries(HashMap.toEntries(said.annotations)),
        text: Logger.logfmtLogger.log(said) + Logger.jsonLogger.log(said) + List.toArray(said.spans).join()
      })
    })
    const context = yield* Layer.build(ResilientPg.layer({ url: server.url, ...options })).pipe(
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Logger.withMinimumLogLevel(LogLevel.All)
    )
    const sql = yield* Effect.provide(PgClient.PgClient, context)
    /** The first line with this message, as soon as it is there. */
    const line = (message: string) =>
      Effect.map(
        TestPg.eventually(
          Effect.sync(() => lines.filter((line) => line.message === message)),
          Arr.isNonEmptyArray,
          { message: `no line "${message}" among ${lines.map(({ message }) => message).join(", ")}` }
        ),
        ([first]) => first!
      )
    return { context, line, lines, sql }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("ResilientPg: log lines", (it) => {
  it.scoped("nothing on the happy path, from the first connection to the last", () =>
    Effect.gen(function* () {
      const { lines } = yield* heard({
        minConnections: 1,
        maxConnections: 4,
        idleTimeout: "50 millis",
        slowQueryThreshold: "infinity"
      }).pipe(
        Effect.tap(({ context, sql }) =>
          Effect.gen(function* () {
            yield* Effect.all(Arr.replicate(sql`SELECT 1`, 50), { concurrency: "unbounded" })
            yield* sql.withTransaction(sql.withTransaction(sql`SELECT 1`))
            yield* Effect.provide(Transaction.serializable(sql`SELECT 1`), context)
            yield* Stream.runDrain(sql`SELECT generate_series(1, 1000)`.stream)
            yield* Effect.provide(Operation.named("one", { timeout: "1 minute" })(sql`SELECT 1`), context)
            yield* Effect.provide(ResilientPg.ready(), context)
            yield* TestPg.eventually(Effect.provide(ResilientPg.pool, context), ({ total }) => total === 1)
          })
        ),
        Effect.scoped
      )
      assert.deepStrictEqual(
        lines.map(({ message }) => message),
        []
      )
    })
  )

  it.scoped("a lost connection, a server lost and back, and each change of the breaker", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { line, lines, sql } = yield* heard({ retry: false })
      yield* sql`SELECT 1`
      yield* Effect.addFinalizer(() => Effect.orDie(server.start))
      yield* server.stop()
      yield* Effect.replicateEffect(Effect.exit(sql`SELECT 1`), 6)
      const evicted = yield* line("Connection evicted")
      assert.deepStrictEqual([evicted.level, evicted.annotations.reason], ["INFO", "lost"])
      const lost = yield* line("Server lost")
      assert.strictEqual(lost.level, "ERROR")
      // Still saying goodbye, or gone already.
      assert.include(["ConnectionError", "ServerUnavailableError"], lost.annotations.error)
      assert.hasAllKeys(lost.annotations, ["error", "reason"])
      const opened = yield* line("Circuit breaker")
      assert.strictEqual(opened.level, "WARN")
      assert.deepInclude(opened.annotations, { from: "Closed", to: "Open" })
      yield* server.start
      yield* TestPg.eventually(Effect.exit(sql`SELECT 1`), Exit.isSuccess)
      yield* Effect.replicateEffect(sql`SELECT 1`, 2)
      const back = yield* line("Server back")
      assert.strictEqual(back.level, "INFO")
      assert.isAbove(back.annotations.awaySeconds as number, 0)
      const changes = yield* TestPg.eventually(
        Effect.sync(() =>
          lines.filter(({ message }) => message === "Circuit breaker").map(({ annotations }) => annotations.to)
        ),
        ({ length }) => length >= 3
      )
      assert.deepStrictEqual(changes, ["Open", "HalfOpen", "Closed"])
      assert.lengthOf(
        lines.filter(({ message }) => message.startsWith("Server lost")),
        1
      )
    })
  )

  it.scoped("connections that are refused for what no waiting mends, and accepted again, are no server lost", () =>
    Effect.gen(function* () {
      yield* TestPg.control("CREATE ROLE refused LOGIN PASSWORD 'right'")
      yield* Effect.addFinalizer(() => TestPg.control("DROP ROLE refused"))
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const as = (username: string, password: string, database: string) => {
        const url = new URL(Redacted.value(server.url))
        return Redacted.make(Object.assign(url, { username, password, pathname: `/${database}` }).href)
      }
      const refusals = [
        [as("refused", "wrong", "postgres"), "AuthenticationError", "28P01"],
        [as("refused", "right", "no_such_database"), "ConnectionError", "3D000"]
      ] as const
      for (const [url, tag, sqlState] of refusals) {
        const { line, lines, sql } = yield* heard({ url })
        for (let i = 0; i < 3; i++) assert.strictEqual((yield* failure(sql`SELECT 1`)).sqlState, sqlState)
        const refused = yield* line("Connections are refused; waiting does not mend this")
        assert.strictEqual(refused.level, "ERROR")
        assert.hasAllKeys(refused.annotations, ["error", "reason"])
        assert.strictEqual(refused.annotations.error, tag)
        assert.lengthOf(lines, 1)
      }
      const { line, lines, sql } = yield* heard({ url: refusals[0][0] })
      yield* failure(sql`SELECT 1`)
      yield* line("Connections are refused; waiting does not mend this")
      yield* TestPg.control("ALTER ROLE refused PASSWORD 'wrong'")
      yield* sql`SELECT 1`
      const accepted = yield* line("Connections are accepted again")
      assert.strictEqual(accepted.level, "INFO")
      assert.lengthOf(lines, 2)
    })
  )

  it.scoped("an unknown outcome, with the operation's name", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { line, sql } = yield* heard({ url })
      yield* proxy.swallowReply({ on: FaultProxy.query(/^SELECT pg_notify/) })
      yield* Effect.flip(Operation.named("tell-all")(sql`SELECT pg_notify('c', '')`))
      const unknown = yield* line("Outcome unknown: a write may or may not have been applied")
      assert.strictEqual(unknown.level, "ERROR")
      assert.deepStrictEqual(unknown.annotations, { operation: "tell-all", error: "ConnectionError", phase: "Execute" })
    })
  )

  it.scoped("an interrupted write, by the operation's name or the kind of work", () =>
    Effect.gen(function* () {
      const { line, sql } = yield* heard()
      const { release } = yield* advisoryLock(5)
      const fiber = yield* Effect.fork(Operation.named("lock-five")(sql`SELECT pg_advisory_xact_lock(5)`))
      yield* TestPg.eventually(waitingForLock("SELECT pg_advisory_xact_lock(5)"), (count) => count === 1)
      yield* Fiber.interrupt(fiber)
      yield* release
      const said = yield* line("A statement in flight was interrupted: it may have been applied")
      assert.deepStrictEqual([said.level, said.annotations], ["WARN", { operation: "lock-five" }])
    })
  )

  it.scoped("a connection held for long, once, with the span that holds it", () =>
    Effect.gen(function* () {
      const { line, lines, sql } = yield* heard({ leakThreshold: "50 millis" })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* hold(sql)
          const said = yield* line("Connection held for long")
          assert.strictEqual(said.level, "WARN")
          assert.match(String(said.annotations.span), /^checkout \w+/)
          assert.isAbove(said.annotations.seconds as number, 0.05)
          // Looked at again every second.
          yield* TestPg.control("SELECT pg_sleep(1.2)")
        })
      ).pipe(Effect.withSpan("checkout"))
      assert.lengthOf(lines, 1)
      // Nothing was taken away.
      assert.lengthOf(yield* sql`SELECT 1`, 1)
    })
  )

  it.scoped("a transaction that holds its connection for long, with its span", () =>
    Effect.gen(function* () {
      const { line, sql } = yield* heard({ leakThreshold: "50 millis" })
      const { annotations } = yield* sql.withTransaction(line("Connection held for long"))
      assert.match(String(annotations.span), /^sql\.transaction \w+/)
    })
  )

  it.scoped("a slow query that its deadline ended", () =>
    Effect.gen(function* () {
      const { line, sql } = yield* heard({ slowQueryThreshold: "20 millis" })
      yield* sql`SELECT 1`
      yield* Effect.exit(Operation.named("nap", { timeout: "200 millis" })(sql`SELECT pg_sleep(600)`))
      const { annotations } = yield* line("Slow query")
      assert.deepInclude(annotations, { operation: "nap", error: "Interrupted" })
      assert.isAtLeast(annotations.seconds as number, 0.02)
    })
  )

  it.scoped("a slow query, with name and duration; a hundred of them make one line", () =>
    Effect.gen(function* () {
      const { line, lines, sql } = yield* heard({ slowQueryThreshold: "20 millis", maxConnections: 10 })
      yield* Operation.named("nap")(sql`SELECT pg_sleep(0.05), ${"marked"}::text`)
      const said = yield* line("Slow query")
      assert.strictEqual(said.level, "WARN")
      assert.strictEqual(said.annotations.operation, "nap")
      assert.isAtLeast(said.annotations.seconds as number, 0.05)
      assert.notInclude(said.text, "marked")
      assert.notInclude(said.text, "pg_sleep")
      yield* Effect.all(Arr.replicate(sql`SELECT pg_sleep(0.03)`, 100), { concurrency: "unbounded" })
      assert.lengthOf(
        lines.filter(({ message }) => message.startsWith("Slow query")),
        1
      )
    })
  )

  it.scoped("a retry that the budget refuses", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control(
        "CREATE FUNCTION refuse() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE serialization_failure; END'",
        [],
        url
      )
      const { line, sql } = yield* heard({
        url,
        retryBudget: { min: 0, ratio: 0 },
        retry: { SerializationError: RetryPolicy.contention }
      })
      yield* failure(sql`SELECT refuse()`)
      const said = yield* line("Retry budget exhausted: failed at once")
      assert.deepStrictEqual([said.level, said.annotations], ["WARN", { error: "SerializationError" }])
    })
  )

  it.scoped("a LISTEN connection lost", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { line, sql } = yield* heard()
      const fiber = yield* Effect.fork(Stream.runDrain(sql.listen("log_lines")))
      const listening = TestPg.control("SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN \"log_lines\"'")
      const [session] = yield* TestPg.eventually(listening, ({ length }) => length === 1)
      yield* server.terminate(session.pid)
      const said = yield* line("LISTEN connection lost, connecting again")
      assert.strictEqual(said.level, "WARN")
      yield* Fiber.interrupt(fiber)
    })
  )

  it.scoped("neither password nor values are in any error, cause, log line or span", () =>
    Effect.gen(function* () {
      const marks = ["mArK-password", "mArK-value"]
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      yield* TestPg.control("CREATE ROLE marked LOGIN SUPERUSER PASSWORD 'mArK-password'")
      yield* Effect.addFinalizer(() => TestPg.control("DROP ROLE marked"))
      yield* TestPg.control(
        `CREATE TABLE parent (name text PRIMARY KEY);
         CREATE TABLE child (name text UNIQUE REFERENCES parent, short text CHECK (length(short) < 3), n int);
         CREATE FUNCTION refuse(text) RETURNS void LANGUAGE plpgsql AS
           'BEGIN RAISE EXCEPTION ''no % here'', $1 USING DETAIL = $1, HINT = $1; END'`,
        [],
        url
      )
      const as = new URL(Redacted.value(url))
      as.username = "marked"
      as.password = "mArK-password"
      const { line, lines, sql } = yield* heard({
        url: Redacted.make(as.href),
        slowQueryThreshold: 0,
        maxConnections: 2
      })
      const value = "mArK-value"
      yield* sql`INSERT INTO parent VALUES (${value})`
      yield* sql`INSERT INTO child (name) VALUES (${value})`

      const spans: Array<string> = []
      const tracer = telling({
        started: (span) => void spans.push(span),
        attribute: (_, key, value) => void spans.push(key, String(value)),
        event: (_, event, attributes) => void spans.push(event, JSON.stringify(attributes)),
        ended: (_, exit) => void (Exit.isFailure(exit) && spans.push(String(exit.cause), JSON.stringify(exit.cause)))
      })
      const provoked = {
        "22P02": sql`SELECT ${value}::text::int`,
        "23505": sql`INSERT INTO child (name) VALUES (${value})`,
        "23503": sql`INSERT INTO child (name) VALUES (${"another mArK-value"})`,
        "23514": sql`INSERT INTO child (short) VALUES (${value})`,
        P0001: sql`SELECT refuse(${value})`,
        "42703": sql`SELECT nonsense FROM child WHERE name = ${value}`
      }
      for (const [sqlState, statement] of Object.entries(provoked)) {
        const plain = yield* Effect.flip(statement.pipe(Effect.withTracer(tracer), Effect.withTracerEnabled(true)))
        const typed = yield* Effect.flip(Operation.named("typed")(statement).pipe(Effect.withTracer(tracer)))
        const inside = yield* Effect.flip(sql.withTransaction(statement).pipe(Effect.withTracer(tracer)))
        assert.strictEqual((plain.cause as PgError.PgError).sqlState, sqlState)
        for (const error of [plain, typed, inside]) {
          for (const rendered of yield* renderings(error as Error)) {
            for (const mark of marks) assert.notInclude(rendered, mark, sqlState)
          }
        }
      }
      // A lost connection, and a password that is refused.
      const [{ pid }] = (yield* sql`SELECT pg_backend_pid() AS pid`) as [{ pid: number }]
      yield* server.terminate(pid)
      yield* line("Connection evicted")
      yield* TestPg.control("ALTER ROLE marked PASSWORD 'changed'")
      const marked = TestPg.control("SELECT pid FROM pg_stat_activity WHERE usename = 'marked'")
      yield* Effect.forEach(yield* marked, ({ pid }) => server.terminate(pid))
      const refused = yield* TestPg.eventually(
        Effect.merge(PgError.refine(sql`SELECT 1`)),
        (result) => "_tag" in result && result._tag === "AuthenticationError"
      )
      for (const rendered of yield* renderings(refused as PgError.PgError))
        for (const mark of marks) assert.notInclude(rendered, mark)

      yield* line("Slow query")
      assert.isNotEmpty(spans)
      for (const text of [...lines.map(({ text }) => text), ...spans]) {
        for (const mark of marks) assert.notInclude(text, mark)
      }
    })
  )
})

describe("logLines", () => {
  plainIt.effect("at most one line of a kind in five seconds, and the next one says how many were left out", () =>
    Effect.gen(function* () {
      const said: Array<string> = []
      let now = 0
      const logger = Logger.make<unknown, void>(({ message }) => void said.push(Arr.ensure(message).join(" ")))
      const run = Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      const { say } = logLines.make(
        (effect) => Effect.runSync(run(effect)),
        () => now
      )
      for (const at of [0, 1, 4_999]) {
        now = at
        say(LogLevel.Info, "kind", "first")
      }
      say(LogLevel.Info, "other", "second")
      now = 5_000
      say(LogLevel.Info, "kind", "first")
      say(LogLevel.Info, "kind", "first")
      now = 10_000
      say(LogLevel.Info, "kind", "first")
      assert.deepStrictEqual(said, ["first", "second", "first (and 2 more like this)", "first (and 1 more like this)"])
    })
  )
})
