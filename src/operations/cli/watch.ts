/** `effect-pg-resilience watch` */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { subject } from "./health.js"
import { amount, load, optionalUrl, service, whole } from "./shared.js"

const options = {
  url: optionalUrl,
  service,
  interval: amount("interval", 0.1, 3_600).pipe(
    Options.withDescription("Seconds between two looks (default: 1)"),
    Options.withDefault(1)
  ),
  count: whole("count", 1).pipe(Options.withDescription("End after so many looks"), Options.optional)
}

export const watch = Command.make("watch", options, ({ count, interval, ...given }) =>
  Effect.gen(function* () {
    const of = yield* subject(given)
    const { run } = yield* load(() => import("./internal/watch.js"))
    return yield* run({ subject: of, seconds: interval, count: Option.getOrUndefined(count) })
  })
).pipe(
  Command.withDescription(
    "Show a database, or a running program (--service), live on the terminal; q quits. Without a terminal: a line a look"
  )
)
