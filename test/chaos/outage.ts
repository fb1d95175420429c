/** The demo's workload and faults, judged: what happens to a program while its server and its network fail. */
import { Duration, Effect, Fiber, Option, Random } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import { type Audit, audit } from "../../examples/demo/audit.js"
import { endure, faultsOf, type Healed } from "../../examples/demo/faults.js"
import { type Book, createTables, emptyBook, run as work } from "../../examples/demo/workload.js"
import * as TestPg from "../support/TestPg.js"
import * as Remains from "./remains.js"
import * as Seeds from "./seeds.js"
import { unhandled } from "./unhandled.js"

export interface Options {
  readonly seed: number
  /** How long those faults last that do. */
  readonly seconds: number
  readonly fibers?: number
  readonly onFault?: (healed: Healed) => void
}

export interface Report {
  readonly book: Book
  readonly healed: ReadonlyArray<Healed>
  readonly audit: Audit
  readonly violations: ReadonlyArray<string>
}

/** Far beyond what any recovery takes, on any machine: who needs longer hangs. */
const patience = "30 seconds"

/** One fault in one line. */
export const figures = ({ fault, recovery }: Healed): string =>
  `${fault}: ${recovery === undefined ? "not well again" : `well after ${Duration.toMillis(recovery).toFixed(0)} ms`}`

const successes = ({ latencies }: Book) => latencies.read.length + latencies.write.length + latencies.transfer.length

/** The workload is in full swing again: every kind of operation has succeeded often since. */
const inFullSwing = (book: Book) => {
  const goal = successes(book) + 100
  return TestPg.eventually(
    Effect.sync(() => successes(book)),
    (n) => n >= goal,
    { message: "the workload does not go on" }
  )
}

/** One fault after the other, in the order that the seed gives them. */
export const run = ({ fibers = 50, onFault = () => {}, seconds, seed }: Options) =>
  Effect.gen(function* () {
    const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.FaultProxy
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const unheard = yield* unhandled
    const book = emptyBook()
    const faults = Seeds.random(seed, 0).shuffled(faultsOf(seconds))
    const [healed, left] = yield* Effect.gen(function* () {
      yield* createTables
      const workers = yield* Effect.fork(work(book, fibers))
      const healed = yield* Effect.forEach(faults, (fault) =>
        Effect.zipRight(
          inFullSwing(book),
          Effect.tap(endure(fault, book, patience), (_) => Effect.sync(() => onFault(_)))
        )
      )
      yield* inFullSwing(book)
      // What the network has forgotten it would keep for ever, and nothing on this side can end it.
      yield* proxy.heal
      book.stopping = true
      const joined = yield* Effect.timeoutOption(Effect.disconnect(Fiber.await(workers)), patience)
      const hanging = Option.isNone(joined) ? [`${book.inFlight} operations never end`] : []
      return [healed, [...hanging, ...(yield* Remains.whole(config.database))]] as const
    }).pipe(Effect.provide(ResilientPg.layer({ url: proxy.url(server.url) })))
    const nothing = yield* Remains.nothing(config.database)
    const audited = yield* audit(book)
    const { defects, doubled, lied, lost, sum } = audited
    const counts = Object.entries({ defects, doubled, lied, lost }).filter(([, n]) => n > 0)
    const report: Report = {
      book,
      healed,
      audit: audited,
      violations: [
        ...unheard,
        ...left,
        ...nothing,
        ...counts.map(([what, n]) => `${what}: ${n}`),
        ...(sum.expected === sum.found ? [] : [`the sum of all accounts is ${sum.found} instead of ${sum.expected}`]),
        ...healed.flatMap(({ fault, recovery }) => (recovery === undefined ? [`no recovery after ${fault}`] : []))
      ]
    }
    return report
  }).pipe(Effect.scoped, Effect.withRandom(Random.make(seed)))
