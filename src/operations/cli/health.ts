/** `effect-pg-resilience health` and `effect-pg-resilience report` */
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import { json, load, optionalUrl, requiredUrl, service, UsageError } from "./shared.js"

const options = { url: optionalUrl, service, json }

/** A service where one is given, else the database. Both at once is a mistake. */
export const subject = (given: {
  readonly url: Option.Option<Redacted.Redacted>
  readonly service: Option.Option<string>
}) =>
  Effect.gen(function* () {
    if (Option.isNone(given.service)) return { _tag: "Database" as const, url: yield* requiredUrl(given.url) }
    if (Option.isSome(given.url))
      return yield* new UsageError({ message: "--url and --service say different things: give one of them" })
    return { _tag: "Service" as const, url: given.service.value.replace(/\/+$/, "") }
  })

export const health = Command.make("health", options, ({ json, ...given }) =>
  Effect.gen(function* () {
    const of = yield* subject(given)
    const { run } = yield* load(() => import("./internal/health.js"))
    return yield* run(of, json)
  })
).pipe(
  Command.withDescription(
    "Check a database once, or ask a running program (--service): exits with 1 unless it is healthy"
  )
)

export const report = Command.make("report", options, ({ json, ...given }) =>
  Effect.gen(function* () {
    const of = yield* subject(given)
    const { run } = yield* load(() => import("./internal/report.js"))
    return yield* run(of, json)
  })
).pipe(
  Command.withDescription(
    "Tell all that is known: of a database, with the doctor's findings in short, or of a running program (--service)"
  )
)
