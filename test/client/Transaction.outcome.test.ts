/** What became of it: asked later, elsewhere, by several, and while an attempt is still under way. */
import { assert, layer } from "@effect/vitest"
import { DateTime, Effect, Fiber, Schema } from "effect"
import { PgError } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { beginAgain, commit, from, insertion, ledgered, unknown } from "./exactly.js"
import { commitWaitsFor } from "./kept.js"
import { advisoryLock, waitingForLock } from "./support.js"

/** One row inserted keeps its COMMIT at work on the server as long as somebody has the lock. */
const slowCommits = (url: Parameters<typeof advisoryLock>[1]) =>
  Effect.zipRight(TestPg.control(commitWaitsFor(1), [], url), advisoryLock(1, url))

/** Fixture, and transactions that lose their COMMIT with nobody left to find out. */
const losing = (options: Parameters<typeof ledgered>[0] = {}) =>
  Effect.map(ledgered({ alone: true, breaker: false, ...options }), (fixture) => {
    const { insert, once, proxy, sql } = fixture
    /** It has a second, and after the one before the pool may take as long to look for the server again. */
    const alone = (n: number) =>
      sql`SELECT 1`.pipe(
        Effect.zipRight(unknown(once(Effect.zipLeft(insert(n), proxy.refuse), { timeout: "1 second", retry: false }))),
        Effect.zipLeft(proxy.accept)
      )
    return {
      ...fixture,
      applied: (n: number) => Effect.zipRight(proxy.swallowReply({ on: commit }), alone(n)),
      /** Still waits for its COMMIT on the server. */
      notApplied: (n: number) =>
        Effect.gen(function* () {
          const { release } = yield* proxy.hold({ on: commit })
          return { error: yield* alone(n), release }
        }),
      /** By the token of the transaction that is under way. */
      settlement: () => ({
        mode: "ledger" as const,
        token: fixture.tokens().at(-1)!,
        askBefore: DateTime.unsafeMake(Date.now() + 60_000)
      })
    }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction.outcome", (it) => {
  it.scoped("is asked by several at once, in one client and another, and all are told the same", () =>
    Effect.gen(function* () {
      const { applied, ask, askDirectly, kept, ledger, notApplied } = yield* losing()
      const all = (error: PgError.OutcomeUnknownError) =>
        Effect.all([ask(error), askDirectly(error), ask(error), askDirectly(error)], { concurrency: "unbounded" })
      assert.deepStrictEqual(new Set(yield* all(yield* applied(1))), new Set(["Applied"]))
      const lost = yield* notApplied(2)
      assert.deepStrictEqual(new Set(yield* all(lost.error)), new Set(["NotApplied"]))
      yield* lost.release
      assert.deepStrictEqual(new Set(yield* all(lost.error)), new Set(["NotApplied"]))
      assert.deepStrictEqual((yield* ledger).sort(), ["commit", "fence"])
      assert.deepStrictEqual(
        (yield* kept).map(({ n }) => n),
        [1]
      )
    })
  )

  it.scoped("goes by plain data: what was written down as JSON, and read by another program", () =>
    Effect.gen(function* () {
      const { applied, askDirectly, notApplied } = yield* losing()
      const json = Schema.parseJson(PgError.Settlement)
      const passedOn = (error: PgError.OutcomeUnknownError) =>
        Effect.flatMap(Schema.encode(json)(error.settlement!), Schema.decode(json))
      assert.strictEqual(yield* askDirectly(yield* passedOn(yield* applied(1))), "Applied")
      const { error } = yield* notApplied(2)
      const settlement = yield* passedOn(error)
      assert.isTrue(settlement.mode === "ledger" && DateTime.isDateTime(settlement.askBefore))
      assert.strictEqual(yield* askDirectly(settlement), "NotApplied")
    })
  )

  it.scoped("an answer given inside a transaction that is rolled back stays true", () =>
    Effect.gen(function* () {
      const { ask, direct, askDirectly, kept, ledger, notApplied } = yield* losing()
      const { error, release } = yield* notApplied(1)
      const told = yield* Effect.flip(
        direct.sql.withTransaction(Effect.flatMap(askDirectly(error), (answer) => Effect.fail(answer)))
      )
      assert.strictEqual(told, "NotApplied")
      yield* release
      assert.deepStrictEqual([yield* ledger, yield* kept], [["fence"], []])
      assert.strictEqual(yield* ask(error), "NotApplied")
    })
  )

  it.scoped("a fence is left although its own COMMIT gets lost", () =>
    Effect.gen(function* () {
      for (const ending of ["reset", "blackHole"] as const) {
        const { ask, ledger, notApplied, proxy } = yield* losing({ timeouts: { transaction: "4 seconds" } })
        const { error } = yield* notApplied(1)
        yield* proxy.swallowReply({ on: commit, ending })
        assert.strictEqual(yield* ask(error), "NotApplied")
        assert.deepStrictEqual(yield* ledger, ["fence"])
      }
    })
  )

  it.scoped("asks until the server is there, and is over in time if it is not", () =>
    Effect.gen(function* () {
      const { applied, ask, proxy } = yield* losing({ timeouts: { transaction: "1500 millis" } })
      const error = yield* applied(1)
      yield* proxy.refuse
      const late = yield* Effect.flip(ask(error))
      assert.strictEqual(late.outcome, "NotApplied")
      const asking = yield* Effect.fork(ask(error))
      yield* proxy.accept
      assert.strictEqual(yield* Fiber.join(asking), "Applied")
    })
  )

  it.scoped("of an error that tells no way to find out, it says so at once", () =>
    Effect.gen(function* () {
      const { ask, insert, once, proxy } = yield* losing()
      yield* proxy.swallowReply({ on: commit })
      const error = yield* unknown(once(insert(1), { exactlyOnce: false }))
      assert.strictEqual((yield* Effect.flip(ask(error)))._tag, "InvalidOptionsError")
    })
  )

  it.scoped("without the ledger it can not be told, and what is missing is", () =>
    Effect.gen(function* () {
      const { applied, askDirectly, direct } = yield* losing()
      const error = yield* applied(1)
      yield* direct.sql`DROP TABLE effect_pg_ledger`
      assert.include((yield* Effect.flip(askDirectly(error))).message, "Transaction.createLedger")
    })
  )

  it.scoped("after half of the retention it has expired", () =>
    Effect.gen(function* () {
      const tiny = {
        query: "10 millis",
        complex: "10 millis",
        batchBase: "10 millis",
        transaction: "10 millis"
      } as const
      const { askDirectly, insert, once, proxy } = yield* ledgered({
        alone: true,
        timeouts: tiny,
        ledger: { retention: "1 second" }
      })
      yield* proxy.swallowReply({ on: commit })
      // Nor is it settled any longer than that.
      const error = yield* unknown(once(Effect.zipLeft(insert(1), proxy.refuse), { timeout: "1 minute" }))
      const { settlement } = error
      if (settlement?.mode !== "ledger") throw new Error("no settlement", { cause: error })
      yield* TestPg.eventually(DateTime.now, (now) => DateTime.greaterThan(now, settlement.askBefore))
      assert.strictEqual(yield* askDirectly(error), "Expired")
    })
  )

  it.scoped("asked before a second attempt begins, that one is refused and its body does not run", () =>
    Effect.gen(function* () {
      const { askDirectly, insert, kept, once, proxy, runs, settlement } = yield* losing()
      yield* proxy.cut({ on: commit, when: "before" })
      const held = yield* proxy.hold({ on: beginAgain })
      const fiber = yield* Effect.fork(Effect.flip(once(insert(7))))
      yield* held.happened()
      assert.strictEqual(yield* askDirectly(settlement()), "NotApplied")
      yield* held.release
      const error = yield* Fiber.join(fiber)
      assert.deepInclude(error, { _tag: "TransactionAbortedError", outcome: "NotApplied", phase: "Begin" })
      assert.strictEqual(yield* runs, 1)
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("asked in the middle of a second attempt, that one is ended, and none comes after it", () =>
    Effect.gen(function* () {
      const { askDirectly, insert, kept, once, proxy, runs, settlement, tokens } = yield* losing()
      yield* proxy.cut({ on: commit, when: "before" })
      const held = yield* proxy.hold({ on: from(2, insertion) })
      const fiber = yield* Effect.fork(Effect.flip(once(insert(7))))
      yield* held.happened()
      assert.strictEqual(yield* askDirectly(settlement()), "NotApplied")
      yield* held.release
      const error = yield* Fiber.join(fiber)
      assert.deepInclude(error, { _tag: "TransactionAbortedError", outcome: "NotApplied" })
      assert.strictEqual(yield* runs, 2)
      assert.lengthOf(tokens(), 1)
      assert.deepStrictEqual(yield* kept, [])
    })
  )

  it.scoped("asked while the COMMIT of a second attempt is at work, it waits for that", () =>
    Effect.gen(function* () {
      const { askDirectly, insert, kept, once, proxy, settlement, url } = yield* losing()
      const lock = yield* slowCommits(url)
      yield* proxy.cut({ on: commit, when: "before" })
      const fiber = yield* Effect.fork(once(insert(7)))
      yield* TestPg.eventually(waitingForLock("COMMIT"), (n) => n === 1)
      const asking = yield* Effect.fork(askDirectly(settlement()))
      yield* TestPg.eventually(waitingForLock("INSERT INTO"), (n) => n === 1)
      yield* lock.release
      assert.strictEqual(yield* Fiber.join(asking), "Applied")
      const id = yield* Fiber.join(fiber)
      assert.deepStrictEqual(yield* kept, [{ id, n: 7 }])
    })
  )

  it.scoped("asked while the COMMIT of the only attempt is still at work, and its caller gone, it waits for that", () =>
    Effect.gen(function* () {
      const { askDirectly, insert, kept, once, proxy, url } = yield* losing()
      const lock = yield* slowCommits(url)
      yield* proxy.cut({ on: commit, when: "after" })
      const error = yield* unknown(once(Effect.zipLeft(insert(7), proxy.refuse), { timeout: "1 second" }))
      const asking = yield* Effect.fork(askDirectly(error))
      yield* TestPg.eventually(waitingForLock("INSERT INTO"), (n) => n === 1)
      assert.isNull(asking.unsafePoll())
      yield* lock.release
      assert.strictEqual(yield* Fiber.join(asking), "Applied")
      assert.lengthOf(yield* kept, 1)
    })
  )

  it.scoped("who asks and a second attempt that come together are told the same", () =>
    Effect.gen(function* () {
      const { askDirectly, insert, kept, once, proxy, settlement, url } = yield* losing()
      const lock = yield* slowCommits(url)
      yield* proxy.cut({ on: commit, when: "after" })
      const fiber = yield* Effect.fork(Effect.either(once(insert(7))))
      yield* TestPg.eventually(waitingForLock("COMMIT"), (n) => n === 1)
      const asking = yield* Effect.fork(askDirectly(settlement()))
      yield* TestPg.eventually(waitingForLock("INSERT INTO"), (n) => n === 2)
      // Neither committed nor rolled back by itself: its backend is taken away in the middle of its COMMIT.
      const [session] = yield* TestPg.control<{ pid: number }>(
        "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event_type = 'Lock'"
      )
      yield* TestPg.control("SELECT pg_terminate_backend($1)", [session!.pid])
      yield* lock.release
      const answer = yield* Fiber.join(asking)
      const result = yield* Fiber.join(fiber)
      assert.strictEqual(answer, result._tag === "Right" ? "Applied" : "NotApplied")
      assert.lengthOf(yield* kept, result._tag === "Right" ? 1 : 0)
    })
  )
})
