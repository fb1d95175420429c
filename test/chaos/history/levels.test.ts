/** What the checker sees on a real server that does no more than its isolation level promises. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import * as Seeds from "../seeds.js"
import * as Checker from "./checker.js"
import * as Faults from "./faults.js"
import type { Kind } from "./findings.js"
import * as Hows from "./hows.js"
import type { Isolation } from "./model.js"
import * as Trial from "./trial.js"

const world = Layer.provideMerge(FaultProxy.layerEmbedded, TestPg.layer)

/** Clients that meet on few lists and registers all the time, and nothing fails. */
const contended = (isolation: Isolation, enough: number) =>
  Effect.gen(function* () {
    const seed = yield* Seeds.seed
    const options = {
      seed,
      how: Hows.resilient("Transaction.run with retry", isolation, { retry: true }),
      kinds: ["append", "register"] as const,
      shape: { lists: 2, registers: 2, transactionsPerList: 10 },
      faults: Faults.none,
      until: (transactions: number) => transactions >= enough,
      limit: 60_000
    }
    const trial = yield* Trial.run(options)
    console.log(Trial.figures(options, trial))
    assert.deepStrictEqual(trial.violations, [], `replay with CHAOS_SEED=${seed}`)
    const { final, history } = trial
    const { violations } = Checker.check({ ...history, isolation: "serializable" }, final)
    console.log(`judged as serializable: ${violations.length} cycles`)
    return violations.map(({ kind }) => kind)
  })

/** Violations of serializability that a level may have. */
const cycles: ReadonlyArray<Kind> = ["G-single", "G2"]

layer(Layer.merge(world, Logger.minimumLogLevel(LogLevel.None)), { excludeTestServices: true, timeout: "60 seconds" })(
  "Transactions that meet on few rows",
  (it) => {
    it.effect("keep READ COMMITTED, under which some have no serial order", () =>
      Effect.gen(function* () {
        const kinds = yield* contended("read committed", 200)
        assert.isNotEmpty(kinds)
        assert.includeMembers(cycles.slice(), kinds)
      })
    )

    it.effect("keep REPEATABLE READ, under which nothing but G2 has no serial order", () =>
      Effect.gen(function* () {
        const kinds = yield* contended("repeatable read", 500)
        assert.isNotEmpty(kinds)
        assert.deepStrictEqual([...new Set(kinds)], ["G2"])
      })
    )

    it.effect("keep SERIALIZABLE, under which all have one", () =>
      Effect.map(contended("serializable", 300), (kinds) => assert.deepStrictEqual(kinds, []))
    )
  }
)
