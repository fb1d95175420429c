import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import { vi } from "vitest"
import * as Port from "../../src/testing/internal/port.js"
import * as Tcp from "../support/Tcp.js"

/** A port that was free when it was chosen and is taken when it is used; the next choice is a real one. */
const lost: { port: number | undefined } = vi.hoisted(() => ({ port: undefined }))
vi.mock("../../src/testing/internal/port.js", async (importOriginal) => {
  const original = await importOriginal<typeof Port>()
  return {
    ...original,
    choose: (host: string) =>
      Effect.suspend(() => {
        const { port } = lost
        lost.port = undefined
        return port === undefined ? original.choose(host) : Effect.succeed(port)
      })
  }
})

describe("a chosen port", () => {
  it.scopedLive("lies below the range of outgoing connections and is free", () =>
    Effect.gen(function* () {
      const port = yield* Port.choose("127.0.0.1")
      assert.isAtLeast(port, 20_000)
      assert.isBelow(port, 32_000)
      assert.isTrue(yield* Port.isFree(port, "127.0.0.1"))
      const { port: taken } = yield* Tcp.server
      assert.isFalse(yield* Port.isFree(taken, "127.0.0.1"))
    })
  )

  it.scopedLive("is chosen again when somebody else takes it in the same moment", () =>
    Effect.gen(function* () {
      const taken = yield* Tcp.server
      lost.port = taken.port
      const server = yield* EmbeddedPostgres.make()
      assert.include(yield* server.log, "Address already in use")
      assert.notStrictEqual(server.config.port, taken.port)
      assert.deepStrictEqual(yield* server.query("SELECT 1 AS one"), [{ one: 1 }])
      lost.port = taken.port
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      assert.notStrictEqual(proxy.port, taken.port)
      assert.strictEqual(lost.port, undefined)
    })
  )
})
