/** PostgreSQL's programs that are missing, or older than the server. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { NodeContext } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Logger, LogLevel, Redacted } from "effect"
import { Backup, BaseBackup } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as InstalledPostgres from "../support/InstalledPostgres.js"
import * as TestPg from "../support/TestPg.js"

const directory = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "backup-tools-"))),
  (at) => Effect.sync(() => Fs.rmSync(at, { recursive: true }))
)

/** What the client logs at ERROR is not what is looked at. */
const quietly = Logger.withMinimumLogLevel(LogLevel.None)

const installed = InstalledPostgres.missing === undefined && InstalledPostgres.version < 18

layer(Layer.merge(TestPg.layer, NodeContext.layer), { excludeTestServices: true, timeout: "60 seconds" })(
  "PostgreSQL's programs",
  (it) => {
    const newer = installed ? it.scoped : it.scoped.skip
    newer(
      `must not be older than the server (${InstalledPostgres.missing ?? "skipped where the installed ones are not older"})`,
      () =>
        Effect.gen(function* () {
          const { url } = yield* EmbeddedPostgres.EmbeddedPostgres
          const at = yield* directory
          const { bin, version } = InstalledPostgres
          const options = { url, directory: at, binDirectory: bin }
          for (const backup of [Effect.asVoid(Backup.create(options)), Effect.asVoid(BaseBackup.create(options))]) {
            const error = yield* Effect.flip(backup)
            assert.strictEqual(error._tag, "ToolVersionError")
            assert.match(
              error.message,
              new RegExp(
                `^pg_(dump|basebackup) is version ${version} \\(${bin}/pg_.*\\), but version 18( or newer)? is needed for this server: install`
              )
            )
          }
          assert.deepEqual(Fs.readdirSync(at), [])
        })
    )

    it.scoped("that are missing are named, with where they were looked for, and nothing is left", () =>
      Effect.gen(function* () {
        const { url } = yield* EmbeddedPostgres.EmbeddedPostgres
        const at = yield* directory
        const told = yield* Effect.flip(Backup.create({ url, directory: at, binDirectory: at }))
        assert.strictEqual(told._tag, "ToolMissingError")
        assert.include(
          told.message,
          `pg_dump was not found in ${at}: install PostgreSQL's programs of version 18 or newer`
        )
        const variable = Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["PG_BINDIR", at]])))
        const error = yield* Effect.flip(variable(BaseBackup.create({ url, directory: at })))
        assert.strictEqual(error._tag === "ToolMissingError" && error.tool, "pg_basebackup")
        assert.deepEqual(Fs.readdirSync(at), [])
      })
    )

    it.scoped("are not even looked for where options are wrong, all of which are named, or the server refuses", () =>
      Effect.gen(function* () {
        const { url } = yield* EmbeddedPostgres.EmbeddedPostgres
        const at = yield* directory
        const invalid = yield* Effect.flip(
          Backup.create({ url, directory: "", compress: 11, format: "custom", jobs: 2 })
        )
        assert.match(invalid.message, /directory is "".*compress is 11, expected an integer from 0 to 9/)
        const refused = yield* Effect.flip(
          quietly(
            Backup.create({ url: Redacted.make(Redacted.value(url).replace(/:[0-9a-f]+@/, ":wr0ng@")), directory: at })
          )
        )
        assert.strictEqual(refused._tag, "AuthenticationError")
        assert.notInclude(JSON.stringify(refused), "wr0ng")
        const name = yield* Effect.flip(Backup.restore({ url, directory: at, name: "../etc", into: "postgres" }))
        assert.match(name.message, /name is "\.\.\/etc".*/)
        const none = yield* Effect.flip(Backup.restore({ url, directory: at, name: "latest", into: "x" }))
        assert.strictEqual(none._tag, "BackupNotFoundError")
        assert.include(none.message, `There is no logical backup of the database postgres in ${at}: it holds none`)
      })
    )
  }
)
