/** How many bytes of heap a fiber holds that waits for a connection, ten thousand of them at once. */
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Redacted } from "effect"
import Pg from "pg"
import { type Maker, pick } from "./contenders.js"
import { alone, bare, byHand, everything, pg } from "./names.js"
import type { Figures } from "./report.js"
import { alternate, collect, type Plan, type Tell } from "./rounds.js"
import { connections, pieces } from "./work.js"

const waiting = 10_000

/** Nobody gives up meanwhile. Ten thousand who do so at once overflow the stack in `pg`'s pool, and the process ends. */
const limit = "25 seconds"

/** Holds the lock that the holders of connections ask for. */
const gate = (url: Redacted.Redacted) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: Redacted.value(url) })
      await client.connect()
      await client.query("SELECT pg_advisory_lock(1)")
      let open = false
      return async () => {
        if (!open) await client.end()
        open = true
      }
    }),
    (open) => Effect.promise(open)
  )

const settledHeap = async () => {
  for (let turn = 0; turn < 3; turn++) {
    collect()
    await sleep(10)
  }
  return process.memoryUsage().heapUsed
}

const held = (url: Redacted.Redacted, make: Maker) =>
  Effect.gen(function* () {
    const { drive } = yield* make({ url, connections, limit })
    yield* Effect.promise(() => drive(20, "read", pieces(2_000)))
    const open = yield* gate(url)
    return yield* Effect.promise(async () => {
      const before = await settledHeap()
      const run = pieces(connections + waiting)
      let over = false
      const all = drive(connections + waiting, "queued", run).finally(() => {
        over = true
      })
      all.catch(() => {}) // it is awaited further down, and may have failed by then
      while (run.more() && !over) await sleep(1)
      await sleep(50)
      const bytes = ((await settledHeap()) - before) / waiting
      const answered = run.finished()
      await open()
      await all
      if (answered > 0) throw new Error(`${answered} reads did not wait`)
      return { held: bytes } satisfies Figures
    })
  }).pipe(Effect.scoped)

export const memory = (url: Redacted.Redacted, plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const contenders = pick(pg, "postgres.js", bare, byHand, alone, everything)
    const rounds = yield* alternate(Object.keys(contenders), { rounds: plan.few, warm: 0 }, (name) =>
      held(url, contenders[name]!)
    )
    yield* tell({
      id: "waiting",
      title: `Heap held by each of ${waiting.toLocaleString("en")} that wait for one of ${connections} connections`,
      figures: ["held"],
      rounds
    })
  })
