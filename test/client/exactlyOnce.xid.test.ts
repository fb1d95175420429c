/** Settling by the server's own transaction ids: what they are worth within one life of the server, and beyond it. */
import { assert, describe, layer, it as plain } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { judge } from "../../src/client/internal/xid.js"
import * as TestPg from "../support/TestPg.js"
import { commit, ledgered, unknown } from "./exactly.js"

describe("What the server's words about an id are worth", () => {
  const facts = { xid: "4294967296000", incarnation: "1/00000002/100.5" }
  const crashed = "1/00000002/200.5"
  const promoted = "1/00000003/300.5"
  const left = "1/00000001/50.5"
  const other = "2/00000002/100.5"
  plain.each([
    ["committed", facts.incarnation, "Applied"],
    ["aborted", facts.incarnation, "NotApplied"],
    ["in progress", facts.incarnation, "Open"],
    ["in the future", facts.incarnation, "NotApplied"],
    [null, facts.incarnation, "Lost"],
    ["committed", crashed, "Lost"],
    ["aborted", crashed, "NotApplied"],
    ["in progress", crashed, "NotApplied"],
    ["in the future", crashed, "NotApplied"],
    [null, crashed, "Lost"],
    ["committed", promoted, "Lost"],
    ["aborted", promoted, "NotApplied"],
    ["in progress", promoted, "NotApplied"],
    ["in the future", promoted, "NotApplied"],
    [null, promoted, "Lost"],
    // A primary that was replaced, or another cluster: neither can say no.
    ...["committed", "aborted", "in progress", "in the future", null].flatMap(
      (status) =>
        [
          [status, left, "Open"],
          [status, other, "Open"]
        ] as const
    )
  ] as const)("%s at %s: %s", (status, current, answer) => {
    assert.strictEqual(judge(facts, current, status), answer)
  })
})

/** Nobody but the tests takes ids. */
const server = EmbeddedPostgres.layer({ settings: { fsync: false, autovacuum: false } })

/** A body that tells its id, whose COMMIT did not arrive before the server crashed; then somebody else commits, or not. */
const crashed = (options: { readonly exactlyOnce: "ledger" | "xid"; readonly somebody: boolean }) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const { insert, kept, once, proxy, runs, sql, url } = yield* ledgered()
    const ids: Array<string> = []
    const body = Effect.gen(function* () {
      const id = yield* insert(7)
      const [row] = yield* sql<{ xid: string }>`SELECT pg_current_xact_id()::text AS xid`
      ids.push(row!.xid)
      return id
    })
    // From here on nothing is flushed but by a COMMIT.
    const [writer] = yield* TestPg.control<{ pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
    )
    process.kill(writer!.pid, "SIGSTOP")
    const held = yield* proxy.hold({ on: commit })
    const fiber = yield* Effect.fork(once(body, { exactlyOnce: options.exactlyOnce }))
    yield* held.happened()
    yield* proxy.refuse
    yield* server.crash
    yield* server.start
    const [somebody] = options.somebody
      ? yield* TestPg.control<{ xid: string }>(
          "INSERT INTO kept (n) VALUES (99) RETURNING pg_current_xact_id()::text AS xid",
          [],
          url
        )
      : []
    yield* proxy.accept
    const exit = yield* Fiber.await(fiber)
    return { exit, ids, kept: yield* kept, runs: yield* runs, somebody: somebody?.xid }
  })

layer(server, { excludeTestServices: true, timeout: "60 seconds" })("Transaction, exactly once by xid", (it) => {
  it.scoped(
    "the first COMMIT is lost and not applied, the second lost and applied: the second's value, no table used",
    () =>
      Effect.gen(function* () {
        const { direct, insert, kept, once, proxy, runs, tokens } = yield* ledgered()
        yield* direct.sql`DROP TABLE effect_pg_ledger`
        yield* proxy.cut({ on: commit, when: "before" })
        const second = yield* proxy.swallowReply({ on: commit })
        const id = yield* once(insert(7), { exactlyOnce: "xid" })
        assert.strictEqual(yield* second.count, 1)
        assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
        assert.strictEqual(yield* runs, 2)
        assert.lengthOf(tokens(), 0)
      })
  )

  it.scoped("an original that still waits for its COMMIT is ended, and made anew", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs } = yield* ledgered()
      const hold = yield* proxy.hold({ on: commit })
      const id = yield* once(insert(7), { exactlyOnce: "xid", timeout: "6 seconds" })
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 2)
      yield* hold.release
    })
  )

  it.scoped("who gives up is told how to ask, and asks a server that has been stopped and started cleanly", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { askDirectly, insert, kept, once, proxy, sql } = yield* ledgered({ alone: true, breaker: false })
      const alone = (n: number) =>
        unknown(once(Effect.zipLeft(insert(n), proxy.refuse), { exactlyOnce: "xid", timeout: "1 second" })).pipe(
          Effect.zipLeft(proxy.accept),
          // The next one has a second, and the pool may take as long to look for the server again.
          Effect.zipLeft(sql`SELECT 1`)
        )
      yield* proxy.swallowReply({ on: commit })
      const applied = yield* alone(1)
      const hold = yield* proxy.hold({ on: commit })
      const lost = yield* alone(2)
      assert.strictEqual(applied.settlement?.mode, "xid")
      yield* server.restart()
      yield* hold.release
      assert.strictEqual(yield* askDirectly(applied), "Applied")
      assert.strictEqual(yield* askDirectly(lost), "NotApplied")
      assert.deepStrictEqual(
        (yield* kept).map(({ n }) => n),
        [1]
      )
    })
  )

  it.scoped("ids are 64 bits from end to end", () =>
    Effect.gen(function* () {
      const { askDirectly, insert, once, proxy } = yield* ledgered({ alone: true })
      yield* proxy.swallowReply({ on: commit })
      const { settlement } = yield* unknown(
        once(Effect.zipLeft(insert(1), proxy.refuse), { exactlyOnce: "xid", timeout: "1 second" })
      )
      if (settlement?.mode !== "xid") throw new Error("no id")
      assert.match(settlement.xid, /^\d+$/)
      // The same 32 bits, ages later: not given to anybody yet.
      const later = String(BigInt(settlement.xid) + 2n ** 32n)
      assert.strictEqual(yield* askDirectly({ ...settlement, xid: later }), "NotApplied")
      assert.strictEqual(yield* askDirectly({ ...settlement, xid: "9223372036854775807" }), "NotApplied")
      assert.strictEqual(yield* askDirectly(settlement), "Applied")
    })
  )

  for (const [name, end] of [
    ["a crash", (server: EmbeddedPostgres.EmbeddedPostgres["Type"]) => Effect.zipRight(server.crash, server.start)],
    ["an immediate stop", (server: EmbeddedPostgres.EmbeddedPostgres["Type"]) => server.restart({ mode: "immediate" })]
  ] as const) {
    it.scoped(`after ${name} what is committed is not believed, and it says so`, () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        const { insert, kept, once, proxy, runs } = yield* ledgered()
        const cut = yield* proxy.swallowReply({ on: commit, ending: "blackHole" })
        const fiber = yield* Effect.fork(unknown(once(insert(1), { exactlyOnce: "xid" })))
        yield* cut.happened()
        yield* end(server)
        yield* proxy.heal
        const error = yield* Fiber.join(fiber)
        // Not even later: there is nothing to ask by.
        assert.isUndefined(error.settlement)
        assert.deepStrictEqual([(yield* kept).length, yield* runs], [1, 1])
      })
    )
  }

  it.scoped("one killed backend makes the server recover, which is a crash like any other", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { askDirectly, direct, insert, once, proxy } = yield* ledgered({ alone: true })
      yield* proxy.swallowReply({ on: commit })
      const error = yield* unknown(
        once(Effect.zipLeft(insert(1), proxy.refuse), { exactlyOnce: "xid", timeout: "1 second" })
      )
      assert.strictEqual(yield* askDirectly(error), "Applied")
      yield* server.kill(yield* direct.pid)
      yield* TestPg.eventually(Effect.exit(direct.sql`SELECT 1`), Exit.isSuccess)
      assert.strictEqual(yield* askDirectly(error), "Expired")
    })
  )

  it.scoped("an id that was lost in a crash, and is nobody's yet, is of what was not applied", () =>
    Effect.gen(function* () {
      const { exit, ids, kept, runs } = yield* crashed({ exactlyOnce: "xid", somebody: false })
      assert.isTrue(Exit.isSuccess(exit), String(exit))
      assert.deepStrictEqual([kept.map(({ n }) => n), runs], [[7], 2])
      assert.strictEqual(ids[1], ids[0], "the crash lost nothing: the id was not given again")
    })
  )

  it.scoped("an id that a crash hands out twice: xid does not know, and the ledger does", () =>
    Effect.gen(function* () {
      const byXid = yield* crashed({ exactlyOnce: "xid", somebody: true })
      assert.strictEqual(byXid.somebody, byXid.ids[0], "the crash lost nothing: the id was not given again")
      const error = yield* unknown(byXid.exit)
      assert.isUndefined(error.settlement)
      assert.deepStrictEqual([byXid.kept.map(({ n }) => n), byXid.runs], [[99], 1])

      const byLedger = yield* crashed({ exactlyOnce: "ledger", somebody: true })
      assert.strictEqual(byLedger.somebody, byLedger.ids[0], "the crash lost nothing: the id was not given again")
      const id = yield* byLedger.exit
      assert.deepStrictEqual(byLedger.kept.at(-1), { id, n: 7 })
      assert.deepStrictEqual([byLedger.kept.map(({ n }) => n), byLedger.runs], [[99, 7], 2])
    })
  )
})
