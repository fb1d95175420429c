import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { patience } from "../../../src/client/internal/patience.js"
import { stall } from "../../support/stall.js"
import * as Tcp from "../../support/Tcp.js"

const patienceEnds = (millis: number) =>
  Effect.async<void>((resume) => {
    const stop = patience(millis, () => resume(Effect.void))
    return Effect.sync(stop)
  })

/** Of the live clock, how long the effect took. Timers of whole milliseconds may come one early. */
const millisOf = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const from = performance.now()
    yield* self
    return performance.now() - from + 1
  })

describe("patience", () => {
  it.live("ends after its time, and not before", () =>
    Effect.gen(function* () {
      assert.isAtLeast(yield* millisOf(patienceEnds(200)), 200)
    })
  )

  it.live("a stall longer than the whole time uses up a tenth of it", () =>
    Effect.gen(function* () {
      const waiting = yield* Effect.fork(patienceEnds(200))
      yield* Effect.yieldNow()
      yield* stall(1_000)
      assert.isAtLeast(yield* millisOf(Fiber.join(waiting)), 180)
    })
  )

  it.live("two stalls use up two tenths of it", () =>
    Effect.gen(function* () {
      const waiting = yield* Effect.fork(patienceEnds(200))
      yield* Effect.yieldNow()
      yield* stall(300)
      yield* Effect.sleep(0)
      yield* stall(300)
      assert.isAtLeast(yield* millisOf(Fiber.join(waiting)), 160)
    })
  )

  it.scopedLive("an answer that came during the last stall has its turn before the end", () =>
    Effect.gen(function* () {
      const server = yield* Tcp.server
      const { socket } = yield* Tcp.connect(server.port)
      const peer = yield* server.next
      const order: Array<string> = []
      socket.on("data", () => order.push("answer"))
      yield* Effect.async<void>((resume) => {
        // From here on each turn of the event loop is late for one slice.
        const turn = (n: number) => {
          if (n === 10) peer.socket.write("!")
          if (n > 10) return
          Effect.runSync(stall(5))
          setImmediate(turn, n + 1)
        }
        setImmediate(() => {
          patience(20, () => {
            order.push("over")
            resume(Effect.void)
          })
          turn(1)
        })
      })
      assert.deepStrictEqual(order, ["answer", "over"])
    })
  )

  it.live("stopped, it never ends", () =>
    Effect.gen(function* () {
      let ended = 0
      const stop = patience(10, () => ended++)
      stop()
      yield* patienceEnds(20)
      assert.strictEqual(ended, 0)
    })
  )

  it.effect("goes by the live clock, so that a program under TestClock never hangs on it", () =>
    Effect.gen(function* () {
      yield* patienceEnds(10)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )
})
