/** LISTEN and its one connection: what goes wrong for one channel is nothing to the others. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Redacted, Ref, Stream } from "effect"
import { Listen } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure, proxied } from "./support.js"

type Client = Effect.Effect.Success<ReturnType<typeof clientOf>>

/** A subscriber, what it has heard, and a way to wait until it hears what is notified from now on. */
const subscriber = ({ listen, sql }: Client, channel: string) =>
  Effect.gen(function* () {
    const events = yield* Ref.make<ReadonlyArray<Listen.Event>>([])
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(listen(channel), (event) => Ref.update(events, Arr.append(event)))
    )
    const hears = (payload: string) =>
      TestPg.eventually(
        Effect.zipRight(Effect.ignore(sql.notify(channel, payload)), Ref.get(events)),
        Arr.some((event) => event._tag === "Notification" && event.payload === payload),
        { limit: "20 seconds", message: `${channel} does not hear` }
      )
    return { events: Ref.get(events), fiber, hears }
  })

const terminateListening = (server: EmbeddedPostgres.EmbeddedPostgres["Type"], { sessions }: Client) =>
  Effect.gen(function* () {
    const listening = (yield* sessions).filter(({ query }) => /^(UN)?LISTEN/.test(query))
    assert.lengthOf(listening, 1)
    assert.isTrue(yield* server.terminate(listening[0]!.pid))
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Listen", (it) => {
  it.scoped("a listen that is interrupted while LISTEN is in flight holds up no other channel", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url })
      const one = yield* subscriber(client, "one")
      yield* one.hears("hello")
      const held = yield* proxy.hold({ on: FaultProxy.query(/^LISTEN "two"/) })
      const two = yield* subscriber(client, "two")
      yield* held.happened()
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(two.fiber)))
      yield* held.release
      const three = yield* subscriber(client, "three")
      yield* three.hears("hello")
      yield* one.hears("again")
      assert.isEmpty((yield* one.events).filter(Listen.Event.$is("Gap")))
    })
  )

  it.scoped("a connection that the server ends while it is asked for another channel is replaced at once", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url })
      const one = yield* subscriber(client, "one")
      yield* one.hears("before")
      const held = yield* proxy.hold({ on: FaultProxy.query(/LISTEN "two"/), times: 1 })
      const two = yield* subscriber(client, "two")
      yield* held.happened()
      yield* terminateListening(server, client)
      yield* one.hears("after")
      yield* two.hears("after")
      assert.lengthOf((yield* one.events).filter(Listen.Event.$is("Gap")), 1)
    })
  )

  it.scoped("a channel that the server refuses fails its own stream, and none of the others", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url })
      // All of them ask while the one connection is on its way.
      const startup = yield* proxy.hold({ on: FaultProxy.kind("StartupMessage") })
      const good = yield* subscriber(client, "good")
      const bad = yield* Effect.fork(failure(Stream.runDrain(client.listen(""))))
      yield* startup.happened()
      yield* startup.release
      assert.strictEqual((yield* Fiber.join(bad)).sqlState, "42601")
      yield* good.hears("before")
      // And on a connection that is there, and on the next one.
      assert.strictEqual((yield* failure(Stream.runDrain(client.listen("")))).sqlState, "42601")
      yield* terminateListening(yield* EmbeddedPostgres.EmbeddedPostgres, client)
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
      const client = yield* clientOf({
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
      const one = yield* subscriber(client, "one")
      yield* one.hears("before")
      yield* Ref.set(right, false)
      const before = yield* Ref.get(asked)
      yield* terminateListening(server, client)
      // Each try asks twice.
      yield* TestPg.eventually(Ref.get(asked), (n) => n >= before + 4)
      assert.strictEqual((yield* failure(Stream.runDrain(client.listen("two"))))._tag, "AuthenticationError")
      assert.isNull(one.fiber.unsafePoll())
      yield* Ref.set(right, true)
      yield* one.hears("after")
      const gaps = (yield* one.events).filter(Listen.Event.$is("Gap"))
      assert.lengthOf(gaps, 1)
    })
  )
})
