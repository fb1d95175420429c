/** The health API on a server of its own, in front of a real PostgreSQL. */
import { createServer } from "node:http"
import { HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer, Redacted } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as Alerts from "../../src/health/Alerts.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as HealthApi from "../../src/http/HealthApi.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as TestPg from "../support/TestPg.js"

/** A server on a free port of this machine. */
export const server = NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })

/** Where the server of the environment is. */
export const origin = Effect.map(HttpServer.HttpServer, ({ address }) =>
  address._tag === "TcpAddress" ? `http://127.0.0.1:${address.port}` : ""
)

/** A client on a fresh database, watched. */
export const watched = (client: ResilientPg.Options, monitor: HealthMonitor.Options = {}) =>
  Alerts.layer().pipe(
    Layer.provideMerge(HealthMonitor.layer({ interval: "infinity", timeout: "10 seconds", ...monitor })),
    Layer.provideMerge(ResilientPg.layer(client))
  )

/** A fresh database behind a proxy, and the API before it. */
export const world = Effect.gen(function* () {
  const { config, url } = yield* TestPg.database
  const proxy = yield* FaultProxy.make({ upstream: { host: config.host, port: config.port } })
  const serving = (
    client: Partial<ResilientPg.Options> = {},
    monitor: HealthMonitor.Options = {},
    options: HealthApi.Options = {}
  ) =>
    HealthApi.serve(options).pipe(
      Layer.provideMerge(watched({ url: proxy.url(url), ...client }, monitor)),
      Layer.provideMerge(server)
    )
  return { proxy, url, password: Redacted.value(config.password), serving }
})

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** One request; interrupted, it hangs up. */
export const ask = (url: string, init: RequestInit = {}): Effect.Effect<Answer> =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { ...init, signal })
    return { status: response.status, headers: response.headers, text: await response.text() }
  })
