/** How fast, how late and how dear: work by many fibers for a while. */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { Effect, type Redacted } from "effect"
import { enter, makers, policies } from "./contenders.js"
import { delayed } from "./delay.js"
import type { Contender } from "./driving.js"
import type { Figures, Measured } from "./report.js"
import { alternate, type Plan, type Tell } from "./rounds.js"
import { quantile } from "./statistics.js"
import { connections, type Workload, within, workloads } from "./work.js"

/** Milliseconds between two looks of the event loop at the time, which are no delay. */
const resolution = 2

/** Of a round, what comes before it and is not counted. */
const beginning = 0.2

/**
 * One round. Its beginning is not counted: connections that were closed as idle meanwhile are opened again there, and the young
 * garbage of the one before goes. No full collection is forced between rounds: it would leave V8 without the optimised code and
 * the size of heap that a program at work has, for longer than a round. (Measured: an operation then takes up to twice the CPU.)
 */
export const once = (
  contender: Contender,
  workers: number,
  workload: Workload,
  milliseconds: number
): Promise<Figures> =>
  contender.drive(workers, workload, within(Math.max(50, milliseconds * beginning))).then(async () => {
    const delay = monitorEventLoopDelay({ resolution })
    delay.enable()
    const cpu = process.cpuUsage()
    const run = within(milliseconds)
    const since = performance.now()
    await contender.drive(workers, workload, run)
    const elapsed = performance.now() - since
    const { system, user } = process.cpuUsage(cpu) // all threads of this process, the collector's too
    delay.disable()
    const taken = run.sorted()
    return {
      perSecond: (1000 * taken.length) / elapsed,
      cpu: (user + system) / taken.length,
      p50: quantile(taken, 0.5),
      p99: quantile(taken, 0.99),
      p999: quantile(taken, 0.999),
      loopDelay: Math.max(0, delay.max / 1e6 - resolution)
    }
  })

interface Setting {
  readonly workload: (typeof workloads)[number]
  readonly workers: number
}

const titles = {
  read: "Point reads",
  insert: "Small inserts",
  transaction: "Transactions of three statements",
  rows: "100 rows",
  mixed: "Point reads, one in twenty a query of 50 ms"
} as const

/** Slow queries are one in twenty, and those above p99 a fifth of them: it takes more time to see enough. */
const longer = { read: 1, insert: 1, transaction: 1, rows: 1, mixed: 2.5 } as const

export const fibers = [1, 20, 100, 1000] as const

const settings = (workload: Setting["workload"], full: boolean): ReadonlyArray<Setting> =>
  (full || workload === "read" ? fibers : [20]).map((workers) => ({ workload, workers }))

const measure = (
  contenders: ReadonlyArray<Contender>,
  { workers, workload }: Setting,
  plan: Plan,
  where: { readonly id: string; readonly words: string }
): Effect.Effect<Measured> =>
  Effect.map(
    alternate(
      contenders.map(({ name }) => name),
      plan,
      (name) =>
        Effect.promise(() =>
          once(contenders.find((_) => _.name === name)!, workers, workload, plan.round * longer[workload])
        )
    ),
    (rounds) => ({
      id: `${workload}/${workers}${where.id}`,
      title: `${titles[workload]}, ${workers} ${workers === 1 ? "fiber" : "fibers"}, ${where.words}`,
      figures: ["perSecond", "cpu", "p50", "p99", "p999", "loopDelay"],
      rounds
    })
  )

/** The workload on the server itself. */
export const near = (workload: Setting["workload"], url: Redacted.Redacted, plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const contenders = yield* enter(makers, { url, connections })
    for (const setting of settings(workload, plan.full))
      yield* Effect.flatMap(measure(contenders, setting, plan, { id: "", words: "loopback" }), tell)
  })

/** Through the proxy. Of reads, those numbers of fibers for which connections are scarce there. */
export const far = (url: Redacted.Redacted, plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const contenders = yield* enter(makers, { url: yield* delayed(url), connections })
    const all: ReadonlyArray<Setting> = plan.full
      ? workloads.flatMap((workload) => settings(workload, true))
      : [20, 100].map((workers) => ({ workload: "read", workers }))
    const where = { id: "/delayed", words: "1 ms of added round trip" }
    for (const setting of all) yield* Effect.flatMap(measure(contenders, setting, plan, where), tell)
  })

/** Ours with everything on, and with each policy left out. */
export const withoutPolicies = (url: Redacted.Redacted, plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const contenders = yield* enter(policies, { url, connections })
    const where = { id: "/policies", words: "loopback, each policy left out" }
    for (const workload of ["read", "transaction"] as const)
      yield* Effect.flatMap(measure(contenders, { workload, workers: 20 }, plan, where), tell)
  })
