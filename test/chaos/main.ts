/**
 * `npm run chaos`: the random tests of this folder in their long form, round after round.
 *
 * ```
 * npm run chaos                           # one round: 10,000 interruptions, every fault, every lost message
 * npm run chaos -- --minutes 30           # as many rounds as begin within 30 minutes
 * npm run chaos -- --seed 7               # the same again
 * npm run chaos -- --only "exactly once"  # those parts whose name says so
 * ```
 * Ends with a non-zero exit code after any violation, each of which is printed with the seed of its round.
 */
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import type { SqlClient } from "@effect/sql"
import { Cause, Effect, Exit, Layer, Logger, LogLevel } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import * as Faults from "./history/faults.js"
import * as Hows from "./history/hows.js"
import * as Trial from "./history/trial.js"
import * as Outage from "./outage.js"
import * as Seeds from "./seeds.js"
import * as Matrix from "./steps/matrix.js"
import * as Book from "./storm/book.js"
import * as Storm from "./storm/storm.js"

const { values } = parseArgs({
  options: { minutes: { type: "string" }, seed: { type: "string" }, only: { type: "string" } }
})

const number = (name: "minutes" | "seed"): number | undefined => {
  const text = values[name]
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() !== "" && value >= 0 && (name === "minutes" || Number.isInteger(value))) return value
  console.error(`--${name} is ${text}, expected ${name === "seed" ? "a whole number" : "a number"}, 0 or more`)
  return process.exit(2)
}
const minutes = number("minutes") ?? 0
const givenSeed = number("seed")

const started = performance.now()
const elapsed = () => performance.now() - started
const say = (line: string) => console.log(`${(elapsed() / 1000).toFixed(0).padStart(5)} s  ${line}`)

/** Says how far something is, at most every five seconds. */
const progress = () => {
  let said = performance.now()
  return (line: () => string) => {
    if (performance.now() - said < 5_000) return
    said = performance.now()
    say(line())
  }
}

/** Interruptions of a round by weather: 10,000 in all. */
const cuts = { calm: 6_000, cuts: 2_000, "half-open": 2_000 } as const

interface Part {
  readonly name: string
  /** Each with a server of its own. Violations in words. */
  readonly run: (seed: number) => Effect.Effect<ReadonlyArray<string>, unknown>
}

const storm = (weather: Storm.Weather): Part => ({
  name: `interruptions, ${weather}`,
  run: (seed) => {
    const tell = progress()
    const onProgress = (book: Book.Book) => tell(() => `${book.cuts} of ${cuts[weather]} interruptions, ${weather}`)
    return Storm.run({ seed, weather, cuts: cuts[weather], onProgress }).pipe(
      Effect.map((book) => {
        say(`${weather}: ${Book.figures(book)}`)
        return book.violations
      }),
      Effect.provide(Storm.world)
    )
  }
})

const outage: Part = {
  name: "outages",
  run: (seed) =>
    Outage.run({
      seed,
      seconds: 3,
      onFault: (fault) => say(Outage.figures(fault))
    }).pipe(
      Effect.map(({ audit, book, violations }) => {
        say(`${book.operations} operations, ${audit.acknowledged} writes acknowledged, ${audit.failed} failed`)
        return violations
      }),
      Effect.provide(Layer.provideMerge(FaultProxy.layerEmbedded, EmbeddedPostgres.layer()))
    )
}

const steps: Part = {
  name: "lost messages",
  run: () => {
    const tell = progress()
    let cases = 0
    return Matrix.all(() => {
      cases++
      tell(() => `${cases} messages lost`)
    }).pipe(
      Effect.tap(() => Effect.sync(() => say(`${cases} messages lost, each in one of ${Matrix.ways} ways`))),
      Effect.provide(TestPg.layer)
    )
  }
}

/** Transactions and COMMITs cut of a round, at least. */
const enough = { ledger: { transactions: 10_000, cuts: 200 }, xid: { transactions: 2_000, cuts: 40 } } as const

/** What all rounds have come to. */
const settled = { acknowledged: 0, commitCuts: 0, unknown: 0 }

/** Bank, lists and registers under every kind of fault, and the checker's word on what the clients were told. */
const exactlyOnce = (mode: "ledger" | "xid"): Part => ({
  name: `exactly once, ${mode}`,
  run: (seed) => {
    const tell = progress()
    const { cuts, transactions } = enough[mode]
    const options = {
      seed,
      how: Hows.exactlyOnce(mode, mode === "ledger" ? "serializable" : "read committed"),
      faults: Faults.seeded(seed, Faults.everything, 200),
      until: (ended: number, { commitCuts }: Faults.Tally) => ended >= transactions && commitCuts >= cuts,
      limit: 20 * 60_000,
      onProgress: (ended: number, { commitCuts }: Faults.Tally) =>
        tell(() => `${ended} of ${transactions} transactions, ${commitCuts} of ${cuts} COMMITs cut, ${mode}`)
    }
    return Trial.run(options).pipe(
      Effect.map((trial) => {
        say(Trial.figures(options, trial))
        if (mode === "xid") return trial.violations
        settled.acknowledged += trial.report.told.ok
        settled.commitCuts += trial.tally.commitCuts
        settled.unknown += trial.report.told.unknown
        return trial.report.told.unknown === 0
          ? trial.violations
          : [...trial.violations, `${trial.report.told.unknown} transactions were not settled`]
      }),
      Effect.provide(Layer.provideMerge(FaultProxy.layerEmbedded, TestPg.layer))
    )
  }
})

/** The same without settling, to show that there was something to settle: reported, and no violation. */
const unsettled: Part = {
  name: "not exactly once, for comparison",
  run: (seed) => {
    const until = (_: number, { commitCuts }: Faults.Tally) => commitCuts >= 50
    const faults = Faults.seeded(seed, Faults.commitCuts)
    const shown = <R>(how: Hows.How<R | SqlClient.SqlClient>) => {
      const options = { seed, how, faults, until, limit: 5 * 60_000 }
      return Effect.map(Trial.run(options), (trial) => say(Trial.figures(options, trial)))
    }
    return shown(Hows.resilient("Transaction.run with retry", "serializable", { retry: true })).pipe(
      Effect.zipRight(shown(Hows.bare("serializable"))),
      Effect.as([]),
      Effect.provide(Layer.provideMerge(FaultProxy.layerEmbedded, TestPg.layer))
    )
  }
}

const parts = [
  storm("calm"),
  storm("cuts"),
  storm("half-open"),
  outage,
  steps,
  exactlyOnce("ledger"),
  exactlyOnce("xid"),
  unsettled
].filter(({ name }) => name.includes(values.only ?? ""))

if (parts.length === 0) {
  console.error(`--only is ${values.only}, expected a part's name, or some of it, such as "exactly once"`)
  process.exit(2)
}

const round = (number: number, seed: number) =>
  Effect.gen(function* () {
    say(`round ${number}, --seed ${seed}`)
    const violations: Array<string> = []
    for (const { name, run } of parts) {
      const found = yield* run(seed).pipe(
        Effect.catchAllDefect((defect) => Effect.succeed([`defect: ${(defect as Error)?.stack ?? String(defect)}`])),
        Effect.catchAll((error) => Effect.succeed([`could not run: ${String(error)}`]))
      )
      for (const violation of found) {
        violations.push(violation)
        say(`VIOLATION, ${name}, --seed ${seed}: ${violation}`)
      }
    }
    return violations.length
  })

const chaos = Effect.gen(function* () {
  const first = givenSeed ?? (yield* Seeds.seed)
  let rounds = 0
  let violations = 0
  do {
    violations += yield* round(rounds + 1, first + rounds)
    rounds++
  } while (elapsed() < minutes * 60_000)
  if (settled.acknowledged > 0) {
    const { acknowledged, commitCuts, unknown } = settled
    say(`exactly once by the ledger: ${acknowledged} acknowledged, ${commitCuts} COMMITs cut, ${unknown} unknown`)
  }
  say(`${rounds} ${rounds === 1 ? "round" : "rounds"} from --seed ${first}: ${violations || "no"} violations`)
  if (violations > 0) process.exitCode = 1
})

chaos.pipe(
  Logger.withMinimumLogLevel(LogLevel.None),
  NodeRuntime.runMain({
    teardown: (exit, onExit) =>
      onExit(Exit.isSuccess(exit) ? Number(process.exitCode ?? 0) : Cause.isInterruptedOnly(exit.cause) ? 130 : 1)
  })
)
