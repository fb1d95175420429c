/** Transactions that are settled: none is lost, none is doubled, and nobody is told that it is not known. */
import type { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel } from "effect"
import type { Transaction } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import * as Seeds from "../seeds.js"
import * as Faults from "./faults.js"
import * as Hows from "./hows.js"
import * as Trial from "./trial.js"

const world = Layer.provideMerge(FaultProxy.layerEmbedded, TestPg.layer)

/** Far beyond what they take on any machine. */
const limit = 90_000

type Options = Trial.Options<SqlClient.SqlClient | Transaction.Transactor>

const settled = (options: Pick<Options, "how" | "until">, weights: Faults.Weights) =>
  Effect.gen(function* () {
    const seed = yield* Seeds.seed
    const all = { ...options, seed, faults: Faults.seeded(seed, weights), limit }
    const trial = yield* Trial.run(all)
    console.log(Trial.figures(all, trial))
    const unknown = trial.history.transactions.filter(({ told }) => told === "unknown").map(({ error }) => error)
    assert.deepStrictEqual(
      { violations: trial.violations, unknown },
      { violations: [], unknown: [] },
      `replay with CHAOS_SEED=${seed}`
    )
    assert.isAbove(trial.report.told.ok, 0)
  })

const cuts =
  (enough: number) =>
  (_: number, { commitCuts }: Faults.Tally) =>
    commitCuts >= enough

layer(Layer.merge(world, Logger.minimumLogLevel(LogLevel.None)), { excludeTestServices: true, timeout: "60 seconds" })(
  "Transactions that are run exactly once",
  (it) => {
    it.effect("are all settled by the ledger when connections are cut at COMMIT", () =>
      settled({ how: Hows.exactlyOnce("ledger", "serializable"), until: cuts(120) }, Faults.commitCuts)
    )

    it.effect("are all settled by the transaction id, too, while the server lives", () =>
      settled({ how: Hows.exactlyOnce("xid", "read committed"), until: cuts(50) }, Faults.commitCuts)
    )

    it.effect("are all settled by the ledger through crashes, restarts and silence", () =>
      settled(
        {
          how: Hows.exactlyOnce("ledger", "serializable"),
          until: (_, { faults }) => ["Crash", "Kill", "Stop"].every((fault) => faults.has(fault as "Crash"))
        },
        { ...Faults.everything, Crash: 6, Kill: 6, Stop: 6 }
      )
    )
  }
)
