/**
 * How fast the layer is, next to the clients that it takes the place of: one process, the contenders in alternation, medians
 * of rounds, and ratios round by round with their spread. Everything is on, as `ResilientPg.layer({ url })` has it.
 *
 *   npm run bench                          all of it
 *   npm run bench -- --only read,mixed     some workloads
 *   npm run bench -- --rounds 5 --pieces 500
 *   npm run bench -- --policies            ours, with each policy left out
 */
import * as Os from "node:os"
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import Pg from "pg"
import { type Contender, keys, type Maker, makers, ours, schema, type Workload, workloads } from "./contenders.js"
import { delayed } from "./delay.js"
import { alternate, type Figures, median, ratio } from "./measure.js"

const { values: flags } = parseArgs({
  options: {
    only: { type: "string", default: [...workloads, "delayed"].join(",") },
    rounds: { type: "string", default: "11" },
    pieces: { type: "string", default: "2000" },
    policies: { type: "boolean", default: false }
  }
})
const rounds = Number(flags.rounds)
const pieces = Number(flags.pieces)
const only = new Set(flags.only.split(","))

/** What everybody is compared to. */
const standard = "@effect/sql-pg"

const withoutPolicies: Readonly<Record<string, Maker>> = {
  [standard]: makers[standard]!,
  ours: ours("ours"),
  "without breaker": ours("without breaker", { breaker: false }),
  "without retry": ours("without retry", { retry: false, retryBudget: false }),
  "without prepared statements": ours("without prepared statements", { preparedStatements: false }),
  "without checks": ours("without checks", { checkAfterIdle: "infinity" })
}

const whole = (value: number) => Math.round(value).toLocaleString("en")
const short = (value: number) => (value >= 10 ? value.toFixed(1) : value.toFixed(2))

const table = (title: string, all: ReadonlyMap<string, ReadonlyArray<Figures>>): string => {
  const base = all.get(standard)!
  const rows = Array.from(all, ([name, figures]) => {
    const of = (figure: keyof Figures) => median(figures.map((round) => round[figure]))
    const { high, low, median: times } = ratio(figures, base, (_) => _.perSecond)
    return `| ${name} | ${whole(of("perSecond"))} | ${short(times)} (${short(low)} to ${short(high)}) | ${short(of("cpu"))} | ${short(of("p50"))} | ${short(of("p99"))} | ${short(of("p999"))} | ${short(of("loopDelay"))} |`
  })
  return [
    `### ${title}`,
    "",
    `| contender | per second | times ${standard} (lowest to highest) | CPU, µs each | p50 ms | p99 ms | p99.9 ms | event loop, ms |`,
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ...rows,
    ""
  ].join("\n")
}

const say = (text: string) => Effect.sync(() => console.log(text))

const main = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.make({ settings: { max_connections: 200 } })
  const setUp = new Pg.Client({ connectionString: Redacted.value(server.url) })
  yield* Effect.promise(() => setUp.connect().then(() => setUp.query(schema)))
  yield* Effect.promise(() => setUp.end())

  const enter = (url: Redacted.Redacted, makers: Readonly<Record<string, Maker>>) =>
    Effect.forEach(Object.values(makers), (make) => make({ url, connections: 10 }))
  const run = (
    title: string,
    contenders: ReadonlyArray<Contender>,
    workload: Workload,
    workers: number,
    pieces: number
  ) => Effect.flatMap(alternate(contenders, { workload, workers, pieces }, rounds), (all) => say(table(title, all)))

  yield* say(
    `Node ${process.version}, ${Os.cpus().length} × ${Os.cpus()[0]?.model}, PostgreSQL on the same machine, 10 connections, ` +
      `${keys} keys, ${rounds} rounds of ${pieces} in alternation.\n`
  )
  const near = Effect.gen(function* () {
    const all = yield* enter(server.url, flags.policies ? withoutPolicies : makers)
    if (only.has("read")) {
      for (const workers of [1, 20, 100, 1000]) {
        const title = `Point reads, ${workers} ${workers === 1 ? "fiber" : "fibers"}, loopback`
        yield* run(title, all, "read", workers, workers === 1 ? pieces / 4 : pieces)
      }
    }
    if (only.has("insert")) yield* run("Small inserts, 20 fibers, loopback", all, "insert", 20, pieces / 4)
    if (only.has("transaction"))
      yield* run("Transactions of three statements, 20 fibers, loopback", all, "transaction", 20, pieces / 4)
    if (only.has("rows")) yield* run("100 rows, 20 fibers, loopback", all, "rows", 20, pieces / 2)
    if (only.has("mixed"))
      yield* run("Point reads, one in twenty a query of 50 ms, 20 fibers, loopback", all, "mixed", 20, pieces / 2)
  })
  const far = Effect.gen(function* () {
    const all = yield* enter(yield* delayed(server.url), makers)
    yield* run("Point reads, 100 fibers, 1 ms of added round trip", all, "read", 100, pieces)
  })
  // One after the other: the server has no room for the connections of both.
  yield* Effect.scoped(near)
  if (only.has("delayed")) yield* Effect.scoped(far)
})

NodeRuntime.runMain(Effect.scoped(main))
