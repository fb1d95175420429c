/** What a server needs before it can start: programs, a directory of its own, and a database cluster in it. */

import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Binaries from "./binaries.js"
import { type EmbeddedPostgresError, fail } from "./error.js"
import * as Watchdog from "./watchdog.js"

export interface Cluster {
  readonly account: Binaries.Account | undefined
  readonly binaries: Binaries.Binaries
  readonly dataDir: string
  readonly logFile: string
  readonly watchdog: Watchdog.Watchdog
}

/** A directory that the account can reach, removed with the scope. */
const makeDirectory = (parent: string, account: Binaries.Account | undefined) =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const directory = await Fs.mkdtemp(Path.join(parent, "effect-pg-"))
        await Fs.chmod(directory, 0o755)
        if (account) await Fs.chown(directory, account.uid, account.gid)
        return directory
      },
      catch: fail("directory")
    }),
    (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }).catch(() => {}))
  )

/** Finds the programs and runs `initdb`. Everything is gone when the scope closes, or when the program ends without that. */
export const make = (options: {
  readonly parent: string | undefined
  readonly binaries: string | undefined
  readonly username: string
  readonly password: Redacted.Redacted
  readonly settings: Readonly<Record<string, unknown>>
}): Effect.Effect<Cluster, EmbeddedPostgresError, Scope.Scope> =>
  Effect.gen(function* () {
    const account = yield* Effect.mapError(Binaries.account, fail("account"))
    const directory = yield* makeDirectory(options.parent ?? Os.tmpdir(), account)
    const watchdog = yield* Watchdog.make(directory)
    const dataDir = Path.join(directory, "data")
    const binaries = yield* (options.binaries ? Effect.succeed(options.binaries) : Binaries.locate).pipe(
      Effect.flatMap((packageDirectory) => Binaries.prepare(packageDirectory, directory, account)),
      Effect.mapError(fail("binaries"))
    )
    const passwordFile = Path.join(directory, "password")
    const file = (change: () => Promise<unknown>) => Effect.tryPromise({ try: change, catch: fail("initdb") })
    yield* file(() => Fs.writeFile(passwordFile, Redacted.value(options.password), { mode: 0o600 }))
    if (account) yield* file(() => Fs.chown(passwordFile, account.uid, account.gid))
    yield* Binaries.run(
      binaries.initdb,
      [
        ...["--pgdata", dataDir, "--username", options.username, "--pwfile", passwordFile, "--auth", "scram-sha-256"],
        ...["--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"],
        ...["--no-sync", "--no-instructions"],
        ...Object.entries(options.settings).flatMap(([name, value]) => ["--set", `${name}=${value}`])
      ],
      account,
      (pid) => watchdog.guard([pid])
    ).pipe(Effect.mapError(fail("initdb")))
    yield* file(() => Fs.rm(passwordFile))
    return { account, binaries, dataDir, logFile: Path.join(directory, "server.log"), watchdog }
  })
