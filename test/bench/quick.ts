import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted, Schedule } from "effect"
import { writeFileSync } from "node:fs"
import { Session } from "node:inspector"
import { PerformanceObserver } from "node:perf_hooks"
import * as Pg from "pg"
const session = new Session()
let gc = 0, gcs = 0; new PerformanceObserver((l) => { for (const e of l.getEntries()) { gc += e.duration; gcs++ } }).observe({ entryTypes: ["gc"] })
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const fibers = Number(process.env.FIBERS ?? 20)
const per = Number(process.env.PER ?? 200)
const rounds = Number(process.env.ROUNDS ?? 7)
const only = process.env.ONLY?.split(",")

if (process.env.MID) setInterval(() => { (globalThis as any).gc(); console.log("mid heap", (process.memoryUsage().heapUsed / 1e6).toFixed(1)) }, 700).unref()
const main = Effect.gen(function* () {
  const { url } = yield* EmbeddedPostgres.make()
  const u = typeof url === "string" ? url : Redacted.value(url)
  const pool = new Pg.default.Pool({ connectionString: u, max: 10 })
  yield* Effect.promise(() => pool.query("CREATE TABLE t (id int primary key, name text, n int)"))
  yield* Effect.promise(() => pool.query("INSERT INTO t SELECT i, 'name ' || i, i FROM generate_series(1, 10000) i"))
  const bare = yield* Effect.map(Layer.build(PgClient.layer({ url: Redacted.make(u), maxConnections: 10 })), Context.get(SqlClient.SqlClient))
  const ours = yield* Effect.map(Layer.build(ResilientPg.layer({ url: Redacted.make(u), maxConnections: 10, ...JSON.parse(process.env.OPT ?? "{}") })), Context.get(SqlClient.SqlClient))
  let k = 0
  const id = () => (k = (k + 7919) % 10000) + 1
  const fiberwise = (op: Effect.Effect<unknown, any>) => Effect.runPromise(Effect.replicateEffect(Effect.repeatN(op, per - 1), fibers, { concurrency: "unbounded", discard: true }))
  const promises = (op: () => Promise<unknown>) => Promise.all(Array.from({ length: fibers }, async () => { for (let i = 0; i < per; i++) await op() }))
  const contenders: Record<string, () => Promise<unknown>> = {
    pg: () => promises(() => pool.query("SELECT id, name, n FROM t WHERE id = $1", [id()])),
    named: () => promises(() => pool.query({ name: "q", text: "SELECT id, name, n FROM t WHERE id = $1", values: [id()] })),
    bare: () => fiberwise(Effect.suspend(() => bare`SELECT id, name, n FROM t WHERE id = ${id()}`)),
    byHand: () => fiberwise(Effect.suspend(() => bare`SELECT id, name, n FROM t WHERE id = ${id()}`).pipe(Effect.timeout("5 seconds"), Effect.retry(Schedule.recurs(3)))),
    ours: () => fiberwise(Effect.suspend(() => ours`SELECT id, name, n FROM t WHERE id = ${id()}`))
  }
  const names = Object.keys(contenders).filter((n) => only === undefined || only.includes(n))
  const results: Record<string, Array<{ rate: number; cpu: number }>> = {}
  for (let round = -2; round < rounds; round++) for (const name of names) {
    if (round === 0 && process.env.PROF) { session.connect(); if (process.env.HEAP) session.post("HeapProfiler.startSampling", { samplingInterval: 4096, includeObjectsCollectedByMajorGC: true, includeObjectsCollectedByMinorGC: !process.env.SURV }); else session.post("Profiler.enable"); session.post("Profiler.setSamplingInterval", { interval: 200 }); session.post("Profiler.start") }
    const cpu = process.cpuUsage(); const t = performance.now()
    yield* Effect.promise(contenders[name]!)
    const s = (performance.now() - t) / 1000; const c = process.cpuUsage(cpu)
    if (process.env.V) console.log(name, "user", (c.user / (fibers * per)).toFixed(1), "sys", (c.system / (fibers * per)).toFixed(1), "gc us/op", (gc * 1000 / (fibers * per)).toFixed(1), "gcs", gcs); gc = 0; gcs = 0; if (process.env.LEAK) { (globalThis as any).gc(); console.log("heap MB", (process.memoryUsage().heapUsed / 1e6).toFixed(2)) }
    if (round >= 0) (results[name] ??= []).push({ rate: fibers * per / s, cpu: (c.user + c.system) / (fibers * per) })
  }
  if (process.env.HEAP) { yield* Effect.async<void>((r) => session.post("HeapProfiler.stopSampling", (_: any, x: any) => {
    const self = new Map<string, number>(); let total = 0
    const walk = (n: any) => { const c = n.callFrame; const k = (c.functionName || "(anon)") + " " + c.url.replace(/.*node_modules./, "").replace(/.*five.dist/, "DIST") + ":" + (c.lineNumber + 1); self.set(k, (self.get(k) ?? 0) + n.selfSize); total += n.selfSize; n.children.forEach(walk) }
    walk(x.profile.head); const ops = rounds * fibers * per * names.length
    console.log("bytes/op", Math.round(total / ops)); console.log([...self].sort((a, b) => b[1] - a[1]).slice(0, 40).map(([k, v]) => String(Math.round(v / ops)).padStart(6) + " " + k).join("\n")); r(Effect.void) })) }
  else if (process.env.PROF) yield* Effect.async<void>((r) => session.post("Profiler.stop", (_: any, x: any) => { writeFileSync(process.env.PROF + "/p.cpuprofile", JSON.stringify(x.profile)); r(Effect.void) }))
  const med = (a: Array<number>) => a.sort((x, y) => x - y)[a.length >> 1]!
  for (const name of names) console.log(name.padEnd(8), Math.round(med(results[name]!.map((r) => r.rate))), "/s", med(results[name]!.map((r) => r.cpu)).toFixed(1), "us cpu/op")
  yield* Effect.promise(() => pool.end())
})
NodeRuntime.runMain(Effect.scoped(main))
