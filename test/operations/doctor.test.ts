/** The doctor on real servers: one on which much is wrong, and one on which nothing is. */
import * as Net from "node:net"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Redacted, Schema } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as Transaction from "../../src/client/Transaction.js"
import * as Doctor from "../../src/operations/Doctor.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as TestPg from "../support/TestPg.js"

const neglected = EmbeddedPostgres.layer({
  settings: {
    fsync: false,
    full_page_writes: false,
    synchronous_commit: false,
    autovacuum: false,
    superuser_reserved_connections: 0,
    max_connections: 20,
    max_prepared_transactions: 5,
    archive_mode: true,
    archive_command: "/bin/false",
    tcp_keepalives_idle: 7_200,
    default_transaction_read_only: false
  }
})

const client = (url: Redacted.Redacted, options: Partial<ResilientPg.Options> = {}) =>
  ResilientPg.layer({ url, maxConnections: 1, retry: false, breaker: false, ...options })

const examine = (url: Redacted.Redacted, options: Doctor.Options = {}) =>
  Effect.provide(Doctor.examine({ maxConnections: 10, ...options }), client(url))

const of = (report: Doctor.Report, check: string) => report.findings.filter((finding) => finding.check === check)
const one = (report: Doctor.Report, check: string) => {
  const [finding, ...more] = of(report, check)
  assert.isDefined(finding, `${check}: ${JSON.stringify(report.notChecked)}`)
  assert.lengthOf(more, 0)
  return finding
}
const levels = (report: Doctor.Report, checks: ReadonlyArray<string>) =>
  Object.fromEntries(checks.map((check) => [check, one(report, check).severity]))

const always = { warning: 0, critical: Number.POSITIVE_INFINITY }

/** A session of its own that does as it is told, and stays until the scope closes. */
const session = (url: Redacted.Redacted, applicationName: string) =>
  Effect.map(
    Layer.build(client(url, { applicationName })),
    (context) => (statements: ReadonlyArray<string>) =>
      Effect.gen(function* () {
        const sql = Context.get(context, SqlClient.SqlClient)
        const done = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkScoped(
          sql.withTransaction(
            Effect.forEach(statements, (text) => sql.unsafe(text)).pipe(
              Effect.zipRight(Deferred.succeed(done, undefined)),
              Effect.zipRight(Effect.never)
            )
          )
        )
        return { done: Effect.raceFirst(Deferred.await(done), Fiber.join(fiber)), fiber }
      })
  )

layer(neglected, { excludeTestServices: true, timeout: "60 seconds" })(
  "the doctor on a server that is neglected",
  (it) => {
    it.scoped("finds the settings that lose data, and says how to change them", () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        const report = yield* examine(url)
        assert.strictEqual(report.worst, "critical")
        assert.strictEqual(report.findings[0]!.severity, "critical")
        assert.deepStrictEqual(
          levels(report, [
            "fsync",
            "full-page-writes",
            "synchronous-commit",
            "autovacuum",
            "reserved",
            "tcp-keepalives"
          ]),
          {
            fsync: "critical",
            "full-page-writes": "critical",
            "synchronous-commit": "warning",
            autovacuum: "critical",
            reserved: "warning",
            "tcp-keepalives": "info"
          }
        )
        assert.strictEqual(one(report, "connectivity").severity, "ok")
        assert.strictEqual(one(report, "tls").severity, "ok") // on one machine
        assert.deepStrictEqual(report.notChecked, [])
        // 20 connections: 12 of one instance fit, and not twice.
        assert.strictEqual(one(report, "pool").severity, "info")
        assert.strictEqual(one(yield* examine(url, { instances: 2 }), "pool").severity, "critical")
      })
    )

    it.scoped("hears from the archiver", () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        yield* TestPg.control("SELECT pg_switch_wal()")
        yield* TestPg.eventually(
          TestPg.control("SELECT failed_count::int AS n FROM pg_stat_archiver"),
          ([row]) => row.n > 0
        )
        const archiver = one(yield* examine(url), "archiver")
        assert.strictEqual(archiver.severity, "critical")
        assert.match(archiver.found, /^[0-9A-F]{24} could not be archived/)
      })
    )

    it.scoped("finds indexes that are not valid, and its advice is a command that works", () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        yield* TestPg.control('CREATE TABLE "My orders" (id int)', [], url)
        yield* TestPg.control('INSERT INTO "My orders" VALUES (1), (1)', [], url)
        const built = yield* Effect.exit(
          TestPg.control('CREATE UNIQUE INDEX CONCURRENTLY "Orders id" ON "My orders" (id)', [], url)
        )
        assert.strictEqual(built._tag, "Failure")
        const before = one(yield* examine(url), "invalid-indexes")
        assert.strictEqual(before.severity, "warning")
        assert.include(before.found, 'public."Orders id" on public."My orders"')
        const [command] = /DROP INDEX CONCURRENTLY [^.]+\."[^"]+"/.exec(before.advice) ?? []
        assert.isDefined(command, before.advice)
        yield* TestPg.control(command!, [], url)
        assert.strictEqual(one(yield* examine(url), "invalid-indexes").severity, "ok")
      })
    )

    it.scoped("tells an index that is being built from one whose build has failed", () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        yield* TestPg.control("CREATE TABLE orders (id int)", [], url)
        // A transaction that has written to the table is what a concurrent build waits for.
        const writer = yield* session(url, "writer")
        const { done } = yield* writer(["INSERT INTO orders VALUES (1)"])
        yield* done
        yield* Effect.forkScoped(TestPg.control("CREATE INDEX CONCURRENTLY orders_id ON orders (id)", [], url))
        const report = yield* TestPg.eventually(examine(url), (_) => one(_, "invalid-indexes").severity !== "ok")
        assert.strictEqual(one(report, "invalid-indexes").severity, "info")
      })
    )

    it.scoped("finds what is in the tables: constraints, sequences, dead rows, ledgers", () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        for (const text of [
          "CREATE TABLE parents (id int PRIMARY KEY)",
          "CREATE TABLE children (id serial, parent int)",
          "ALTER TABLE children ADD CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES parents NOT VALID",
          "SELECT setval('children_id_seq', 2000000000)",
          "CREATE TABLE wide (id int)",
          // A bigint sequence under an integer column: it is the column that ends.
          "CREATE SEQUENCE wide_id OWNED BY wide.id",
          "SELECT setval('wide_id', 1700000000)",
          "CREATE SEQUENCE round MAXVALUE 10 CYCLE",
          "SELECT setval('round', 10)",
          "CREATE TABLE churned (id int)",
          "INSERT INTO churned SELECT generate_series(1, 5000)",
          "DELETE FROM churned",
          "CREATE UNLOGGED TABLE cache (id int)"
        ])
          yield* TestPg.control(text, [], url)
        yield* Effect.provide(Transaction.createLedger, client(url))
        const report = yield* TestPg.eventually(
          examine(url, { thresholds: { deadRows: 1_000 } }),
          (_) => one(_, "dead-rows").severity !== "ok" // statistics arrive a moment later
        )
        assert.strictEqual(one(report, "constraints").severity, "info")
        assert.include(one(report, "constraints").advice, "ALTER TABLE public.children VALIDATE CONSTRAINT of_parent")
        const sequences = of(report, "sequences")
        assert.deepStrictEqual(
          sequences.map(({ severity }) => severity),
          ["critical", "warning"]
        )
        assert.include(sequences[0]!.found, "public.children_id_seq is used to 93 %: 147,483,647 values left")
        assert.include(sequences[1]!.advice, "ALTER TABLE public.wide ALTER COLUMN id TYPE bigint")
        assert.strictEqual(one(report, "dead-rows").severity, "critical")
        assert.include(one(report, "dead-rows").found, "public.churned: 5,000 dead rows, 100 % of all, never vacuumed")
        assert.strictEqual(one(report, "ledger").severity, "info")
        assert.include(one(report, "ledger").found, "public.cache")

        for (const text of [
          "ALTER TABLE children VALIDATE CONSTRAINT of_parent",
          "VACUUM churned",
          "ALTER TABLE effect_pg_ledger SET UNLOGGED"
        ])
          yield* TestPg.control(text, [], url)
        const after = yield* TestPg.eventually(
          examine(url, { thresholds: { deadRows: 1_000 } }),
          (_) => one(_, "dead-rows").severity === "ok"
        )
        assert.strictEqual(one(after, "constraints").severity, "ok")
        assert.strictEqual(of(after, "ledger")[0]!.severity, "critical")
        assert.include(of(after, "ledger")[0]!.advice, "ALTER TABLE public.effect_pg_ledger SET LOGGED")
      })
    )

    it.scoped("finds transactions that were prepared and forgotten, and who waits for them", () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        yield* TestPg.control("CREATE TABLE t (id int PRIMARY KEY)", [], url)
        yield* Effect.acquireRelease(
          TestPg.control("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s forgotten'", [], url),
          () => TestPg.control("ROLLBACK PREPARED 'it''s forgotten'", [], url)
        )
        const thresholds = { preparedSeconds: always, blockedSeconds: always }
        const waiter = yield* session(url, "waiter")
        yield* waiter(["INSERT INTO t VALUES (1)"])
        const report = yield* TestPg.eventually(
          examine(url, { thresholds }),
          (_) => of(_, "blocked")[0]?.severity === "warning"
        )
        const [prepared] = of(report, "prepared-transactions").filter(({ severity }) => severity === "warning")
        assert.include(prepared?.advice, "ROLLBACK PREPARED 'it''s forgotten'")
        assert.include(one(report, "blocked").found, "a prepared transaction")
        // Young ones are nobody's business.
        assert.strictEqual(one(yield* examine(url), "prepared-transactions").severity, "ok")
      })
    )

    it.scoped("finds slots that keep the log for nobody, and standbys that commits would wait for in vain", () =>
      Effect.gen(function* () {
        const { url } = yield* TestPg.database
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        yield* Effect.acquireRelease(TestPg.control("SELECT pg_create_physical_replication_slot('left', true)"), () =>
          TestPg.control("SELECT pg_drop_replication_slot('left')")
        )
        yield* Effect.acquireRelease(server.setting("synchronous_standby_names", "somebody"), () =>
          Effect.orDie(server.setting("synchronous_standby_names", null))
        )
        const report = yield* examine(url)
        assert.strictEqual(one(report, "replication-slots").severity, "warning")
        assert.include(one(report, "replication-slots").advice, "pg_drop_replication_slot('left')")
        assert.strictEqual(one(report, "replicas").severity, "critical")
        assert.include(one(report, "replicas").found, "somebody")
      })
    )
  }
)

const kept = EmbeddedPostgres.layer({
  settings: {
    archive_mode: true,
    archive_command: "/bin/true",
    idle_in_transaction_session_timeout: "60s",
    statement_timeout: "30s",
    lock_timeout: "10s",
    log_lock_waits: true,
    track_io_timing: true,
    tcp_keepalives_idle: 60,
    max_connections: 40
  }
})

layer(kept, { excludeTestServices: true, timeout: "60 seconds" })("the doctor on a server that is kept well", (it) => {
  it.scoped("has nothing to complain about", () =>
    Effect.gen(function* () {
      const { name, url } = yield* TestPg.database
      yield* Effect.provide(Transaction.createLedger, client(url))
      const report = yield* examine(url)
      const notes = report.findings.filter(({ severity }) => severity !== "ok").map(({ check }) => check)
      // It has no pg_stat_statements, which is worth a note.
      assert.deepStrictEqual(notes, ["extensions"])
      assert.deepStrictEqual(report.notChecked, [])
      assert.include(report.server, { database: name, role: "postgres", standby: false })
      assert.match(report.server.version, /^18/)
      assert.deepStrictEqual(Schema.decodeUnknownSync(Doctor.Report)(JSON.parse(JSON.stringify(report))), report)
    })
  )

  it.scoped("finds sessions that do nothing in a transaction, who waits for them, and what takes long", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)", [], url)
      const idler = yield* session(url, "idler")
      const { done } = yield* idler(["UPDATE t SET id = 2"])
      yield* done
      const waiter = yield* session(url, "waiter")
      yield* waiter(["UPDATE t SET id = 3"])
      const thresholds = {
        idleInTransactionSeconds: always,
        transactionSeconds: always,
        blockedSeconds: always,
        idleSessionSeconds: 0
      }
      const report = yield* TestPg.eventually(
        examine(url, { thresholds }),
        (_) => of(_, "blocked")[0]?.severity === "warning" && of(_, "idle-in-transaction")[0]?.severity === "warning"
      )
      const [{ pid }] = yield* TestPg.control("SELECT pid FROM pg_stat_activity WHERE application_name = 'idler'")
      const blocked = one(report, "blocked")
      assert.match(blocked.found, /"waiter".*because of pid \d+ \("idler".*idle in transaction/)
      assert.include(blocked.advice, `SELECT pg_terminate_backend(${pid})`)
      assert.include(one(report, "idle-in-transaction").found, '"idler"')
      assert.include(one(report, "long-transactions").found, '"waiter"')
      // What the sessions ask may hold data.
      assert.notInclude(JSON.stringify(report), "UPDATE")
      const usual = yield* examine(url)
      assert.deepStrictEqual(levels(usual, ["blocked", "idle-in-transaction", "long-transactions", "idle-sessions"]), {
        blocked: "ok",
        "idle-in-transaction": "ok",
        "long-transactions": "ok",
        "idle-sessions": "ok"
      })
    })
  )

  it.scoped("does not pass what a role may not see, and says which right would help", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const password = crypto.randomUUID()
      yield* Effect.acquireRelease(TestPg.control(`CREATE ROLE "the guest" LOGIN PASSWORD '${password}'`), () =>
        TestPg.control(`DROP ROLE "the guest"`)
      )
      yield* TestPg.control("CREATE TABLE secret (id serial); SELECT nextval('secret_id_seq')", [], url)
      const asGuest = new URL(Redacted.value(url))
      asGuest.username = "the guest"
      asGuest.password = password
      const report = yield* examine(Redacted.make(asGuest.href))
      const unmade = new Map(report.notChecked.map(({ check, why }) => [check, why]))
      assert.sameMembers(
        [...unmade.keys()],
        ["replicas", "blocked", "idle-in-transaction", "long-transactions", "idle-sessions", "sequences"]
      )
      assert.strictEqual(
        unmade.get("blocked"),
        'the role the guest sees only its own sessions: GRANT pg_monitor TO "the guest"'
      )
      assert.include(unmade.get("sequences"), "may not read 1 sequence")
      assert.strictEqual(one(report, "fsync").severity, "ok")

      yield* TestPg.control(`GRANT pg_monitor TO "the guest"`)
      yield* TestPg.control(`ALTER ROLE "the guest" SET synchronous_commit = off`)
      // One is enough for the doctor, and too few for a program.
      yield* TestPg.control(`ALTER ROLE "the guest" CONNECTION LIMIT 1`)
      const after = yield* examine(Redacted.make(asGuest.href))
      assert.deepStrictEqual(
        after.notChecked.map(({ check }) => check),
        ["sequences"]
      )
      assert.include(one(after, "synchronous-commit").advice, "ALTER ROLE")
      assert.strictEqual(one(after, "pool").severity, "critical")
      assert.notInclude(JSON.stringify([report, after]), password)
      yield* TestPg.control(`ALTER ROLE "the guest" RESET ALL`)
    })
  )

  it.scoped("notices a pooler by the process that it names", () =>
    Effect.gen(function* () {
      const { config } = yield* TestPg.database
      const port = yield* renaming(config)
      const url = new URL(`postgresql://127.0.0.1:${port}/${config.database}`)
      url.username = config.username
      url.password = Redacted.value(config.password)
      assert.strictEqual(one(yield* examine(Redacted.make(url.href)), "pooler").severity, "info")
    })
  )

  it.scoped("refuses options that are out of range, all of them at once, and asks nothing", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        examine(Redacted.make("postgresql://u@127.0.0.1:1/nowhere"), {
          instances: 0,
          timeout: 0,
          thresholds: { idAge: { warning: 2, critical: 1 }, deadRows: -1 }
        })
      )
      assert.strictEqual(error._tag, "InvalidOptionsError")
      for (const field of ["instances", "timeout", "thresholds.idAge.critical", "thresholds.deadRows"])
        assert.include(error.message, `doctor.${field} is `)
    })
  )

  it.scoped("fails where there is no server, with one sentence and no password", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(examine(Redacted.make("postgresql://u:s3cret@127.0.0.1:1/nowhere")))
      assert.strictEqual(error._tag, "ConnectionError")
      assert.include(error.message, "127.0.0.1:1")
      assert.notInclude(String(error.message), "s3cret")
    })
  )
})

/** In front of a server: names another process than the server does, as poolers do, and passes on everything else. */
const renaming = ({ host, port }: { readonly host: string; readonly port: number }) =>
  Effect.gen(function* () {
    const sockets = new Set<Net.Socket>()
    const own = (socket: Net.Socket) => {
      sockets.add(socket)
      return socket.on("error", () => socket.destroy())
    }
    const proxy = Net.createServer((client) => {
      const server = own(Net.connect(port, host))
      own(client).pipe(server)
      server.on("data", (chunk: Buffer) => {
        // BackendKeyData: K, its length, process, key. Source: PostgreSQL manual, "Message Formats".
        for (const head of ["4b0000000c", "4b00000028"]) {
          const at = chunk.indexOf(Buffer.from(head, "hex"))
          if (at !== -1 && chunk.length >= at + 9) chunk.writeInt32BE(4_242, at + 5)
        }
        client.write(chunk)
      })
      server.on("close", () => client.destroy())
      client.on("close", () => server.destroy())
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void proxy.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          proxy.close()
        })
    )
    return (proxy.address() as Net.AddressInfo).port
  })
