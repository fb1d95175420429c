import { assert, describe, it } from "@effect/vitest"
import { ConfigError, ConfigProvider, Effect, Either, Redacted } from "effect"
import type * as Alerts from "../../src/health/Alerts.js"
import * as Monitoring from "../../src/health/Monitoring.js"

type Variables = { readonly [name: string]: string }

const load = (variables: Variables) =>
  Effect.runSync(
    Effect.either(
      Effect.withConfigProvider(Monitoring.fromEnv, ConfigProvider.fromMap(new Map(Object.entries(variables))))
    )
  )

const options = (variables: Variables) => Either.getOrThrowWith(load(variables), String)

const problems = (variables: Variables) => {
  const error = Either.getOrThrow(Either.flip(load(variables)))
  assert.notInclude(String(error), "m4rk")
  assert.notInclude(JSON.stringify(error), "m4rk")
  const none = (): ReadonlyArray<readonly [string, string]> => assert.fail(String(error))
  return ConfigError.reduceWithContext(error, undefined, {
    andCase: (_, left, right) => [...left, ...right],
    orCase: none,
    invalidDataCase: (_, path, message) => [[path.join("."), message]],
    missingDataCase: none,
    sourceUnavailableCase: none,
    unsupportedCase: none
  } satisfies ConfigError.ConfigErrorReducer<undefined, ReadonlyArray<readonly [string, string]>>)
}

const hook = "https://hooks.slack.com/services/T0/B0/m4rk"

describe("Monitoring.fromEnv", () => {
  it("needs nothing", () => assert.deepStrictEqual(options({}), { health: {} }))

  it.each<[string, string, Monitoring.Options]>([
    ["DB_MONITORING", "off", { enabled: false, health: {} }],
    ["DB_MONITORING", "true", { health: {} }],
    ["DB_HEALTH_CHECK_INTERVAL", "5000", { health: { interval: 5000 } }],
    ["DB_HEALTH_CHECK_INTERVAL", "15 seconds", { health: { interval: 15_000 } }],
    ["DB_HEALTH_CHECK_INTERVAL", "infinity", { health: { interval: Number.POSITIVE_INFINITY } }],
    ["NODE_ENV", "test", { health: { environment: "development" } }],
    ["NODE_ENV", "staging", { health: {} }],
    ["DB_ALERT_WEBHOOK_FORMAT", "json", { health: {} }]
  ])("takes %s=%s", (name, value, expected) => assert.deepStrictEqual(options({ [name]: value }), expected))

  it.each<[string, string, Alerts.Thresholds]>([
    ["DB_ALERT_SCORE_THRESHOLD", "80", { score: 80 }],
    ["DB_ALERT_ERROR_RATE_THRESHOLD", "2.5", { errorRate: 0.025 }],
    ["DB_ALERT_UTILIZATION_THRESHOLD", "90", { utilization: 0.9 }],
    ["DB_ALERT_WAIT_THRESHOLD", "250", { waitMs: 250 }],
    ["DB_ALERT_QUERY_THRESHOLD", "2000", { averageQueryMs: 2000 }],
    ["DB_ALERT_PING_THRESHOLD", "100", { pingMs: 100 }],
    ["DB_ALERT_OPEN_THRESHOLD", "30000", { breakerOpenMs: 30_000 }],
    ["DB_ALERT_EXHAUSTION_THRESHOLD", "60000", { poolExhaustedInMs: 60_000 }],
    ["DB_ALERT_LEAK_THRESHOLD", "3", { leaks: 3 }]
  ])("takes %s=%s as a threshold in the measure's unit", (name, value, thresholds) =>
    assert.deepStrictEqual(options({ [name]: value }), { health: {}, thresholds })
  )

  it.each<[Variables, "slack" | "json"]>([
    [{ DB_ALERT_WEBHOOK_URL: hook }, "slack"],
    [{ DB_ALERT_WEBHOOK_URL: "https://hooks.slack.com.example/T0" }, "json"],
    [{ DB_ALERT_WEBHOOK_URL: "http://alerts.internal/db", DB_ALERT_WEBHOOK_FORMAT: "Slack" }, "slack"],
    [{ DB_ALERT_WEBHOOK_URL: hook, DB_ALERT_WEBHOOK_FORMAT: "json" }, "json"]
  ])("posts %o as %s", (variables, format) => {
    const { webhook } = options(variables)
    assert.strictEqual(webhook?.format, format)
    assert.isTrue(Redacted.isRedacted(webhook?.url))
    assert.strictEqual(Redacted.value(webhook!.url as Redacted.Redacted), variables["DB_ALERT_WEBHOOK_URL"])
  })

  it("names every variable that is malformed in one error, and shows no secret", () => {
    const wrong: Variables = {
      DB_MONITORING: "maybe",
      DB_HEALTH_CHECK_INTERVAL: "0",
      DB_ALERT_WEBHOOK_URL: "ftp://hooks/m4rk",
      DB_ALERT_WEBHOOK_FORMAT: "teams",
      DB_ALERT_SCORE_THRESHOLD: "101",
      DB_ALERT_ERROR_RATE_THRESHOLD: "5 %",
      DB_ALERT_UTILIZATION_THRESHOLD: "101",
      DB_ALERT_WAIT_THRESHOLD: "-1",
      DB_ALERT_QUERY_THRESHOLD: "",
      DB_ALERT_PING_THRESHOLD: "1 second",
      DB_ALERT_OPEN_THRESHOLD: "0",
      DB_ALERT_EXHAUSTION_THRESHOLD: "NaN",
      DB_ALERT_LEAK_THRESHOLD: "1.5",
      NODE_ENV: "prod"
    }
    const found = problems(wrong)
    assert.sameMembers(
      found.map(([name]) => name),
      Object.keys(wrong)
    )
    for (const [name, message] of found) assert.match(message, new RegExp(`^${name} is .*expected|^${name} is empty`))
    assert.sameMembers(
      Object.keys(wrong).filter((name) => name !== "NODE_ENV"),
      Monitoring.variables.map(({ name }) => name)
    )
  })

  it("tells the defaults that hold", () => {
    const defaults = new Map(Monitoring.variables.map((_) => [_.name, _.default]))
    assert.deepStrictEqual(
      ["DB_MONITORING", "DB_HEALTH_CHECK_INTERVAL", "DB_ALERT_ERROR_RATE_THRESHOLD", "DB_ALERT_PING_THRESHOLD"].map(
        (name) => defaults.get(name)
      ),
      ["true", "30 seconds", "5", "500"]
    )
  })
})
