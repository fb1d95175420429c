import { inspect } from "node:util"
import type { SqlError } from "@effect/sql"
import type { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Either, Layer, Redacted, Schedule } from "effect"
import { type PgError, ResilientPg } from "effect-pg-resilience"
import * as ResilienceConfig from "../../src/config/ResilienceConfig.js"

const url = Redacted.make("postgres://ann:secret@db.example:6432/shop")

const decoded = (options: ResilienceConfig.Options) => Either.getOrThrow(ResilienceConfig.decode(options, {}))

const refused = (options: object) => Either.getOrThrow(Either.flip(ResilienceConfig.decode(options, {})))

describe("ResilienceConfig.decode", () => {
  it("fills in every default, with times in milliseconds", () => {
    const { target, ...options } = decoded({ url })
    assert.deepInclude(options, {
      minConnections: 0,
      maxConnections: 10,
      maxWaiting: 10_000,
      acquireTimeout: 30_000,
      idleTimeout: 10_000,
      connectionTTL: 1_800_000,
      maxUses: Number.POSITIVE_INFINITY,
      closeGrace: 5_000,
      checkAfterIdle: 500,
      connectTimeout: 10_000,
      keepAlive: true,
      leakThreshold: 60_000,
      poolName: "db.example:6432/shop",
      parameters: {},
      serverTimeouts: {},
      requireOnStart: false,
      exposeServerDetail: false,
      slowQueryThreshold: 1_000,
      autoRetryReads: true,
      preparedStatements: { size: 256, after: 2 },
      lanes: true,
      timeouts: { query: 5_000, complex: 30_000, batchBase: 5_000, batchPerRow: 10, transaction: 30_000 },
      retry: ResilienceConfig.defaults.retry,
      retryBudget: ResilienceConfig.defaults.retryBudget,
      breaker: ResilienceConfig.defaults.breaker
    })
    assert.strictEqual(target.username, "ann")
  })

  it("takes whatever PgClient takes", () => {
    const bare: PgClient.PgClientConfig = {
      url,
      ssl: { rejectUnauthorized: false },
      idleTimeout: "1 minute",
      connectTimeout: Duration.seconds(2),
      connectionTTL: 60_000,
      minConnections: 1,
      maxConnections: 4,
      applicationName: "shop",
      spanAttributes: { team: "a" },
      transformQueryNames: (name) => name.toUpperCase(),
      transformJson: false,
      host: undefined
    }
    const options = decoded(bare)
    assert.deepInclude(options, {
      idleTimeout: 60_000,
      connectTimeout: 2_000,
      connectionTTL: 60_000,
      maxConnections: 4
    })
    assert.deepStrictEqual(options.spanAttributes, { team: "a" })
    assert.strictEqual(options.transformQueryNames?.("a"), "A")
    assert.strictEqual(options.target.driver.application_name, "shop")
  })

  it.each<[string, ResilienceConfig.Options, Partial<ResilienceConfig.Decoded>]>([
    ["explicit undefined as missing", { maxConnections: undefined, timeouts: undefined }, { maxConnections: 10 }],
    ["infinity for every limit", { acquireTimeout: "infinity" }, { acquireTimeout: Number.POSITIVE_INFINITY }],
    ["an infinite Duration", { closeGrace: Duration.infinity }, { closeGrace: Number.POSITIVE_INFINITY }],
    ["0 as no idle limit, as pg does", { idleTimeout: 0 }, { idleTimeout: Number.POSITIVE_INFINITY }],
    ["0 as no age limit, as pg does", { connectionTTL: "0 seconds" }, { connectionTTL: Number.POSITIVE_INFINITY }],
    ["0 as a check before every use", { checkAfterIdle: 0 }, { checkAfterIdle: 0 }],
    ["nobody waiting", { maxWaiting: 0 }, { maxWaiting: 0 }],
    ["a minimum equal to the maximum", { minConnections: 10 }, { minConnections: 10 }],
    ["server limits in milliseconds", { serverTimeouts: { lock: "2 seconds" } }, { serverTimeouts: { lock: 2_000 } }],
    ["no server limit", { serverTimeouts: { statement: "infinity" } }, { serverTimeouts: { statement: 0 } }],
    [
      "retry, budget, breaker and timeouts off",
      { retry: false, retryBudget: false, breaker: false, timeouts: false },
      {
        retry: false,
        retryBudget: false,
        breaker: false,
        timeouts: false
      }
    ],
    [
      "server settings",
      { parameters: { "app.tenant": "7", search_path: "a,b" } },
      {
        parameters: { "app.tenant": "7", search_path: "a,b" }
      }
    ],
    ["a name for the pool", { poolName: "main" }, { poolName: "main" }]
  ])("accepts %s", (_, options, expected) => {
    assert.deepInclude(decoded({ url, ...options }), expected)
  })

  it("takes a limit of one kind and leaves the others as they are", () => {
    assert.deepStrictEqual(decoded({ url, timeouts: { complex: "infinity", batchPerRow: 0 } }).timeouts, {
      query: 5_000,
      complex: Number.POSITIVE_INFINITY,
      batchBase: 5_000,
      batchPerRow: 0,
      transaction: 30_000
    })
  })

  it("keeps a retry policy as it is", () => {
    const retry = { UniqueViolation: Schedule.recurs(1), LockTimeoutError: undefined, maxRetries: 6 }
    assert.strictEqual(decoded({ url, retry }).retry, retry)
  })

  it.each<[string, object]>([
    ["minConnections", { minConnections: -1 }],
    ["minConnections", { minConnections: 11 }],
    ["minConnections", { minConnections: 5, maxConnections: 4 }],
    ["maxConnections", { maxConnections: 0 }],
    ["maxConnections", { maxConnections: Number.NaN }],
    ["maxConnections", { maxConnections: Number.POSITIVE_INFINITY }],
    ["maxConnections", { maxConnections: 2.5 }],
    ["maxConnections", { maxConnections: "10" }],
    ["maxConnections", { maxConnections: 262_144 }],
    ["maxWaiting", { maxWaiting: -1 }],
    ["acquireTimeout", { acquireTimeout: 0 }],
    ["acquireTimeout", { acquireTimeout: Number.NaN }],
    ["acquireTimeout", { acquireTimeout: "soon" }],
    ["idleTimeout", { idleTimeout: -1 }],
    ["connectionTTL", { connectionTTL: "-5 minutes" }],
    ["maxUses", { maxUses: 0 }],
    ["closeGrace", { closeGrace: -1 }],
    ["checkAfterIdle", { checkAfterIdle: Number.NaN }],
    ["connectTimeout", { connectTimeout: "10 sec" }],
    ["keepAlive", { keepAlive: "yes" }],
    ["leakThreshold", { leakThreshold: -1 }],
    ["ledger.schema", { ledger: { schema: "" } }],
    ["ledger.table", { ledger: { table: "x".repeat(58) } }],
    ["ledger.retention", { ledger: { retention: "49 minutes" } }],
    ["poolName", { poolName: "" }],
    ["host", { host: "" }],
    ["port", { port: 0 }],
    ["port", { port: 65_536 }],
    ["url", { url: "postgres://a/b" }],
    ["url", { url: Redacted.make("mysql://a/b") }],
    ["password", { password: "hunter2" }],
    ["ssl", { ssl: "require" }],
    ["stream", { stream: {} }],
    ["onConnect", { onConnect: "SET x = 1" }],
    ["parameters", { parameters: "a=b" }],
    ["parameters.work_mem", { parameters: { work_mem: 4 } }],
    ["parameters.a;b", { parameters: { "a;b": "c" } }],
    ["parameters.statement_timeout", { parameters: { statement_timeout: "5s" } }],
    ["parameters.USER", { parameters: { USER: "postgres" } }],
    ["serverTimeouts.statement", { serverTimeouts: { statement: "1500 micros" } }],
    ["serverTimeouts.lock", { serverTimeouts: { lock: 2 ** 31 } }],
    ["serverTimeouts.idle", { serverTimeouts: { idle: 5 } }],
    ["requireOnStart", { requireOnStart: 1 }],
    ["retry", { retry: true }],
    ["retry.maxRetries", { retry: { maxRetries: -1 } }],
    ["retry.DeadlockError", { retry: { DeadlockError: "exponential" } }],
    ["retryBudget", { retryBudget: 3 }],
    ["retryBudget.ratio", { retryBudget: { ratio: 1.1 } }],
    ["retryBudget.min", { retryBudget: { min: -1 } }],
    ["breaker", { breaker: true }],
    ["breaker.probes", { breaker: { probes: 0 } }],
    ["breaker.maxResetTimeout", { breaker: { resetTimeout: "2 minutes", maxResetTimeout: "1 minute" } }],
    ["breaker.onChange", { breaker: { onChange: "log" } }],
    ["timeouts", { timeouts: true }],
    ["timeouts.query", { timeouts: { query: 0 } }],
    ["timeouts.querry", { timeouts: { querry: 5 } }],
    ["autoRetryReads", { autoRetryReads: null }],
    ["lanes", { lanes: 2 }],
    ["preparedStatements", { preparedStatements: true }],
    ["preparedStatements.size", { preparedStatements: { size: 0 } }],
    ["preparedStatements.size", { preparedStatements: { size: 10_001 } }],
    ["preparedStatements.after", { preparedStatements: { after: 0.5 } }],
    ["preparedStatements.sise", { preparedStatements: { sise: 5 } }],
    ["exposeServerDetail", { exposeServerDetail: "no" }],
    ["slowQueryThreshold", { slowQueryThreshold: -5 }],
    ["transformJson", { transformJson: 1 }],
    ["types", { types: {} }]
  ])("refuses a wrong %s: %o", (field, options) => {
    const error = refused(options)
    assert.deepStrictEqual(
      error.faults.map((_) => _.field),
      [field]
    )
    assert.include(error.message, `${field} is `)
    assert.deepInclude(error, { _tag: "InvalidOptionsError", outcome: "NotApplied", transient: false, attempts: 0 })
  })

  it("names all that is wrong at once, the connection's address included", () => {
    const error = Either.getOrThrow(
      Either.flip(
        ResilienceConfig.decode(
          { minConnections: 20, acquireTimeout: -1, timeouts: { query: Number.NaN }, breaker: "off" as never },
          { PGPORT: "five" }
        )
      )
    )
    assert.sameMembers(
      error.faults.map((_) => _.field),
      ["minConnections", "acquireTimeout", "timeouts.query", "breaker", "PGPORT"]
    )
    for (const { expected, field } of error.faults) assert.include(error.message, `${field} is`, expected)
  })

  it.effect("fails the layer with one error that names the pool's, the breaker's and the budget's faults", () =>
    Effect.gen(function* () {
      const options = { url, maxConnections: -1, breaker: { failureThreshold: -1 }, retryBudget: { ratio: -2 } }
      const error = yield* Effect.flip(Effect.scoped(Layer.build(ResilientPg.layer(options))))
      assert.strictEqual(error._tag, "SqlError")
      const invalid = (error as SqlError.SqlError).cause as PgError.InvalidOptionsError
      assert.strictEqual(invalid._tag, "InvalidOptionsError")
      assert.sameMembers(
        invalid.faults.map(({ field }) => field),
        ["maxConnections", "breaker.failureThreshold", "retryBudget.ratio"]
      )
      for (const fault of ["maxConnections is -1", "breaker.failureThreshold is -1", "retryBudget.ratio is -2"]) {
        assert.include(invalid.message, fault)
      }
    })
  )

  it("keeps the breaker's and the budget's options as they were given", () => {
    const breaker = { resetTimeout: "10 minutes", failureRate: 0.5, onChange: () => {} } as const
    const retryBudget = { min: "infinity" } as const
    const options = decoded({ url, breaker, retryBudget })
    assert.strictEqual(options.breaker, breaker)
    assert.strictEqual(options.retryBudget, retryBudget)
  })

  it("shows no secret, neither in the error nor in what was decoded", () => {
    const marked = "s3cr3t-m4rk"
    const faulty = {
      url: Redacted.make(`mysql://u:${marked}@h/d`),
      password: marked,
      host: { [marked]: marked },
      parameters: { "bad name": marked, user: marked },
      ssl: [marked]
    }
    const error = refused(faulty)
    assert.lengthOf(error.faults, 6)
    const sound = decoded({ url: Redacted.make(`postgres://u:${marked}@h/d`), password: Redacted.make(marked) })
    for (const value of [error, error.faults, sound]) {
      assert.notInclude(inspect(value, { depth: 20 }), marked)
      assert.notInclude(JSON.stringify(value), marked)
    }
    assert.notInclude(String(error), marked)
  })

  it.effect("keeps a password that is asked for as an effect, although the URL has one", () =>
    Effect.gen(function* () {
      let asked = 0
      const password = Effect.sync(() => Redacted.make(`token-${++asked}`))
      const { target } = decoded({ url, password })
      assert.isTrue(Effect.isEffect(target.password))
      assert.strictEqual(asked, 0)
      const given = yield* target.password as typeof password
      assert.strictEqual(Redacted.value(given), "token-1")
    })
  )

  it("lets the URL's server limits win over the options'", () => {
    const limited = Redacted.make("postgres://h/d?statement_timeout=1500")
    assert.deepInclude(decoded({ url: limited, serverTimeouts: { statement: "9 seconds", lock: 5 } }).serverTimeouts, {
      statement: 1_500,
      lock: 5
    })
  })
})
