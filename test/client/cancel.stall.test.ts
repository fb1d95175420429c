/** The program's own event loop stands still while a statement is being cancelled: no fault of the server's. */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber } from "effect"
import { stall } from "../support/stall.js"
import * as TestPg from "../support/TestPg.js"
import { clientOf, proxied } from "./support.js"

/** Each limit of a cancel, and half as much again. */
const longer = 1_500

/** Goes on for a while after it was cancelled: the cancel's socket is closed long before the answer comes. */
const stubborn = `DO $$ BEGIN
  PERFORM pg_sleep(600);
EXCEPTION WHEN query_canceled THEN
  PERFORM pg_sleep(0.3);
END $$`

/** What has been sent by then is on its way, and the answer comes while nobody here can listen. */
const stallNext = () => setImmediate(() => Effect.runSync(stall(longer)))

/** A moment of settling, told by the session's socket and the cancel's, at which the event loop stands still. */
type Moment = (session: Net.Socket, cancel: Net.Socket) => void

const moments: ReadonlyArray<readonly [name: string, moment: Moment, statement?: string]> = [
  ["the cancel is connecting", stallNext],
  ["the server is to close the cancel's socket", (_, cancel) => cancel.once("connect", stallNext)],
  ["the cancelled statement is to be answered", (_, cancel) => cancel.once("close", stallNext), stubborn],
  ["the barrier is to be answered", (session) => session.once("data", stallNext)]
]

/** Runs the statement until the server is at it, and interrupts it. */
const interruptMidway = (client: Effect.Effect.Success<ReturnType<typeof clientOf>>, statement: string) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(client.sql.unsafe(statement))
    yield* TestPg.eventually(
      client.sessions,
      Arr.some(({ query, state }) => query === statement && state === "active")
    )
    assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Cancelling: stalls of our own", (it) => {
  it.scoped.each(moments)(
    "a stall while %s does not cost the connection",
    ([, moment, statement = "SELECT pg_sleep(600)"]) =>
      Effect.gen(function* () {
        const sockets: Array<Net.Socket> = []
        const client = yield* clientOf({
          maxConnections: 1,
          stream: () => {
            const socket = new Net.Socket()
            if (sockets.push(socket) === 2) moment(sockets[0]!, socket)
            return socket
          }
        })
        const before = yield* client.pid
        yield* interruptMidway(client, statement)
        assert.strictEqual(yield* client.pid, before)
        assert.strictEqual((yield* client.pool).generation, 0)
        assert.lengthOf(sockets, 2)
      })
  )

  it.scoped("a stall right after the interruption does not cost the connection", () =>
    Effect.gen(function* () {
      const client = yield* clientOf({ maxConnections: 1 })
      const before = yield* client.pid
      yield* Effect.zipRight(interruptMidway(client, "SELECT pg_sleep(600)"), stall(longer))
      assert.strictEqual(yield* client.pid, before)
    })
  )

  it.scoped("after a stall a server that stays silent is noticed all the same", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* proxied
      const client = yield* clientOf({ url, maxConnections: 1 })
      const before = yield* client.pid
      const fiber = yield* Effect.fork(client.sql.unsafe("SELECT pg_sleep(600)"))
      yield* TestPg.eventually(
        client.sessions,
        Arr.some(({ query, state }) => query.includes("pg_sleep") && state === "active")
      )
      yield* proxy.blackHole({ existing: true })
      yield* Effect.zipRight(Fiber.interrupt(fiber), stall(longer))
      assert.notStrictEqual(yield* client.pid, before)
      assert.isAbove((yield* client.pool).generation, 0)
    })
  )
})
