/** PgBouncer before the file's server, where its program is installed. */
import { execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as Port from "../../src/testing/internal/port.js"
import * as Remains from "./Remains.js"
import * as TestPg from "./TestPg.js"

/** Its path, if it is installed. */
export const pgbouncer = (() => {
  try {
    const env = { PATH: `${process.env.PATH}:/usr/sbin` }
    return execFileSync("which", ["pgbouncer"], { encoding: "utf8", env }).trim()
  } catch {
    return undefined
  }
})()

/** With two server connections for each database, until the scope closes. */
export const pooling = (mode: "transaction" | "session") =>
  Effect.gen(function* () {
    const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
    const directory = yield* Remains.temporary
    const port = yield* Port.choose(config.host)
    const users = Path.join(directory, "users")
    const ini = Path.join(directory, "pgbouncer.ini")
    Fs.writeFileSync(users, `"${config.username}" "${Redacted.value(config.password)}"\n`)
    Fs.writeFileSync(
      ini,
      `[databases]
* = host=${config.host} port=${config.port}
[pgbouncer]
listen_addr = ${config.host}
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${users}
pool_mode = ${mode}
default_pool_size = 2
`
    )
    let output = ""
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        // It refuses to run as root.
        const child = spawn(pgbouncer!, [...(process.getuid?.() === 0 ? ["-u", "nobody"] : []), ini])
        for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk))
        return child
      }),
      (child) =>
        Effect.async<void>((resume) => {
          if (child.exitCode !== null) return resume(Effect.void)
          child.once("exit", () => resume(Effect.void))
          child.kill("SIGKILL")
        })
    )
    yield* TestPg.eventually(
      Effect.sync(() => output),
      (text) => text.includes("process up") || text.includes("listening on")
    )
    return { port, output: Effect.sync(() => output) }
  })
