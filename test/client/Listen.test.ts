/** LISTEN: one session outside the pool for all who listen, while anybody does, and a word where something was missed. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Ref, Stream } from "effect"
import { Listen } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, hold } from "./support.js"

/** A client of one connection, and its sessions that listen, or did last. */
const fixture = Effect.gen(function* () {
  const client = yield* clientOf({ maxConnections: 1 })
  const listening = Effect.map(
    client.sessions,
    Arr.filter(({ query }) => /^(UN)?LISTEN /.test(query))
  )
  const lastSaid = (query: string) => TestPg.eventually(listening, ([session]) => session?.query === query)
  /** What a channel tells, from the moment on that the server has been asked for it. */
  const subscribe = (channel: string) =>
    Effect.gen(function* () {
      const events = yield* Ref.make<ReadonlyArray<Listen.Event>>([])
      const fiber = yield* Effect.fork(
        Stream.runForEach(client.listen(channel), (event) => Ref.update(events, Arr.append(event)))
      )
      yield* lastSaid(`LISTEN "${channel}"`)
      return {
        /** Payloads, and the word "gap". */
        heard: Effect.map(
          Ref.get(events),
          Arr.map(Listen.Event.$match({ Notification: ({ payload }) => payload, Gap: () => "gap" }))
        ),
        leave: Fiber.interrupt(fiber)
      }
    })
  /** From outside, so that it does not matter what the client is up to. */
  const notify = (channel: string, payload: string) => TestPg.control("SELECT pg_notify($1, $2)", [channel, payload])
  return { ...client, lastSaid, listening, notify, subscribe }
})

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Listen", (it) => {
  it.scoped("several subscribers and channels share one session, which is none of the pool's", () =>
    Effect.gen(function* () {
      const { listening, notify, pool, sql, subscribe } = yield* fixture
      yield* hold(sql)
      const [a, b, c] = yield* Effect.all([subscribe("one"), subscribe("two"), subscribe("one")])
      assert.lengthOf(yield* listening, 1)
      assert.deepInclude(yield* pool, { total: 1, used: 1 })
      yield* notify("one", "1")
      yield* notify("two", "")
      yield* notify("three", "nobody's")
      yield* notify("one", "2")
      yield* TestPg.eventually(
        Effect.all([a.heard, b.heard, c.heard]),
        ([a, b, c]) => a.length === 2 && b.length === 1 && c.length === 2
      )
      assert.deepStrictEqual(yield* Effect.all([a.heard, b.heard, c.heard]), [["1", "2"], [""], ["1", "2"]])
    })
  )

  it.scoped(
    "the last to leave a channel ends it, the last of all ends the session, and the next one starts another",
    () =>
      Effect.gen(function* () {
        const { lastSaid, listening, notify, subscribe } = yield* fixture
        const first = yield* subscribe("one")
        const second = yield* subscribe("one")
        const other = yield* subscribe("two")
        const [before] = yield* listening
        yield* first.leave
        // Still wanted: nothing is said.
        yield* lastSaid('LISTEN "two"')
        yield* second.leave
        yield* lastSaid('UNLISTEN "one"')
        yield* notify("two", "still there")
        yield* TestPg.eventually(other.heard, ({ length }) => length === 1)
        yield* other.leave
        yield* TestPg.eventually(listening, Arr.isEmptyReadonlyArray)
        const again = yield* subscribe("two")
        yield* notify("two", "again")
        yield* TestPg.eventually(again.heard, ({ length }) => length === 1)
        assert.notStrictEqual((yield* listening)[0]!.pid, before!.pid)
      })
  )

  it.scoped(
    "after a loss each subscriber hears of the gap, once, before what comes after it; newcomers hear of none",
    () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        const { lastSaid, listening, notify, subscribe } = yield* fixture
        const one = yield* subscribe("one")
        const two = yield* subscribe("two")
        yield* notify("one", "before")
        yield* TestPg.eventually(one.heard, ({ length }) => length === 1)
        const lose = Effect.gen(function* () {
          const [lost] = yield* listening
          yield* server.terminate(lost!.pid)
          yield* TestPg.eventually(listening, ([session]) => session !== undefined && session.pid !== lost!.pid)
        })
        yield* lose
        yield* lastSaid('LISTEN "two"')
        yield* TestPg.eventually(two.heard, ({ length }) => length === 1)
        const newcomer = yield* subscribe("one")
        yield* notify("one", "after")
        yield* notify("two", "after")
        yield* TestPg.eventually(Effect.all([one.heard, two.heard, newcomer.heard]), Arr.every(Arr.contains("after")))
        assert.deepStrictEqual(yield* one.heard, ["before", "gap", "after"])
        assert.deepStrictEqual(yield* two.heard, ["gap", "after"])
        assert.deepStrictEqual(yield* newcomer.heard, ["after"])
        yield* lose
        yield* TestPg.eventually(newcomer.heard, ({ length }) => length === 2)
        assert.deepStrictEqual(yield* newcomer.heard, ["after", "gap"])
      })
  )

  it.scoped("while the server is away the listeners wait, and come back with it", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { notify, subscribe } = yield* fixture
      const { heard } = yield* subscribe("one")
      yield* Effect.addFinalizer(() => Effect.orDie(server.start))
      yield* server.stop()
      yield* server.start
      yield* TestPg.eventually(heard, ({ length }) => length === 1)
      yield* notify("one", "back")
      yield* TestPg.eventually(heard, ({ length }) => length === 2)
      assert.deepStrictEqual(yield* heard, ["gap", "back"])
    })
  )

  it.scoped("notify takes any payload, and speaks when its transaction commits, not when it is rolled back", () =>
    Effect.gen(function* () {
      const { sql, subscribe } = yield* fixture
      const { heard } = yield* subscribe("it's odd")
      const notify = (payload: string) => sql.notify("it's odd", payload)
      yield* sql.withTransaction(Effect.zipRight(notify("undone"), Effect.fail("undone"))).pipe(Effect.flip)
      yield* sql.withTransaction(Effect.zipRight(notify("it's; --"), sql`SELECT 1`))
      yield* notify("")
      yield* TestPg.eventually(heard, ({ length }) => length === 2)
      assert.deepStrictEqual(yield* heard, ["it's; --", ""])
    })
  )
})
