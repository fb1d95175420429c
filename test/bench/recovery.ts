/** How long after a restart of the server reads succeed again, seen beside a client that connects anew for each of its own. */
import { setTimeout as sleep } from "node:timers/promises"
import { Array as Arr, Effect, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import Pg from "pg"
import { type Maker, pick } from "./contenders.js"
import type { Contender } from "./driving.js"
import { alone, bare, byHand, everything, pg } from "./names.js"
import type { Figures } from "./report.js"
import { alternate, type Plan, type Tell } from "./rounds.js"
import { connections, schema } from "./work.js"

const workers = 20
/** So many reads in a row, by whichever worker, are the end of it. */
const inARow = 20
/** The server stays away for so long between its end and its new start, milliseconds. */
const away = 1_000
/** Whoever has not recovered by then is said not to. Milliseconds. */
const patience = 20_000
/** A worker whose read has failed does not ask again before: all of them would keep the processor busy with refusals. */
const pause = 10

/** Resolves when a connection outside of all pools is answered. */
const answered = async (url: Redacted.Redacted): Promise<void> => {
  for (;;) {
    const client = new Pg.Client({ connectionString: Redacted.value(url), connectionTimeoutMillis: 1_000 })
    client.on("error", () => {})
    try {
      await client.connect()
      await client.query("SELECT")
      return
    } catch {
      await sleep(2)
    } finally {
      client.end().catch(() => {})
    }
  }
}

interface Load {
  readonly failed: () => number
  /** Resolves when `inARow` reads from now on have succeeded with no failure between them. */
  readonly settled: () => Promise<void>
  readonly stop: () => void
}

const load = ({ read }: Contender): Load => {
  let over = false
  let failed = 0
  let row = 0
  let told = () => {}
  const worker = async (first: number) => {
    for (let key = first; !over; key = (key % 10_000) + 1) {
      try {
        await read(key)
        if (++row >= inARow) told()
      } catch {
        failed++
        row = 0
        await sleep(pause)
      }
    }
  }
  for (const n of Arr.range(1, workers)) void worker(n * 400)
  return {
    failed: () => failed,
    settled: () =>
      new Promise((resolve) => {
        row = 0
        told = resolve
      }),
    stop: () => {
      over = true
    }
  }
}

const restarted = (server: EmbeddedPostgres.EmbeddedPostgres["Type"], make: Maker) =>
  Effect.gen(function* () {
    const contender = yield* make({ url: server.url, connections })
    const { failed, settled } = yield* Effect.acquireRelease(
      Effect.sync(() => load(contender)),
      ({ stop }) => Effect.sync(stop)
    )
    yield* Effect.promise(() => sleep(500))
    yield* server.stop()
    yield* Effect.promise(() => sleep(away))
    const after = Effect.promise(async () => {
      await answered(server.url)
      const since = performance.now()
      return Promise.race([settled().then(() => performance.now() - since), sleep(patience, Infinity)])
    })
    const [recovered] = yield* Effect.all([after, server.start], { concurrency: "unbounded" })
    return { recovered, failed: failed() } satisfies Figures
  }).pipe(Effect.scoped)

/** On a server of its own. */
export const recovery = (plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.make({ settings: { max_connections: 100 } })
    yield* server.query(schema)
    const contenders = pick(pg, "postgres.js", bare, byHand, alone, everything)
    const rounds = yield* alternate(
      Object.keys(contenders),
      { rounds: plan.few + (plan.few > 1 ? 2 : 0), warm: 0 },
      (name) => restarted(server, contenders[name]!)
    )
    yield* tell({
      id: "recovery",
      title: `Until ${inARow} reads in a row succeed after a restart that takes the server away for ${away / 1000} s, ${workers} fibers`,
      figures: ["recovered", "failed"],
      rounds
    })
  })
