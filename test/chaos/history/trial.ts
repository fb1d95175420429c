/** One way of running transactions, under faults, judged: the clients, the faults, and the checker together. */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import { unhandled } from "../unhandled.js"
import * as Checker from "./checker.js"
import * as Faults from "./faults.js"
import type { How } from "./hows.js"
import type { Final, History } from "./model.js"
import * as Plan from "./plan.js"
import * as Tables from "./tables.js"
import * as Workloads from "./workloads.js"

export interface Options<R> {
  readonly seed: number
  readonly how: How<R>
  /** Default all of them. */
  readonly kinds?: ReadonlyArray<Plan.Kind> | undefined
  readonly shape?: Partial<Plan.Shape> | undefined
  readonly faults: Faults.Sequence
  /** Whether there have been enough of both; asked before each transaction. */
  readonly until: (transactions: number, tally: Faults.Tally) => boolean
  /** Milliseconds after which it ends although there were not; that is then a violation. */
  readonly limit: number
  readonly onProgress?: ((transactions: number, tally: Faults.Tally) => void) | undefined
}

export interface Trial {
  readonly history: History
  readonly final: Final
  readonly report: Checker.Report
  readonly tally: Faults.Tally
  /** Violations in words, those of the checker and whatever else must never be. */
  readonly violations: ReadonlyArray<string>
  /** Milliseconds. */
  readonly elapsed: number
}

/** In one line: what was done to whom, and what became of it. */
export const figures = <R>({ how }: Options<R>, { elapsed, report, tally }: Trial): string =>
  `${how.name}, ${how.isolation}: ${Checker.figures(report)}; ${Faults.figures(tally)}; ${(elapsed / 1_000).toFixed(1)} s`

/** On a database and a network of its own. */
export const run = <R>(options: Options<R | SqlClient.SqlClient>) =>
  Effect.gen(function* () {
    const { faults, how, limit, onProgress = () => {}, seed, until } = options
    const shape: Plan.Shape = { ...Plan.defaults, ...options.shape, seed }
    const database = yield* TestPg.database
    yield* Tables.create(database, shape)
    const proxy = yield* FaultProxy.FaultProxy
    const unheard = yield* unhandled
    const book = Workloads.emptyBook()
    const tally = Faults.emptyTally()
    const since = performance.now()
    const elapsed = () => performance.now() - since
    const going = () => {
      onProgress(book.transactions.length, tally)
      return !until(book.transactions.length, tally) && elapsed() < limit
    }
    const workload = { shape, kinds: options.kinds ?? Plan.kinds, how, going }
    const ended = () => book.transactions.length
    yield* Effect.gen(function* () {
      if (how.prepare) yield* how.prepare
      yield* Effect.raceFirst(
        Workloads.run(workload, book),
        Faults.run({ faults, database: database.name, ended }, tally)
      )
      yield* Faults.heal
    }).pipe(Effect.provide(how.client(proxy.url(database.url))))
    const took = elapsed()
    const short = until(book.transactions.length, tally) ? [] : [`not enough has happened within ${limit} ms`]
    const history = Workloads.history(workload, book)
    const final = yield* Tables.read(database)
    const report = Checker.check(history, final)
    const trial: Trial = {
      history,
      final,
      report,
      tally,
      violations: [
        ...Checker.summary(report),
        ...book.defects.map((defect) => `defect: ${defect}`),
        ...unheard,
        ...short
      ],
      elapsed: took
    }
    return trial
  }).pipe(Effect.scoped)
