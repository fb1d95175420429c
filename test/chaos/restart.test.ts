/** A server that restarts, crashes, stalls or is cut off, under the work of fifty fibers. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Outage from "./outage.js"
import * as Seeds from "./seeds.js"

const world = Layer.provideMerge(FaultProxy.layerEmbedded, EmbeddedPostgres.layer())

layer(Layer.merge(world, Logger.minimumLogLevel(LogLevel.None)), { excludeTestServices: true, timeout: "60 seconds" })(
  "Fifty fibers and a failing server",
  (it) => {
    it.effect(
      "work again once it is back; what was acknowledged is stored once, and nothing is left behind",
      () =>
        Effect.gen(function* () {
          const seed = yield* Seeds.seed
          const { audit, book, healed, violations } = yield* Outage.run({ seed, seconds: 1 })
          for (const fault of healed) console.log(Outage.figures(fault))
          console.log(
            `${book.operations} operations, the longest ${book.longest.toFixed(0)} ms; ${audit.acknowledged} writes acknowledged`,
            `${audit.unknown.applied + audit.unknown.notApplied} unknown; errors: ${[...book.errors].join(" ")}`
          )
          assert.deepStrictEqual(violations, [], `replay with CHAOS_SEED=${seed}`)
          assert.isAbove(audit.acknowledged, 0)
        }),
      120_000
    )
  }
)
