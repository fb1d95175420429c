/** LISTEN and NOTIFY. */

import type { PgClient } from "@effect/sql-pg"
import { Effect, Option, Queue, Schedule, Stream } from "effect"
import * as TestPg from "../../support/TestPg.js"
import type { Row } from "../row.js"
import { ending, patiently, type World } from "../world.js"

/** What is heard on a channel, from when the server has taken the LISTEN. */
const listening = ({ ask }: World, sql: PgClient.PgClient) =>
  Effect.gen(function* () {
    const heard = yield* Queue.unbounded<string>()
    yield* Effect.forkScoped(Stream.runForEach(sql.listen("events"), (payload) => Queue.offer(heard, payload)))
    const listeners = ask<{ pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'"
    )
    const [listener] = yield* TestPg.eventually(listeners, ({ length }) => length === 1)
    return { heard, pid: listener!.pid }
  })

const listenerLost: Row = {
  number: 12,
  what: "the LISTEN connection is lost",
  run: (world) =>
    Effect.gen(function* () {
      const sql = yield* world.connect(1)
      const { heard, pid } = yield* listening(world, sql)
      yield* world.server.terminate(pid)
      yield* TestPg.eventually(world.server.backends, (all) => all.every((backend) => backend.pid !== pid))
      // What was notified while nobody listened is lost: so again and again, until it is heard.
      const told = Effect.repeat(Effect.zipRight(world.ask("NOTIFY events, 'hello'"), Queue.size(heard)), {
        until: (size) => size > 0,
        schedule: Schedule.spaced("50 millis")
      })
      const again = Option.isSome(yield* patiently(world, told))
      return { held: again, seen: again ? "listens again by itself" : "silent" }
    })
}

const payload = "it's here"

const notifyFails: Row = {
  number: 13,
  what: "`notify(channel, payload)`",
  run: (world) =>
    Effect.gen(function* () {
      const sql = yield* world.connect(1)
      const { heard } = yield* listening(world, sql)
      const exit = yield* Effect.exit(sql.notify("events", payload))
      if (exit._tag === "Failure") return { held: false, seen: `always ${ending(exit)}` }
      const first = yield* patiently(world, Queue.take(heard))
      const delivered = Option.contains(first, payload)
      return { held: delivered, seen: delivered ? "delivered" : "not delivered" }
    })
}

export const rows: ReadonlyArray<Row> = [listenerLost, notifyFails]
