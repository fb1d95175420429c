/** What is answered at each path that may be read. */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as PoolSizing from "../../config/PoolSizing.js"
import type * as ResilienceConfig from "../../config/ResilienceConfig.js"
import type * as HealthMonitor from "../../health/HealthMonitor.js"
import * as Prometheus from "../../telemetry/Prometheus.js"
import * as accept from "./accept.js"
import * as answers from "./answers.js"
import * as connectionTest from "./connectionTest.js"
import * as dashboard from "./dashboard.js"
import type * as endpoints from "./endpoints.js"
import type * as events from "./events.js"
import * as joined from "./joined.js"
import * as poolConfig from "./poolConfig.js"
import * as reports from "./report.js"

export interface Needs extends events.Sources {
  readonly config: ResilienceConfig.Decoded
  readonly sizing: PoolSizing.Input
  readonly events: events.Events
}

/** How long one who asks waits for a check that is under way. */
const patience = "5 seconds"
/** A report that is older says nothing of this moment: it is asked anew. Longer than between two checks in production. */
const staleAfter = 60_000

/**
 * The latest report; while there is none, or an old one only (of a monitor that checks when it is asked to), that of a check
 * made now, for which nobody waits for long.
 */
const current = ({ monitor }: Needs): Effect.Effect<HealthMonitor.Report | undefined> =>
  Effect.gen(function* () {
    const latest = yield* monitor.latest
    const now = yield* Clock.currentTimeMillis
    if (latest !== undefined && now - latest.at < Math.max(staleAfter, 2 * (monitor.intervalMs ?? 0))) return latest
    return Option.getOrUndefined(yield* Effect.timeoutOption(monitor.check, patience))
  })

export const health = (api: typeof endpoints.readable, needs: Needs) =>
  HttpApiBuilder.group(api, "health", (handlers) =>
    handlers
      .handle("health", () =>
        Effect.gen(function* () {
          const report = yield* current(needs)
          if (report === undefined) {
            const at = yield* Clock.currentTimeMillis
            const reasons = ["no health check has ended yet"]
            return yield* new answers.Unhealthy({ status: "unhealthy", score: 0, at, reasons })
          }
          const { at, deductions, probe, score, status } = report
          const judgement = { status, score, at, reasons: deductions.map(({ why }) => why) }
          if (status === "unhealthy" || !probe.ok) return yield* new answers.Unhealthy(judgement)
          return judgement
        })
      )
      .handle("live", () => Effect.succeed({ status: "live" } as const))
      .handle("ready", () =>
        Effect.gen(function* () {
          const report = yield* current(needs)
          const at = report?.at ?? (yield* Clock.currentTimeMillis)
          const probe = report?.probe
          if (probe?.ok) return { status: "ready", at } as const
          return yield* new answers.NotReady({ at, reason: probe?.tag ?? "NoAnswer" })
        })
      )
      .handle("metrics", () =>
        Effect.gen(function* () {
          const { failures } = yield* needs.breaker.snapshot
          const { inFlight } = yield* needs.budget.snapshot
          return yield* Prometheus.text({
            live: (pool) => (pool === needs.poolName ? { breakerFailures: failures, operationsActive: inFlight } : {})
          })
        })
      )
  )

const page = HttpServerResponse.text(dashboard.html, {
  contentType: "text/html; charset=utf-8",
  headers: { "content-security-policy": dashboard.contentSecurityPolicy }
})

/**
 * With a slash at its end the page would look for the stream of events in the wrong place. Relative, for the prefix is not
 * told to whoever is mounted.
 */
const moved = HttpServerResponse.empty({ status: 308, headers: { location: "../dashboard" } })
const endsInSlash = /\/(\?|$)/

/** Ends the connection of a request where that can be had. */
const abort = ({ source }: HttpServerRequest.HttpServerRequest) => {
  const socket = Predicate.hasProperty(source, "socket") ? source.socket : undefined
  if (Predicate.hasProperty(socket, "destroy") && Predicate.isFunction(socket.destroy)) socket.destroy()
}

const eventStream = "text/event-stream; charset=utf-8"

const streamOf = (needs: Needs, request: HttpServerRequest.HttpServerRequest) =>
  request.method === "HEAD"
    ? Effect.succeed(HttpServerResponse.empty({ status: 200, headers: { "content-type": eventStream } }))
    : Effect.match(
        needs.events.subscribe(() => abort(request)),
        {
          onFailure: () =>
            HttpServerResponse.unsafeJson(new answers.TooManySubscribers({ retryAfter: 5 }), {
              status: 503,
              headers: { "retry-after": "5" }
            }),
          onSuccess: (stream) =>
            HttpServerResponse.stream(stream, {
              contentType: eventStream,
              // For proxies that collect answers before they pass them on; and where it ends, so does its connection, on
              // which a server that closes would wait otherwise.
              headers: { "x-accel-buffering": "no", connection: "close" }
            })
        }
      )

export const resilience = (api: typeof endpoints.readable, needs: Needs, pages: { readonly openapi: () => unknown }) =>
  HttpApiBuilder.group(api, "resilience", (handlers) =>
    Effect.gen(function* () {
      const { alerts, breaker, budget, config, monitor, pg, poolName, sizing } = needs
      const test = yield* joined.make(connectionTest.test(monitor))

      const summary = Effect.gen(function* () {
        yield* current(needs)
        return reports.summarize({
          at: yield* Clock.currentTimeMillis,
          name: poolName,
          history: yield* monitor.history,
          events: yield* monitor.events,
          alerts: yield* alerts.standing
        })
      })

      return handlers
        .handle("metrics", () =>
          Effect.gen(function* () {
            const latest = yield* monitor.latest
            return {
              at: yield* Clock.currentTimeMillis,
              name: poolName,
              pool: yield* pg.pool,
              breaker: yield* breaker.snapshot,
              budget: yield* budget.snapshot,
              subscribers: (yield* needs.events.snapshot).subscribers,
              window: latest?.window,
              windowEndedAt: latest?.at
            }
          })
        )
        .handle("health", () => Effect.all({ report: current(needs), alerts: alerts.standing }))
        .handleRaw("report", ({ request }) => {
          const wanted = accept.choose(request.headers["accept"], ["text/plain", "application/json"])
          if (wanted === undefined)
            return Effect.fail(new answers.NotAcceptable({ message: "text/plain and application/json can be had" }))
          return wanted === "application/json"
            ? summary
            : Effect.map(summary, (found) =>
                HttpServerResponse.text(reports.text(found), { contentType: "text/plain; charset=utf-8" })
              )
        })
        .handle("poolConfig", () =>
          Effect.map(Effect.option(test), (found) => poolConfig.compare(config, sizing, Option.getOrUndefined(found)))
        )
        .handle("connectionTest", () => test)
        .handleRaw("events", ({ request }) => streamOf(needs, request))
        .handleRaw("dashboard", ({ request }) => Effect.succeed(endsInSlash.test(request.url) ? moved : page))
        .handle("openapi", () => Effect.sync(pages.openapi))
    })
  )

export const layer = (api: typeof endpoints.readable, needs: Needs, pages: { readonly openapi: () => unknown }) =>
  Layer.merge(health(api, needs), resilience(api, needs, pages))
