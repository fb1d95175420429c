/** The server that is backed up, or restored to: asked through the library's own client. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Pg from "pg"
import * as PgError from "../../../error/PgError.js"
import * as ResilientPg from "../../../ResilientPg.js"
import { AlreadyExistsError } from "./errors.js"
import type { Database } from "./manifest.js"
import type { Target } from "./target.js"

/** Runs an effect on a database, on a few connections that are closed afterwards. A server that is away is waited for 10 s. */
export const on = <A, E, R>(
  target: Target,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError, Exclude<R, ResilientPg.Services>> =>
  Effect.zipRight(ResilientPg.ready({ within: "10 seconds" }), effect).pipe(
    Effect.provide(
      ResilientPg.layer({
        url: target.url,
        database: target.database,
        maxConnections: 3,
        applicationName: "effect-pg-resilience/backup",
        // counting a large table takes what it takes
        slowQueryThreshold: "infinity"
      })
    ),
    PgError.refine
  ) as Effect.Effect<A, Exclude<E, SqlError> | PgError.PgError, Exclude<R, ResilientPg.Services>>

/** `server_version_num`: 150018 is 15.18. */
export const version = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql.unsafe<{ version: number }>("SELECT current_setting('server_version_num')::int AS version")
  return row!.version
})

export const major = (version: number): number => Math.floor(version / 10_000)

export const exists = (database: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    return (yield* sql`SELECT FROM pg_database WHERE datname = ${database}`).length > 0
  })

const scratchName = /^backup_scratch_[0-9]{14}_[0-9a-f]{8}$/
/** First half of the advisory locks' key: the letters "bkup". */
const lockClass = 0x626b7570

/** CREATE DATABASE with what makes the content fit, and sort as it did. */
export const createSql = (name: string, { collate, ctype, encoding, locale, provider }: Database): string => {
  const literal = (text: string) => Pg.escapeLiteral(text)
  const parts = [
    `CREATE DATABASE ${Pg.escapeIdentifier(name)} TEMPLATE template0 ENCODING ${literal(encoding)}`,
    `LC_COLLATE ${literal(collate)} LC_CTYPE ${literal(ctype)}`
  ]
  if (provider === "i") parts.push(`LOCALE_PROVIDER icu ICU_LOCALE ${literal(locale ?? "und")}`)
  if (provider === "b") parts.push(`LOCALE_PROVIDER builtin BUILTIN_LOCALE ${literal(locale ?? "C")}`)
  return parts.join(" ")
}

/**
 * An empty database under a name of ours, dropped with the scope unless it has been renamed by then. An advisory lock,
 * which ends with its connection, says that somebody is at it.
 */
export const scratch = (model: Database, now: Date) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const name = `backup_scratch_${now.toISOString().replaceAll(/\D/g, "").slice(0, 14)}_${crypto.randomUUID().slice(0, 8)}`
    const connection = yield* sql.reserve
    yield* connection.execute("SELECT pg_advisory_lock($1, hashtext($2))", [lockClass, name], undefined)
    yield* Effect.acquireRelease(sql.unsafe(createSql(name, model)), () =>
      Effect.catchAll(sql.unsafe(`DROP DATABASE IF EXISTS ${Pg.escapeIdentifier(name)} WITH (FORCE)`), (error) =>
        Effect.logWarning(`The database ${name} could not be dropped; the next cleanup will (${error.message})`)
      )
    )
    return name
  })

/** Drops scratch databases whose makers are gone. One that somebody is connected to stays. */
export const cleanup = (dryRun: boolean) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const rows = yield* sql.unsafe<{ name: string; busy: boolean }>(
      `SELECT d.datname AS name,
         EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname) OR EXISTS (
           SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = $1::bigint::oid
             AND l.objid = (hashtext(d.datname::text)::bigint & 4294967295)::oid) AS busy
       FROM pg_database d WHERE d.datname ~ '^backup_scratch_' ORDER BY 1`,
      [lockClass]
    )
    const ours = rows.filter(({ name }) => scratchName.test(name))
    const left = ours.filter(({ busy }) => !busy).map(({ name }) => name)
    if (!dryRun) {
      yield* Effect.forEach(left, (name) => sql.unsafe(`DROP DATABASE IF EXISTS ${Pg.escapeIdentifier(name)}`), {
        discard: true
      })
    }
    return { removed: left, kept: ours.filter(({ busy }) => busy).map(({ name }) => name) }
  })

/** What pg_restore leaves to CREATE DATABASE: owner, settings, privileges, connection limit. */
const properties = (name: string, saved: Database, owners: boolean): ReadonlyArray<string> => {
  const database = Pg.escapeIdentifier(name)
  const role = (grantee: string) => (grantee === "public" ? "PUBLIC" : Pg.escapeIdentifier(grantee))
  const settings = saved.settings.map((setting) => {
    const at = setting.indexOf("=")
    const [parameter, value] = [setting.slice(0, at), setting.slice(at + 1)]
    const quoted = parameter.split(".").map(Pg.escapeIdentifier).join(".")
    // Lists are stored as they were written, quoted where they have to be: search_path and its like.
    const list = /^(search_path|temp_tablespaces|(local|session|shared)_preload_libraries|DateStyle)$/i.test(parameter)
    return `ALTER DATABASE ${database} SET ${quoted} TO ${list ? value || "''" : Pg.escapeLiteral(value)}`
  })
  const privileges =
    owners && saved.privileges !== null
      ? [
          `REVOKE ALL ON DATABASE ${database} FROM PUBLIC`,
          ...saved.privileges.map(
            ({ grantable, grantee, privilege }) =>
              `GRANT ${privilege} ON DATABASE ${database} TO ${role(grantee)}${grantable ? " WITH GRANT OPTION" : ""}`
          )
        ]
      : []
  return [
    ...settings,
    ...(saved.connectionLimit >= 0 ? [`ALTER DATABASE ${database} CONNECTION LIMIT ${saved.connectionLimit}`] : []),
    ...privileges,
    ...(owners ? [`ALTER DATABASE ${database} OWNER TO ${Pg.escapeIdentifier(saved.owner)}`] : [])
  ]
}

export const applyProperties = (name: string, saved: Database, owners: boolean) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* Effect.forEach(properties(name, saved, owners), (statement) => sql.unsafe(statement), { discard: true })
  })

/** A name beside another one, within the server's 63 bytes. Names of ours are ASCII; what is cut may be the other's end. */
const beside = (name: string, suffix: string) => {
  let kept = name
  while (Buffer.byteLength(kept) + suffix.length > 63) kept = kept.slice(0, -1)
  return kept + suffix
}

/**
 * Gives the scratch database its final name. One that has that name steps aside first; both renames are one transaction, so
 * at every moment one of the two is there. The first rename locks the database's name: new connections wait, and those
 * that are open are ended until the server is content, which it gives five seconds.
 */
export const settleName = (scratch: string, into: string, swap: boolean, now: Date) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const rename = (from: string, to: string) =>
      sql.unsafe(`ALTER DATABASE ${Pg.escapeIdentifier(from)} RENAME TO ${Pg.escapeIdentifier(to)}`)
    if (!(yield* exists(into))) {
      yield* rename(scratch, into)
      return undefined
    }
    if (!swap) return yield* alreadyExists(into)
    const previous = beside(into, `_before_${now.toISOString().replaceAll(/\D/g, "").slice(0, 14)}`)
    const others = Effect.repeat(
      Effect.zipRight(
        Effect.uninterruptible(
          sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ${into} AND pid <> pg_backend_pid()`
        ),
        Effect.sleep("50 millis")
      ),
      { until: () => false }
    ).pipe(
      Effect.catchAll((error) => Effect.logWarning(`Connections to ${into} could not be ended (${error.message})`))
    )
    const renames = sql.withTransaction(Effect.zipRight(rename(into, previous), rename(scratch, into)))
    yield* Effect.raceFirst(Effect.uninterruptible(renames), Effect.zipRight(others, Effect.never))
    return previous
  })

export const alreadyExists = (database: string) =>
  new AlreadyExistsError({
    message: `The database ${database} exists: restore under another name, or with swap, which keeps it under another name`,
    what: database
  })
