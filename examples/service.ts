/**
 * A small real service: users, products and orders over HTTP, on `ResilientPg.layer`.
 *
 *   npm run service
 *
 * It brings a PostgreSQL of its own; `DATABASE_URL` is used instead where it is set, in a schema of its own. `PORT` is 3000
 * unless set. With `OTEL_EXPORTER_OTLP_ENDPOINT` traces and metrics go to a collector. SIGTERM or Ctrl-C stops it: it answers
 * what it has been asked, and leaves nothing behind.
 */
import { HttpLayerRouter, HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Config, ConfigError, Effect, Layer, Option, Predicate } from "effect"
import { HealthApi, Monitoring, Telemetry } from "effect-pg-resilience"
import * as Database from "./service/database.js"
import * as Handlers from "./service/handlers.js"
import * as Lifecycle from "./service/lifecycle.js"
import * as Shop from "./service/shop.js"
import * as Signals from "./service/signals.js"

const Routes = Layer.mergeAll(Handlers.layer, HealthApi.layerConfig(HealthApi.fromEnv)).pipe(
  Layer.provide([
    HttpLayerRouter.middleware(HealthApi.respond503, { global: true }),
    HttpLayerRouter.middleware(Lifecycle.gate, { global: true })
  ])
)

const Server = HttpLayerRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
  Layer.provideMerge(Lifecycle.layer),
  Layer.provideMerge(Monitoring.layerEnv),
  Layer.provideMerge(Database.layer)
)

const Observed = Layer.unwrapEffect(
  Effect.map(Config.option(Config.string("OTEL_EXPORTER_OTLP_ENDPOINT")), (endpoint) =>
    Option.isSome(endpoint) ? Telemetry.layerOtlpEnv : Layer.empty
  )
)

/** What happened and, for what everybody meets some day, what to do about it. */
const inOneLine = (error: { readonly message: string; readonly cause?: unknown }): string => {
  if (ConfigError.isConfigError(error)) return String(error)
  if (Predicate.isRecord(error.cause) && error.cause["code"] === "EADDRINUSE")
    return `Port ${error.cause["port"]} is taken. Stop what listens there, or choose another: PORT=3001 npm run service`
  // An error of the HTTP server says nothing itself.
  return error.message === "" && error.cause instanceof Error ? error.cause.message : error.message
}

const announce = Effect.gen(function* () {
  const url = yield* HttpServer.addressFormattedWith(Effect.succeed)
  console.log(
    [
      `The shop is at ${url}`,
      `  API        ${url}/users, ${url}/products, ${url}/orders`,
      `  dashboard  ${url}/resilience/dashboard`,
      `  health     ${url}/health, ${url}/health/ready, ${url}/health/metrics`,
      `  database   ${yield* Database.described}`
    ].join("\n")
  )
})

const main = Effect.gen(function* () {
  const lifecycle = yield* Lifecycle.Lifecycle
  yield* Effect.addFinalizer(() => lifecycle.drain)
  yield* announce
  yield* Shop.createTables
  yield* lifecycle.open
  yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.provide(Layer.provideMerge(Server, Observed)),
  Effect.catchAll((error) =>
    Effect.sync(() => {
      console.error(inOneLine(error))
      process.exitCode = 1
    })
  )
)

Signals.endAtSecond()
NodeRuntime.runMain(main)
