/** `effect-pg-resilience pool recommend` */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Record from "effect/Record"
import * as Platform from "../../config/Platform.js"
import { amount, json, knownUrl, load, optionalUrl, whole } from "./shared.js"

const options = {
  platform: Options.choice("platform", Platform.names).pipe(
    Options.withDescription("Where the server runs (default: local, PostgreSQL as it comes)"),
    Options.optional
  ),
  plan: Options.text("plan").pipe(Options.withDescription("The platform's plan, by its own name"), Options.optional),
  environment: Options.choice("environment", ["production", "staging", "development"]).pipe(
    Options.withDescription("Others than production take a part of the server only (default: production)"),
    Options.optional
  ),
  instances: whole("instances", 1).pipe(
    Options.withDescription("Instances of the program that share the server (default: 1)"),
    Options.optional
  ),
  expectedConcurrency: whole("concurrency", 1).pipe(
    Options.withDescription("Operations of one instance that want a connection at once"),
    Options.optional
  ),
  maxConnections: whole("max-connections", 1).pipe(
    Options.withDescription("The server's max_connections (default: what the server says, or else the platform)"),
    Options.optional
  ),
  reserved: whole("reserved", 0).pipe(Options.withDescription("Connections to leave to others"), Options.optional),
  cores: whole("cores", 1).pipe(Options.withDescription("Cores of the database server"), Options.optional),
  memoryGiB: amount("memory", 0.1).pipe(
    Options.withDescription("Memory of the database server in GiB, where that decides its limit"),
    Options.optional
  ),
  targetThroughput: amount("throughput", 0.001).pipe(
    Options.withDescription("Operations per second of one instance; needs --query-ms"),
    Options.optional
  ),
  averageQueryMillis: amount("query-ms", 0.001).pipe(
    Options.withDescription("Milliseconds for which one operation holds a connection; needs --throughput"),
    Options.optional
  )
}

const recommend = Command.make("recommend", { url: optionalUrl, json, ...options }, ({ json, url, ...given }) =>
  Effect.gen(function* () {
    const { run } = yield* load(() => import("./internal/recommend.js"))
    const input = Record.getSomes<keyof typeof given, string | number>(given)
    // Nothing else is made of these values than the ones the options have been decoded to.
    return yield* run({ ...(input as object), json, url: yield* knownUrl(url) })
  })
).pipe(
  Command.withDescription(
    "Say how large a pool should be, and why; with a URL the server is asked for its max_connections"
  )
)

export const pool = Command.make("pool").pipe(
  Command.withDescription("The size of connection pools"),
  Command.withSubcommands([recommend])
)
