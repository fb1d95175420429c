/** The dashboard after hours: what it is told is made up here, and as much as no server tells in so short a time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type * as State from "../../src/http/dashboard/state.js"
import { contentSecurityPolicy, html } from "../../src/http/internal/dashboard.js"
import * as chromium from "../support/chromium.js"
import * as TestPg from "../support/TestPg.js"
import * as messages from "./dashboardMessages.js"

/** Of one connection. */
const seconds = 900

/** A quarter of an hour in which something happens every second. */
const quarter = (n: number): ReadonlyArray<State.Message> => {
  const from = messages.start + n * seconds * 1_000
  const told = Array.from({ length: seconds }, (_, second): ReadonlyArray<State.Message> => {
    const at = from + second * 1_000
    const breaker = messages.breaker(second % 2 === 0 ? "Open" : "Closed", at)
    const raised = messages.alert(second)
    return [
      { _tag: "Tick", tick: messages.tick(at, { errors: { [`Tag${second % 7}`]: second }, breaker }) },
      { _tag: "Report", report: messages.report(at, { score: second % 100 }) },
      { _tag: "Event", event: messages.change(at, "Closed", "Open") },
      { _tag: "Notice", notice: { _tag: "Raised", at, alert: raised } },
      { _tag: "Notice", notice: { _tag: "Resolved", at: at + 1, alert: raised } }
    ]
  })
  return [messages.hello({ at: from, tick: messages.tick(from) }), ...told.flat()]
}

describe(`the dashboard after hours in Chromium${chromium.word}`, () => {
  it.scopedLive.skipIf(chromium.path === undefined)("holds no more than after minutes", () =>
    Effect.gen(function* () {
      const { page } = yield* chromium.page()
      let told = 0
      yield* Effect.promise(() =>
        page.route("**/*", (route) => {
          if (!route.request().url().endsWith("/events")) {
            const headers = { "content-security-policy": contentSecurityPolicy }
            return route.fulfill({ contentType: "text/html", headers, body: html })
          }
          // The stream ends with its quarter of an hour; the page comes back for the next.
          const frames = quarter(told++).map(
            (message) => `event: ${message._tag}\ndata: ${JSON.stringify(message)}\n\n`
          )
          return route.fulfill({ contentType: "text/event-stream", body: frames.join("") })
        })
      )
      yield* Effect.promise(() => page.goto("http://dashboard.test/resilience/dashboard"))
      const asked = Effect.promise(() =>
        page.evaluate<ReadonlyArray<number>>(`
        ["*", "#events-list li", "#breaker-stretches rect", "#errors-rows tr", "#alerts-list li"]
          .map((what) => document.querySelectorAll(what).length)
      `)
      )
      const counted = (quarters: number) =>
        Effect.zipRight(
          TestPg.eventually(
            Effect.sync(() => told),
            (count) => count > quarters
          ),
          asked
        )
      const [early = 0] = yield* counted(1)
      const [late = 0, events = 0, stretches = 0, tags = 0, alerts = 0] = yield* counted(5)
      assert.isAtMost(Math.abs(late - early), 50)
      assert.isAtMost(events, 100)
      assert.isAtMost(stretches, 102)
      assert.strictEqual(tags, 7)
      assert.isAtMost(alerts, 1)
    }).pipe(Effect.provide(chromium.layer))
  )
})
