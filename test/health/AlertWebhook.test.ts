import { FetchHttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Logger, Queue, Redacted, Schedule, Stream } from "effect"
import * as Alerts from "../../src/health/Alerts.js"
import * as AlertWebhook from "../../src/health/AlertWebhook.js"
import { receiver } from "./receiver.js"

const alert: Alerts.Alert = {
  id: "error-rate-1000",
  rule: "error-rate",
  severity: "critical",
  title: "Queries <fail> & hang",
  value: 0.1234567,
  threshold: 0.05,
  raisedAt: 1000
}
const raised: Alerts.Notice = { _tag: "Raised", at: 1000, alert }
const resolved: Alerts.Notice = { _tag: "Resolved", at: 66_000, alert }

/** The sink, fed by hand; log lines are kept. */
const feed = (options: AlertWebhook.Options) =>
  Effect.gen(function* () {
    const notices = yield* Queue.unbounded<Alerts.Notice>()
    const logged: Array<string> = []
    const logs = yield* Queue.unbounded<string>()
    const logger = Logger.replace(
      Logger.defaultLogger,
      Logger.map(Logger.stringLogger, (line) => {
        logged.push(line)
        logs.unsafeOffer(line)
      })
    )
    const alerts = Layer.succeed(Alerts.Alerts, {
      standing: Effect.succeed([]),
      notices: Stream.fromQueue(notices)
    })
    yield* Layer.build(
      AlertWebhook.layer(options).pipe(Layer.provide([alerts, FetchHttpClient.layer]), Layer.provideMerge(logger))
    )
    return { notices, logged, logs }
  })

const soon = Schedule.intersect(Schedule.spaced("5 millis"), Schedule.recurs(4))

describe("Webhook", { timeout: 60_000 }, () => {
  it.scopedLive("posts notices as JSON, in order, with the headers given", () =>
    Effect.gen(function* () {
      const { received, url } = yield* receiver(() => 200)
      const { notices } = yield* feed({
        url: Redacted.make(url),
        headers: { authorization: Redacted.make("Bearer key") }
      })
      yield* Queue.offerAll(notices, [raised, resolved])
      assert.deepStrictEqual(yield* Queue.take(received), {
        path: "/T0/secret-hook",
        authorization: "Bearer key",
        body: {
          event: "raised",
          at: "1970-01-01T00:00:01.000Z",
          id: "error-rate-1000",
          rule: "error-rate",
          severity: "critical",
          message: "[critical] Queries <fail> & hang (12.3 %, threshold 5 %)",
          value: 0.1234567,
          threshold: 0.05,
          raisedAt: "1970-01-01T00:00:01.000Z"
        }
      })
      assert.deepInclude((yield* Queue.take(received)).body, {
        event: "resolved",
        message: "[resolved] Queries <fail> & hang (after 1m 5s)"
      })
    })
  )

  it.scopedLive("posts to Slack what Slack takes, with its control characters escaped", () =>
    Effect.gen(function* () {
      const { received, url } = yield* receiver(() => 200)
      const { notices } = yield* feed({ url, format: "slack" })
      yield* Queue.offer(notices, raised)
      const { body } = yield* Queue.take(received)
      assert.strictEqual(body.text, "[critical] Queries &lt;fail&gt; &amp; hang (12.3 %, threshold 5 %)")
      assert.deepInclude(body.attachments[0], { color: "#a30200", ts: 1 })
    })
  )

  it.scopedLive("tries again what failed in passing, until it is delivered", () =>
    Effect.gen(function* () {
      const { received, requests, url } = yield* receiver((request) => [503, 429, undefined, 204][request - 1])
      const { logged, notices } = yield* feed({ url, retry: soon, timeout: "500 millis" })
      yield* Queue.offer(notices, raised)
      const bodies = yield* Queue.takeN(received, 4)
      assert.strictEqual(new Set(Array.from(bodies, ({ body }) => body.id)).size, 1)
      assert.strictEqual(requests(), 4)
      assert.deepStrictEqual(logged, [])
    })
  )

  it.scopedLive("gives up what is refused, at once, goes on to the next, and says so without the URL", () =>
    Effect.gen(function* () {
      const { logs, notices, received, requests } = yield* Effect.gen(function* () {
        const { received, requests, url } = yield* receiver((request) => (request === 1 ? 404 : 200))
        return { received, requests, ...(yield* feed({ url, retry: soon })) }
      })
      yield* Queue.offerAll(notices, [raised, resolved])
      assert.strictEqual((yield* Queue.take(received)).body.event, "raised")
      assert.strictEqual((yield* Queue.take(received)).body.event, "resolved")
      assert.strictEqual(requests(), 2)
      const line = yield* Queue.take(logs)
      assert.include(line, "An alert was not delivered")
      assert.include(line, "error-rate-1000")
      assert.notInclude(line, "secret-hook")
    })
  )

  it.scopedLive("holds up nobody when it is dead, and keeps no more than its queue", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const { url } = yield* receiver(() => {
        Deferred.unsafeDone(asked, Effect.void)
        return undefined
      })
      const { logs, notices } = yield* feed({ url, timeout: "1 hour" })
      yield* Queue.offer(notices, raised)
      yield* Deferred.await(asked)
      yield* Queue.offerAll(
        notices,
        Array.from({ length: Alerts.queueSize + 5 }, () => raised)
      )
      // All are taken from the stream although the first request hangs; the oldest five had to go.
      for (let n = 0; n < 5; n++) assert.include(yield* Queue.take(logs), "Alerts dropped")
      assert.isAtMost(yield* Queue.size(notices), 0)
    })
  )

  it.scopedLive("refuses a URL that is none, without repeating it", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(feed({ url: "hooks.example/secret-hook" }))
      assert.strictEqual(error._tag, "InvalidOptionsError")
      assert.include(error.message, "webhook.url")
      assert.notInclude(error.message, "secret-hook")
    })
  )
})
