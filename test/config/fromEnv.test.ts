import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigError, ConfigProvider, Duration, Effect, Either, Option, Random, Redacted } from "effect"
import * as Platform from "../../src/config/Platform.js"
import * as PoolSizing from "../../src/config/PoolSizing.js"
import * as ResilienceConfig from "../../src/config/ResilienceConfig.js"
import * as PgError from "../../src/error/PgError.js"
import * as RetryPolicy from "../../src/policy/RetryPolicy.js"
import { configTable } from "../support/configTable.js"

type Variables = { readonly [name: string]: string }

const url = "postgres://ann:s3cr3t-m4rk@db.example:6432/shop"

const load = <A>(config: Config.Config<A>, variables: Variables) =>
  Effect.runSync(
    Effect.either(Effect.withConfigProvider(config, ConfigProvider.fromMap(new Map(Object.entries(variables)))))
  )

const options = (variables: Variables) =>
  Either.getOrThrowWith(load(ResilienceConfig.fromEnv, { DATABASE_URL: url, ...variables }), String)

/** Each problem as the path of the variable and the message. */
const problems = (error: ConfigError.ConfigError): ReadonlyArray<readonly [string, string]> =>
  ConfigError.reduceWithContext(error, undefined, {
    andCase: (_, left, right) => [...left, ...right],
    orCase: (_, left, right) => [...left, ...right],
    invalidDataCase: (_, path, message) => [[path.join("."), message]],
    missingDataCase: (_, path, message) => [[path.join("."), message]],
    sourceUnavailableCase: (_, path, message) => [[path.join("."), message]],
    unsupportedCase: (_, path, message) => [[path.join("."), message]]
  } satisfies ConfigError.ConfigErrorReducer<undefined, ReadonlyArray<readonly [string, string]>>)

const refused = (variables: Variables) => {
  const error = Either.getOrThrow(Either.flip(load(ResilienceConfig.fromEnv, { DATABASE_URL: url, ...variables })))
  assert.notInclude(String(error), "m4rk")
  assert.notInclude(JSON.stringify(error), "m4rk")
  return problems(error)
}

describe("ResilienceConfig.fromEnv", () => {
  it("needs nothing but the URL, and leaves every option to its default", () => {
    assert.deepStrictEqual(Object.keys(options({})), ["url"])
    assert.strictEqual(Redacted.value(options({}).url!), url)
  })

  it("says that the URL is missing as missing data, beside what is malformed", () => {
    const error = Either.getOrThrow(Either.flip(load(ResilienceConfig.fromEnv, { DB_POOL_MAX: "x" })))
    assert.deepStrictEqual(problems(error), [
      ["DATABASE_URL", "DATABASE_URL is required"],
      ["DB_POOL_MAX", 'DB_POOL_MAX is "x", expected a whole number']
    ])
    assert.deepStrictEqual(load(Config.option(ResilienceConfig.fromEnv), {}), Either.right(Option.none()))
  })

  it.each<[string, string, ResilienceConfig.Options]>([
    ["DB_POOL_MIN", "2", { minConnections: 2 }],
    ["DB_POOL_MAX", "25", { maxConnections: 25 }],
    ["DB_CONNECTION_LIMIT", "25", { maxConnections: 25 }],
    ["DATABASE_MAX_CONNECTIONS", "25", { maxConnections: 25 }],
    ["DB_CONNECTION_TIMEOUT_MS", "2500", { acquireTimeout: 2_500 }],
    ["DB_CONNECTION_TIMEOUT_MS", "0", { acquireTimeout: Number.POSITIVE_INFINITY }],
    ["DB_CONNECTION_TIMEOUT_MS", "infinity", { acquireTimeout: Number.POSITIVE_INFINITY }],
    ["DB_POOL_TIMEOUT", "20", { acquireTimeout: 20_000 }],
    ["DB_POOL_TIMEOUT", "0.5", { acquireTimeout: 500 }],
    ["DB_POOL_TIMEOUT", "0", { acquireTimeout: Number.POSITIVE_INFINITY }],
    ["DATABASE_CONNECTION_TIMEOUT", "2500", { acquireTimeout: 2_500 }],
    ["DATABASE_CONNECTION_TIMEOUT", "20 seconds", { acquireTimeout: 20_000 }],
    ["DB_IDLE_TIMEOUT_MS", "60000", { idleTimeout: 60_000 }],
    ["DB_IDLE_TIMEOUT_MS", "0", { idleTimeout: Number.POSITIVE_INFINITY }],
    ["DATABASE_IDLE_TIMEOUT", " 1 minute ", { idleTimeout: 60_000 }],
    ["DB_STATEMENT_TIMEOUT_MS", "30000", { serverTimeouts: { statement: 30_000 } }],
    ["DB_STATEMENT_TIMEOUT_MS", "0", { serverTimeouts: { statement: 0 } }],
    ["DATABASE_STATEMENT_TIMEOUT", "30 seconds", { serverTimeouts: { statement: 30_000 } }],
    ["DB_TIMEOUTS", "false", { timeouts: false }],
    ["DB_TIMEOUTS", "on", {}],
    ["DB_CIRCUIT_BREAKER", "OFF", { breaker: false }],
    ["DB_CIRCUIT_BREAKER", "1", {}],
    ["DB_CB_FAILURE_THRESHOLD", "8", { breaker: { failureThreshold: 8, resetTimeout: undefined } }],
    ["DB_CB_TIMEOUT", "15000", { breaker: { failureThreshold: undefined, resetTimeout: 15_000 } }],
    ["DB_MAX_RETRIES", "0", { retry: false }],
    ["DB_SSL", "true", { ssl: true }],
    ["DB_SSL", "no", { ssl: false }],
    ["DB_SSL", "no-verify", { ssl: { rejectUnauthorized: false } }],
    ["NODE_ENV", "production", {}],
    ["NODE_ENV", "test", {}]
  ])("takes %s=%s", (name, value, expected) => {
    const { url: _, ...given } = options({ [name]: value })
    assert.deepStrictEqual(given, expected)
  })

  it.each<[string, string, string]>([
    ["DATABASE_URL", "m4rk", "a URL such as postgres://user:password@host:5432/database"],
    ["DATABASE_URL", "postgres://ann:m4rk@host:port/shop", "percent-encoded"],
    ["DATABASE_URL", "", "is empty"],
    ["DB_POOL_MIN", "-1", "an integer from 0 to 262143"],
    ["DB_POOL_MIN", "1.5", "an integer from 0 to 262143"],
    ["DB_POOL_MAX", "0", "an integer from 1 to 262143"],
    ["DB_POOL_MAX", "NaN", "a whole number"],
    ["DB_POOL_MAX", "1e3", "a whole number"],
    ["DB_POOL_MAX", "0x10", "a whole number"],
    ["DB_POOL_MAX", "10 connections", "a whole number"],
    ["DB_POOL_MAX", "infinity", "an integer from 1 to 262143"],
    ["DB_POOL_MAX", "", "is empty: leave it out for the default, or give a whole number"],
    ["DB_CONNECTION_LIMIT", "many", "a whole number"],
    ["DATABASE_MAX_CONNECTIONS", "-5", "an integer from 1 to 262143"],
    ["DB_CONNECTION_TIMEOUT_MS", "-1", "a duration of 0 ms or more"],
    ["DB_CONNECTION_TIMEOUT_MS", "5 seconds", "a number of milliseconds"],
    ["DB_POOL_TIMEOUT", "10s", "a number of seconds"],
    ["DATABASE_CONNECTION_TIMEOUT", "10s", "a duration of 0 ms or more"],
    ["DB_IDLE_TIMEOUT_MS", "never", "a number of milliseconds"],
    ["DATABASE_IDLE_TIMEOUT", "-1 second", "a duration of 0 ms or more"],
    ["DB_STATEMENT_TIMEOUT_MS", "0.5", "in whole milliseconds"],
    ["DATABASE_STATEMENT_TIMEOUT", "25 days", "from 0 ms to 2147483647 ms"],
    ["DB_MAX_RETRIES", "-1", "an integer from 0 to 1000"],
    ["DB_RETRY_INITIAL_DELAY_MS", "0", "a duration from 1 ms"],
    ["DB_RETRY_MAX_DELAY_MS", "1 second", "a number of milliseconds"],
    ["DB_CB_FAILURE_THRESHOLD", "0", "an integer of 1 or more"],
    ["DB_CB_TIMEOUT", "0", "a duration of 1 ms or more"],
    ["DB_CIRCUIT_BREAKER", "maybe", "true or false"],
    ["DB_TIMEOUTS", "30", "true or false"],
    ["DB_SSL", "require", "true, false or no-verify"],
    ["PLATFORM", "geocities", "one of railway, heroku, render, supabase, neon, fly, aws-rds, local"],
    ["NODE_ENV", "prod", "one of production, staging, development, test"],
    ["EXPECTED_CONCURRENCY", "0", "an integer of 1 or more"]
  ])("refuses %s=%s, and says what it takes", (name, value, expected) => {
    const found = refused({ [name]: value })
    assert.lengthOf(found, 1)
    assert.strictEqual(found[0]![0], name)
    assert.match(found[0]![1], new RegExp(`^${name} is `))
    assert.include(found[0]![1], expected)
    assert.include(found[0]![1], name === "DATABASE_URL" || value === "" ? "" : JSON.stringify(value))
  })

  it("refuses a malformed variable also where another name of the same setting is sound", () => {
    assert.deepStrictEqual(refused({ DB_POOL_MAX: "5", DATABASE_MAX_CONNECTIONS: "five" }), [
      ["DATABASE_MAX_CONNECTIONS", 'DATABASE_MAX_CONNECTIONS is "five", expected a whole number']
    ])
  })

  it("names every variable that is wrong in one error", () => {
    const wrong = { DATABASE_URL: "m4rk", DB_POOL_MAX: "x", DB_POOL_TIMEOUT: "x", PLATFORM: "x", DB_CB_TIMEOUT: "x" }
    assert.sameMembers(
      refused(wrong).map(([name]) => name),
      Object.keys(wrong)
    )
  })

  it.each<[Variables]>([
    [{ DB_POOL_MAX: "10", DATABASE_MAX_CONNECTIONS: "20" }],
    [{ DB_POOL_MAX: "10", DB_CONNECTION_LIMIT: "20" }],
    [{ DB_CONNECTION_LIMIT: "10", DATABASE_MAX_CONNECTIONS: "20" }],
    [{ DB_CONNECTION_TIMEOUT_MS: "10", DB_POOL_TIMEOUT: "10" }],
    [{ DB_IDLE_TIMEOUT_MS: "10", DATABASE_IDLE_TIMEOUT: "10 seconds" }],
    [{ DB_STATEMENT_TIMEOUT_MS: "10", DATABASE_STATEMENT_TIMEOUT: "11" }]
  ])("refuses two names of one setting that differ, naming both: %o", (variables) => {
    const [first, second] = Object.keys(variables) as [string, string]
    const found = refused(variables)
    assert.lengthOf(found, 1)
    assert.deepStrictEqual(found[0], [
      first,
      `${first} is "${variables[first]}" and ${second} is "${variables[second]}", ` +
        "which are two names of one setting: give one of them"
    ])
  })

  it("accepts several names of one setting that mean the same", () => {
    const same = { DB_CONNECTION_TIMEOUT_MS: "20000", DB_POOL_TIMEOUT: "20", DATABASE_CONNECTION_TIMEOUT: "20 seconds" }
    assert.strictEqual(options(same).acquireTimeout, 20_000)
    assert.strictEqual(options({ DB_POOL_MAX: "7", DB_CONNECTION_LIMIT: "7" }).maxConnections, 7)
  })

  it.each<[Variables, string]>([
    [{ DB_POOL_MIN: "11" }, "DB_POOL_MIN is 11, expected at most 10, the pool's maximum"],
    [{ DB_POOL_MIN: "6", DB_POOL_MAX: "5" }, "DB_POOL_MIN is 6, expected at most DB_POOL_MAX, which is 5"],
    [
      { DB_POOL_MIN: "6", DATABASE_MAX_CONNECTIONS: "5" },
      "DB_POOL_MIN is 6, expected at most DATABASE_MAX_CONNECTIONS, which is 5"
    ],
    [{ DB_POOL_MIN: "19", PLATFORM: "railway" }, "DB_POOL_MIN is 19, expected at most 18, the pool's maximum"],
    [
      { DB_RETRY_INITIAL_DELAY_MS: "500", DB_RETRY_MAX_DELAY_MS: "100" },
      "DB_RETRY_INITIAL_DELAY_MS is 500, expected at most DB_RETRY_MAX_DELAY_MS, which is 100"
    ]
  ])("refuses variables that do not fit each other: %o", (variables, message) => {
    assert.deepStrictEqual(
      refused(variables).map(([, _]) => _),
      [message]
    )
  })

  it.each<[Variables, ResilienceConfig.Options]>([
    [{ PLATFORM: "railway" }, Platform.preset("railway", "production")],
    [
      { PLATFORM: "railway", NODE_ENV: "production" },
      { minConnections: 2, maxConnections: 18 }
    ],
    [
      { PLATFORM: "Railway", NODE_ENV: "staging" },
      { minConnections: 1, maxConnections: 9 }
    ],
    [{ PLATFORM: "railway", NODE_ENV: "test" }, Platform.preset("railway", "development")],
    [{ PLATFORM: "AWS_RDS" }, Platform.preset("aws-rds", "production")],
    [{ PLATFORM: "heroku" }, { ssl: { rejectUnauthorized: false } }],
    [{ PLATFORM: "heroku", DB_SSL: "true" }, { ssl: true }],
    [
      { PLATFORM: "railway", DB_POOL_MAX: "1" },
      { minConnections: 1, maxConnections: 1 }
    ],
    [
      { PLATFORM: "railway", DB_POOL_MIN: "0" },
      { minConnections: 0, maxConnections: 18 }
    ],
    [{ PLATFORM: "railway", DB_STATEMENT_TIMEOUT_MS: "0" }, { serverTimeouts: { statement: 0 } }],
    [
      { PLATFORM: "railway", DB_POOL_TIMEOUT: "3", DB_IDLE_TIMEOUT_MS: "5" },
      { acquireTimeout: 3_000, idleTimeout: 5 }
    ],
    [
      { PLATFORM: "railway", EXPECTED_CONCURRENCY: "4" },
      { minConnections: 2, maxConnections: 4 }
    ],
    [
      { PLATFORM: "railway", EXPECTED_CONCURRENCY: "400" },
      { minConnections: 2, maxConnections: 18 }
    ],
    [
      { PLATFORM: "railway", EXPECTED_CONCURRENCY: "4", DB_POOL_MAX: "15" },
      { minConnections: 2, maxConnections: 15 }
    ],
    [{ EXPECTED_CONCURRENCY: "1" }, { minConnections: 1, maxConnections: 1 }]
  ])("puts explicit variables over the expected load, and that over the platform: %o", (variables, expected) => {
    assert.deepInclude(options(variables), expected)
  })

  it("sizes the pool as PoolSizing does", () => {
    const { max, min } = PoolSizing.recommend({ environment: "staging", expectedConcurrency: 30 })
    assert.deepInclude(options({ EXPECTED_CONCURRENCY: "30", NODE_ENV: "staging" }), {
      minConnections: min,
      maxConnections: max
    })
  })

  it("gives options that decode, for every platform in every environment", () => {
    for (const PLATFORM of Platform.names) {
      for (const NODE_ENV of Object.keys(Platform.environments)) {
        const decoded = ResilienceConfig.decode(options({ PLATFORM, NODE_ENV, EXPECTED_CONCURRENCY: "3" }), {})
        assert.isTrue(Either.isRight(decoded), `${PLATFORM} ${NODE_ENV}`)
      }
    }
  })

  it("takes a prefix, and names it in errors", () => {
    const nested = Config.nested(ResilienceConfig.fromEnv, "ORDERS")
    const sound = load(nested, { "ORDERS.DATABASE_URL": url, "ORDERS.DB_POOL_MAX": "3", DB_POOL_MAX: "9" })
    assert.strictEqual(Either.getOrThrow(sound).maxConnections, 3)
    const error = Either.getOrThrow(Either.flip(load(nested, { "ORDERS.DATABASE_URL": url, "ORDERS.DB_SSL": "?" })))
    assert.deepStrictEqual(
      problems(error).map(([path]) => path),
      ["ORDERS.DB_SSL"]
    )
  })

  describe("retries", () => {
    const lost = new PgError.ConnectionError({
      message: "gone",
      phase: "Acquire",
      outcome: "NotApplied",
      transient: true,
      attempts: 1
    })

    /** The longest delays before each retry, until the policy gives up: full jitter at its upper end. */
    const delays = (policy: RetryPolicy.RetryPolicy, error: PgError.PgError = lost) =>
      Effect.gen(function* () {
        const found: Array<number> = []
        let state = RetryPolicy.initial
        while (found.length <= 2_000) {
          const [delay, next] = yield* RetryPolicy.step(policy, state, error, 0)
          if (Option.isNone(delay)) return found
          found.push(Duration.toMillis(delay.value))
          state = next
        }
        return found
      }).pipe(Effect.withRandom(Random.fixed([1e12])), Effect.runSync)

    const policy = (variables: Variables) => {
      const { retry } = options(variables)
      assert.isObject(retry)
      return retry as RetryPolicy.RetryPolicy
    }

    it("wait as the standard policy does where a variable does not say otherwise", () => {
      const expected = delays(RetryPolicy.standard)
      assert.isNotEmpty(expected)
      assert.deepStrictEqual(delays(policy({ DB_MAX_RETRIES: String(expected.length) })), expected)
      assert.deepStrictEqual(delays(policy({ DB_RETRY_INITIAL_DELAY_MS: "500" })), expected)
      assert.deepStrictEqual(delays(policy({ DB_RETRY_MAX_DELAY_MS: "30000" })), expected)
    })

    it("are as many as DB_MAX_RETRIES says, also when those are more than the standard ones", () => {
      assert.lengthOf(delays(policy({ DB_MAX_RETRIES: "2" })), 2)
      assert.lengthOf(delays(policy({ DB_MAX_RETRIES: "30" })), 30)
    })

    it("begin at the initial delay and stay under the greatest", () => {
      const found = delays(
        policy({ DB_MAX_RETRIES: "6", DB_RETRY_INITIAL_DELAY_MS: "100", DB_RETRY_MAX_DELAY_MS: "300" })
      )
      assert.deepStrictEqual(found, [100, 150, 225, 300, 300, 300])
    })

    it("fit a single bound that lies beyond the other's default", () => {
      assert.deepStrictEqual(delays(policy({ DB_RETRY_MAX_DELAY_MS: "20" })), [20, 20, 20, 20, 20])
      assert.strictEqual(delays(policy({ DB_RETRY_INITIAL_DELAY_MS: "60000" }))[0], 60_000)
    })

    it("leave the short delays of contention alone, and count them", () => {
      const deadlock = new PgError.DeadlockError({ ...lost })
      const tuned = policy({ DB_MAX_RETRIES: "3", DB_RETRY_INITIAL_DELAY_MS: "5000" })
      assert.deepStrictEqual(delays(tuned, deadlock), delays(RetryPolicy.standard, deadlock).slice(0, 3))
    })
  })
})

describe("the table of variables", () => {
  it("holds each name once, with its unit and meaning, and synonyms that know each other", () => {
    const byName = new Map(ResilienceConfig.variables.map((variable) => [variable.name, variable]))
    assert.strictEqual(byName.size, ResilienceConfig.variables.length)
    for (const { doc, name, option, synonyms } of byName.values()) {
      assert.match(doc, /\.$/)
      for (const synonym of synonyms) {
        assert.include(byName.get(synonym)!.synonyms, name)
        assert.strictEqual(byName.get(synonym)!.option, option)
      }
    }
  })

  it("gives the defaults that decoding has", () => {
    const defaultOf = (name: string) => ResilienceConfig.variables.find((_) => _.name === name)?.default
    assert.deepStrictEqual(
      ["DB_POOL_MAX", "DB_POOL_TIMEOUT", "DB_CB_TIMEOUT", "DB_TIMEOUTS", "DB_SSL"].map(defaultOf),
      ["10", "30 seconds", "30 seconds", "true", undefined]
    )
  })

  it("makes the README's table, a row for each variable", () => {
    const names =
      "DATABASE_URL DB_POOL_MIN DB_POOL_MAX DB_IDLE_TIMEOUT_MS DB_CONNECTION_TIMEOUT_MS DB_STATEMENT_TIMEOUT_MS " +
      "DB_MAX_RETRIES DB_RETRY_INITIAL_DELAY_MS DB_RETRY_MAX_DELAY_MS DB_CB_FAILURE_THRESHOLD DB_CB_TIMEOUT " +
      "DB_CIRCUIT_BREAKER DB_TIMEOUTS DB_SSL PLATFORM NODE_ENV EXPECTED_CONCURRENCY DATABASE_MAX_CONNECTIONS " +
      "DATABASE_CONNECTION_TIMEOUT DATABASE_STATEMENT_TIMEOUT DATABASE_IDLE_TIMEOUT DB_CONNECTION_LIMIT DB_POOL_TIMEOUT"
    const [header, rule, ...rows] = configTable().split("\n")
    const columns = (row: string | undefined) => row?.split(" | ").length
    assert.strictEqual(columns(header), columns(rule))
    assert.sameMembers(
      rows.map((row) => /^\| `(\w+)` \| `[\w.]+` \| \w+ \| /.exec(row)?.[1]),
      names.split(" ")
    )
    for (const row of rows) assert.strictEqual(columns(row), columns(header), row)
  })
})
