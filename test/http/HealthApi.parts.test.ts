import { HttpApp, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Either, Fiber, Logger } from "effect"
import * as PoolSizing from "../../src/config/PoolSizing.js"
import * as ResilienceConfig from "../../src/config/ResilienceConfig.js"
import type * as Alerts from "../../src/health/Alerts.js"
import * as accept from "../../src/http/internal/accept.js"
import * as joined from "../../src/http/internal/joined.js"
import * as poolConfig from "../../src/http/internal/poolConfig.js"
import * as reports from "../../src/http/internal/report.js"
import * as shell from "../../src/http/internal/shell.js"
import { world } from "../health/support.js"

describe("the choice by Accept", () => {
  it.each([
    [undefined, "text/plain"],
    ["", "text/plain"],
    ["*/*", "text/plain"],
    ["application/json", "application/json"],
    ["Application/JSON; charset=utf-8", "application/json"],
    ["application/*", "application/json"],
    ["text/html, text/*;q=0.5, */*;q=0.1", "text/plain"],
    ["text/plain;q=0.3, application/json;q=0.4", "application/json"],
    ["text/plain;q=0, */*", "application/json"],
    ["text/plain;q=0.5, text/*;q=1, application/json;q=0.6", "application/json"],
    ["text/html", undefined],
    ["text/plain;q=0, application/json;q=0.000", undefined],
    ["*/*;q=0", undefined],
    ["application/json;q=2", undefined],
    ["nonsense", undefined],
    ["*/json, a/b/c", undefined]
  ])("of %j is %s", (header, chosen) => {
    assert.strictEqual(accept.choose(header, ["text/plain", "application/json"]), chosen)
  })
})

describe("the pool's options", () => {
  const decoded = (options: ResilienceConfig.Options) =>
    Either.getOrThrow(ResilienceConfig.decode({ host: "db", database: "shop", username: "app", ...options }, {}))

  it("are told as they are, without a word of how to connect", () => {
    const config = decoded({ maxConnections: 7, acquireTimeout: "infinity", url: undefined, poolName: "shop" })
    const told = poolConfig.compare(config, {}, undefined)
    assert.deepInclude(told.current, {
      minConnections: 0,
      maxConnections: 7,
      acquireTimeout: Infinity,
      idleTimeout: 10_000
    })
    assert.deepInclude(told, { name: "shop", platform: "local", environment: "production", server: undefined })
    assert.notInclude(JSON.stringify(told), "username")
  })

  it("are compared with what suits the platform, each difference with its reason", () => {
    const input = { platform: "fly", expectedConcurrency: 8 } as const
    const { differences, recommended } = poolConfig.compare(decoded({ maxConnections: 20 }), input, undefined)
    const { max, min, reasons } = PoolSizing.recommend(input)
    assert.deepInclude(recommended, { minConnections: min, maxConnections: max, reasons })
    const of = (option: string) => differences.find((_) => _.option === option)
    assert.deepInclude(of("maxConnections"), { current: 20, recommended: 8, why: reasons.join(" ") })
    assert.deepInclude(of("connectionTTL"), { current: 1_800_000, recommended: 600_000 })
    assert.isTrue(differences.every(({ current, recommended, why }) => current !== recommended && why !== ""))
  })

  it("do not differ where they are what is recommended", () => {
    const input = { platform: "railway" } as const
    const preset = ResilienceConfig.decode(
      {
        ...{ host: "db", database: "shop", username: "app" },
        ...{ minConnections: 2, maxConnections: 18, idleTimeout: "30 seconds", acquireTimeout: "10 seconds" }
      },
      {}
    )
    assert.deepStrictEqual(poolConfig.compare(Either.getOrThrow(preset), input, undefined).differences, [])
  })

  it("heed what the server says of its limits", () => {
    const small = poolConfig.compare(decoded({}), { platform: "railway" }, { maxConnections: 12, reserved: 3 })
    assert.deepInclude(small.recommended, { maxConnections: 9, limitedBy: "server" })
    assert.deepStrictEqual(small.server, { maxConnections: 12, reserved: 3 })
  })
})

describe("the report for people", () => {
  const empty = { at: 0, name: "db:5432/shop", history: [], events: [], alerts: [] }

  it("says so where no check has ended yet", () => {
    const text = reports.text(reports.summarize(empty))
    assert.include(text, "PostgreSQL of db:5432/shop, 1970-01-01T00:00:00.000Z")
    assert.include(text, "No health check has ended yet.")
  })

  it.scoped("names status, causes, errors, slow operations, alerts and events, each on one line", () =>
    Effect.gen(function* () {
      const { metrics, monitor: make } = yield* world
      const monitor = yield* make({ interval: "infinity", probe: { ping: Effect.void } })
      yield* monitor.check
      metrics.operation("place\norder\u001b[31m", 3, undefined)
      metrics.operation("SELECT", 0.1, "ConnectionError")
      yield* monitor.check
      const history = yield* monitor.history
      const alert: Alerts.Alert = {
        ...{
          id: "error-rate-1",
          rule: "error-rate",
          severity: "critical",
          title: "Queries fail",
          value: 0.5,
          threshold: 0.05
        },
        raisedAt: 1_000
      }
      const event = { _tag: "ProbeRecovered", at: 2_000, downMs: 61_000 } as const
      const summary = reports.summarize({ ...empty, history, events: [event], alerts: [alert] })
      const text = reports.text(summary)
      assert.deepStrictEqual(summary.checks.count, 2)
      for (const words of [
        `score ${history[1]!.score} of 100`,
        ...history[1]!.deductions.map(({ points, why }) => `${points}  ${why}`),
        "1  ConnectionError",
        "1  place order [31m, average 3000 ms",
        "critical: Queries fail (50 %, threshold 5 %), since 1970-01-01T00:00:01.000Z",
        "1970-01-01T00:00:02.000Z  health check succeeds again, after 1m 1s",
        "2 checks since"
      ])
        assert.include(text, words)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: nothing in a name may steer a terminal
      assert.notMatch(text, /[\u0000-\u0009\u000b-\u001f]/)
    })
  )
})

describe("whatever an app does", () => {
  const paths = new Map([["/health", ["GET", "HEAD"]]])
  const answer = (app: HttpApp.Default<unknown>) =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ cause }) => lines.push(Cause.pretty(cause)))
      const runtime = yield* Effect.provide(Effect.runtime<never>(), Logger.replace(Logger.defaultLogger, logger))
      const handler = HttpApp.toWebHandlerRuntime(runtime)(shell.wrap(paths)(app))
      const response = yield* Effect.promise(() => handler(new Request("http://api/health")))
      const text = yield* Effect.promise(() => response.text())
      return { status: response.status, headers: response.headers, text, lines }
    })

  const secret = new Error("password is hunter2")
  const failing: ReadonlyArray<readonly [string, HttpApp.Default<unknown>]> = [
    ["a defect", Effect.die(secret)],
    ["a failure that nobody expected", Effect.fail(secret)]
  ]
  it.effect.each(failing)("%s is told in the log alone", ([, app]) =>
    Effect.gen(function* () {
      const { headers, lines, status, text } = yield* answer(app)
      assert.strictEqual(status, 500)
      assert.strictEqual(headers.get("x-content-type-options"), "nosniff")
      assert.notInclude(text, "hunter2")
      assert.deepStrictEqual(Object.keys(JSON.parse(text)), ["error", "message", "status"])
      assert.strictEqual(lines.filter((line) => line.includes("hunter2")).length, 1)
    })
  )

  it.effect("an answer keeps the headers that it has, and gets those it lacks", () =>
    Effect.gen(function* () {
      const { headers } = yield* answer(
        HttpServerResponse.text("page", { headers: { "content-security-policy": "default-src 'self'" } })
      )
      assert.strictEqual(headers.get("content-security-policy"), "default-src 'self'")
      assert.strictEqual(headers.get("cache-control"), "no-store")
    })
  )
})

describe("one run for all", () => {
  it.scoped("a joined question may be answered at once", () =>
    Effect.gen(function* () {
      const ask = yield* joined.make(Effect.fail("no"))
      assert.strictEqual(yield* Effect.flip(ask), "no")
      assert.strictEqual(yield* Effect.flip(ask), "no")
    })
  )

  it.scoped("is not ended by one who leaves, and begins anew for those who come after it", () =>
    Effect.gen(function* () {
      let runs = 0
      const release = yield* Deferred.make<void>()
      const ask = yield* joined.make(
        Effect.suspend(() => {
          runs += 1
          return Effect.as(Deferred.await(release), runs)
        })
      )
      const [first, second] = [yield* Effect.fork(ask), yield* Effect.fork(ask)]
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(release, undefined)
      assert.strictEqual(yield* Fiber.join(second), 1)
      assert.strictEqual(yield* ask, 2)
    })
  )
})
