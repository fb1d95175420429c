/** LISTEN and its one connection: what goes wrong for one channel is nothing to the others. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Ref, Stream } from "effect"
import { Listen } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, proxied } from "./support.js"

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
    const listening = (yield* sessions).filter(({ query }) => query.startsWith("LISTEN"))
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
})
