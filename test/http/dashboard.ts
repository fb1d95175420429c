/** The dashboard of a real API before a real PostgreSQL, and how to look at it in a real Chromium. */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { type Context, Effect, Layer, Schedule, type Scope } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import type { Locator, Page } from "playwright-core"
import * as Alerts from "../../src/health/Alerts.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as HealthApi from "../../src/http/HealthApi.js"
import * as Operation from "../../src/policy/Operation.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as Port from "../../src/testing/internal/port.js"
import * as TestPg from "../support/TestPg.js"

export const host = "127.0.0.1"

/** Forgets fast, so that all is well again soon after it is. */
const impatient = Alerts.rules.map((rule) => ({ ...rule, clearAfter: 500, cooldown: 500 }))

/** A database behind a proxy, watched; `monitor`: where not every half second. */
export const world = (monitor: HealthMonitor.Options = {}) =>
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
export const serve = (watched: Context.Context<HealthApi.Needs>, port: number, scope: Scope.Scope) =>
  HealthApi.serve({ prefix: "/ops" }).pipe(
    Layer.provide(Layer.succeedContext(watched)),
    Layer.provide(NodeHttpServer.layer(createServer, { port, host })),
    Layer.buildWithScope(scope)
  )

export const pathOf = (port: number) => `http://${host}:${port}/ops/resilience/dashboard`

/** Somebody who works, whatever happens, until the scope closes. */
export const workload = (watched: Context.Context<SqlClient.SqlClient>) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const read = Operation.named("read-stock", { timeout: "4 seconds" })(sql`SELECT 1`)
    const forever = Effect.repeat(Effect.ignore(read), Schedule.spaced("20 millis"))
    yield* Effect.forEach([1, 2, 3], () => Effect.forkScoped(Effect.interruptible(forever)), { discard: true })
  }).pipe(Effect.provide(watched))

export const does = <A>(action: () => Promise<A>) => Effect.promise(action)

/** Waits until the element has this text. */
export const shows = (page: Page, selector: string, text: string | RegExp) =>
  does(() => page.locator(selector).filter({ hasText: text }).waitFor())

export const isSeen = (locator: Locator) => does(() => locator.waitFor())

/** Before the page's own script: keeps what it says aloud, and what its policy refuses. */
export const eavesdrop = (page: Page) =>
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

export const said = (page: Page) => does(() => page.evaluate<ReadonlyArray<string>>("said"))
export const violations = (page: Page) => does(() => page.evaluate<ReadonlyArray<string>>("violations"))
