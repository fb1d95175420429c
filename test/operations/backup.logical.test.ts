/** Logical backups, on a real server with its own programs. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { NodeContext } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Queue } from "effect"
import { Backup, ResilientPg } from "effect-pg-resilience"
import * as InstalledPostgres from "../support/InstalledPostgres.js"
import * as TestPg from "../support/TestPg.js"

class Installed extends Context.Tag("test/Installed")<Installed, InstalledPostgres.Server>() {}

const shared = Layer.scoped(
  Installed,
  InstalledPostgres.missing === undefined ? InstalledPostgres.make() : Effect.succeed(undefined as never)
).pipe(Layer.merge(NodeContext.layer))

const schema = `
  CREATE SCHEMA "Odd ""schema""";
  CREATE TABLE accounts (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, owner text NOT NULL, balance int NOT NULL CHECK (balance >= 0));
  CREATE TABLE entries (id serial PRIMARY KEY, account bigint NOT NULL REFERENCES accounts, at timestamptz NOT NULL DEFAULT now(), amount numeric, note bytea);
  CREATE TABLE events (at date NOT NULL, what jsonb) PARTITION BY RANGE (at);
  CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
  CREATE TABLE "Odd ""schema"""."select" (a float8, "B" text[]);
  CREATE TABLE bare ();
  CREATE VIEW rich AS SELECT * FROM accounts WHERE balance > 100;
  CREATE INDEX ON entries (account);
  ALTER TABLE entries ADD CONSTRAINT later CHECK (amount < 1000000) NOT VALID;
  INSERT INTO accounts (owner, balance) SELECT 'owner ' || n, n FROM generate_series(1, 500) n;
  INSERT INTO entries (account, amount, note) SELECT 1 + n % 500, n / 7.0, convert_to('note ' || n, 'UTF8') FROM generate_series(1, 5000) n;
  INSERT INTO events SELECT date '2026-01-01' + n % 300, jsonb_build_object('n', n) FROM generate_series(1, 300) n;
  INSERT INTO "Odd ""schema"""."select" VALUES (0.1, ARRAY['x', NULL]), ('NaN', '{}');
  SELECT lo_from_bytea(0, 'large');
`

let count = 0

/** A database with content, and a directory for its backups. */
const given = Effect.gen(function* () {
  const server = yield* Installed
  const name = `shop_${++count}`
  yield* server.query(`CREATE DATABASE ${name}`)
  yield* server.query(schema, name)
  return { server, name, url: server.urlOf(name), directory: Path.join(server.directory, `backups-${count}`) }
})

const names = (directory: string) => Fs.readdirSync(directory).sort()

const databases = Effect.gen(function* () {
  const rows = yield* (yield* Installed).query<{ datname: string }>("SELECT datname FROM pg_database ORDER BY 1")
  return rows.map(({ datname }) => datname)
})

const suite =
  InstalledPostgres.missing === undefined ? "logical backups" : `logical backups (${InstalledPostgres.missing})`

layer(shared, { excludeTestServices: true, timeout: "60 seconds" })(suite, (it_) => {
  const it = InstalledPostgres.missing === undefined ? it_ : ({ scoped: it_.scoped.skip } as typeof it_)

  it.scoped("are of one moment, while others write: what is restored is what the snapshot had", () =>
    Effect.gen(function* () {
      const { directory, name, server, url } = yield* given
      yield* server.query("UPDATE accounts SET balance = 1000000 WHERE id = 500", name)
      const [{ sum }] = yield* server.query("SELECT sum(balance)::int AS sum FROM accounts", name)
      // Each moves money: the sum is the same in every snapshot, and in no half of one. They go on until the backup is done.
      const written = yield* Queue.unbounded<void>()
      const transfer = Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql.withTransaction(
          Effect.gen(function* () {
            yield* sql`UPDATE accounts SET balance = balance - 1 WHERE id = 500`
            yield* sql`INSERT INTO accounts (owner, balance) VALUES ('new', 1)`
          })
        )
        yield* Queue.offer(written, void 0)
      })
      const load = yield* Effect.fork(Effect.provide(Effect.forever(transfer), ResilientPg.layer({ url })))
      yield* Queue.takeN(written, 3)
      const steps: Array<Backup.Progress> = []
      const backup = yield* Backup.create({
        url,
        directory,
        checksums: true,
        onProgress: (progress) => Effect.sync(() => void steps.push(progress))
      })
      yield* Queue.takeAll(written)
      yield* Queue.take(written)
      yield* Fiber.interrupt(load)
      const saved = backup.manifest.content.tables.find((table) => table.name === "accounts")!
      const { previous, seconds } = yield* Backup.restore({ url, directory, name: "latest", into: `${name}_copy` })
      assert.isUndefined(previous)
      assert.isAbove(seconds, 0)
      const [copy] = yield* server.query(
        "SELECT count(*)::text AS rows, sum(balance)::int AS sum FROM accounts",
        `${name}_copy`
      )
      assert.strictEqual(copy.rows, saved.rows)
      assert.strictEqual(copy.sum, sum)
      const [now] = yield* server.query("SELECT count(*)::int AS rows FROM accounts", name)
      assert.isBelow(Number(saved.rows), now.rows)

      assert.deepEqual(
        backup.manifest.content.tables.map(
          (table) => `${table.schema}.${table.name} ${table.name === "accounts" ? "" : table.rows}`
        ),
        ['Odd "schema".select 2', "public.accounts ", "public.bare 0", "public.entries 5000", "public.events_2026 300"]
      )
      assert.deepEqual(backup.manifest.content.unvalidated, ["public.entries.later"])
      assert.strictEqual(backup.manifest.content.largeObjects, "1")
      assert.match(backup.manifest.lsn, /^[0-9A-F]+\/[0-9A-F]+$/)
      assert.includeMembers(
        steps.filter(({ step }) => step === "dump").map(({ message }) => message),
        ["public.accounts", "public.entries"]
      )
      assert.deepEqual(names(directory), [backup.name])
      assert.include(Fs.readFileSync(Path.join(backup.path, "globals.sql"), "utf8"), "CREATE ROLE postgres")
      // no password anywhere in it
      assert.notInclude(Fs.readFileSync(Path.join(backup.path, "manifest.json"), "utf8"), "s3cret")
      assert.notMatch(Fs.readFileSync(Path.join(backup.path, "globals.sql"), "utf8"), /SCRAM|s3cret/)
    })
  )

  it.scoped("are verified by restoring them, and a value that has changed is found", () =>
    Effect.gen(function* () {
      const { directory, name, server, url } = yield* given
      yield* Backup.create({ url, directory, checksums: true, format: "custom", compress: 1 })
      const before = yield* databases
      const good = yield* Backup.verify({ url, directory, name: "latest" })
      assert.deepEqual(yield* databases, before)
      const [first] = yield* Backup.list({ directory })
      assert.deepInclude(first!.verified, { faults: [], seconds: good.seconds })

      // The manifest of one moment, the dump of another: what a broken tool, or a mix-up, would make of it.
      yield* server.query("UPDATE entries SET note = 'x' WHERE id = 77", name)
      const other = yield* Backup.create({ url, directory, checksums: true, format: "custom" })
      const manifestFile = Path.join(other.path, "manifest.json")
      const manifest = JSON.parse(Fs.readFileSync(manifestFile, "utf8"))
      const sound = JSON.stringify(manifest)
      const tampered = {
        ...manifest,
        content: first!.manifest.kind === "logical" ? first!.manifest.content : undefined
      }
      Fs.writeFileSync(manifestFile, JSON.stringify(tampered))
      const error = yield* Effect.flip(Backup.verify({ url, directory, name: other.name }))
      assert.strictEqual(error._tag, "BackupDamagedError")
      assert.match(error.message, /table public\.entries has other content: checksum/)
      assert.strictEqual((yield* Backup.list({ directory })).at(-1)!.verified!.faults.length, 1)

      // A byte of the dump
      Fs.writeFileSync(manifestFile, sound)
      const dump = Path.join(other.path, "dump.custom")
      const bytes = Fs.readFileSync(dump)
      bytes[bytes.length >> 1]! ^= 0xff
      Fs.writeFileSync(dump, bytes)
      const damaged = yield* Effect.flip(Backup.restore({ url, directory, name: other.name, into: "never" }))
      assert.match(damaged.message, /file dump\.custom has another checksum/)
      assert.deepEqual(yield* databases, before)
    })
  )

  it.scoped(
    "take the place of a database in one step, which is kept, with its settings, although somebody is connected",
    () =>
      Effect.gen(function* () {
        const { directory, name, server, url } = yield* given
        yield* server.query(
          `ALTER DATABASE ${name} SET search_path TO public, "Odd ""schema"""; ALTER DATABASE ${name} SET work_mem TO '7MB'`
        )
        yield* server.query(`CREATE ROLE clerk; GRANT CREATE ON DATABASE ${name} TO clerk`)
        yield* Backup.create({ url, directory })
        yield* server.query("DROP TABLE entries", name)

        const exists = yield* Effect.flip(Backup.restore({ url, directory, name: "latest", into: name }))
        assert.strictEqual(exists._tag, "AlreadyExistsError")

        const sleeper = yield* Effect.fork(Effect.exit(server.query("SELECT pg_sleep(600)", name)))
        const { previous } = yield* Backup.restore({ url, directory, name: "latest", into: name, swap: true })
        assert.match(previous!, new RegExp(`^${name}_before_\\d{14}$`))
        yield* Fiber.join(sleeper)
        const [row] = yield* server.query(
          "SELECT count(*)::int AS n, current_setting('work_mem') AS work_mem, current_setting('search_path') AS path, nextval('entries_id_seq')::int AS next FROM entries",
          name
        )
        assert.deepEqual(row, { n: 5000, work_mem: "7MB", path: 'public, "Odd ""schema"""', next: 5001 })
        const [acl] = yield* server.query(`SELECT has_database_privilege('clerk', '${name}', 'CREATE') AS may`)
        assert.isTrue(acl.may)
        const [old] = yield* server.query("SELECT to_regclass('entries') IS NULL AS gone", previous!)
        assert.isTrue(old.gone)
        assert.isEmpty((yield* databases).filter((database) => database.startsWith("backup_scratch")))
      })
  )

  it.scoped("are found by their database, whatever its name is", () =>
    Effect.gen(function* () {
      const { directory, server, url } = yield* given
      yield* server.query(`CREATE DATABASE "we ird=1'"`)
      const odd = server.urlOf("we%20ird=1'")
      const first = yield* Backup.create({ url: odd, directory })
      const second = yield* Backup.create({ url, directory, format: "custom" })
      assert.strictEqual(first.manifest.database.name, "we ird=1'")
      assert.strictEqual((yield* Backup.verify({ url: odd, directory, name: "latest" })).name, first.name)
      assert.strictEqual((yield* Backup.verify({ url, directory, name: "latest" })).name, second.name)
      const none = yield* Effect.flip(Backup.verify({ url: server.urlOf("postgres"), directory, name: "latest" }))
      assert.match(none.message, /^There is no logical backup of the database postgres in /)
    })
  )

  it.scoped("leave nothing when they are interrupted, on disk or on the server", () =>
    Effect.gen(function* () {
      const { directory, name, server, url } = yield* given
      // a dump that waits: somebody has the table
      const locked = yield* Deferred.make<void>()
      const holder = yield* Effect.fork(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql.withTransaction(
            Effect.gen(function* () {
              yield* sql`LOCK TABLE entries`
              yield* Deferred.succeed(locked, void 0)
              yield* Effect.never
            })
          )
        }).pipe(Effect.provide(ResilientPg.layer({ url })))
      )
      yield* Deferred.await(locked)
      const backup = yield* Effect.fork(Backup.create({ url, directory }))
      const waiting = server.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity
         WHERE datname = '${name}' AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'`
      )
      yield* TestPg.eventually(waiting, ([row]) => row!.n > 0)
      assert.lengthOf(names(directory), 2)
      // a cleanup of somebody else leaves it alone
      const cleaned = yield* Backup.cleanup({ directory, url })
      assert.deepEqual(cleaned.files.removed, [])
      assert.lengthOf(cleaned.files.kept, 1)
      yield* Fiber.interrupt(backup)
      assert.deepEqual(names(directory), [])
      yield* Fiber.interrupt(holder)

      // and a restore
      yield* Backup.create({ url, directory })
      const reached = yield* Deferred.make<void>()
      const restore = yield* Effect.fork(
        Backup.restore({
          url,
          directory,
          name: "latest",
          into: "never",
          onProgress: ({ step }) =>
            step === "restore" ? Effect.zipRight(Deferred.succeed(reached, void 0), Effect.never) : Effect.void
        })
      )
      yield* Deferred.await(reached)
      const during = yield* Backup.cleanup({ directory, url })
      assert.lengthOf(during.databases.kept, 1)
      const prune = yield* Backup.prune({ directory, keepLast: 0 })
      assert.deepEqual(
        prune.map(({ reasons }) => reasons),
        [["newest", "in use"]]
      )
      yield* Fiber.interrupt(restore)
      assert.isEmpty((yield* databases).filter((database) => /scratch|never/.test(database)))
      assert.isEmpty(names(directory).filter((file) => file.startsWith(".")))
    })
  )

  it.scoped("clean up what killed runs have left, and nothing else", () =>
    Effect.gen(function* () {
      const { directory, server, url } = yield* given
      const { name } = yield* Backup.create({ url, directory })
      const at = (file: string) => Path.join(directory, file)
      // process 1 did not begin at that moment: the id has been given out again
      const dead = JSON.stringify({
        pid: 1,
        began: "not then",
        host: Os.hostname()
      })
      Fs.mkdirSync(at(".partial-shop-1"))
      Fs.writeFileSync(at(".partial-shop-1/dump"), "half")
      Fs.writeFileSync(at(".partial-shop-1.lock"), dead)
      Fs.mkdirSync(at(".partial-shop-2"))
      Fs.writeFileSync(at(`.using-${name}-x.lock`), dead)
      Fs.mkdirSync(at("photos"))
      yield* server.query("CREATE DATABASE backup_scratch_20260101000000_0123abcd")
      yield* server.query("CREATE DATABASE backup_scratch_of_mine")
      const looked = yield* Backup.cleanup({ directory, url, dryRun: true })
      const cleaned = yield* Backup.cleanup({ directory, url })
      assert.deepEqual(looked, cleaned)
      assert.sameMembers(
        [...cleaned.files.removed],
        [".partial-shop-1", ".partial-shop-1.lock", ".partial-shop-2", `.using-${name}-x.lock`]
      )
      assert.deepEqual(cleaned.databases.removed, ["backup_scratch_20260101000000_0123abcd"])
      assert.deepEqual(names(directory), [name, "photos"].sort())
      assert.include(yield* databases, "backup_scratch_of_mine")
    })
  )
})
