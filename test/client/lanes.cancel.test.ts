/** Interruptions on fast lanes: the caller goes on at once, and nobody who shares the connection is hit. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Context, Effect, Exit, Fiber, Random, Ref } from "effect"
import { CircuitBreaker, Operation } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { all, burst, type Laning, laning, lockedRow, reads, settled, shares, waitsFor, writes } from "./laning.js"
import { clientOf, hold, waitingForLock } from "./support.js"

const seed = process.env["TEST_SEED"] ?? "innocents"

const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

const interrupted = (fiber: Fiber.Fiber<unknown, unknown>) =>
  Effect.map(Fiber.interrupt(fiber), (exit) => assert.isTrue(Exit.isInterrupted(exit)))

const isClosed = ({ context }: Laning) =>
  Effect.map(Context.get(context, CircuitBreaker.CircuitBreaker).snapshot, ({ failures, state }) => {
    assert.deepStrictEqual({ failures, state }, { failures: 0, state: "Closed" })
  })

/** Writes of these rows on one lane, in this order; row 1 is locked until `release`, and `other` until `releaseOther`. */
const heldUp = (client: Laning, ids: ReadonlyArray<number>, other = 1_000) =>
  Effect.gen(function* () {
    const { pid, pool, tap, url, write } = client
    const changed = Effect.map(
      TestPg.control<{ id: number }>("SELECT id FROM t WHERE n = -id ORDER BY id", [], url),
      Arr.map(({ id }) => id)
    )
    while (true) {
      yield* shares(tap, writes, (n) => write(n, n))
      yield* TestPg.eventually(pool, ({ idle }) => idle === 1)
      const before = yield* pid
      yield* tap.clear
      const { release } = yield* lockedRow(url, 1)
      const { release: releaseOther } = yield* lockedRow(url, other)
      const fibers = yield* Effect.forEach(ids, (id) => Effect.fork(write(id, -id)))
      yield* waitsFor("UPDATE t SET n")
      const sent = yield* tap.sent(writes)
      const together = sent.length === ids.length && sent.every(({ ahead }, n) => ahead.length === n)
      if (together) return { before, changed, fibers, release, releaseOther }
      // On a machine that is busy elsewhere they are not known to be short any more.
      yield* release
      yield* releaseOther
      yield* Fiber.joinAll(fibers)
    }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Cancelling on lanes", (it) => {
  for (const [which, index] of [
    ["the one that is at work", 0],
    ["one in the middle", 2],
    ["the last one", 4]
  ] as const) {
    it.scoped(`of several of which ${which} is interrupted none is cancelled, and the others get their answers`, () =>
      Effect.gen(function* () {
        const client = yield* laning({ maxConnections: 1 })
        const { pid, pool, tap } = client
        const { before, changed, fibers, release } = yield* heldUp(client, [1, 2, 3, 4, 5])
        // Back while the lock is held.
        yield* interrupted(fibers[index]!)
        assert.strictEqual(yield* waitingForLock("UPDATE t SET n"), 1)
        yield* TestPg.control("SELECT pg_sleep(0.4)")
        assert.isEmpty(yield* tap.cancels)
        assert.isTrue(fibers.every((fiber, n) => n === index || fiber.unsafePoll() === null))
        assert.strictEqual(yield* waitingForLock("UPDATE t SET n"), 1)
        yield* release
        yield* Fiber.joinAll(fibers.filter((_, n) => n !== index))
        yield* settled(client)
        // What was interrupted in the middle of others has been done with them.
        assert.includeMembers(
          [...(yield* changed)],
          [1, 2, 3, 4, 5].filter((_, n) => n !== index)
        )
        assert.strictEqual(yield* pid, before)
        assert.deepInclude(yield* pool, { generation: 0, total: 1 })
        yield* isClosed(client)
      })
    )
  }

  it.scoped("goes out for what is left when the last one that somebody waits for is answered", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 1 })
      const { pid, tap } = client
      const { before, changed, fibers, release, releaseOther } = yield* heldUp(client, [1, 3, 2], 2)
      yield* interrupted(fibers[2]!)
      assert.isEmpty(yield* tap.cancels)
      yield* release
      yield* Fiber.joinAll(fibers.slice(0, 2))
      // Row 2 is still locked.
      assert.strictEqual(yield* pid, before)
      yield* settled(client)
      assert.lengthOf(yield* tap.cancels, 1)
      assert.lengthOf((yield* tap.cancels)[0]!.onWire, 1)
      yield* releaseOther
      assert.deepStrictEqual(yield* changed, [1, 3])
      yield* isClosed(client)
    })
  )

  for (const ids of [
    [1, 2, 3],
    [1, 1, 1, 1],
    [1, 2, 1, 3, 1]
  ]) {
    it.scoped(
      `goes out for each of rows ${ids} that is held up when all are interrupted, and the connection stays`,
      () =>
        Effect.gen(function* () {
          const client = yield* laning({ maxConnections: 1 })
          const { pid, pool, tap } = client
          const { before, changed, fibers, release } = yield* heldUp(client, ids)
          yield* Effect.forEach(fibers, interrupted)
          // The lock is still held, and yet the connection serves again.
          assert.strictEqual(yield* pid, before)
          yield* settled(client)
          assert.lengthOf(yield* tap.cancels, ids.filter((id) => id === 1).length)
          assert.isFalse((yield* changed).includes(1))
          assert.strictEqual(yield* waitingForLock("UPDATE t SET n"), 0)
          yield* release
          assert.deepInclude(yield* pool, { generation: 0, total: 1, idle: 1 })
          yield* isClosed(client)
        })
    )
  }

  it.scoped("does not open a lane to newcomers: what is left on it has been under way for as long as before", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 2 })
      const held = yield* hold(client.sql)
      const { fibers, release } = yield* heldUp(client, [1, 1, 1])
      yield* held.release
      for (const fiber of fibers.slice(0, 2)) {
        yield* interrupted(fiber)
        yield* all(burst, (n) => client.write(n + 100, n))
      }
      assert.isNull(fibers[2]!.unsafePoll())
      assert.isEmpty(yield* client.tap.cancels)
      yield* release
      yield* Fiber.join(fibers[2]!)
      yield* settled(client)
    })
  )

  it.scoped("1,500 interruptions at random moments hit nobody who was not interrupted, and leave the pool whole", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 3, retry: false })
      const { pool, read, sessions, tap, url, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      // Somebody else locks rows now and then, so that lanes are held up, and cancelled.
      const admin = yield* clientOf({ url, maxConnections: 1 })
      const locker = yield* Effect.fork(
        Effect.forever(
          admin.sql.withTransaction(
            admin.sql`SELECT FROM t WHERE id <= 3 FOR UPDATE`.pipe(Effect.zipRight(admin.sql`SELECT pg_sleep(0.03)`))
          )
        )
      )
      const count = yield* Ref.make(0)
      const victim = Effect.gen(function* () {
        const id = yield* Random.nextIntBetween(1, 60)
        const fiber = yield* Effect.fork((yield* Random.nextBoolean) ? read(id) : write(id, id))
        const turns = yield* Random.nextIntBetween(0, 6)
        yield* Effect.repeatN(turn, turns)
        if (Exit.isInterrupted(yield* Fiber.interrupt(fiber))) yield* Ref.update(count, (n) => n + 1)
      })
      const innocent = Effect.gen(function* () {
        const id = yield* Random.nextIntBetween(100, 900)
        assert.deepStrictEqual(yield* read(id), [{ id, n: id }])
        yield* write(id, id)
      })
      const victims = yield* Effect.fork(
        Effect.repeat(Effect.all(Arr.replicate(victim, 12), { concurrency: "unbounded" }), {
          until: () => Effect.map(Ref.get(count), (n) => n >= 1_500)
        })
      )
      yield* Effect.repeat(Effect.all(Arr.replicate(innocent, 6), { concurrency: "unbounded" }), {
        until: () => victims.unsafePoll() !== null
      })
      yield* Fiber.join(victims)
      yield* Fiber.interrupt(locker)
      yield* settled(client)
      assert.isAtLeast(yield* Ref.get(count), 1_500)
      assert.isNotEmpty(yield* tap.shared(reads))
      assert.isNotEmpty(yield* tap.shared(writes))
      assert.deepInclude(yield* pool, { generation: 0, used: 0, quarantined: 0, waiting: 0 })
      assert.isAtMost((yield* sessions).length, 3)
      yield* isClosed(client)
      const wrong = yield* TestPg.control("SELECT id, n FROM t WHERE n <> id", [], url)
      assert.isEmpty(wrong)
      assert.lengthOf(yield* all(burst, read), burst)
    }).pipe(
      Effect.withRandom(Random.make(seed)),
      Effect.tapErrorCause(() => Effect.sync(() => console.error(`TEST_SEED=${seed}`)))
    )
  )

  it.scoped("in a black hole lets callers go at their deadlines, drops the lane, and serves again", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      const client = yield* laning({ maxConnections: 2, retry: false, through: proxy.url })
      const { pool, read, sql, tap, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      yield* settled(client)
      const { generation } = yield* pool
      yield* proxy.blackHole({ existing: true })
      const bounded = <A>(effect: Effect.Effect<A, any>) =>
        Operation.named("bounded", { timeout: "300 millis" })(effect)
      const outcomes = yield* Effect.all(
        [all(20, (n) => Effect.flip(bounded(read(n)))), all(20, (n) => Effect.flip(bounded(write(n, n))))],
        { concurrency: 2 }
      )
      // They are back while the hole is there; and none of them claims what it can not know.
      const tags = outcomes.map((errors) => Arr.dedupe(errors.map((error) => (error as { _tag: string })._tag)))
      assert.deepStrictEqual(tags[0], ["QueryTimeoutError"])
      assert.isEmpty(Arr.difference(tags[1]!, ["QueryTimeoutError", "OutcomeUnknownError"]))
      // Still in the hole, newcomers get new connections.
      yield* TestPg.eventually(Effect.option(bounded(read(1))), (rows) => rows._tag === "Some")
      yield* TestPg.eventually(pool, (now) => now.generation > generation)
      yield* settled(client)
      assert.lengthOf(yield* all(burst, read), burst)
      yield* all(burst, (n) => write(n, n))
      assert.deepStrictEqual(yield* sql`SELECT count(*)::int AS n FROM t`, [{ n: 1_000 }])
      yield* proxy.heal
      yield* settled(client)
    })
  )
})
