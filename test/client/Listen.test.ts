/** LISTEN: one session outside the pool for all who listen, while anybody does, and a word where something was missed. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Redacted, Ref, Stream } from "effect"
import { Listen } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, hold, proxied } from "./support.js"

/** A client of one connection, and its sessions that listen, or did last. */
const fixture = (options: Parameters<typeof clientOf>[0] = {}) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const client = yield* clientOf({ maxConnections: 1, ...options })
    const listening = Effect.map(
      client.sessions,
      Arr.filter(({ query }) => /^(UN)?LISTEN /.test(query))
    )
    const lastSaid = (query: string) => TestPg.eventually(listening, ([session]) => session?.query === query)
    /** From outside, so that it does not matter what the client is up to. */
    const notify = (channel: string, payload: string) => TestPg.control("SELECT pg_notify($1, $2)", [channel, payload])
    /** Asks for a channel, and keeps what that tells: payloads, and the word "gap". */
    const ask = (channel: string) =>
      Effect.gen(function* () {
        const events = yield* Ref.make<ReadonlyArray<string>>([])
        const seen = Listen.Event.$match({ Notification: ({ payload }) => payload, Gap: () => "gap" })
        const fiber = yield* Effect.forkScoped(
          Stream.runForEach(client.listen(channel), (event) => Ref.update(events, Arr.append(seen(event))))
        )
        const heard = Ref.get(events)
        return {
          fiber,
          heard,
          gaps: Effect.map(heard, (all) => all.filter((event) => event === "gap").length),
          /** Waits until it hears what is said from now on. */
          hears: (payload: string) =>
            TestPg.eventually(Effect.zipRight(notify(channel, payload), heard), Arr.contains(payload), {
              message: `${channel} does not hear`
            }),
          leave: Fiber.interrupt(fiber)
        }
      })
    return {
      ...client,
      ask,
      lastSaid,
      listening,
      notify,
      /** The same, from the moment on that the server has been asked. */
      subscribe: (channel: string) => Effect.tap(ask(channel), () => lastSaid(`LISTEN "${channel}"`)),
      /** The server ends the one session that listens. */
      terminate: Effect.gen(function* () {
        const sessions = yield* listening
        assert.lengthOf(sessions, 1)
        assert.isTrue(yield* server.terminate(sessions[0]!.pid))
        return sessions[0]!.pid
      })
    }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Listen", (it) => {
  it.scoped("several subscribers and channels share one session, which is none of the pool's", () =>
    Effect.gen(function* () {
      const { listening, notify, pool, sql, subscribe } = yield* fixture()
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
        const { lastSaid, listening, notify, subscribe } = yield* fixture()
        const first = yield* subscribe("one")
        const second = yield* subscribe("one")
        const other = yield* subscribe("two")
        const [before] = yield* listening
        yield* first.leave
        // Still wanted.
        yield* notify("one", "for the second")
        yield* TestPg.eventually(second.heard, ({ length }) => length === 1)
        assert.isEmpty(yield* first.heard)
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
        const { lastSaid, listening, notify, subscribe, terminate } = yield* fixture()
        const one = yield* subscribe("one")
        const two = yield* subscribe("two")
        yield* notify("one", "before")
        yield* TestPg.eventually(one.heard, ({ length }) => length === 1)
        const lose = Effect.gen(function* () {
          const lost = yield* terminate
          yield* TestPg.eventually(listening, ([session]) => session !== undefined && session.pid !== lost)
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
      const { notify, subscribe } = yield* fixture()
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

  it.scoped("a listen that is interrupted while LISTEN is in flight holds up no other channel", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { ask } = yield* fixture({ url })
      const one = yield* ask("one")
      yield* one.hears("hello")
      const held = yield* proxy.hold({ on: FaultProxy.query(/^LISTEN "two"/) })
      const two = yield* ask("two")
      yield* held.happened()
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(two.fiber)))
      yield* held.release
      const three = yield* ask("three")
      yield* three.hears("hello")
      yield* one.hears("again")
      assert.strictEqual(yield* one.gaps, 0)
    })
  )

  it.scoped("a connection that the server ends while it is asked for another channel is replaced at once", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { ask, terminate } = yield* fixture({ url })
      const one = yield* ask("one")
      yield* one.hears("before")
      const held = yield* proxy.hold({ on: FaultProxy.query(/LISTEN "two"/), times: 1 })
      const two = yield* ask("two")
      yield* held.happened()
      yield* terminate
      yield* one.hears("after")
      yield* two.hears("after")
      assert.strictEqual(yield* one.gaps, 1)
    })
  )

  it.scoped("a channel that the server refuses fails its own stream, and none of the others", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { ask, listen, terminate } = yield* fixture({ url })
      // All of them ask while the one connection is on its way.
      const startup = yield* proxy.hold({ on: FaultProxy.kind("StartupMessage") })
      const good = yield* ask("good")
      const bad = yield* Effect.fork(failure(Stream.runDrain(listen(""))))
      yield* startup.happened()
      yield* startup.release
      assert.strictEqual((yield* Fiber.join(bad)).sqlState, "42601")
      yield* good.hears("before")
      // And on a connection that is there, and on the next one.
      assert.strictEqual((yield* failure(Stream.runDrain(listen("")))).sqlState, "42601")
      yield* terminate
      yield* good.hears("after")
      assert.isNull(good.fiber.unsafePoll())
    })
  )

  it.scoped("who has listened once waits on while connecting fails for good, and newcomers are told", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { database, host, password, port, username } = server.config
      const right = yield* Ref.make(true)
      const asked = yield* Ref.make(0)
      const { ask, listen, terminate } = yield* fixture({
        url: undefined,
        database,
        host,
        port,
        username,
        password: Effect.zipRight(
          Ref.update(asked, (n) => n + 1),
          Effect.map(Ref.get(right), (right) => (right ? password : Redacted.make("wrong")))
        )
      })
      const one = yield* ask("one")
      yield* one.hears("before")
      yield* Ref.set(right, false)
      const before = yield* Ref.get(asked)
      yield* terminate
      // Each try asks twice.
      yield* TestPg.eventually(Ref.get(asked), (n) => n >= before + 4)
      assert.strictEqual((yield* failure(Stream.runDrain(listen("two"))))._tag, "AuthenticationError")
      assert.isNull(one.fiber.unsafePoll())
      yield* Ref.set(right, true)
      yield* one.hears("after")
      assert.strictEqual(yield* one.gaps, 1)
    })
  )

  it.scoped("interrupting a listen that connects takes no connectTimeout", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const { listen } = yield* clientOf({ url, connectTimeout: "10 minutes" })
      const startup = yield* proxy.hold({ on: FaultProxy.kind("StartupMessage") })
      const fiber = yield* Effect.fork(Stream.runDrain(listen("news")))
      yield* startup.happened()
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      yield* startup.release
      yield* TestPg.eventually(proxy.stats, ({ open }) => open === 0)
    })
  )
})
