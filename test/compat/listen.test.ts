/** LISTEN, NOTIFY and reactive queries: as on the bare client, and where that one falls silent, on. */

import { Reactivity } from "@effect/experimental"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Chunk, Effect, Fiber, Layer, Ref, Stream } from "effect"
import { Listen, ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { agree, layers, ours } from "./support.js"

/** A subscriber that is known to listen: what it heard after that, and how to wait for so much of it. */
const subscriber = <E>(stream: Stream.Stream<string, E>, notify: (payload: string) => Effect.Effect<unknown, E>) =>
  Effect.gen(function* () {
    const heard = yield* Ref.make<ReadonlyArray<string>>([])
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(stream, (payload) => Ref.update(heard, Arr.append(payload)))
    )
    yield* TestPg.eventually(Effect.zipRight(notify("ready?"), Ref.get(heard)), Arr.isNonEmptyReadonlyArray)
    yield* notify("ready")
    const payloads = Effect.map(Ref.get(heard), (all) => all.slice(all.lastIndexOf("ready") + 1))
    yield* TestPg.eventually(Ref.get(heard), Arr.contains("ready"))
    return {
      fiber,
      /** Waits until `count` payloads have come. */
      payloads: (count: number) => TestPg.eventually(payloads, ({ length }) => length >= count)
    }
  })

const pgNotify = (sql: PgClient.PgClient, channel: string) => (payload: string) =>
  sql`SELECT pg_notify(${channel}, ${payload})`

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("LISTEN and NOTIFY", (it) => {
  it.effect("gives each channel's payloads in order, whatever the channel's name", () =>
    Effect.gen(function* () {
      const heard = yield* agree(
        Effect.gen(function* () {
          const sql = yield* PgClient.PgClient
          const channels = ["plain", "CamelCase", 'with "quotes" and spaces', "ünïcode"]
          const open = (channel: string) => subscriber(sql.listen(channel), pgNotify(sql, channel))
          const all = yield* Effect.forEach(channels, open)
          yield* Effect.forEach(channels, (channel) => Effect.forEach(["1", "2", "3"], pgNotify(sql, channel)))
          return yield* Effect.forEach(all, ({ payloads }) => payloads(3))
        })
      )
      assert.deepStrictEqual(heard, Arr.replicate(["1", "2", "3"], 4))
    })
  )

  it.effect("gives the same notifications to every subscriber of a channel", () =>
    agree(
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const open = subscriber(sql.listen("news"), pgNotify(sql, "news"))
        const first = yield* open
        const second = yield* open
        yield* pgNotify(sql, "news")("for both")
        const heard = yield* TestPg.eventually(first.payloads(1), Arr.contains("for both"))
        return [heard.at(-1), yield* second.payloads(1)]
      })
    )
  )

  it.scoped("goes on for the other subscribers of a channel when one of them leaves", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const notify = pgNotify(sql, "news")
      const stays = yield* subscriber(sql.listen("news"), notify)
      const leaves = yield* subscriber(sql.listen("news"), notify)
      yield* Fiber.interrupt(leaves.fiber)
      yield* notify("still there")
      assert.strictEqual(
        (yield* TestPg.eventually(stays.payloads(1), Arr.contains("still there"))).at(-1),
        "still there"
      )
      // And who comes back hears again.
      const back = yield* subscriber(sql.listen("news"), notify)
      yield* notify("again")
      assert.deepStrictEqual(yield* back.payloads(1), ["again"])
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("sends with notify, any payload, with the transaction that it belongs to", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const channel = 'Odd "channel"'
      const notify = (payload: string) => sql.notify(channel, payload)
      const { payloads } = yield* subscriber(sql.listen(channel), notify)
      yield* notify("it's $1; --")
      yield* notify("")
      yield* Effect.ignore(sql.withTransaction(Effect.zipRight(notify("rolled back"), Effect.fail("no"))))
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* notify("committed")
          yield* Effect.ignore(sql.withTransaction(Effect.zipRight(notify("undone"), Effect.fail("no"))))
        })
      )
      yield* notify("last")
      assert.deepStrictEqual(yield* payloads(4), ["it's $1; --", "", "committed", "last"])
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("hears again by itself after its connection was lost, and after the server was restarted", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const sql = yield* PgClient.PgClient
      const { payloads } = yield* subscriber(sql.listen("news"), pgNotify(sql, "news"))
      const other = yield* subscriber(sql.listen("other news"), pgNotify(sql, "other news"))
      const lose = Effect.gen(function* () {
        const [listening] = yield* TestPg.eventually(
          Effect.map(
            server.backends,
            Arr.filter(({ query }) => query.startsWith("LISTEN"))
          ),
          // Sessions of other clients may still be leaving.
          ({ length }) => length === 1
        )
        yield* server.terminate(listening!.pid)
      })
      for (const [name, fault] of [
        ["terminated", lose],
        ["restarted", server.restart()],
        ["crashed", Effect.zipRight(server.crash, server.start)]
      ] as const) {
        yield* fault
        const retried = (channel: string) =>
          Effect.retry(pgNotify(sql, channel)(name), { times: 20 }).pipe(Effect.delay("10 millis"))
        yield* TestPg.eventually(Effect.zipRight(retried("news"), payloads(0)), (all) => all.includes(name))
        yield* TestPg.eventually(Effect.zipRight(retried("other news"), other.payloads(0)), (all) => all.includes(name))
      }
    }).pipe(Effect.provide(ours()))
  )

  it.scoped("tells those who ask where notifications may have been missed", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const sql = yield* PgClient.PgClient
      const events = yield* Ref.make<ReadonlyArray<Listen.Event>>([])
      yield* Effect.forkScoped(
        Stream.runForEach(ResilientPg.listen("news"), (event) => Ref.update(events, Arr.append(event)))
      )
      const heard = (payload: string) =>
        TestPg.eventually(
          Effect.zipRight(Effect.ignore(sql.notify("news", payload)), Ref.get(events)),
          Arr.some((event) => event._tag === "Notification" && event.payload === payload)
        )
      yield* heard("before")
      yield* server.restart()
      yield* heard("after")
      const seen = Arr.dedupeAdjacent(
        (yield* Ref.get(events)).map((event) => (event._tag === "Gap" ? "gap" : event.payload))
      )
      assert.deepStrictEqual(seen, ["before", "gap", "after"])
      const gap = (yield* Ref.get(events)).find(Listen.Event.$is("Gap"))
      assert.strictEqual(gap?.channel, "news")
      assert.isAtLeast(gap?.millis ?? -1, 0)
    }).pipe(Effect.provide(ours()))
  )

  /** A client and the `Reactivity` that it shares with the program. */
  const reactive = (name: keyof typeof layers) =>
    Layer.unwrapScoped(Effect.map(TestPg.database, ({ url }) => Layer.merge(layers[name](url, {}), Reactivity.layer)))

  const watched = Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    yield* sql`CREATE TABLE numbers (n serial PRIMARY KEY)`
    const insert = Reactivity.mutation(sql`INSERT INTO numbers DEFAULT VALUES`, ["numbers"])
    const count = sql<{ n: number }>`SELECT count(*)::int AS n FROM numbers`
    const streamed = yield* sql.reactive(["numbers"], count).pipe(
      Stream.tap(() => insert),
      Stream.take(3),
      Stream.runCollect
    )
    const mailbox = yield* sql.reactiveMailbox({ numbers: [1] }, count)
    const first = yield* mailbox.take
    yield* Reactivity.mutation(sql.withTransaction(insert), { numbers: [1] })
    // What the stream's last change has set off may come in between, once more with what it was.
    const last = yield* Effect.repeat(mailbox.take, { while: (rows) => rows[0]?.n === first[0]?.n })
    return { streamed: Chunk.toReadonlyArray(streamed), mailbox: [first, last] }
  })

  for (const name of ["bare", "ours"] as const) {
    it.scoped(`runs reactive queries again when what they watch has changed: ${name}`, () =>
      Effect.gen(function* () {
        const { mailbox, streamed } = yield* Effect.provide(watched, reactive(name))
        assert.deepStrictEqual(streamed, [[{ n: 0 }], [{ n: 1 }], [{ n: 2 }]])
        assert.deepStrictEqual(mailbox, [[{ n: 3 }], [{ n: 4 }]])
      })
    )
  }
})
