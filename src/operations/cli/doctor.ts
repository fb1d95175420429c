/** `effect-pg-resilience doctor` */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Platform from "../../config/Platform.js"
import { json, load, optionalUrl, requiredUrl, whole } from "./shared.js"

const options = {
  url: optionalUrl,
  json,
  all: Options.boolean("all").pipe(Options.withDescription("Show what is in order, too")),
  failOn: Options.choice("fail-on", ["critical", "warning", "info", "never"]).pipe(
    Options.withDescription("Exit with 1 when a finding is as bad as this, or worse (default: critical)"),
    Options.withDefault("critical" as const)
  ),
  platform: Options.choice("platform", Platform.names).pipe(
    Options.withDescription("Where the server runs: what is recommended for the pool"),
    Options.optional
  ),
  maxConnections: whole("pool-max", 1).pipe(
    Options.withDescription("Connections that one instance's pool opens at most (default: 10, that of the library)"),
    Options.optional
  ),
  instances: whole("instances", 1).pipe(
    Options.withDescription("Instances of the program that share the server (default: 1)"),
    Options.withDefault(1)
  ),
  expectedConcurrency: whole("concurrency", 1).pipe(
    Options.withDescription("Operations of one instance that want a connection at once"),
    Options.optional
  )
}

export const doctor = Command.make("doctor", options, ({ url, ...given }) =>
  Effect.gen(function* () {
    const database = yield* requiredUrl(url)
    const { run } = yield* load(() => import("./internal/doctor.js"))
    return yield* run({
      ...given,
      url: database,
      platform: Option.getOrUndefined(given.platform),
      maxConnections: Option.getOrUndefined(given.maxConnections),
      expectedConcurrency: Option.getOrUndefined(given.expectedConcurrency)
    })
  })
).pipe(
  Command.withDescription(
    "Examine a server and the way to it: connections, settings, replication, transactions, indexes and more, each finding with what to do"
  )
)
