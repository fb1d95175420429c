import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, Queue, Stream } from "effect"
import * as Alerts from "../../src/health/Alerts.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as Monitoring from "../../src/health/Monitoring.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as TestPg from "../support/TestPg.js"
import { receiver } from "./receiver.js"

/** Alerts of every database there is. */
const always = (rules: number): ReadonlyArray<Alerts.Rule> =>
  Array.from({ length: rules }, (_, n) => ({
    ...Alerts.rules.find(({ measure }) => measure === "score")!,
    name: `always-${n}`,
    raise: 1000,
    clear: 1000
  }))

const quiet = Logger.replace(Logger.defaultLogger, Logger.none)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Monitoring", (it) => {
  it.scoped("checks, raises alerts, and tells them to the log and to the webhook", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { received, url: hook } = yield* receiver(() => 200)
      const lines: Array<string> = []
      const log = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => lines.push(String(message)))
      )
      yield* Effect.gen(function* () {
        const { body } = yield* Queue.take(received)
        assert.match(body.text, /^\[warning\] The health score is low \(\d+, threshold 1000\)$/)
        yield* TestPg.eventually(
          Effect.sync(() => lines),
          (lines) => lines.some((line) => line.includes("The health score is low"))
        )
        const health = yield* HealthMonitor.HealthMonitor
        assert.strictEqual(health.intervalMs, 30_000)
        assert.deepInclude((yield* health.latest)!, { status: "healthy" })
      }).pipe(
        Effect.provide(
          Layer.provide(
            Monitoring.layer({ rules: always(1), webhook: { url: hook, format: "slack" } }),
            ResilientPg.layer({ url })
          )
        ),
        Effect.provide(log)
      )
    })
  )

  it.scoped("switched off, checks when it is asked to, opens no connection before that, and raises nothing", () =>
    Effect.gen(function* () {
      const { name, url } = yield* TestPg.database
      const { requests, url: hook } = yield* receiver(() => 200)
      const sessions = TestPg.control("SELECT pid FROM pg_stat_activity WHERE datname = $1", [name])
      yield* Effect.gen(function* () {
        const health = yield* HealthMonitor.HealthMonitor
        const alerts = yield* Alerts.Alerts
        const sql = yield* SqlClient.SqlClient
        yield* sql`SELECT 1`
        assert.lengthOf(yield* sessions, 1)
        assert.isUndefined(health.intervalMs)
        assert.isUndefined(yield* health.latest)

        for (let n = 0; n < 3; n++) assert.isTrue((yield* health.check).probe.ok)
        assert.lengthOf(yield* sessions, 2)
        assert.deepStrictEqual(yield* alerts.standing, [])
        assert.strictEqual(requests(), 0)
      }).pipe(
        Effect.provide(
          Layer.provideMerge(
            Monitoring.layer({
              enabled: false,
              health: { interval: 100 },
              rules: always(1),
              webhook: { url: hook }
            }),
            ResilientPg.layer({ url })
          )
        )
      )
    })
  )

  it.scoped("goes on checking and querying while its webhook hangs with alerts still to be told", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      const { received, requests, url: hook } = yield* receiver(() => undefined)
      yield* Effect.gen(function* () {
        const health = yield* HealthMonitor.HealthMonitor
        const alerts = yield* Alerts.Alerts
        const sql = yield* SqlClient.SqlClient
        yield* Queue.take(received)
        // Nobody answers it from here on.
        yield* Stream.runDrain(Stream.take(health.reports, 10))
        yield* Effect.forEach(Array.from({ length: 200 }), () => sql`SELECT 1`, { concurrency: 20 })
        assert.lengthOf(yield* alerts.standing, 120)
        assert.strictEqual(requests(), 1)
      }).pipe(
        Effect.provide(
          Layer.provideMerge(
            Monitoring.layer({
              health: { interval: 100 },
              rules: always(120),
              webhook: { url: hook, timeout: "10 minutes" }
            }),
            ResilientPg.layer({ url })
          )
        ),
        Effect.provide(quiet)
      )
      // The layer has closed, which waits for no webhook either.
      assert.strictEqual(requests(), 1)
    })
  )
})
