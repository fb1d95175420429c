/** Work that runs once for a key: whoever calls, whenever, and whatever becomes of the first who did. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Option, ParseResult, Redacted, Schema } from "effect"
import { Transaction } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { commit, ledgered, unknown } from "./exactly.js"

const fixture = (options: Parameters<typeof ledgered>[0] = {}) =>
  Effect.map(ledgered(options), (client) => {
    const call =
      ({ context }: Pick<typeof client, "context">) =>
      <A, I, E, R>(
        key: string,
        schema: Schema.Schema<A, I>,
        effect: Effect.Effect<A, E, R>,
        options?: Transaction.OnceOptions
      ) =>
        Effect.provide(Transaction.once(key, schema, effect, options), context)
    return {
      ...client,
      call: call(client),
      callDirectly: call(client.direct),
      keys: TestPg.control<{ key: string; result: unknown }>(
        "SELECT key, result FROM effect_pg_ledger_keys ORDER BY key",
        [],
        client.url
      )
    }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Transaction.once", (it) => {
  it.scoped("runs its body once, of all who call at the same time from two clients", () =>
    Effect.gen(function* () {
      const { call, direct, insert, kept, runs } = yield* fixture()
      // Both bodies write through one client; the calls come from two.
      const other = <A, E, R>(effect: Effect.Effect<A, E, R>) => effect
      const body = insert(7)
      const mine = Arr.makeBy(5, () => call("a", Schema.Number, body))
      const theirs = Arr.makeBy(5, () =>
        Effect.provide(
          Transaction.once(
            "a",
            Schema.Number,
            Effect.flatMap(direct.sql<{ id: number }>`INSERT INTO kept (n) VALUES (8) RETURNING id`, ([row]) =>
              other(Effect.succeed(row!.id))
            )
          ),
          direct.context
        )
      )
      const ids = yield* Effect.all([...mine, ...theirs], { concurrency: "unbounded" })
      const rows = yield* kept
      assert.lengthOf(rows, 1)
      assert.deepStrictEqual(new Set(ids), new Set([rows[0]!.id]))
      assert.isAtMost(yield* runs, 1)
    })
  )

  it.scoped("an answer to COMMIT that gets lost is found out, applied or not", () =>
    Effect.gen(function* () {
      const { call, insert, kept, proxy, runs } = yield* fixture()
      yield* proxy.swallowReply({ on: commit })
      const applied = yield* call("a", Schema.Number, insert(1))
      assert.strictEqual(yield* runs, 1)
      yield* proxy.cut({ on: commit, when: "before" })
      const anew = yield* call("b", Schema.Number, insert(2))
      assert.strictEqual(yield* runs, 3)
      assert.deepStrictEqual(
        yield* Effect.all([call("a", Schema.Number, insert(9)), call("b", Schema.Number, insert(9))]),
        [applied, anew]
      )
      assert.deepStrictEqual(
        (yield* kept).map(({ n }) => n),
        [1, 2]
      )
    })
  )

  it.scoped("after an unknown outcome the same call is simply made again", () =>
    Effect.gen(function* () {
      const { call, callDirectly, insert, kept, proxy } = yield* fixture({ alone: true })
      yield* proxy.swallowReply({ on: commit })
      const alone = call("a", Schema.Number, Effect.zipLeft(insert(1), proxy.refuse), { timeout: "1 second" })
      yield* unknown(alone)
      const id = yield* callDirectly("a", Schema.Number, insert(2))
      assert.deepStrictEqual(yield* kept, [{ id, n: 1 }])
    })
  )

  it.scoped("a failure leaves the key as new, and who waits for it runs the body", () =>
    Effect.gen(function* () {
      const { call, callDirectly, direct, keys, kept } = yield* fixture()
      const started = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const failing = Effect.gen(function* () {
        yield* Deferred.succeed(started, undefined)
        yield* Deferred.await(goOn)
        return yield* Effect.fail("mine")
      })
      const first = yield* Effect.fork(Effect.flip(call("a", Schema.Number, failing)))
      yield* Deferred.await(started)
      const second = yield* Effect.fork(
        callDirectly("a", Schema.Number, Effect.as(direct.sql`INSERT INTO kept (n) VALUES (2)`, 2))
      )
      yield* TestPg.eventually(
        TestPg.control(
          "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO %ledger_keys%'"
        ),
        ({ length }) => length === 1
      )
      yield* Deferred.succeed(goOn, undefined)
      assert.strictEqual(yield* Fiber.join(first), "mine")
      assert.strictEqual(yield* Fiber.join(second), 2)
      assert.deepStrictEqual(yield* keys, [{ key: "a", result: 2 }])
      assert.lengthOf(yield* kept, 1)
    })
  )

  it.scoped("a key used again for other work is refused; without a fingerprint on either side it is not compared", () =>
    Effect.gen(function* () {
      const { call } = yield* fixture()
      const with_ = (fingerprint: string | undefined) => call("a", Schema.Number, Effect.succeed(1), { fingerprint })
      assert.strictEqual(yield* with_("x"), 1)
      assert.strictEqual(yield* with_("x"), 1)
      assert.strictEqual(yield* with_(undefined), 1)
      const error = yield* Effect.flip(with_("y"))
      assert.deepInclude(error, { _tag: "IdempotencyKeyReusedError", outcome: "NotApplied" })
      assert.notInclude(JSON.stringify(error), '"a"')
    })
  )

  it.scoped("after its time the key is new again", () =>
    Effect.gen(function* () {
      const { call, url } = yield* fixture()
      const work = (n: number) => call("a", Schema.Number, Effect.succeed(n), { ttl: "1 hour", fingerprint: String(n) })
      assert.strictEqual(yield* work(1), 1)
      yield* TestPg.control("UPDATE effect_pg_ledger_keys SET expires_at = now() - interval '1 ms'", [], url)
      assert.strictEqual(yield* work(2), 2)
      assert.strictEqual((yield* Effect.flip(work(1)))._tag, "IdempotencyKeyReusedError")
    })
  )

  it.scoped("gives again what a schema can encode, nothing included", () =>
    Effect.gen(function* () {
      const { call } = yield* fixture()
      const twice = <A, I>(key: string, schema: Schema.Schema<A, I>, value: A) =>
        Effect.gen(function* () {
          const first = yield* call(key, schema, Effect.succeed(value))
          const second = yield* call(key, schema, Effect.die("ran again"))
          assert.deepStrictEqual([first, second], [value, value])
        })
      yield* twice("date", Schema.Date, new Date(0))
      yield* twice("some", Schema.Option(Schema.Number), Option.some(1))
      yield* twice("none", Schema.Option(Schema.Number), Option.none())
      yield* twice("bigint", Schema.BigInt, 2n ** 70n)
      yield* twice("text", Schema.String, "quoted \"'\\ \u2028 \u{1F600}")
      yield* twice("nul", Schema.String, "a\u0000b")
      yield* twice("struct", Schema.Struct({ a: Schema.optional(Schema.Number) }), {})
      yield* twice("null", Schema.Null, null)
      yield* twice("undefined", Schema.UndefinedOr(Schema.Number), undefined)
      yield* twice("void", Schema.Void, undefined)
    })
  )

  it.scoped(
    "a result that does not fit its schema is a typed failure: before it is stored, or when it is given again",
    () =>
      Effect.gen(function* () {
        const { call, insert, keys, kept } = yield* fixture()
        const positive = Schema.Number.pipe(Schema.positive())
        const unfit = yield* Effect.flip(call("a", positive, Effect.as(insert(1), -1)))
        assert.isTrue(ParseResult.isParseError(unfit))
        assert.deepStrictEqual([yield* kept, yield* keys], [[], []])
        yield* call("a", Schema.String, Effect.succeed("text"))
        assert.isTrue(ParseResult.isParseError(yield* Effect.flip(call("a", Schema.Number, Effect.succeed(1)))))
        // What JSON can not hold at all.
        const circular = yield* Effect.flip(call("b", Schema.Unknown, Effect.succeed(2n as unknown)))
        assert.isTrue(ParseResult.isParseError(circular))
      })
  )

  it.scoped("a program killed between its work and its COMMIT leaves the key to the next", () =>
    Effect.gen(function* () {
      const { call, insert, kept, url } = yield* fixture()
      const child = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const program = fileURLToPath(new URL("programs/once.ts", import.meta.url))
          const child = spawn(process.execPath, ["--import", "tsx", program, Redacted.value(url), "a"])
          let output = ""
          for (const stream of [child.stdout, child.stderr]) {
            stream.on("data", (chunk: Buffer) => {
              output += String(chunk)
            })
          }
          return { child, output: Effect.sync(() => output) }
        }),
        ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
      )
      yield* TestPg.eventually(child.output, (text) => text.includes("done"))
      const next = yield* Effect.fork(call("a", Schema.Number, insert(2)))
      yield* TestPg.eventually(
        TestPg.control(
          "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO %ledger_keys%'"
        ),
        ({ length }) => length === 1
      )
      child.child.kill("SIGKILL")
      const id = yield* Fiber.join(next)
      assert.deepStrictEqual(
        (yield* kept).map((row) => [row.id, row.n]),
        [[id, 2]]
      )
    })
  )

  it.scoped("inside another transaction the key is that one's", () =>
    Effect.gen(function* () {
      const { call, insert, keys, kept, runs, sql } = yield* fixture()
      const work = call("a", Schema.Number, insert(1))
      yield* Effect.flip(sql.withTransaction(Effect.zipRight(work, Effect.fail("mine"))))
      assert.deepStrictEqual([yield* keys, yield* kept], [[], []])
      const id = yield* sql.withTransaction(Effect.zipRight(work, work))
      assert.strictEqual(yield* work, id)
      assert.strictEqual(yield* runs, 2)
    })
  )

  it.scoped("so it is where every transaction is serializable", () =>
    Effect.gen(function* () {
      const { call, insert, kept, runs } = yield* fixture({
        parameters: { default_transaction_isolation: "serializable" },
        retryBudget: false
      })
      const ids = yield* Effect.all(
        Arr.makeBy(6, () => call("a", Schema.Number, insert(1))),
        { concurrency: "unbounded" }
      )
      const rows = yield* kept
      assert.lengthOf(rows, 1)
      assert.deepStrictEqual(new Set(ids), new Set([rows[0]!.id]))
      // Bodies that were rolled back are not counted among the rows.
      assert.isAtLeast(yield* runs, 1)
    })
  )

  it.scoped("without its table it says how to create it", () =>
    Effect.gen(function* () {
      const { call, direct, insert, kept } = yield* fixture()
      yield* direct.sql`DROP TABLE effect_pg_ledger_keys`
      const error = yield* Effect.flip(call("a", Schema.Number, insert(1)))
      assert.include(String(error), "Transaction.createLedger")
      assert.deepStrictEqual(yield* kept, [])
    })
  )
})
