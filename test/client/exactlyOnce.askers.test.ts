/** Many transactions through a network that loses them at every turn, and others who ask about them meanwhile. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, DateTime, Effect, Either, Fiber, FiberMap } from "effect"
import type { Transaction } from "effect-pg-resilience"
import type { FaultProxy } from "effect-pg-resilience/testing"
import { random, seed } from "../chaos/seeds.js"
import * as TestPg from "../support/TestPg.js"
import { beginAgain, claim, commit, insertion, ledgered } from "./exactly.js"

const transactions = 150

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })(
  "Transactions and who asks for them",
  (it) => {
    it.scoped("what is told to callers and to askers is what is stored, once, and never both yes and no", () =>
      Effect.gen(function* () {
        const theSeed = yield* seed
        const { chance } = random(theSeed, 0)
        const { askDirectly, insert, kept, messages, once, proxy, sql, url } = yield* ledgered({
          breaker: false,
          retryBudget: false
        })
        yield* TestPg.control("CREATE TABLE tokens (token uuid)", [], url)
        // Who asks here has the token from the wire and not from an error: acknowledged, it must not be swept before.
        yield* TestPg.control("CREATE RULE keep AS ON DELETE TO effect_pg_ledger DO INSTEAD NOTHING", [], url)
        const sometimes = (match: FaultProxy.Match, probability: number) => ({
          on: (message: FaultProxy.FrontendMessage) => match(message) && chance(probability),
          times: Number.POSITIVE_INFINITY
        })
        yield* proxy.cut({ ...sometimes(commit, 0.15), when: "before" })
        yield* proxy.cut({ ...sometimes(commit, 0.15), when: "after" })
        yield* proxy.swallowReply(sometimes(commit, 0.15))
        yield* proxy.cut({ ...sometimes(beginAgain, 0.1), when: "after" })
        yield* proxy.cut({ ...sometimes(claim, 0.1), when: "after" })
        yield* proxy.swallowReply(sometimes(claim, 0.1))
        yield* proxy.cut({ ...sometimes(insertion, 0.05), when: "before" })

        // Of every other transaction that is not sure of its fate somebody else asks, too.
        const answers = new Map<string, Transaction.Outcome>()
        const askers = yield* FiberMap.make<string>()
        const asking = Effect.gen(function* () {
          for (const { text } of messages.splice(0).filter(claim)) {
            const token = /VALUES \('([0-9a-f-]{36})'/.exec(text)![1]!
            if (Number.parseInt(token[0]!, 16) % 2 === 0) continue
            const askBefore = DateTime.add(yield* DateTime.now, { minutes: 5 })
            const ask = Effect.map(askDirectly({ mode: "ledger", token, askBefore }), (answer) => {
              answers.set(token, answer)
            })
            yield* FiberMap.run(askers, token, ask, { onlyIfMissing: true })
          }
        })
        const watching = yield* Effect.fork(Effect.forever(Effect.delay(asking, "5 millis")))
        const write = (n: number) =>
          Effect.zipLeft(
            insert(n),
            sql`INSERT INTO tokens SELECT token FROM effect_pg_ledger
              WHERE xmin::text = (pg_current_xact_id()::xid)::text`
          )
        const told = yield* Effect.forEach(Arr.range(1, transactions), (n) => Effect.either(once(write(n))), {
          concurrency: 8
        })
        yield* Fiber.interrupt(watching)
        yield* FiberMap.awaitEmpty(askers)

        const stored = Arr.groupBy(yield* kept, ({ n }) => String(n))
        for (const [i, result] of told.entries()) {
          const ids = (stored[i + 1] ?? []).map(({ id }) => id)
          const replay = `CHAOS_SEED=${theSeed}: transaction ${i + 1}`
          // Refused, because somebody had asked, and was told that it was not applied; or lost in each of its attempts.
          if (Either.isLeft(result)) {
            assert.oneOf(result.left._tag, ["TransactionAbortedError", "ConnectionError"], replay)
            assert.strictEqual(result.left.outcome, "NotApplied", replay)
          }
          assert.deepStrictEqual(ids, Either.isRight(result) ? [result.right] : [], replay)
        }
        const applied = new Set(
          (yield* TestPg.control<{ token: string }>("SELECT token FROM tokens", [], url)).map(({ token }) => token)
        )
        for (const [token, answer] of answers) {
          assert.strictEqual(answer, applied.has(token) ? "Applied" : "NotApplied", `CHAOS_SEED=${theSeed}: ${token}`)
        }
        assert.isAbove(answers.size, 5)
      })
    )
  }
)
