/** The dashboard in a real Chromium, on the real API before a real PostgreSQL, while things break. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { contentSecurityPolicy } from "../../src/http/internal/dashboard.js"
import * as Operation from "../../src/policy/Operation.js"
import * as chromium from "../support/chromium.js"
import * as TestPg from "../support/TestPg.js"
import { does, eavesdrop, isSeen, pathOf, said, serve, shows, violations, workload, world } from "./dashboard.js"

layer(Layer.merge(TestPg.layer, chromium.layer), { excludeTestServices: true, timeout: "60 seconds" })(
  `the dashboard in Chromium${chromium.word}`,
  (it) => {
    it.scoped.skipIf(chromium.path === undefined)(
      "shows a fault and its end, says when its server is gone, and comes back by itself",
      () =>
        Effect.gen(function* () {
          const { port, proxy, watched } = yield* world()
          const first = yield* Scope.make()
          yield* serve(watched, port, first)
          yield* workload(watched)
          const { complaints, page, requests } = yield* chromium.page()
          yield* eavesdrop(page)
          const response = yield* does(() => page.goto(pathOf(port)))
          assert.strictEqual(response?.headers()["content-security-policy"], contentSecurityPolicy)

          yield* shows(page, "h1", "the-shop")
          yield* shows(page, "#connection", "Live")
          yield* shows(page, "#status", "Healthy")
          yield* shows(page, "#breaker-state", "Closed")
          yield* shows(page, "#alerts-list", "No alert stands.")
          yield* shows(page, "#throughput dd", /^[\d,.]*[1-9][\d,.]*\/s$/)
          assert.match(yield* does(() => page.title()), /^Healthy \d+ · the-shop$/)

          yield* proxy.refuse
          yield* proxy.reset
          yield* shows(page, "#breaker-state", "Open")
          yield* shows(page, "#status", "Unhealthy")
          yield* shows(page, "#deductions", "a health check that failed")
          yield* shows(page, "#errors-rows", "ConnectionError")
          yield* shows(page, "#alerts-list", "The database does not answer health checks")
          yield* shows(page, "#events-list", "Health check failed")
          yield* shows(page, "#events-list", /Closed → Open/)
          assert.match(yield* does(() => page.title()), /^Unhealthy \d+ · the-shop$/)

          yield* proxy.heal
          yield* shows(page, "#breaker-state", "Closed")
          yield* shows(page, "#status", "Healthy")
          yield* shows(page, "#deductions", "Nothing costs points.")
          yield* shows(page, "#alerts-list", "No alert stands.")
          yield* shows(page, "#events-list", /Answered again after/)
          const parts = [
            "Connected.",
            "Unhealthy",
            "Circuit breaker open",
            "Alert, critical",
            "Alert over",
            "Healthy, score"
          ]
          yield* TestPg.eventually(
            Effect.map(said(page), (all) => all.join(" ")),
            (all) => parts.every((part) => all.includes(part)),
            { message: `not all of ${parts} was said aloud` }
          )
          assert.deepStrictEqual(complaints, [])

          yield* does(() => page.evaluate("window.kept = true"))
          yield* Scope.close(first, Exit.void)
          yield* shows(page, "#lost", /Connection lost since \d\d:\d\d:\d\d\. Last data at \d\d:\d\d:\d\d/)
          yield* shows(page, "#connection", "Connection lost")
          assert.match(yield* does(() => page.title()), /^Connection lost · the-shop$/)

          yield* serve(watched, port, yield* Effect.scope)
          yield* shows(page, "#connection", "Live")
          assert.isTrue(yield* does(() => page.locator("#lost").isHidden()))
          assert.isTrue(yield* does(() => page.evaluate("window.kept")))
          const events = yield* does(() => page.locator("#events-list li").allInnerTexts())
          assert.strictEqual(events.filter((text) => text.includes("Answered again after")).length, 1)
          yield* TestPg.eventually(
            Effect.map(said(page), (all) => all.join(" ")),
            (all) => /Connection lost\. Trying again\. .*Connected\./.test(all)
          )

          // While the server was away its address could not be asked: that, and nothing else, Chromium complains of.
          assert.deepStrictEqual(
            complaints.filter((text) => !/^Failed to load resource: net::ERR_/.test(text)),
            []
          )
          assert.deepStrictEqual(yield* violations(page), [])
          assert.deepStrictEqual([...new Set(requests)].sort(), [pathOf(port), new URL("events", pathOf(port)).href])
        })
    )

    it.scoped.skipIf(chromium.path === undefined)("shows what it was told as text, whatever it looks like", () =>
      Effect.gen(function* () {
        const { port, watched } = yield* world()
        yield* serve(watched, port, yield* Effect.scope)
        const name = "<img src=x onerror=alert(1)>"
        const { complaints, page } = yield* chromium.page()
        yield* eavesdrop(page)
        yield* does(() => page.goto(pathOf(port)))
        yield* shows(page, "#connection", "Live")
        const sql = yield* Effect.provide(SqlClient.SqlClient, watched)
        yield* Operation.named(name)(sql`SELECT pg_sleep(1.1)`)
        yield* shows(page, "#slow-rows", name)
        assert.strictEqual(yield* does(() => page.locator("img").count()), 0)
        assert.deepStrictEqual([complaints, yield* violations(page)], [[], []])

        // The policy stands where the page's own care would fail.
        yield* does(() =>
          page.evaluate(`(() => {
            const script = document.createElement("script")
            script.textContent = "window.ran = true"
            document.body.append(script)
            return fetch("http://elsewhere.invalid/").catch(() => {})
          })()`)
        )
        assert.isUndefined(yield* does(() => page.evaluate("window.ran")))
        assert.deepStrictEqual([...(yield* violations(page))].sort(), ["connect-src", "script-src-elem"])
      })
    )

    it.scoped.skipIf(chromium.path === undefined)("says that monitoring is off, and goes on with what is live", () =>
      Effect.gen(function* () {
        const { port, watched } = yield* world({ interval: "infinity" })
        yield* serve(watched, port, yield* Effect.scope)
        yield* workload(watched)
        const { complaints, page } = yield* chromium.page()
        yield* does(() => page.goto(pathOf(port)))
        yield* shows(page, "#monitoring-off", "Monitoring is off")
        yield* isSeen(page.locator("#monitoring-off"))
        yield* shows(page, "#status", "Not checked")
        yield* shows(page, "#alerts-list", "Without health checks there are no alerts.")
        yield* shows(page, "#throughput dd", /^[\d,.]*[1-9][\d,.]*\/s$/)
        assert.deepStrictEqual(complaints, [])
      })
    )
  }
)
