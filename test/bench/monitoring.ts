/**
 * What monitoring costs: throughput and CPU time of point reads, 20 fibers on 10 connections, with `Monitoring` (a check every
 * 5 seconds, the standard alerts, told to nobody) and a scrape of Prometheus' text every second, against the same without. The two take turns,
 * and which one begins a pair alternates.
 *
 *   npx tsx test/bench/monitoring.ts [pairs] [seconds of each turn]
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Array as Arr, Context, Effect, Layer, Order, Schedule } from "effect"
import { HealthMonitor, Monitoring, Operation, Prometheus, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const pairs = Number(process.argv[2] ?? 15)
const seconds = Number(process.argv[3] ?? 6)
const fibers = 20
const rows = 1000

interface Turn {
  /** A second. */
  readonly reads: number
  /** User time of this process for one read, microseconds. */
  readonly cpu: number
  /** Checks and scrapes that ended in the turn, and what a scrape takes, milliseconds. */
  readonly checks: number
  readonly scrapes: number
  readonly scrapeMs: number
}

const quantile = (values: ReadonlyArray<number>, q: number): number => {
  const sorted = Arr.sort(values, Order.number)
  return sorted[Math.round(q * (sorted.length - 1))] ?? Number.NaN
}
const median = (values: ReadonlyArray<number>) => quantile(values, 0.5)

/** Reads until the time is over. */
const turn = (monitor: HealthMonitor.HealthMonitor["Type"] | undefined) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    let reads = 0
    let over = false
    const read = Effect.suspend(() => sql`SELECT v FROM points WHERE id = ${(reads * 7919) % rows}`).pipe(
      Operation.named("read"),
      Effect.zipRight(
        Effect.sync(() => {
          reads += 1
        })
      )
    )
    let scrapes = 0
    let scraping = 0
    const scrape = Effect.suspend(() => {
      const began = performance.now()
      return Effect.map(Prometheus.text(), () => {
        scraping += performance.now() - began
        scrapes += 1
      })
    })
    const checked = monitor === undefined ? 0 : (yield* monitor.history).length
    const began = performance.now()
    const cpu = process.cpuUsage()
    if (monitor !== undefined) yield* Effect.forkScoped(Effect.repeat(scrape, Schedule.fixed("1 second")))
    yield* Effect.forkScoped(
      Effect.delay(
        Effect.sync(() => {
          over = true
        }),
        `${seconds} seconds`
      )
    )
    yield* Effect.replicateEffect(Effect.repeat(read, { until: () => over }), fibers, {
      concurrency: "unbounded",
      discard: true
    })
    const { user } = process.cpuUsage(cpu)
    const took = (performance.now() - began) / 1000
    return {
      reads: reads / took,
      cpu: user / reads,
      checks: monitor === undefined ? 0 : (yield* monitor.history).length - checked,
      scrapes,
      scrapeMs: scrapes === 0 ? 0 : scraping / scrapes
    }
  })

const off = Effect.scoped(turn(undefined))

/** Its first check, with the connection that it opens, comes before the turn. */
const on = Effect.scoped(
  Effect.gen(function* () {
    const monitor = Context.get(
      yield* Layer.build(Monitoring.layer({ health: { interval: "5 seconds" }, log: false })),
      HealthMonitor.HealthMonitor
    )
    yield* monitor.check
    return yield* turn(monitor)
  })
)

const shown = (values: ReadonlyArray<number>, digits: number) =>
  `${median(values).toFixed(digits)} (${quantile(values, 0).toFixed(digits)} to ${quantile(values, 1).toFixed(digits)})`

const cost = (of: ReadonlyArray<number>) => {
  const percent = of.map((ratio) => (ratio - 1) * 100)
  const sign = (value: number) => `${value >= 0 ? "+" : ""}${value.toFixed(1)} %`
  return `${sign(median(percent))} (middle half ${sign(quantile(percent, 0.25))} to ${sign(quantile(percent, 0.75))}, all ${sign(quantile(percent, 0))} to ${sign(quantile(percent, 1))})`
}

const main = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE points (id int PRIMARY KEY, v text)`
  yield* sql`INSERT INTO points SELECT n, md5(n::text) FROM generate_series(0, ${rows - 1}) n`
  yield* sql`ANALYZE points`
  yield* off
  yield* on
  const turns: Array<{ readonly off: Turn; readonly on: Turn }> = []
  for (let pair = 0; pair < pairs; pair++) {
    if (pair % 2 === 0) {
      const without = yield* off
      turns.push({ off: without, on: yield* on })
    } else {
      const withIt = yield* on
      turns.push({ off: yield* off, on: withIt })
    }
  }
  const of = (side: "off" | "on", figure: keyof Turn) => turns.map((_) => _[side][figure])
  console.log(`point reads, ${fibers} fibers, 10 connections, ${pairs} pairs of turns of ${seconds} s; median (all)`)
  console.log("| monitoring | reads a second | user CPU, µs a read | checks | scrapes | a scrape, ms |")
  console.log("| --- | --- | --- | --- | --- | --- |")
  for (const side of ["off", "on"] as const) {
    const { checks, scrapeMs, scrapes } = {
      checks: Arr.reduce(of(side, "checks"), 0, (a, b) => a + b),
      scrapes: Arr.reduce(of(side, "scrapes"), 0, (a, b) => a + b),
      scrapeMs: median(of(side, "scrapeMs"))
    }
    console.log(
      `| ${side} | ${shown(of(side, "reads"), 0)} | ${shown(of(side, "cpu"), 1)} | ${checks} | ${scrapes} | ${scrapeMs.toFixed(2)} |`
    )
  }
  console.log(`throughput on against off: ${cost(turns.map(({ off, on }) => on.reads / off.reads))}`)
  console.log(`user CPU a read on against off: ${cost(turns.map(({ off, on }) => on.cpu / off.cpu))}`)
})

NodeRuntime.runMain(
  main.pipe(
    Effect.provide(
      Layer.unwrapEffect(
        Effect.map(EmbeddedPostgres.EmbeddedPostgres, ({ url }) => ResilientPg.layer({ url, maxConnections: 10 }))
      )
    ),
    Effect.provide(EmbeddedPostgres.layer())
  )
)
