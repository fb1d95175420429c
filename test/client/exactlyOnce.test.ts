/** Transactions that happen exactly once although the answer to COMMIT gets lost. */
import { assert, layer } from "@effect/vitest"
import { Effect, Ref, Schema } from "effect"
import { Operation, type PgError, Transaction } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf } from "./support.js"

/** A client through a proxy, with a ledger and a table `kept` that numbers its rows. */
const fixture = (options: Parameters<typeof clientOf>[0] = {}) =>
  Effect.gen(function* () {
    const { url } = yield* TestPg.database
    yield* TestPg.control("CREATE TABLE kept (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int)", [], url)
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.make({ upstream: server.config })
    const client = yield* clientOf({ url: proxy.url(url), ...options })
    const { context, sql } = client
    yield* Effect.provide(Transaction.createLedger, context)
    const kept = TestPg.control<{ id: number; n: number }>("SELECT id, n FROM kept ORDER BY id", [], url)
    const ledger = TestPg.control<{ kind: string }>("SELECT kind FROM effect_pg_ledger", [], url)
    const runs = yield* Ref.make(0)
    const insert = (n: number) =>
      Effect.zipRight(
        Ref.update(runs, (n) => n + 1),
        Effect.map(sql<{ id: number }>`INSERT INTO kept (n) VALUES (${n}) RETURNING id`, ([row]) => row!.id)
      )
    const once = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: Transaction.Options) =>
      Effect.provide(Transaction.run(effect, { exactlyOnce: true, ...options }), context)
    return { ...client, insert, kept, ledger, once, proxy, runs: Ref.get(runs), url }
  })

const commit = FaultProxy.query(/^COMMIT/)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction, exactly once", (it) => {
  it.scoped("the first COMMIT is lost and not applied, the second is lost and applied: the value is the second's", () =>
    Effect.gen(function* () {
      const { insert, kept, ledger, once, proxy, runs } = yield* fixture()
      const first = yield* proxy.cut({ on: commit, when: "before", times: 1 })
      let second: FaultProxy.Rule | undefined
      const body = Effect.gen(function* () {
        const id = yield* insert(7)
        if ((yield* first.count) === 1) second ??= yield* proxy.swallowReply({ on: commit, times: 1, ending: "reset" })
        return id
      })
      const id = yield* once(body)
      assert.strictEqual(yield* second!.count, 1)
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 2)
      yield* TestPg.eventually(ledger, (rows) => rows.length === 0, { message: "the token was not swept" })
    })
  )

  it.scoped("a COMMIT that was applied and whose answer is lost is found, and the body does not run again", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs } = yield* fixture()
      yield* proxy.swallowReply({ on: commit, times: 1, ending: "reset" })
      const id = yield* once(insert(7))
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 1)
    })
  )

  it.scoped("a COMMIT that never arrived, of a session that still waits for it, is ended and made anew", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs } = yield* fixture()
      const hold = yield* proxy.hold({ on: commit, times: 1 })
      const id = yield* once(insert(7), { timeout: "8 seconds" })
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 2)
      yield* hold.release
    })
  )

  it.scoped("a statement of its own, marked exactly once, is so too", () =>
    Effect.gen(function* () {
      const { context, kept, proxy, sql } = yield* fixture()
      yield* proxy.swallowReply({ on: commit, times: 1, ending: "reset" })
      const rows = yield* sql<{ id: number }>`INSERT INTO kept (n) VALUES (7) RETURNING id`.pipe(
        Operation.named("keep", { exactlyOnce: true }),
        Effect.provide(context)
      )
      assert.deepStrictEqual(yield* kept, [{ id: rows[0]!.id, n: 7 }])
    })
  )

  it.scoped("by the server's ids: what was not applied runs again, what was applied is found, without a table", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs, sql } = yield* fixture()
      yield* sql`DROP TABLE effect_pg_ledger`
      const first = yield* proxy.cut({ on: commit, when: "before", times: 1 })
      let second: FaultProxy.Rule | undefined
      const body = Effect.gen(function* () {
        const id = yield* insert(7)
        if ((yield* first.count) === 1) second ??= yield* proxy.swallowReply({ on: commit, times: 1, ending: "reset" })
        return id
      })
      const id = yield* once(body, { exactlyOnce: "xid" })
      assert.strictEqual(yield* second!.count, 1)
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 2)
    })
  )

  it.scoped("without its table it says how to create it, and nothing is applied", () =>
    Effect.gen(function* () {
      const { insert, kept, once, sql } = yield* fixture()
      yield* sql`DROP TABLE effect_pg_ledger`
      const error = yield* Effect.flip(once(insert(7)))
      assert.include(error.message, "Transaction.createLedger")
      assert.strictEqual(error.outcome, "NotApplied")
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("who gives up is told how to ask: applied, or not and then never", () =>
    Effect.gen(function* () {
      const { context, insert, kept, once, proxy } = yield* fixture()
      const ask = (error: PgError.PgError) =>
        error._tag === "OutcomeUnknownError"
          ? Effect.provide(Transaction.outcome(error), context)
          : Effect.dieMessage(`not unknown: ${error}`)
      // From the body's end on there is no way to the server but the one on which COMMIT goes, and that ends with it.
      const alone = (n: number) =>
        Effect.flip(once(Effect.zipLeft(insert(n), proxy.refuse), { timeout: "1 second", retry: false })).pipe(
          Effect.zipLeft(proxy.accept)
        )
      yield* proxy.swallowReply({ on: commit, times: 1, ending: "reset" })
      const applied = yield* alone(1)
      assert.strictEqual(yield* ask(applied), "Applied")
      const hold = yield* proxy.hold({ on: commit, times: 1 })
      const lost = yield* alone(2)
      assert.strictEqual(yield* ask(lost), "NotApplied")
      yield* hold.release
      assert.strictEqual(yield* ask(lost), "NotApplied")
      assert.deepStrictEqual(
        (yield* kept).map(({ n }) => n),
        [1]
      )
    })
  )

  it.scoped("work with a key runs once, its answer lost or not, and its result is given again", () =>
    Effect.gen(function* () {
      const { context, insert, kept, proxy, runs } = yield* fixture()
      const call = (fingerprint: string) =>
        Effect.provide(Transaction.once("order-1", Schema.Number, insert(7), { fingerprint }), context)
      yield* proxy.swallowReply({ on: commit, times: 1, ending: "reset" })
      const id = yield* call("a")
      assert.deepStrictEqual(yield* Effect.all([call("a"), call("a")], { concurrency: 2 }), [id, id])
      assert.strictEqual(yield* runs, 1)
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual((yield* Effect.flip(call("b")))._tag, "IdempotencyKeyReusedError")
    })
  )
})
