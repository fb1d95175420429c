/** Transactions that happen exactly once although the answer to COMMIT gets lost, by the ledger: each way to lose it. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { beginAgain, claim, commit, from, insertion, ledgered } from "./exactly.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction, exactly once", (it) => {
  it.scoped("the first COMMIT is lost and not applied, the second is lost and applied: the value is the second's", () =>
    Effect.gen(function* () {
      const { insert, kept, ledger, once, proxy, runs } = yield* ledgered()
      yield* proxy.cut({ on: commit, when: "before" })
      const second = yield* proxy.swallowReply({ on: commit })
      const id = yield* once(insert(7))
      assert.strictEqual(yield* second.count, 1)
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 2)
      yield* TestPg.eventually(ledger, (rows) => rows.length === 0, { message: "the token was not swept" })
    })
  )

  for (const ending of ["reset", "close", "blackHole"] as const) {
    it.scoped(`a COMMIT that was applied and whose answer ends in a ${ending} is found, the body runs once`, () =>
      Effect.gen(function* () {
        const { insert, kept, once, proxy, runs } = yield* ledgered()
        yield* proxy.swallowReply({ on: commit, ending })
        const id = yield* once(insert(7), { timeout: "4 seconds" })
        assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
        assert.strictEqual(yield* runs, 1)
      })
    )
  }

  for (const ending of ["reset", "close"] as const) {
    it.scoped(`a COMMIT that never arrived for a ${ending} is made anew`, () =>
      Effect.gen(function* () {
        const { insert, kept, once, proxy, runs } = yield* ledgered()
        yield* proxy.cut({ on: commit, when: "before", ending })
        const id = yield* once(insert(7))
        assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
        assert.strictEqual(yield* runs, 2)
      })
    )
  }

  it.scoped("a COMMIT that never arrived, of a session that still waits for it, is ended and made anew", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs } = yield* ledgered()
      const hold = yield* proxy.hold({ on: commit })
      const id = yield* once(insert(7), { timeout: "4 seconds" })
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 2)
      yield* hold.release
    })
  )

  it.scoped("so it is in the middle of what can not be interrupted", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs } = yield* ledgered()
      yield* proxy.swallowReply({ on: commit })
      const applied = yield* Effect.uninterruptible(once(insert(1), { timeout: "infinity" }))
      yield* proxy.cut({ on: commit, when: "before" })
      const anew = yield* Effect.uninterruptible(once(insert(2), { timeout: "infinity" }))
      assert.deepStrictEqual(yield* kept, [
        { id: applied, n: 1 },
        { id: anew, n: 2 }
      ])
      assert.strictEqual(yield* runs, 3)
    }).pipe(Effect.interruptible)
  )

  it.scoped("a server killed right after COMMIT was forwarded has stored it once when it is back", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { insert, kept, once, proxy } = yield* ledgered()
      for (const n of [1, 2, 3]) {
        const cut = yield* proxy.swallowReply({ on: commit, ending: "blackHole" })
        const fiber = yield* Effect.fork(once(insert(n)))
        yield* cut.happened()
        yield* server.crash
        yield* proxy.heal
        yield* server.start
        const id = yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          (yield* kept).filter((row) => row.n === n),
          [{ id, n }]
        )
      }
    })
  )

  it.scoped("a backend terminated with COMMIT on its way to it has not committed, and the body runs again", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { insert, kept, once, proxy, runs, sessions } = yield* ledgered()
      const hold = yield* proxy.hold({ on: commit })
      const fiber = yield* Effect.fork(once(insert(7)))
      yield* hold.happened()
      const [session] = yield* sessions
      assert.isTrue(yield* server.terminate(session!.pid))
      yield* TestPg.eventually(sessions, (now) => now.every(({ pid }) => pid !== session!.pid))
      yield* hold.release
      const id = yield* Fiber.join(fiber)
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 2)
    })
  )

  it.scoped("four COMMITs in a row are lost: each but the last is known to be dead before the next", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs, tokens } = yield* ledgered()
      yield* proxy.cut({ on: commit, when: "before", times: 3 })
      yield* proxy.swallowReply({ on: commit })
      const id = yield* once(insert(7))
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 4)
      assert.lengthOf(tokens(), 1)
    })
  )

  for (const [name, on] of [
    ["BEGIN", beginAgain],
    ["the token", claim]
  ] as const) {
    for (const how of ["before", "after", "swallowed"] as const) {
      it.scoped(`what asks is lost too, with ${name}, ${how}: it asks again`, () =>
        Effect.gen(function* () {
          const { insert, kept, once, proxy, runs } = yield* ledgered()
          const lose = how === "swallowed" ? proxy.swallowReply({ on }) : proxy.cut({ on, when: how })
          yield* proxy.swallowReply({ on: commit })
          const first = yield* lose
          const applied = yield* once(insert(1))
          assert.strictEqual(yield* runs, 1)
          yield* proxy.cut({ on: commit, when: "before" })
          const second = yield* lose
          const anew = yield* once(insert(2))
          assert.strictEqual(yield* runs, 3)
          assert.deepStrictEqual([yield* first.count, yield* second.count], [1, 1])
          assert.deepStrictEqual(yield* kept, [
            { id: applied, n: 1 },
            { id: anew, n: 2 }
          ])
        })
      )
    }
  }

  for (const how of ["before", "after", "swallowed"] as const) {
    it.scoped(`the body of the second attempt is cut off, ${how}: it runs once more`, () =>
      Effect.gen(function* () {
        const { insert, kept, once, proxy, runs } = yield* ledgered()
        yield* proxy.cut({ on: commit, when: "before" })
        const on = from(2, insertion)
        const lost = yield* how === "swallowed" ? proxy.swallowReply({ on }) : proxy.cut({ on, when: how })
        const id = yield* once(insert(7))
        assert.strictEqual(yield* lost.count, 1)
        assert.strictEqual(yield* runs, 3)
        assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      })
    )
  }
})
