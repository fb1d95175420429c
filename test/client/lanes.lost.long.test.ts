/** A lane that is lost: what each of the statements on it is told, and what is stored of them. */
import type { SqlError } from "@effect/sql/SqlError"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Either, Fiber, Random, Ref } from "effect"
import { PgError, RetryPolicy } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { all, burst, type Laning, laning, reads, settled, shares, waitsFor } from "./laning.js"
import { clientOf, hold } from "./support.js"

const seed = process.env["TEST_SEED"] ?? "lost"

/** What one was told: that it is stored, that it is not, or that nobody knows. */
type Told = "stored" | "not stored" | "unknown"

const told = (effect: Effect.Effect<unknown, SqlError>): Effect.Effect<Told> =>
  Effect.map(Effect.either(PgError.refine(effect)), (result) => {
    if (Either.isRight(result)) return "stored"
    if (result.left.outcome === "NotApplied") return "not stored"
    assert.strictEqual(result.left._tag, "OutcomeUnknownError")
    return "unknown"
  })

/** Inserts share connections. `kept` has a row for each time that one is stored; only of number 1 there is one at most. */
const inserting = (options: Parameters<typeof laning>[0]) =>
  Effect.gen(function* () {
    const client = yield* laning({ retry: RetryPolicy.web, retryBudget: false, breaker: false, ...options })
    const { read, sql, tap, url } = client
    yield* TestPg.control("CREATE TABLE kept (id int); CREATE UNIQUE INDEX ON kept (id) WHERE id = 1", [], url)
    const insert = (id: number) => sql`INSERT INTO kept (id) VALUES (${id})`
    yield* shares(tap, /^INSERT/, (n) => insert(-n))
    yield* shares(tap, reads, read)
    yield* settled(client)
    const stored = Effect.map(
      TestPg.control<{ id: number }>("SELECT id FROM kept WHERE id > 0 ORDER BY id", [], url),
      Arr.map(({ id }) => id)
    )
    return { ...client, insert, stored }
  })

/** Somebody has stored number 1, and may undo it: whoever does so too waits. And nobody reads table `t`. */
const inTheWay = ({ url }: Laning) =>
  Effect.gen(function* () {
    const { sql } = yield* clientOf({ url, maxConnections: 1 })
    const { connection } = yield* hold(sql)
    const run = (text: string) => connection.execute(text, [], undefined)
    yield* run("BEGIN")
    yield* run("INSERT INTO kept VALUES (1)")
    yield* run("LOCK TABLE t")
    return { release: run("ROLLBACK") }
  })

/** The server process that executes what begins so. */
const processOf = ({ applicationName }: Laning, beginning: string) =>
  Effect.map(
    TestPg.control<{ pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND starts_with(query, $2) AND wait_event_type = 'Lock'",
      [applicationName, beginning]
    ),
    ([row]) => row!.pid
  )

/** As many on one lane as there are effects, in this order, the first of which the server is at. */
const onOneLane = <A, E>(client: Laning, text: string, effects: ReadonlyArray<Effect.Effect<A, E>>) =>
  Effect.gen(function* () {
    yield* client.tap.clear
    const fibers = yield* Effect.forEach(effects, Effect.fork)
    yield* waitsFor(text)
    const sent = Arr.filter(yield* client.tap.sent(), (sent) => sent.text.startsWith(text))
    assert.deepStrictEqual(
      sent.map(({ ahead }) => ahead.length),
      effects.map((_, n) => n)
    )
    return fibers
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("A lost lane", (it) => {
  it.scoped("that the server has ended leaves one insert unknown; those behind it are made again, unseen", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const client = yield* inserting({ maxConnections: 1 })
      const { insert, stored } = client
      const other = yield* inTheWay(client)
      const fibers = yield* onOneLane(
        client,
        "INSERT",
        Arr.range(1, 5).map((id) => told(insert(id)))
      )
      yield* server.terminate(yield* processOf(client, "INSERT"))
      // Number 1 is still in the way.
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), [
        "unknown",
        ...Arr.replicate("stored" as const, 4)
      ])
      yield* other.release
      assert.deepStrictEqual(yield* stored, [2, 3, 4, 5])
      yield* settled(client)
    })
  )

  it.scoped("that the server has ended in the middle leaves what was answered as it was answered", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const client = yield* inserting({ maxConnections: 1 })
      const { insert, stored, tap } = client
      const other = yield* inTheWay(client)
      yield* tap.clear
      const fibers = yield* Effect.forEach([2, 3, 1, 4, 5], (id) => Effect.fork(told(insert(id))))
      yield* waitsFor("INSERT")
      assert.deepStrictEqual(
        Arr.map(yield* tap.sent(/^INSERT/), ({ ahead }) => ahead.length),
        [0, 1, 2, 3, 4]
      )
      yield* server.terminate(yield* processOf(client, "INSERT"))
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), [
        "stored",
        "stored",
        "unknown",
        "stored",
        "stored"
      ])
      yield* other.release
      assert.deepStrictEqual(yield* stored, [2, 3, 4, 5])
    })
  )

  it.scoped("that the server has ended is nothing that reads learn of", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const client = yield* inserting({ maxConnections: 1 })
      const { read } = client
      const other = yield* inTheWay(client)
      const fibers = yield* onOneLane(client, "SELECT id, n FROM t", Arr.range(1, 5).map(read))
      yield* server.terminate(yield* processOf(client, "SELECT id, n FROM t"))
      yield* other.release
      const rows = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(
        Arr.flatten(rows),
        Arr.makeBy(5, (i) => ({ id: i + 1, n: i + 1 }))
      )
    })
  )

  it.scoped("that the network has cut leaves every insert on it unknown, and reads are made again", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      const client = yield* inserting({ maxConnections: 2, through: proxy.url })
      const { insert, read, stored } = client
      const other = yield* inTheWay(client)
      // Else they would have two lanes.
      const held = yield* hold(client.sql)
      const inserts = yield* onOneLane(
        client,
        "INSERT",
        Arr.range(1, 5).map((id) => told(insert(id)))
      )
      yield* held.release
      const readers = yield* onOneLane(client, "SELECT id, n FROM t", Arr.range(1, 5).map(read))
      yield* proxy.reset
      // Both tables are still locked: nobody can have been told more than that nobody knows.
      assert.deepStrictEqual(
        yield* Effect.forEach(inserts, Fiber.join),
        Arr.makeBy(5, (): Told => "unknown")
      )
      yield* other.release
      const rows = yield* Effect.forEach(readers, Fiber.join)
      assert.deepStrictEqual(
        Arr.flatten(rows),
        Arr.makeBy(5, (i) => ({ id: i + 1, n: i + 1 }))
      )
      // None is stored twice, whichever the server has got to.
      const ids = yield* stored
      assert.deepStrictEqual(ids, Arr.dedupe(ids))
      yield* settled(client)
    })
  )

  it.scoped("that is cut before it gets to a packet's end tells the truth of each", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      const client = yield* inserting({ maxConnections: 1, through: proxy.url })
      const { insert, stored } = client
      const outcomes: Array<readonly [number, Told]> = []
      let id = 1
      // At all bytes of the packet, and of its answer.
      for (const direction of ["toServer", "toClient"] as const) {
        for (let bytes = 0; bytes < 400; bytes += 37) {
          const ids = Arr.makeBy(6, () => ++id)
          const rule = yield* proxy.dropAfterBytes({ bytes, direction })
          outcomes.push(
            ...(yield* Effect.forEach(ids, (id) => Effect.map(told(insert(id)), (told) => [id, told] as const), {
              concurrency: "unbounded"
            }))
          )
          yield* rule.cancel
        }
      }
      yield* settled(client)
      const ids = yield* TestPg.eventually(stored, () => true)
      for (const [id, told] of outcomes) {
        const times = ids.filter((stored) => stored === id).length
        assert.isTrue(
          told === "stored" ? times === 1 : told === "unknown" ? times <= 1 : times === 0,
          `${id}: ${told}, ${times}`
        )
      }
      assert.includeMembers(
        Arr.map(outcomes, ([, told]): string => told),
        ["stored", "unknown"]
      )
    })
  )

  it.scoped("again and again, in all ways, under load: nothing is stored twice, nor otherwise than told", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const proxy = yield* FaultProxy.make({ upstream: server.config })
      const client = yield* inserting({ maxConnections: 3, through: proxy.url })
      const { insert, read, sessions, stored, tap } = client
      const outcomes: Array<readonly [number, Told]> = []
      const stop = yield* Ref.make(false)
      let id = 1
      const writer = Effect.gen(function* () {
        const own = ++id
        outcomes.push([own, yield* told(insert(own))])
      })
      const reader = Effect.gen(function* () {
        const id = yield* Random.nextIntBetween(1, 1_000)
        assert.deepStrictEqual(yield* read(id), [{ id, n: id }])
      })
      const until = { until: () => Ref.get(stop) }
      const load = yield* Effect.fork(
        Effect.all([all(16, () => Effect.repeat(writer, until)), all(8, () => Effect.repeat(reader, until))], {
          concurrency: 2
        })
      )
      const terminated = Effect.flatMap(sessions, (sessions) =>
        Effect.forEach(sessions, ({ pid }) => server.terminate(pid))
      )
      const faults = [
        terminated,
        proxy.reset,
        Effect.flatMap(proxy.swallowReply({ on: FaultProxy.query(/^INSERT/) }), (rule) => rule.happened()),
        Effect.flatMap(proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "before" }), (rule) => rule.happened()),
        Effect.flatMap(proxy.cut({ on: FaultProxy.query(/^INSERT/), when: "after", ending: "close" }), (rule) =>
          rule.happened()
        ),
        Effect.flatMap(
          proxy.dropAfterBytes({ bytes: yield* Random.nextIntBetween(1, 2_000), direction: "toClient" }),
          (rule) => rule.happened()
        )
      ]
      for (let round = 0; round < 36; round++) {
        yield* faults[round % faults.length]!
        const answered = outcomes.length
        // On with the next one when there have been answers again.
        yield* TestPg.eventually(
          Effect.sync(() => outcomes.length),
          (length) => length > answered + burst
        )
      }
      yield* server.restart()
      yield* Ref.set(stop, true)
      yield* Fiber.join(load)
      yield* settled(client)
      assert.isNotEmpty(yield* tap.shared(/^INSERT/))
      const times = new Map<number, number>()
      for (const id of yield* stored) times.set(id, (times.get(id) ?? 0) + 1)
      const wrong = Arr.filter(outcomes, ([id, told]) => {
        const count = times.get(id) ?? 0
        return told === "stored" ? count !== 1 : told === "unknown" ? count > 1 : count !== 0
      })
      assert.isEmpty(wrong)
      const counts = Arr.groupBy(outcomes, ([, told]) => told)
      assert.isAtLeast(counts["unknown"]?.length ?? 0, 1)
      assert.isAtLeast(counts["stored"]?.length ?? 0, 36 * burst)
    }).pipe(
      Effect.withRandom(Random.make(seed)),
      Effect.tapErrorCause(() => Effect.sync(() => console.error(`TEST_SEED=${seed}`)))
    )
  )
})
