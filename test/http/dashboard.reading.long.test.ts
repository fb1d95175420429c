/** The dashboard for those with a small screen, without a mouse, or who do not see it. */
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { Page } from "playwright-core"
import * as Operation from "../../src/policy/Operation.js"
import * as chromium from "../support/chromium.js"
import * as TestPg from "../support/TestPg.js"
import { does, isSeen, pathOf, serve, shows, workload, world } from "./dashboard.js"

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

layer(Layer.merge(TestPg.layer, chromium.layer), { excludeTestServices: true, timeout: "60 seconds" })(
  `reading the dashboard in Chromium${chromium.word}`,
  (it) => {
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
