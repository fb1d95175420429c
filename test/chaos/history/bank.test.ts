/** Transactions that lose their connection at COMMIT: what was told, against what is stored. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import * as Seeds from "../seeds.js"
import * as Faults from "./faults.js"
import * as Hows from "./hows.js"
import * as Trial from "./trial.js"

const world = Layer.provideMerge(FaultProxy.layerEmbedded, TestPg.layer)

/** Faults without end are no reason here to leave the server alone. */
const untiring = { breaker: { failureThreshold: "infinity" } } as const

/** Each side of the moment in which a COMMIT takes effect. */
const atCommit: ReadonlyArray<Faults.Fault> = [
  Faults.Fault.CommitCut({ when: "before", ending: "reset", times: 5 }),
  Faults.Fault.CommitCut({ when: "after", ending: "close", times: 5 }),
  Faults.Fault.CommitReplyLost({ ending: "reset", times: 5 })
]

/** One of each kind. */
const oneOfEach: ReadonlyArray<Faults.Fault> = [
  Faults.Fault.CommitCut({ when: "before", ending: "close", times: 3 }),
  Faults.Fault.CommitCut({ when: "after", ending: "reset", times: 3 }),
  Faults.Fault.CommitReplyLost({ ending: "close", times: 3 }),
  Faults.Fault.CommitUnanswered(),
  Faults.Fault.Latency({ delay: 5, jitter: 5, millis: 100 }),
  Faults.Fault.Terminate({ victim: 1 }),
  Faults.Fault.BlackHole({ millis: 100 }),
  Faults.Fault.Pause({ millis: 100 }),
  Faults.Fault.Kill({ victim: 1 }),
  Faults.Fault.Stop({ mode: "fast", down: 50 }),
  Faults.Fault.Stop({ mode: "immediate", down: 50 }),
  Faults.Fault.Crash({ down: 50 })
]

/** Far beyond what they take on any machine. */
const limit = 60_000

const judged = <R>(options: Trial.Options<R>, trial: Trial.Trial) =>
  Effect.sync(() => {
    console.log(Trial.figures(options, trial))
    assert.deepStrictEqual(trial.violations, [], `replay with CHAOS_SEED=${options.seed}`)
    return trial
  })

layer(Layer.merge(world, Logger.minimumLogLevel(LogLevel.None)), { excludeTestServices: true, timeout: "60 seconds" })(
  "Transactions whose connection is cut at COMMIT",
  (it) => {
    it.effect("tell by Transaction.run what is stored, and unknown where it is there once or not at all", () =>
      Effect.gen(function* () {
        const seed = yield* Seeds.seed
        const options = {
          seed,
          how: Hows.resilient("Transaction.run", "read committed", {}, untiring),
          faults: (n: number) => ({ fault: atCommit[n % atCommit.length]!, after: 5 }),
          until: (transactions: number, { commitCuts }: Faults.Tally) => transactions >= 200 && commitCuts >= 30,
          limit
        }
        const { report } = yield* Effect.flatMap(Trial.run(options), (trial) => judged(options, trial))
        assert.isAbove(report.unknown.present, 0)
        assert.isAbove(report.unknown.absent, 0)
        assert.isAbove(report.told.ok, 0)
      })
    )

    it.effect("tell the truth, and have a serial order, through every kind of fault", () =>
      Effect.gen(function* () {
        const seed = yield* Seeds.seed
        const all = Seeds.random(seed, -4).shuffled(oneOfEach)
        const kinds = new Set(oneOfEach.map(({ _tag }) => _tag))
        const options = {
          seed,
          how: Hows.resilient("Transaction.run with retry", "serializable", { retry: true }, untiring),
          faults: (n: number) => ({ fault: all[n % all.length]!, after: 10 }),
          until: (_: number, { faults }: Faults.Tally) => faults.size === kinds.size,
          limit
        }
        const { report } = yield* Effect.flatMap(Trial.run(options), (trial) => judged(options, trial))
        assert.isAbove(report.told.ok, 0)
      })
    )

    it.effect("are doubled by the bare client with a retry around it, which the checker finds", () =>
      Effect.gen(function* () {
        const seed = yield* Seeds.seed
        const options = {
          seed,
          how: Hows.bare("read committed"),
          faults: Faults.seeded(seed, Faults.lostReplies),
          until: (_: number, { commitCuts }: Faults.Tally) => commitCuts >= 20,
          limit
        }
        const trial = yield* Trial.run(options)
        console.log(Trial.figures(options, trial))
        assert.isAbove(trial.report.doubled, 0, `replay with CHAOS_SEED=${seed}`)
      })
    )
  }
)
