import { Statement } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Effect } from "effect"
const rows = [{ id: 1 }]
const conn: any = { execute: () => Effect.succeed(rows) }
const conn2: any = { execute: () => Effect.async<any>((resume) => { setImmediate(() => resume(Effect.succeed(rows))) }) }
const compiler = PgClient.makeCompiler()
for (const [n, c] of [["sync", conn], ["async", conn2]] as const) {
  const sql = Statement.make(Effect.succeed(c), compiler, [["a", 1], ["b", 2], ["c", 3], ["d", 4]], undefined)
  for (let r = 0; r < 4; r++) {
    const cpu = process.cpuUsage(); const t = performance.now()
    await Effect.runPromise(Effect.replicateEffect(Effect.repeatN(Effect.suspend(() => sql`SELECT id, name, n FROM t WHERE id = ${1}`), 2000), 20, { concurrency: "unbounded", discard: true }))
    const c2 = process.cpuUsage(cpu)
    if (r === 3) console.log(n, Math.round(40000 / (performance.now() - t) * 1000), "/s", ((c2.user + c2.system) / 40000).toFixed(1), "us")
  }
}
