/**
 * The options of the whole layer: their types and meaning, their defaults, and their decoding into one record that holds
 * nothing to be checked or converted any more. `fromEnv` is the same out of environment variables.
 */

import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Struct from "effect/Struct"
import type { InvalidOptionsError } from "../error/PgError.js"
import type * as CircuitBreaker from "../policy/CircuitBreaker.js"
import type * as RetryBudget from "../policy/RetryBudget.js"
import * as RetryPolicy from "../policy/RetryPolicy.js"
import * as env from "./internal/env.js"
import * as internal from "./internal/options.js"
import * as target from "./internal/target.js"
import * as validate from "./internal/validate.js"
import * as Platform from "./Platform.js"
import * as PoolSizing from "./PoolSizing.js"

/** A limit in time. `"infinity"` is none. */
export type Limit = Duration.DurationInput | "infinity"

/**
 * Everything that `PgClient.layer` takes, and what this library adds. All of it is optional; the defaults end nothing
 * that the bare client would finish, but for waiting more than 30 s for a connection.
 *
 * Where `url` and a single option say different things, the URL holds, as with `pg`. Where neither says anything, the
 * variables `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGPASSWORD` and `PGSSLMODE` do.
 */
export interface Options extends Omit<PgClientConfig, "password" | "idleTimeout" | "connectTimeout" | "connectionTTL"> {
  /**
   * A password, or an effect that gives one: it is run for each new connection, and once more if the server refuses
   * what it gave. Such an effect wins over a password in the URL. Its failure fails the connection attempt.
   */
  readonly password?: Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown> | undefined

  // --- pool -------------------------------------------------------------------------------------------------------

  /** Connections opened in advance and kept: 0 or more, at most `maxConnections`. Default 0. */
  readonly minConnections?: number | undefined
  /** Connections at most, from 1 to 262,143. Default 10. `PoolSizing.recommend` helps to choose. */
  readonly maxConnections?: number | undefined
  /**
   * Fibers that may wait for whom no place in the pool is free; the next one fails with `PoolTimeoutError` at once. Those
   * for whom there is a place, where a connection is being opened or checked, wait beyond this number. 0 or more. Default
   * 10,000.
   */
  readonly maxWaiting?: number | "infinity" | undefined
  /** How long to wait for a connection before `PoolTimeoutError`: 1 ms or more. Default 30 seconds. */
  readonly acquireTimeout?: Limit | undefined
  /** A connection above `minConnections` is closed after this time unused. Default 10 seconds; 0 is `"infinity"`. */
  readonly idleTimeout?: Limit | undefined
  /** A connection is replaced at this age, less up to 10 % so that not all go at once. Default 30 minutes; 0 is `"infinity"`. */
  readonly connectionTTL?: Limit | undefined
  /** A connection is replaced after so many uses: 1 or more. Default `"infinity"`. */
  readonly maxUses?: number | "infinity" | undefined
  /** How long work in flight may go on when the layer's scope closes; then it is cancelled. Default 5 seconds. */
  readonly closeGrace?: Limit | undefined
  /** A connection unused for longer is asked for a sign of life before its next use. Default 500 ms; 0 is always. */
  readonly checkAfterIdle?: Limit | undefined
  /**
   * How long one try to open a connection may take, all of it together: the `password` effect, TLS, the server's startup,
   * `parameters` and `onConnect`. 1 ms or more. Default 10 seconds.
   */
  readonly connectTimeout?: Limit | undefined
  /** TCP keep-alive, which tells a dead peer from a silent one in the long run. Default `true`. */
  readonly keepAlive?: boolean | undefined
  /**
   * A connection held for longer is reported once, with the span that holds it: 1 ms or more. Default 60 seconds, twice
   * what a transaction may take by default. Nothing is taken away from anybody.
   */
  readonly leakThreshold?: Limit | undefined
  /** The pool's name in metrics. Default `server.address:server.port/db.namespace`. */
  readonly poolName?: string | undefined

  // --- connection -------------------------------------------------------------------------------------------------

  /** Sets up each new connection before its first use. Its failure fails the connection attempt. */
  readonly onConnect?: ((connection: Connection) => Effect.Effect<void, SqlError>) | undefined
  /** Server settings of each new connection, such as `{ search_path: "app" }`. Names as in the PostgreSQL manual, chapter 19. */
  readonly parameters?: { readonly [name: string]: string } | undefined
  /**
   * Limits that the server keeps: whole milliseconds up to 2³¹ - 1, 0 and `"infinity"` for none whatever the server's own
   * default. Nothing by default: `statement_timeout` also ends slowly read streams, `lock_timeout` advisory locks.
   */
  readonly serverTimeouts?:
    | {
        readonly statement?: Limit | undefined
        readonly lock?: Limit | undefined
        readonly idleInTransaction?: Limit | undefined
      }
    | undefined
  /** Whether the layer waits for a server that answers. Default `false`: it builds at once, and queries wait or fail typed. */
  readonly requireOnStart?: boolean | undefined

  // --- policies; `false` leaves exactly that stage out --------------------------------------------------------------

  /** Which failures are tried again, and when. Default `RetryPolicy.standard`. */
  readonly retry?: false | RetryPolicy.RetryPolicy | undefined
  /** How many retries may be under way at once. Default `RetryBudget.defaults`. */
  readonly retryBudget?: false | RetryBudget.Options | undefined
  /** When the server is left alone for a while. Default `CircuitBreaker.defaults`. */
  readonly breaker?: false | CircuitBreaker.Options | undefined
  /** Whether statements that the lexer takes for reads are repeated after an unknown outcome. Default `true`. */
  readonly autoRetryReads?: boolean | undefined
  /**
   * Short statements outside of transactions share connections, each sent without waiting for the answers of those before it.
   * Which ones are short is learned; reads and writes never share one. Default true. False, or a pooler that is recognised:
   * each has a connection of its own.
   */
  readonly lanes?: boolean | undefined
  /**
   * Statements that a connection parses once: single SELECTs, VALUES, INSERTs, UPDATEs, DELETEs and MERGEs that come for the
   * `after`th time on it (1 or more, default 2), at most `size` of them (1 to 10,000, default 256), those used last. What a
   * change of tables makes of them is repaired, outside transactions unseen; inside they fail, transient. Behind a pooler
   * there are none in transactions, and none at all from the first sign on that it knows nothing of them (PgBouncer in
   * transaction mode). `false`: there are none. Each costs memory of the server, on each connection.
   */
  readonly preparedStatements?:
    | false
    | { readonly size?: number | undefined; readonly after?: number | undefined }
    | undefined
  /**
   * Deadlines of `Operation.named` and `Transaction.run`, by kind, where they give none of their own: 5 seconds for a
   * `query`, 30 seconds for a `complex` one, `batchBase` (5 seconds) and `batchPerRow` (10 ms) for a batch, 30 seconds
   * for a `transaction`. `false`: no deadline but what an operation asks for.
   */
  readonly timeouts?:
    | false
    | {
        readonly query?: Limit | undefined
        readonly complex?: Limit | undefined
        readonly batchBase?: Limit | undefined
        readonly batchPerRow?: Limit | undefined
        readonly transaction?: Limit | undefined
      }
    | undefined
  /**
   * Where transactions that run exactly once leave their tokens, a table that `Transaction.createLedger` creates: names of at
   * most 57 bytes. `retention`: how long a token is kept that nobody acknowledged, at least 100 of the longest deadline;
   * `Transaction.outcome` may be asked within half of it. Default `public.effect_pg_ledger`, 7 days.
   */
  readonly ledger?:
    | {
        readonly schema?: string | undefined
        readonly table?: string | undefined
        readonly retention?: Duration.DurationInput | undefined
      }
    | undefined

  // --- observing --------------------------------------------------------------------------------------------------

  /** Whether errors carry the server's detail, hint, context and raw error, which may hold data. Default `false`. */
  readonly exposeServerDetail?: boolean | undefined
  /** A statement that takes longer is logged, with its name and no values. Default 1 second; 0 is all of them. */
  readonly slowQueryThreshold?: Limit | undefined
}

/** Every default, in the form that the options have. */
export const defaults = internal.defaults

/** Where and as whom to connect. */
export type ConnectionTarget = target.ConnectionTarget
export type Password = target.Password

type Rules = typeof internal.rules

/** The options that `target` stands for once they are decoded. */
const connecting = [
  "url",
  "host",
  "port",
  "path",
  "ssl",
  "database",
  "username",
  "password",
  "applicationName"
] as const

/**
 * The options without a question left: every default filled in, every time in milliseconds with `Infinity` for none
 * (server timeouts: 0 for none, `undefined` for the server's own), the server's place and credentials in `target`.
 */
export type Decoded = Omit<validate.DecodedFields<Rules>, (typeof connecting)[number] | "poolName"> & {
  readonly target: ConnectionTarget
  readonly poolName: string
}

/**
 * Decodes options, or names every field that is not acceptable, with its value unless that could be a secret.
 * `environment` is where `PGHOST` and its like are looked up; default `process.env`.
 */
export const decode = (
  options: Options,
  environment: target.Environment = process.env
): Either.Either<Decoded, InvalidOptionsError> => {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  const rule = validate.struct(internal.rules, {
    relation: (sound) => [
      ...internal.relation(sound),
      ...Either.match(target.resolve(sound, environment), { onLeft: (faults) => faults, onRight: () => [] })
    ]
  })
  return Either.gen(function* () {
    const sound = yield* rule({ ...defaults, ...given }, "")
    const resolved = yield* target.resolve(sound, environment)
    return {
      ...Struct.omit(sound, ...connecting),
      target: resolved,
      serverTimeouts: { ...sound.serverTimeouts, ...sound.url?.serverTimeouts },
      poolName: sound.poolName ?? resolved.name
    }
  }).pipe(Either.mapLeft(validate.invalidOptions))
}

/** One environment variable, and all of them in the order of the way of a query. */
export type Variable = env.Variable
export const variables = env.variables

/** One backoff for all work that waits for the server, in place of the standard ones; what is not given is `unavailable`'s. */
const retryOf = (retries: number | undefined, first: number | undefined, cap: number | undefined): Options["retry"] => {
  if (retries === 0) return false
  if (retries === undefined && first === undefined && cap === undefined) return undefined
  const standard = RetryPolicy.defaults.unavailable
  const backoff = RetryPolicy.backoff({
    retries: retries ?? standard.retries,
    first: first ?? Math.min(standard.first, cap ?? standard.first),
    factor: standard.factor,
    cap: cap ?? Math.max(standard.cap, first ?? 0)
  })
  return RetryPolicy.make({
    ...RetryPolicy.whileUnavailable(backoff),
    TooManyConnectionsError: backoff,
    LockTimeoutError: backoff,
    ...(retries === undefined ? {} : { maxRetries: retries })
  })
}

const valueOf = <A>(given: Option.Option<env.Given<A>>): A | undefined => Option.getOrUndefined(given)?.value

/** Two settings that are sound by themselves and do not fit each other. */
const misfit = (lesser: Option.Option<env.Given<number>>, most: number, greater: string) =>
  Option.filterMap(lesser, ({ name, text, value }) =>
    value > most ? Option.some(env.invalid(name, `${name} is ${text}, expected at most ${greater}`)) : Option.none()
  )

/**
 * The options out of environment variables, `DATABASE_URL` alone being required. What a variable sets wins over
 * `EXPECTED_CONCURRENCY`, that over `PLATFORM`, and that over the defaults. Fails with one `ConfigError` that names every
 * variable that is malformed, or that contradicts another. `Config.nested` gives all of them a prefix.
 */
export const fromEnv: Config.Config<Options> = Config.mapOrFail(env.environmentVariables, (given) => {
  const platform = valueOf(given.platform)
  const environment = valueOf(given.environment) ?? "production"
  const expectedConcurrency = valueOf(given.expectedConcurrency)
  const preset: Partial<Platform.Preset> = platform === undefined ? {} : Platform.preset(platform, environment)
  const sized =
    expectedConcurrency === undefined ? undefined : PoolSizing.recommend({ platform, environment, expectedConcurrency })

  const suggested = { min: sized?.min ?? preset.minConnections, max: sized?.max ?? preset.maxConnections }
  const max = valueOf(given.maxConnections) ?? suggested.max ?? defaults.maxConnections
  const cap = valueOf(given["retry.cap"])
  const misfits = Arr.getSomes([
    misfit(
      given.minConnections,
      max,
      Option.match(given.maxConnections, {
        onNone: () => `${max}, the pool's maximum`,
        onSome: ({ name, text }) => `${name}, which is ${text}`
      })
    ),
    misfit(given["retry.first"], cap ?? Number.POSITIVE_INFINITY, `DB_RETRY_MAX_DELAY_MS, which is ${cap}`)
  ])
  if (Arr.isNonEmptyReadonlyArray(misfits)) {
    return Either.left(Arr.reduce(Arr.tailNonEmpty(misfits), Arr.headNonEmpty(misfits), ConfigError.And))
  }

  const statement = valueOf(given["serverTimeouts.statement"])
  const failureThreshold = valueOf(given["breaker.failureThreshold"])
  const resetTimeout = valueOf(given["breaker.resetTimeout"])
  const options: Options = {
    ...preset,
    url: valueOf(given.url),
    ssl: valueOf(given.ssl) ?? preset.ssl,
    minConnections: valueOf(given.minConnections) ?? (suggested.min && Math.min(suggested.min, max)),
    maxConnections: valueOf(given.maxConnections) ?? suggested.max,
    acquireTimeout: valueOf(given.acquireTimeout) ?? preset.acquireTimeout,
    idleTimeout: valueOf(given.idleTimeout) ?? preset.idleTimeout,
    serverTimeouts: statement === undefined ? preset.serverTimeouts : { statement },
    timeouts: valueOf(given.timeouts) === false ? false : undefined,
    retry: retryOf(valueOf(given["retry.retries"]), valueOf(given["retry.first"]), cap),
    breaker:
      valueOf(given.breaker) === false
        ? false
        : failureThreshold === undefined && resetTimeout === undefined
          ? undefined
          : { failureThreshold, resetTimeout }
  }
  return Either.right(Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)))
})
