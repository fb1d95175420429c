import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Either, Redacted } from "effect"
import * as Pg from "pg"
import type { Environment, Parts, Password } from "../../src/config/internal/target.js"
import * as target from "../../src/config/internal/target.js"

const certificate = encodeURIComponent(fileURLToPath(new URL("../../LICENSE", import.meta.url)))

const resolve = (options: Omit<Parts, "url"> & { readonly url?: string }, environment: Environment = {}) =>
  Either.flatMap(
    options.url === undefined ? Either.right(undefined) : target.url(Redacted.make(options.url), "url"),
    (url) => target.resolve({ ...options, url }, environment)
  )

const sound = (...args: Parameters<typeof resolve>) => Either.getOrThrow(resolve(...args))

const text = (password: Password | undefined) =>
  password !== undefined && Redacted.isRedacted(password) ? Redacted.value(password) : undefined

/** What `pg` makes of a configuration, without connecting. */
const byPg = (config: Pg.ClientConfig) => {
  const { connectionParameters, password } = new Pg.Client(config) as unknown as {
    readonly connectionParameters: Record<string, unknown>
    readonly password: string | null
  }
  const { host, port, user, database, ssl, options, sslnegotiation, client_encoding, application_name, query_timeout } =
    connectionParameters
  const { checkServerIdentity, ...tls } = (typeof ssl === "object" ? ssl : { ssl }) as Record<string, unknown>
  const pinned = checkServerIdentity !== undefined
  return {
    host,
    port,
    user,
    database,
    tls,
    pinned,
    options,
    sslnegotiation,
    client_encoding,
    application_name,
    query_timeout: query_timeout === undefined ? undefined : Number(query_timeout),
    password
  }
}

describe("a connection's target", () => {
  it.each([
    "postgres://ann:secret@db.example:6432/shop",
    "postgresql://ann@db.example/shop",
    "postgres://db.example",
    "postgres://u:p%23%40%3A%2F@h/d%20b",
    "postgres://[2001:db8::1]:5433/d",
    "postgres:///shop?host=/var/run/postgresql&port=5433&user=ann",
    "postgres://ann@%2Fvar%2Frun%2Fpostgresql/shop",
    "socket:/tmp/pg?db=shop&encoding=utf8",
    "socket://ann:pw@/tmp/pg?db=shop",
    "/var/run/postgresql shop",
    "postgres://h/d?sslmode=disable",
    "postgres://h/d?sslmode=no-verify",
    "postgres://h/d?sslmode=verify-full",
    "postgres://h/d?ssl=true",
    "postgres://h/d?ssl=1",
    "postgres://h/d?ssl=0",
    "postgres://h/d?ssl=no-verify",
    "postgres://h/d?uselibpqcompat=true&sslmode=require",
    `postgres://h/d?sslmode=verify-full&sslrootcert=${certificate}`,
    `postgres://h/d?uselibpqcompat=true&sslmode=verify-ca&sslrootcert=${certificate}`,
    "postgres://h/d?sslnegotiation=direct",
    "postgres://h/d?options=-c%20search_path%3Dapp&application_name=api&client_encoding=utf8&query_timeout=700",
    "postgres://h/d?channel_binding=require&pgbouncer=true&connect_timeout=10"
  ])("is what pg itself makes of %s", (url) => {
    const { driver, password, ...resolved } = sound({ url }, process.env)
    const expected = byPg({ connectionString: url })
    assert.deepStrictEqual(byPg({ ...driver, password: text(password) }), expected)
    assert.deepStrictEqual(
      [resolved.host, resolved.port, resolved.username, resolved.database],
      [expected.host, expected.port, expected.user, expected.database]
    )
  })

  it.each<[string, Environment]>([
    ["nothing at all", {}],
    [
      "host, port, user, database, password",
      { PGHOST: "h", PGPORT: "6543", PGUSER: "u", PGDATABASE: "d", PGPASSWORD: "p" }
    ],
    ["a user alone", { PGUSER: "u" }],
    ["the login's name", { USER: "login" }],
    ["TLS", { PGSSLMODE: "require" }],
    ["TLS unverified", { PGSSLMODE: "no-verify" }]
  ])("takes %s from the environment", (_, environment) => {
    const { PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD, PGSSLMODE, USER } = environment
    const { driver, password, ...resolved } = sound({}, environment)
    assert.deepInclude(resolved, {
      host: PGHOST ?? "localhost",
      port: Number(PGPORT ?? 5432),
      username: PGUSER ?? USER,
      database: PGDATABASE ?? PGUSER ?? USER,
      ssl: PGSSLMODE === "no-verify" ? { rejectUnauthorized: false } : PGSSLMODE === "require"
    })
    assert.strictEqual(text(password), PGPASSWORD)
    assert.strictEqual(driver.user, PGUSER ?? USER)
  })

  it("takes from the options what the URL does not say, and from the environment what neither says", () => {
    const { driver, password, ...resolved } = sound(
      {
        url: "postgres://h",
        username: "ann",
        password: Redacted.make("pw"),
        port: 1,
        ssl: true,
        applicationName: "api"
      },
      { PGDATABASE: "shop", PGHOST: "elsewhere", PGPORT: "2" }
    )
    assert.deepStrictEqual(resolved, {
      host: "h",
      port: 1,
      username: "ann",
      database: "shop",
      ssl: true,
      name: "h:1/shop"
    })
    assert.strictEqual(text(password), "pw")
    assert.deepInclude(driver, { application_name: "api", user: "ann" })
  })

  it("holds to the URL where an option says something else, as pg does", () => {
    const { driver, password, ...resolved } = sound({
      url: "postgres://ann:right@h:1/d?sslmode=disable&application_name=x",
      host: "other",
      port: 2,
      username: "bob",
      password: Redacted.make("wrong"),
      database: "other",
      ssl: true,
      applicationName: "other"
    })
    assert.deepStrictEqual(resolved, { host: "h", port: 1, username: "ann", database: "d", ssl: false, name: "h:1/d" })
    assert.strictEqual(text(password), "right")
    assert.strictEqual(driver.application_name, "x")
  })

  it("reads ssl=false as off, which pg takes for on", () => {
    assert.isFalse(sound({ url: "postgres://h/d?ssl=false" }).ssl)
  })

  it.each([
    ["/var/run/postgresql", 5432],
    ["/var/run/postgresql/.s.PGSQL.6543", 6543]
  ])("takes a Unix socket by its path %s", (path, port) => {
    assert.deepInclude(sound({ path, database: "d" }), {
      host: "/var/run/postgresql",
      port,
      name: `/var/run/postgresql:${port}/d`
    })
  })

  it("is named by address, port and database", () => {
    assert.strictEqual(sound({ url: "postgres://[::1]:6543/shop" }).name, "[::1]:6543/shop")
    assert.strictEqual(sound({ username: "ann" }).name, "localhost:5432/ann")
    assert.strictEqual(sound({}).name, "localhost:5432/postgres")
  })

  it("collects the server's limits from the URL", () => {
    const url = "postgres://h?statement_timeout=500&lock_timeout=0&idle_in_transaction_session_timeout=60000"
    assert.deepStrictEqual(Either.getOrThrow(target.url(Redacted.make(url), "url")).serverTimeouts, {
      statement: 500,
      lock: 0,
      idleInTransaction: 60_000
    })
  })

  it.each<[string, RegExp]>([
    ["", /postgres:\/\/user/],
    ["shop", /postgres:\/\/user/],
    ["localhost:5432/m4rk", /postgres:\/\/user/],
    ["host=h dbname=m4rk", /postgres:\/\/user/],
    ["mysql://u:m4rk@h/d", /postgres:\/\/user/],
    ["https://u:m4rk@h/d", /postgres:\/\/user/],
    ["postgres://u:m4rk@h:port/d", /percent-encoded/],
    ["postgres://u:m4rk@h:99999/d", /percent-encoded/],
    ["postgres://u:12#m4rk@h/d", /percent-encoded/],
    ["postgres://u:%E0%A4@h/m4rk", /percent-encoded/],
    ["postgres://h/m4rk?port=5432x", /port is an integer from 1 to 65535/],
    ["postgres://h/m4rk?statement_timeout=5s", /statement_timeout is a duration/],
    ["postgres://h/m4rk?lock_timeout=-1", /lock_timeout is a duration/],
    ["postgres://h/m4rk?ssl=maybe", /ssl is true, false or no-verify/],
    ["postgres://h/m4rk?sslnegotiation=indirect", /sslnegotiation is one of postgres, direct/],
    ["postgres://h/m4rk?sslmode=disable&sslnegotiation=direct", /TLS where sslnegotiation is direct/],
    ["postgres://h/m4rk?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", /\/nowhere\/ca\.pem: ENOENT/],
    ["postgres://h/m4rk?uselibpqcompat=true&sslmode=verify-ca", /sslrootcert for verify-ca/]
  ])("refuses %s without repeating it", (url, expected) => {
    const faults = Either.getOrThrow(Either.flip(resolve({ url })))
    assert.lengthOf(faults, 1)
    assert.match(faults[0]!.expected, expected)
    assert.deepInclude(faults[0]!, { field: "url", value: "<redacted>" })
    assert.notInclude(JSON.stringify(faults), "m4rk")
  })

  it("refuses a malformed port in the environment only where it would be used", () => {
    const faults = Either.getOrThrow(Either.flip(resolve({}, { PGPORT: "five" })))
    assert.deepInclude(faults[0]!, { field: "PGPORT", value: "five" })
    assert.strictEqual(sound({ port: 1 }, { PGPORT: "five" }).port, 1)
  })
})
