/**
 * How long it takes to have a database back: by default one of 1 GB. Run by hand, as its figures are a machine's:
 *
 *   npx tsx test/operations/recoveryTime.ts [megabytes]
 *
 * It makes a server of its own with the installed PostgreSQL (fsync on), fills it, and takes both kinds of backups; restores
 * the logical one; then destroys the server and recovers it to its last archived transaction. Needs six times the room.
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect } from "effect"
import { Backup, BaseBackup } from "effect-pg-resilience"
import * as InstalledPostgres from "../support/InstalledPostgres.js"
import * as TestPg from "../support/TestPg.js"

/** Rows of half text, half numbers, with two indexes, as orders are: about 4 KB of table and index for 20 rows. */
const fill = (megabytes: number) => `
  CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, placed timestamptz NOT NULL, note text NOT NULL);
  INSERT INTO orders SELECT n, (random() * 100000)::int, now() - n * interval '1 second', md5(n::text) || md5((n + 1)::text) || md5((n + 2)::text)
    FROM generate_series(1, ${megabytes * 4_900}) n;
  CREATE INDEX ON orders (customer);`

const seconds = (duration: Duration.Duration) => `${Duration.toSeconds(duration).toFixed(1)} s`

/** Runs a step, and says how long it took. */
const timed = <A, E, R>(what: string, self: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.timed(self), ([took, value]) => Effect.as(Console.log(`${what}: ${seconds(took)}`), value))

const program = Effect.gen(function* () {
  if (InstalledPostgres.missing !== undefined) return yield* Console.error(InstalledPostgres.missing)
  const megabytes = Number(process.argv[2] ?? 1024)
  const server = yield* InstalledPostgres.make({ fsync: "on", shared_buffers: "128MB", max_wal_size: "1GB" })
  const archive = Path.join(server.directory, "archive")
  Fs.mkdirSync(archive)
  if (server.account) Fs.chownSync(archive, server.account.uid, server.account.gid)
  const { statements } = yield* BaseBackup.archiveSettings({ archive })
  for (const statement of statements) yield* server.query(statement)
  yield* server.restart
  const directory = Path.join(server.directory, "backups")
  yield* server.query("CREATE DATABASE shop")
  const url = server.urlOf("shop")
  yield* timed("filled", server.query(fill(megabytes), "shop"))
  const [size] = yield* server.query("SELECT pg_size_pretty(pg_database_size('shop')) AS size")
  yield* Console.log(
    `PostgreSQL ${InstalledPostgres.version}, ${size.size}, ${Os.cpus().length} × ${Os.cpus()[0]?.model ?? "?"}, ${Math.round(Os.totalmem() / 2 ** 30)} GB`
  )
  yield* timed("logical backup, with checksums", Backup.create({ url, directory, checksums: true }))
  yield* timed("logical restore, compared and named", Backup.restore({ url, directory, name: "latest", into: "copy" }))
  yield* server.query("DROP DATABASE copy")
  yield* timed("base backup, checked", BaseBackup.create({ url, directory }))
  yield* server.query("UPDATE orders SET note = note || '!' WHERE id % 10 = 0", "shop")
  const [last] = yield* server.query<{ file: string }>(
    "SELECT pg_walfile_name(pg_current_wal_insert_lsn()) AS file FROM pg_create_restore_point('end')"
  )
  yield* server.query("SELECT pg_switch_wal()")
  yield* TestPg.eventually(
    Effect.sync(() => Fs.existsSync(Path.join(archive, last!.file))),
    (there) => there,
    { limit: "5 minutes" }
  )
  const wal = Fs.readdirSync(archive).filter((file) => /^[0-9A-F]{24}$/.test(file)).length
  yield* server.destroy
  const dataDirectory = Path.join(server.directory, "recovered")
  const port = yield* InstalledPostgres.freePort
  yield* server.stopAtEnd(dataDirectory)
  const recovered = yield* timed(
    `recovery from base backup and archive (${wal} segments in it), started`,
    BaseBackup.recover({ directory, archive: [archive], dataDirectory, target: "latest", port })
  )
  yield* Console.log(`  of which copying: ${recovered.copySeconds.toFixed(1)} s`)
  const [row] = yield* server.query("SELECT count(*)::int AS n FROM orders WHERE note LIKE '%!'", "shop", port)
  yield* Console.log(`  rows of the last transaction found: ${row.n} of ${Math.floor((megabytes * 4_900) / 10)}`)
}).pipe(Effect.scoped, Effect.provide(NodeContext.layer))

NodeRuntime.runMain(program)
