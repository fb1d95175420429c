/** The dashboard in a real Chromium, on the real API before a real PostgreSQL, while things break. */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { type Context, Effect, Exit, Layer, Schedule, Scope } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import type { Locator, Page } from "playwright-core"
import * as Alerts from "../../src/health/Alerts.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as HealthApi from "../../src/http/HealthApi.js"
import { contentSecurityPolicy } from "../../src/http/internal/dashboard.js"
import * as Operation from "../../src/policy/Operation.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as Port from "../../src/testing/internal/port.js"
import * as chromium from "../support/chromium.js"
import * as TestPg from "../support/TestPg.js"

const host = "127.0.0.1"

/** Forgets fast, so that all is well again soon after it is. */
const impatient = Alerts.rules.map((rule) => ({ ...rule, clearAfter: 500, cooldown: 500 }))

/** A database behind a proxy, watched; `monitor`: where not every half second. */
const world = (monitor: HealthMonitor.Options = {}) =>
  Effect.gen(function* () {
    const { config, url } = yield* TestPg.database
    const proxy = yield* FaultProxy.make({ upstream: { host: config.host, port: config.port } })
    const options: ResilientPg.Options = {
      url: proxy.url(url),
      poolName: "the-shop",
      maxConnections: 4,
      breaker: { resetTimeout: "1 second", maxResetTimeout: "1 second" }
    }
    const health = { interval: "500 millis", timeout: "2 seconds", window: "2 seconds", ...monitor } as const
    const watched = yield* Layer.build(
      Alerts.layer({ rules: impatient }).pipe(
        Layer.provideMerge(HealthMonitor.layer(health)),
        Layer.provideMerge(ResilientPg.layer(options))
      )
    )
    return { proxy, watched, port: yield* Port.choose(host) }
  })

/** The API on that port, until the scope closes. */
const serve = (watched: Context.Context<HealthApi.Needs>, port: number, scope: Scope.Scope) =>
  HealthApi.serve({ prefix: "/ops" }).pipe(
    Layer.provide(Layer.succeedContext(watched)),
    Layer.provide(NodeHttpServer.layer(createServer, { port, host })),
    Layer.buildWithScope(scope)
  )

const pathOf = (port: number) => `http://${host}:${port}/ops/resilience/dashboard`

/** Somebody who works, whatever happens, until the scope closes. */
const workload = (watched: Context.Context<SqlClient.SqlClient>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const read = Operation.named("read-stock", { timeout: "4 seconds" })(sql`SELECT 1`)
    const forever = Effect.repeat(Effect.ignore(read), Schedule.spaced("20 millis"))
    yield* Effect.forEach([1, 2, 3], () => Effect.forkScoped(Effect.interruptible(forever)), { discard: true })
  }).pipe(Effect.provide(watched))

const does = <A>(action: () => Promise<A>) => Effect.promise(action)

/** Waits until the element has this text. */
const shows = (page: Page, selector: string, text: string | RegExp) =>
  does(() => page.locator(selector).filter({ hasText: text }).waitFor())

const isSeen = (locator: Locator) => does(() => locator.waitFor())

/** Before the page's own script: keeps what it says aloud, and what its policy refuses. */
const eavesdrop = (page: Page) =>
  does(() =>
    page.addInitScript(`
      window.said = []; window.violations = []
      addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective))
      addEventListener("DOMContentLoaded", () => {
        const place = document.getElementById("announcement")
        new MutationObserver(() => said.push(place.textContent)).observe(place, { childList: true, characterData: true, subtree: true })
      })
    `)
  )

const said = (page: Page) => does(() => page.evaluate<ReadonlyArray<string>>("said"))
const violations = (page: Page) => does(() => page.evaluate<ReadonlyArray<string>>("violations"))

/** How each text stands out from its ground, by WCAG's formula: those below 4.5. */
const faint = (page: Page) =>
  does(() =>
    page.evaluate<ReadonlyArray<string>>(`(() => {
      const channels = (color) => color.match(/[\\d.]+/g).map(Number)
      const light = (color) => channels(color).slice(0, 3)
        .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0)
      const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const color = getComputedStyle(at).backgroundColor
          if ((channels(color)[3] ?? 1) === 1) return color
        }
      }
      return [...document.body.querySelectorAll("*")]
        .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
        .filter((element) => element.closest("noscript, script, style") === null)
        .flatMap((element) => {
          const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a)
          const ratio = (a + 0.05) / (b + 0.05)
          return ratio >= 4.5 ? [] : [element.textContent.trim().slice(0, 40) + " " + ratio.toFixed(2)]
        })
    })()`)
  )

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })(
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

    it.scoped.skipIf(chromium.path === undefined)(
      "notices a server that has gone silent, and one that gives no stream, and comes back from both",
      () =>
        Effect.gen(function* () {
          const { port, watched } = yield* world()
          yield* serve(watched, port, yield* Effect.scope)
          const line = yield* FaultProxy.make({ upstream: { host, port } })
          const { complaints, page } = yield* chromium.page()
          yield* does(() => page.goto(pathOf(line.port)))
          yield* shows(page, "#connection", "Live")

          yield* line.blackHole({ existing: true, new: true })
          yield* shows(page, "#lost", /Last data at/)
          yield* line.heal
          yield* line.reset
          yield* shows(page, "#connection", "Live")

          const refuse = does(() => page.route("**/events", (route) => route.fulfill({ status: 503, body: "{}" })))
          yield* refuse
          yield* line.reset
          yield* shows(page, "#connection", "Connection lost")
          yield* TestPg.eventually(
            Effect.sync(() => complaints.filter((text) => text.includes("503")).length),
            (count) => count >= 2
          )
          yield* does(() => page.unroute("**/events"))
          yield* shows(page, "#connection", "Live")
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

    for (const colorScheme of ["light", "dark"] as const)
      it.scoped.skipIf(chromium.path === undefined)(
        `can be read on a phone, by keyboard and by screen reader, where all is ${colorScheme}`,
        () =>
          Effect.gen(function* () {
            const { port, proxy, watched } = yield* world()
            yield* serve(watched, port, yield* Effect.scope)
            yield* workload(watched)
            const { page } = yield* chromium.page({
              colorScheme,
              reducedMotion: "reduce",
              viewport: { width: 360, height: 640 }
            })
            yield* does(() => page.goto(pathOf(port)))
            yield* shows(page, "#status", "Healthy")
            const sql = yield* Effect.provide(SqlClient.SqlClient, watched)
            yield* Operation.named("a-name-without-an-end-".repeat(5))(sql`SELECT pg_sleep(1.1)`)
            yield* shows(page, "#slow-rows", "a-name-without-an-end")
            yield* proxy.refuse
            yield* proxy.reset
            yield* shows(page, "#status", "Unhealthy")
            yield* shows(page, "#alerts-list", "The database does not answer health checks")

            assert.strictEqual(yield* does(() => page.evaluate("document.documentElement.scrollWidth")), 360)
            assert.deepStrictEqual(yield* faint(page), [])
            assert.strictEqual(yield* does(() => page.evaluate("document.getAnimations().length")), 0)

            for (const role of ["banner", "main", "contentinfo", "status"] as const) {
              assert.strictEqual(yield* does(() => page.getByRole(role).count()), 1, role)
            }
            yield* isSeen(page.getByRole("heading", { level: 1, name: "the-shop" }))
            const panels = [
              ...["Health", "Circuit breaker", "Alerts", "Throughput", "Latency", "Pool", "Queue and wait", "Errors"],
              ...["Retries and timeouts", "Errors by tag", "Slow operations", "Recent events"]
            ]
            for (const name of panels) {
              const region = page.getByRole("region", { name, exact: true })
              yield* isSeen(region.getByRole("heading", { level: 2, name, exact: false }))
            }
            for (const name of [
              /^Throughput, last five minutes\. Attempts: now [\d,.]+\/s, between/,
              /^Latency, last five minutes\. p50: now .*; p95: .*; p99: /,
              /^Pool, last five minutes\. In use: now/,
              /^Queue, last five minutes\. Waiting: now/,
              /^Wait for a connection, last five minutes\. Average: now/,
              /^Errors, last five minutes\. Failed attempts: now/,
              /^Retries and timeouts, last five minutes\. Retries: now .*; Timeouts: now/,
              /^The circuit breaker over the last five minutes: .*Open for/,
              /^Score since \d\d:\d\d:\d\d: now \d+, between/
            ])
              yield* isSeen(page.getByRole("img", { name }))
            for (const name of ["What cost how many points", "Failed attempts by tag"]) {
              yield* isSeen(page.getByRole("table", { name }))
            }

            const focused = () =>
              page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")
            const tab = does(() => page.keyboard.press("Tab"))
            yield* tab
            assert.strictEqual(yield* does(focused), "Skip to the figures")
            yield* isSeen(page.getByRole("link", { name: "Skip to the figures" }))
            yield* does(() => page.keyboard.press("Enter"))
            assert.strictEqual(yield* does(() => page.evaluate("document.activeElement.id")), "content")
            const stops: Array<string> = []
            while (stops.at(-1) !== "The charts as a table" && stops.length < 10) {
              yield* tab
              stops.push(
                yield* does(() =>
                  page.evaluate<string>(
                    "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
                  )
                )
              )
              const outline = yield* does(() => page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
              assert.strictEqual(outline, "solid", stops.at(-1))
            }
            assert.includeMembers(stops, ["Recent events, the latest first", "The charts as a table"])
            yield* does(() => page.keyboard.press("Enter"))
            const rows = page.getByRole("table", { name: /^The last five minutes/ }).getByRole("row")
            yield* isSeen(rows.nth(1))
            yield* isSeen(rows.nth(1).getByRole("rowheader"))
            assert.strictEqual(yield* does(() => page.evaluate("document.documentElement.scrollWidth")), 360)
          })
      )
  }
)
