/**
 * A database's URL, as PostgreSQL's own programs take it: by environment variables of the child process. Nothing of it is
 * ever an argument, because everybody on a machine can read the arguments of every process.
 */
import process from "node:process"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as target from "../../../config/internal/target.js"
import * as validate from "../../../config/internal/validate.js"
import type { InvalidOptionsError } from "../../../error/PgError.js"

export interface Target {
  /** Says all but, perhaps, the database: not every name of one can be written in a URL. */
  readonly url: Redacted.Redacted
  readonly host: string
  readonly port: number
  readonly database: string
  readonly username: string
  /** For the child process. Holds the password. */
  readonly environment: Redacted.Redacted<Readonly<Record<string, string>>>
}

/** libpq takes the same words, but for the driver's `no-verify`. Source: manual, 34.1.2 "Parameter Key Words". */
const sslmodes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

const sslmodeOf = (parameters: URLSearchParams): string | undefined => {
  const mode = parameters.get("sslmode") ?? undefined
  if (mode === "no-verify" || parameters.get("ssl") === "no-verify") return "require"
  if (mode !== undefined && sslmodes.includes(mode)) return mode
  if (mode === undefined && ["true", "1"].includes(parameters.get("ssl") ?? "")) return "require"
  return undefined
}

const handedOver = [
  ["sslrootcert", "PGSSLROOTCERT"],
  ["sslcert", "PGSSLCERT"],
  ["sslkey", "PGSSLKEY"],
  ["options", "PGOPTIONS"]
] as const

/** What the programs get of this process's environment: all but what would lead them elsewhere than the URL says. */
export const base = (environment: target.Environment): Record<string, string> => ({
  ...(Object.fromEntries(
    Object.entries(environment).filter(
      ([name, value]) => value !== undefined && (!name.startsWith("PG") || name === "PGPASSFILE")
    )
  ) as Record<string, string>),
  // what they say is read
  LC_ALL: "C"
})

/** Reads a URL. Fails where it is none. Without a password in it, `PGPASSWORD` and the user's password file hold. */
export const parse = (
  url: Redacted.Redacted,
  environment: target.Environment = process.env
): Either.Either<Target, InvalidOptionsError> =>
  Either.gen(function* () {
    const parts = yield* validate.decode(target.url, "url")(url)
    const found = yield* Either.mapLeft(target.resolve({ url: parts }, environment), validate.invalidOptions)
    const database = found.database ?? "postgres"
    const username = found.username ?? "postgres"
    // A socket's URL may have no form that `URL` reads.
    const text = Redacted.value(url)
    const parameters = new URLSearchParams(text.includes("?") ? text.slice(text.indexOf("?") + 1) : "")
    const password = Redacted.isRedacted(found.password) ? Redacted.value(found.password) : undefined
    const sslmode = sslmodeOf(parameters) ?? environment["PGSSLMODE"]
    return {
      url,
      host: found.host,
      port: found.port,
      database,
      username,
      environment: Redacted.make({
        ...base(environment),
        PGHOST: found.host,
        PGPORT: String(found.port),
        PGUSER: username,
        PGDATABASE: database,
        PGAPPNAME: "effect-pg-resilience/backup",
        PGCONNECT_TIMEOUT: "10",
        ...(password === undefined ? {} : { PGPASSWORD: password }),
        ...(sslmode ? { PGSSLMODE: sslmode } : {}),
        ...Object.fromEntries(
          handedOver.flatMap(([parameter, name]) => {
            const value = parameters.get(parameter)
            return value === null ? [] : [[name, value]]
          })
        )
      })
    }
  })

/** The same server, another database. */
export const on = (self: Target, database: string): Target => {
  const text = Redacted.value(self.url)
  const query = text.indexOf("?")
  const parameters = query < 0 ? "" : text.slice(query)
  const { PGPASSWORD, ...environment } = Redacted.value(self.environment)
  const secret = PGPASSWORD === undefined ? "" : `:${encodeURIComponent(PGPASSWORD)}`
  const at = `${encodeURIComponent(self.username)}${secret}@`
  const host = self.host.startsWith("/") ? encodeURIComponent(self.host) : self.host
  return {
    ...self,
    database,
    url: Redacted.make(`postgresql://${at}${host.includes(":") ? `[${host}]` : host}:${self.port}${parameters}`),
    environment: Redacted.make({
      ...environment,
      ...(PGPASSWORD === undefined ? {} : { PGPASSWORD }),
      PGDATABASE: database
    })
  }
}
