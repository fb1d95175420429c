/** A server that archives its WAL, for tests that destroy it. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { NodeContext } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { BaseBackup } from "effect-pg-resilience"
import * as InstalledPostgres from "../support/InstalledPostgres.js"

export class Scene extends Context.Tag("test/Scene")<
  Scene,
  {
    readonly server: InstalledPostgres.Server
    readonly archive: string
    readonly backups: string
  }
>() {}

const scene = Effect.gen(function* () {
  const server = yield* InstalledPostgres.make()
  // an odd name: it goes through a shell, and through the server's own escapes
  const archive = Path.join(server.directory, "the archive, 100% 'safe'")
  Fs.mkdirSync(archive)
  if (server.account) Fs.chownSync(archive, server.account.uid, server.account.gid)
  // the defaults, but for the time of waiting, which is the test's
  const { statements } = yield* BaseBackup.archiveSettings({ archive, archiveTimeout: "1 second" })
  for (const statement of statements) yield* server.query(statement)
  yield* server.restart
  yield* server.query("CREATE TABLE log (n int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())")
  yield* server.query("CREATE TABLE pulse (n int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())")
  yield* server.query("CREATE TABLE filler AS SELECT n, repeat('x', 500) AS text FROM generate_series(1, 2000) n")
  return { server, archive, backups: Path.join(server.directory, "backups") }
})

export const shared = Layer.scoped(
  Scene,
  InstalledPostgres.missing === undefined ? scene : Effect.succeed(undefined as never)
).pipe(Layer.merge(NodeContext.layer))
