/** What runs exactly once: bodies that fail, only read, are nested, bounded or interrupted, and single statements. */
import { assert, layer } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { Operation } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { claim, commit, ledgered, unknown } from "./exactly.js"
import { commitWaitsFor } from "./kept.js"
import { advisoryLock, waitingForLock } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("What runs exactly once", (it) => {
  it.scoped("a body that fails in the second attempt: its own failure comes, and nothing is stored", () =>
    Effect.gen(function* () {
      const { insert, kept, ledger, once, proxy, runs } = yield* ledgered()
      yield* proxy.cut({ on: commit, when: "before" })
      const body = Effect.zipRight(
        insert(7),
        Effect.flatMap(runs, (n) => (n === 2 ? Effect.fail("mine") : Effect.void))
      )
      assert.strictEqual(yield* Effect.flip(once(body)), "mine")
      assert.deepStrictEqual([yield* kept, yield* ledger], [[], []])
    })
  )

  it.scoped("what the server refuses at COMMIT is an answer: typed, and nothing to find out", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs, tokens, url } = yield* ledgered()
      yield* TestPg.control("ALTER TABLE kept ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED", [], url)
      yield* TestPg.control("INSERT INTO kept (n) VALUES (7)", [], url)
      const error = yield* Effect.flip(once(insert(7)))
      assert.deepInclude(error, { _tag: "UniqueViolation", constraint: "once", phase: "Commit", outcome: "NotApplied" })
      assert.strictEqual(yield* runs, 1)
      assert.lengthOf(tokens(), 1)
      // In the attempt that asks, too.
      yield* proxy.cut({ on: commit, when: "before" })
      assert.strictEqual((yield* Effect.flip(once(insert(7))))._tag, "UniqueViolation")
      assert.lengthOf(yield* kept, 1)
    })
  )

  it.scoped("40001 at COMMIT is repeated, or told where that is not wanted", () =>
    Effect.gen(function* () {
      const { insert, kept, once, runs, tokens, url } = yield* ledgered()
      yield* TestPg.control("CREATE SEQUENCE tries", [], url)
      yield* TestPg.control(
        `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN IF nextval(''tries'') % 2 = 1 THEN RAISE serialization_failure; END IF; RETURN NULL; END'`,
        [],
        url
      )
      yield* TestPg.control(
        `CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION fail()`,
        [],
        url
      )
      const id = yield* once(insert(1), { isolation: "serializable" })
      assert.deepStrictEqual(yield* kept, [{ id, n: 1 }])
      assert.strictEqual(yield* runs, 2)
      assert.lengthOf(tokens(), 2)
      const error = yield* Effect.flip(once(insert(2), { isolation: "serializable", retry: false }))
      assert.deepInclude(error, { _tag: "SerializationError", phase: "Commit", outcome: "NotApplied", attempts: 1 })
      assert.strictEqual(yield* runs, 3)
    })
  )

  it.scoped("23505 in the body settles nothing, of the ledger itself neither", () =>
    Effect.gen(function* () {
      const { insert, kept, ledger, once, proxy, sql, url } = yield* ledgered()
      yield* TestPg.control("CREATE UNIQUE INDEX one ON kept (n)", [], url)
      yield* TestPg.control("INSERT INTO kept (n) VALUES (7)", [], url)
      assert.strictEqual((yield* Effect.flip(once(insert(7)))).constraint, "one")
      const again = sql`INSERT INTO effect_pg_ledger SELECT * FROM effect_pg_ledger`
      assert.strictEqual(
        (yield* Effect.flip(once(Effect.zipRight(insert(8), again)))).constraint,
        "effect_pg_ledger_token"
      )
      yield* proxy.cut({ on: commit, when: "before" })
      const second = Effect.whenEffect(
        again,
        Effect.map(kept, () => proxyUsed)
      )
      let proxyUsed = false
      const error = yield* Effect.flip(
        once(Effect.zipRight(insert(9), second).pipe(Effect.zipLeft(Effect.sync(() => (proxyUsed = true)))))
      )
      assert.strictEqual(error.constraint, "effect_pg_ledger_token")
      assert.deepStrictEqual(
        (yield* kept).map(({ n }) => n),
        [7]
      )
      assert.deepStrictEqual(yield* ledger, [])
    })
  )

  it.scoped("of what only reads there is nothing to find out: a lost answer is asked for again", () =>
    Effect.gen(function* () {
      const { ledger, once, proxy, sql, tokens } = yield* ledgered()
      let runs = 0
      const read = Effect.map(sql<{ one: number }>`SELECT 1 AS one`, ([row]) => {
        runs++
        return row!.one
      })
      yield* proxy.swallowReply({ on: commit })
      assert.strictEqual(yield* once(read, { readOnly: true }), 1)
      assert.strictEqual(runs, 2)
      assert.lengthOf(tokens(), 0)
      yield* proxy.swallowReply({ on: commit })
      assert.strictEqual(yield* once(read), 1)
      assert.strictEqual(runs, 4)
      yield* proxy.swallowReply({ on: commit, ending: "blackHole" })
      assert.strictEqual(yield* once(read, { timeout: "3 seconds" }), 1)
      // Without anybody to acknowledge it, the first attempt's token stays until the retention is over.
      yield* TestPg.eventually(ledger, (rows) => rows.length === 2)
    })
  )

  it.scoped("inside another transaction it is that one's; a nested one is its own", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs, sql, tokens } = yield* ledgered()
      yield* proxy.swallowReply({ on: commit })
      const outer = yield* Effect.flip(sql.withTransaction(once(insert(1))))
      assert.include(String((outer as { readonly cause?: unknown }).cause), "OutcomeUnknownError")
      assert.lengthOf(tokens(), 0)
      yield* proxy.swallowReply({ on: commit })
      const id = yield* once(sql.withTransaction(Effect.zipRight(once(insert(2)), insert(3))))
      assert.strictEqual(yield* runs, 3)
      assert.strictEqual((yield* kept).at(-1)!.id, id)
      assert.lengthOf(tokens(), 1)
    })
  )

  it.scoped("without retry a failed body is not repeated, a lost COMMIT is settled all the same", () =>
    Effect.gen(function* () {
      const { insert, kept, once, proxy, runs, sql } = yield* ledgered()
      const failing = sql`DO $$ BEGIN RAISE serialization_failure; END $$`
      const error = yield* Effect.flip(once(Effect.zipRight(insert(1), failing), { retry: false }))
      assert.strictEqual(error._tag, "SerializationError")
      assert.strictEqual(yield* runs, 1)
      yield* proxy.cut({ on: commit, when: "before" })
      const id = yield* once(insert(2), { retry: false })
      assert.strictEqual(yield* runs, 3)
      assert.deepStrictEqual(yield* kept, [{ id, n: 2 }])
    })
  )

  it.scoped("interrupted while it settles, it is interrupted, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { insert, once, pool, proxy, sessions } = yield* ledgered({ alone: true })
      const cut = yield* proxy.cut({ on: commit, when: "before" })
      const fiber = yield* Effect.fork(once(Effect.zipLeft(insert(1), proxy.refuse)))
      yield* cut.happened()
      yield* TestPg.eventually(pool, ({ waiting }) => waiting > 0)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
      yield* proxy.accept
      // Also while the token waits for the session that still is there.
      const hold = yield* proxy.hold({ on: commit })
      const swallowed = yield* proxy.swallowReply({ on: claim, ending: "blackHole" })
      const waiting = yield* Effect.fork(once(insert(2), { timeout: "4 seconds" }))
      yield* swallowed.happened()
      const exit = yield* Fiber.interrupt(waiting)
      assert.isTrue(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause))
      yield* hold.release
      yield* proxy.heal
      yield* TestPg.eventually(pool, ({ connecting, quarantined, used }) => used + quarantined + connecting === 0)
      const { total } = yield* pool
      yield* TestPg.eventually(sessions, (now) => now.length === total && now.every(({ state }) => state === "idle"))
    })
  )

  it.scoped("a deadline around it tells how to find out, but only of the one write that it is about", () =>
    Effect.gen(function* () {
      const { ask, insert, once, proxy } = yield* ledgered({ alone: true })
      const bounded = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        unknown(Operation.named("outer", { timeout: "1 second" })(effect))
      yield* proxy.swallowReply({ on: commit })
      const applied = yield* bounded(once(Effect.zipLeft(insert(1), proxy.refuse)))
      yield* proxy.accept
      assert.strictEqual(applied.operation, "outer")
      assert.strictEqual(yield* ask(applied), "Applied")
      // COMMIT still on its way.
      const hold = yield* proxy.hold({ on: commit })
      const lost = yield* bounded(once(Effect.zipLeft(insert(2), proxy.refuse)))
      yield* proxy.accept
      assert.strictEqual(yield* ask(lost), "NotApplied")
      yield* hold.release
      // The first is done; the second has not even begun to end. What became of that one says nothing about the first.
      const both = yield* bounded(Effect.zipRight(once(insert(3)), once(Effect.zipRight(insert(4), Effect.never))))
      assert.isUndefined(both.settlement)
      // Two are open.
      yield* proxy.hold({ on: commit, times: Infinity })
      const two = yield* bounded(Effect.zip(once(insert(5)), once(insert(6)), { concurrent: true }))
      assert.isUndefined(two.settlement)
    })
  )

  it.scoped("isolation comes by option: SET TRANSACTION is too late", () =>
    Effect.gen(function* () {
      const { once, sql } = yield* ledgered()
      const level = Effect.map(
        sql<{ transaction_isolation: string }>`SHOW transaction_isolation`,
        ([row]) => row!.transaction_isolation
      )
      assert.strictEqual(yield* once(level, { isolation: "serializable" }), "serializable")
      const error = yield* Effect.flip(once(sql`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`))
      assert.strictEqual(error.sqlState, "25001")
    })
  )

  it.scoped("the body has the session's lock_timeout, in a second attempt too", () =>
    Effect.gen(function* () {
      const { insert, once, proxy, sql } = yield* ledgered({ serverTimeouts: { lock: "7 seconds" } })
      const shown: Array<string> = []
      const body = Effect.zipRight(
        insert(1),
        Effect.map(sql<{ lock_timeout: string }>`SHOW lock_timeout`, ([row]) => shown.push(row!.lock_timeout))
      )
      yield* proxy.cut({ on: commit, when: "before" })
      yield* once(body)
      assert.deepStrictEqual(shown, ["7s", "7s"])
    })
  )

  it.scoped("an insert that waits for an original at work is ended by statement_timeout, and comes again", () =>
    Effect.gen(function* () {
      const { insert, kept, messages, once, proxy, runs, sql, url } = yield* ledgered({
        serverTimeouts: { statement: "300 millis" }
      })
      yield* TestPg.control(commitWaitsFor(1), [], url)
      const lock = yield* advisoryLock(1, url)
      yield* proxy.cut({ on: commit, when: "after" })
      const fiber = yield* Effect.fork(once(Effect.zipRight(sql`SET LOCAL statement_timeout = 0`, insert(7))))
      const claims = Effect.sync(() => messages.filter(claim).length)
      yield* TestPg.eventually(claims, (n) => n >= 3, { message: "it was not asked again" })
      assert.strictEqual(yield* waitingForLock("COMMIT"), 1)
      yield* lock.release
      const id = yield* Fiber.join(fiber)
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
      assert.strictEqual(yield* runs, 1)
    })
  )

  it.scoped("costs no round trip: as many messages as a transaction has whose BEGIN goes alone", () =>
    Effect.gen(function* () {
      const { insert, messages, once, sql } = yield* ledgered({ preparedStatements: false })
      const sent = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.gen(function* () {
          messages.length = 0
          yield* effect
          return messages.map(({ kind, text }) => `${kind} ${text.split(/[ ;]/)[0]}`)
        })
      yield* sql`SELECT 1`
      // Several commands in one text: BEGIN does not travel with them.
      const alone = sql.unsafe("SELECT 1; SELECT 2")
      const before = yield* sent(sql.withTransaction(Effect.zipRight(alone, insert(1))))
      const plain = before.filter((message) => message !== "Query SELECT")
      assert.strictEqual(plain.filter((message) => /^(Query|Sync)/.test(message)).length, 3)
      assert.deepStrictEqual(yield* sent(once(insert(2), { exactlyOnce: "xid" })), plain)
      assert.deepStrictEqual(yield* sent(once(insert(3))), plain)
    })
  )

  it.scoped("a statement of its own, marked exactly once, is so too", () =>
    Effect.gen(function* () {
      const { kept, proxy, sql, tokens } = yield* ledgered()
      const keep = (options: Operation.Options) =>
        sql<{ id: number }>`INSERT INTO kept (n) VALUES (7) RETURNING id`.pipe(Operation.named("keep", options))
      yield* proxy.swallowReply({ on: commit })
      const [applied] = yield* keep({ exactlyOnce: true })
      yield* proxy.cut({ on: commit, when: "before" })
      const [anew] = yield* keep({ exactlyOnce: "xid" })
      assert.deepStrictEqual(yield* kept, [
        { id: applied!.id, n: 7 },
        { id: anew!.id, n: 7 }
      ])
      // Of a read there is nothing to find out.
      assert.lengthOf(tokens(), 1)
      yield* sql`SELECT 1`.pipe(Operation.named("read", { exactlyOnce: true }))
      // Nor of what may be applied twice.
      yield* keep({ exactlyOnce: true, idempotent: true })
      assert.lengthOf(tokens(), 1)
      // Inside a transaction it is that one's.
      yield* sql.withTransaction(keep({ exactlyOnce: true }))
      assert.lengthOf(tokens(), 1)
    })
  )

  it.scoped("it is asked for in time also where nothing is taken for a read", () =>
    Effect.gen(function* () {
      const { kept, proxy, sql, tokens } = yield* ledgered({ autoRetryReads: false })
      yield* proxy.swallowReply({ on: commit })
      const [row] = yield* sql<{ id: number }>`INSERT INTO kept (n) VALUES (7) RETURNING id`.pipe(
        Operation.named("keep", { exactlyOnce: true, readOnly: false })
      )
      assert.deepStrictEqual(yield* kept, [{ id: row!.id, n: 7 }])
      assert.lengthOf(tokens(), 1)
    })
  )

  it.scoped("asks with the only connection of a pool, too", () =>
    Effect.gen(function* () {
      const { insert, kept, once, pool, proxy, runs } = yield* ledgered({ maxConnections: 1 })
      yield* proxy.swallowReply({ on: commit, ending: "close" })
      const applied = yield* once(insert(1))
      yield* proxy.hold({ on: commit })
      const anew = yield* once(insert(2), { timeout: "4 seconds" })
      assert.deepStrictEqual(yield* kept, [
        { id: applied, n: 1 },
        { id: anew, n: 2 }
      ])
      assert.strictEqual(yield* runs, 3)
      yield* TestPg.eventually(pool, ({ used }) => used === 0)
    })
  )
})
