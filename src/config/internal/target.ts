/**
 * Where to connect and as whom, out of a URL, single options and the `PG…` variables that libpq programs know.
 *
 * As with `pg` itself: what the URL says wins over a single option, and that over the environment. Unlike `pg`, an option
 * holds where the URL is silent, and a URL that cannot be one is refused instead of being read as a host's name.
 */
import type { ConnectionOptions } from "node:tls"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import type { ClientConfig } from "pg"
import * as PgConnectionString from "pg-connection-string"
import type { Fault } from "../../error/PgError.js"
import * as validate from "./validate.js"

/** A fixed password, or one asked for whenever a connection is opened, such as a cloud's short-lived token. */
export type Password = Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown>

/** Environment variables by name. */
export type Environment = { readonly [name: string]: string | undefined }

/** Everything that opening a connection needs. */
export interface ConnectionTarget {
  /** A host's name or address, or the directory of a Unix socket, which begins with `/`. */
  readonly host: string
  readonly port: number
  readonly database: string | undefined
  readonly username: string | undefined
  /** `undefined`: none is known here, and `pg` looks into the user's password file if the server asks. */
  readonly password: Password | undefined
  readonly ssl: boolean | ConnectionOptions
  /** `server.address:server.port/db.namespace`, the pool's default name in metrics. */
  readonly name: string
  /** What `pg.Client` takes for this target, without the password, the stream, and limits in time. */
  readonly driver: ClientConfig
}

/** Limits that the server keeps, in milliseconds; 0 is none, whatever the server's own default says. */
export interface ServerTimeouts {
  readonly statement?: number | undefined
  readonly lock?: number | undefined
  readonly idleInTransaction?: number | undefined
}

/** What a URL says, of all that `pg` takes from one. */
export interface UrlParts {
  readonly host: string | undefined
  readonly port: number | undefined
  readonly database: string | undefined
  readonly username: string | undefined
  readonly password: Redacted.Redacted | undefined
  readonly ssl: boolean | ConnectionOptions | undefined
  readonly serverTimeouts: ServerTimeouts
  readonly driver: ClientConfig
}

/** The single options that a URL may replace. */
export interface Parts {
  readonly url?: UrlParts | undefined
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly path?: string | undefined
  readonly database?: string | undefined
  readonly username?: string | undefined
  readonly password?: Password | undefined
  readonly ssl?: boolean | ConnectionOptions | undefined
  readonly applicationName?: string | undefined
}

const anUrl = "a URL such as postgres://user:password@host:5432/database, its special characters percent-encoded"

/** Why `pg-connection-string` could not read a URL, without a word of the URL but the path of a certificate. */
const reasonOf = (error: unknown): string => {
  if (Predicate.hasProperty(error, "path") && Predicate.hasProperty(error, "code")) {
    return `a URL whose certificate files can be read (${error.path}: ${error.code})`
  }
  const malformed =
    error instanceof URIError || (Predicate.hasProperty(error, "code") && error.code === "ERR_INVALID_URL")
  return malformed ? anUrl : "a URL with the certificates that its sslmode needs, such as sslrootcert for verify-ca"
}

export const port = validate.integer({ min: 1, max: 65_535 })

/** PostgreSQL keeps these in a 32-bit count of milliseconds. `"infinity"` is the server's 0. */
export const serverTimeout = validate.map(
  validate.duration({ min: 0, max: validate.maxMillis, infinity: true, whole: true }),
  (millis) => (Number.isFinite(millis) ? millis : 0)
)

const sslOfUrl = validate.rule<boolean | ConnectionOptions>("a URL whose ssl is true, false or no-verify", (value) => {
  switch (value) {
    case "no-verify":
      return Option.some({ rejectUnauthorized: false })
    case "true":
      return Option.some(true)
    // `pg` takes this word for "on"
    case "false":
      return Option.some(false)
    default:
      return Predicate.isBoolean(value) || Predicate.isRecord(value) ? Option.some(value) : Option.none()
  }
})

/** A number in a URL's query, as the number; anything else as it is, for the rule to refuse. */
const numeral = (value: unknown) => (Predicate.isString(value) && /^\d+$/.test(value) ? Number(value) : value)

const within = <A>(parameter: string, self: validate.Rule<A>): validate.Rule<A | undefined> =>
  validate.optional((value, field) =>
    Either.mapLeft(self(numeral(value), field), (faults) =>
      faults.map((_) => ({ ..._, expected: `a URL whose ${parameter} is ${_.expected}` }))
    )
  )

/** The parameters of a parsed URL that have a form to keep; the others are text, or none of ours. */
const parameters = validate.struct({
  port: within("port", port),
  statement_timeout: within("statement_timeout", serverTimeout),
  lock_timeout: within("lock_timeout", serverTimeout),
  idle_in_transaction_session_timeout: within("idle_in_transaction_session_timeout", serverTimeout),
  query_timeout: within("query_timeout", validate.integer({ max: validate.maxMillis })),
  sslnegotiation: within("sslnegotiation", validate.literal("postgres", "direct")),
  ssl: validate.optional(sslOfUrl)
})

const defined = <A extends object>(record: A): { [K in keyof A]: NonNullable<A[K]> } =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined && value !== "")) as any

const parse = (url: string, field: string): Either.Either<UrlParts, ReadonlyArray<Fault>> => {
  const refused = (expected: string) => [validate.fault(field, "<redacted>", expected)]
  // any other text would be read as a path on a host called "base", and what follows a `#` be dropped
  if (!/^(postgres|postgresql|socket):\/|^\//i.test(url) || url.includes("#")) return Either.left(refused(anUrl))
  return Either.try({ try: () => PgConnectionString.parse(url), catch: (error) => refused(reasonOf(error)) }).pipe(
    Either.flatMap((raw) =>
      Either.mapBoth(parameters({ ...defined(raw) }, ""), {
        // every parameter is a part of this one field
        onLeft: (faults) => faults.map((_) => ({ ..._, field, value: "<redacted>" })),
        onRight: (sound): UrlParts => ({
          host: raw.host || undefined,
          port: sound.port,
          database: raw.database || undefined,
          username: raw.user || undefined,
          password: raw.password ? Redacted.make(raw.password) : undefined,
          ssl: sound.ssl,
          serverTimeouts: defined({
            statement: sound.statement_timeout,
            lock: sound.lock_timeout,
            idleInTransaction: sound.idle_in_transaction_session_timeout
          }),
          driver: defined({
            application_name: raw.application_name,
            fallback_application_name: raw.fallback_application_name,
            client_encoding: raw.client_encoding,
            options: raw.options,
            query_timeout: sound.query_timeout,
            replication: raw["replication"],
            sslnegotiation: sound.sslnegotiation
          }) as ClientConfig
        })
      })
    )
  )
}

/** A redacted URL, decoded to its parts. */
export const url: validate.Rule<UrlParts> = validate.secret((value, field) =>
  Redacted.isRedacted(value) && Predicate.isString(Redacted.value(value))
    ? parse(Redacted.value(value) as string, field)
    : Either.left([validate.fault(field, value, "a Redacted<string>")])
)

/** A redacted password, or an effect that gives one. */
export const password: validate.Rule<Password> = validate.secret(
  validate.refined(
    "a Redacted<string>, or an Effect that gives one",
    (value): value is Password =>
      Effect.isEffect(value) || (Redacted.isRedacted(value) && Predicate.isString(Redacted.value(value)))
  )
)

/** TLS settings of Node, or on and off. Their contents are Node's to judge. */
export const ssl = validate.refined(
  "true, false or TLS options",
  (value): value is boolean | ConnectionOptions => Predicate.isBoolean(value) || Predicate.isRecord(value)
)

/** What `PGSSLMODE` means to `pg`. Source: `pg`, connection parameters. */
const sslOfEnvironment = (mode: string | undefined): boolean | ConnectionOptions => {
  if (mode === "no-verify") return { rejectUnauthorized: false }
  return ["prefer", "require", "verify-ca", "verify-full"].includes(mode ?? "")
}

/** The directory and the port of a Unix socket, given by its directory or by its file. */
const socketOf = (path: string | undefined) => {
  const file = path?.match(/^(.*)\/\.s\.PGSQL\.(\d+)$/)
  return file ? { host: file[1], port: Number(file[2]) } : { host: path, port: undefined }
}

/** Joins the parts, the URL's first. Fails where they do not fit each other, or the environment's are malformed. */
export const resolve = (
  { applicationName, url, ...options }: Parts,
  environment: Environment
): Either.Either<ConnectionTarget, ReadonlyArray<Fault>> => {
  const faults: Array<Fault> = []
  const socket = socketOf(options.path)
  const host = url?.host ?? options.host ?? socket.host ?? (environment["PGHOST"] || "localhost")
  const username =
    url?.username ??
    options.username ??
    (environment["PGUSER"] || environment["USER"] || environment["USERNAME"] || undefined)
  const database = url?.database ?? options.database ?? (environment["PGDATABASE"] || username)
  const ssl = url?.ssl ?? options.ssl ?? sslOfEnvironment(environment["PGSSLMODE"])

  let number = url?.port ?? options.port ?? socket.port
  if (number === undefined) {
    Either.match(port(numeral(environment["PGPORT"] || 5432), "PGPORT"), {
      onLeft: (found) => faults.push(...found),
      onRight: (decoded) => {
        number = decoded
      }
    })
  }
  if (url?.driver.sslnegotiation === "direct" && ssl === false) {
    faults.push(validate.fault("url", "<redacted>", "a URL with TLS where sslnegotiation is direct"))
  }
  if (number === undefined || faults.length > 0) return Either.left(faults)

  // A password that is asked for anew is given on purpose; one in the URL beside it is an old one.
  const given = options.password
  const inUrl = url?.password
  const inEnvironment = environment["PGPASSWORD"] ? Redacted.make(environment["PGPASSWORD"]) : undefined
  return Either.right({
    host,
    port: number,
    database,
    username,
    password: Effect.isEffect(given) ? given : (inUrl ?? given ?? inEnvironment),
    ssl,
    name: `${host.includes(":") ? `[${host}]` : host}:${number}/${database ?? "postgres"}`,
    driver: {
      fallback_application_name: "effect-pg-resilience",
      ...defined({ application_name: applicationName }),
      ...url?.driver,
      ...defined({ host, port: number, user: username, database }),
      ssl
    }
  })
}
