/** Prepared statements on fast lanes: who uses a name, and what a change of tables makes of them under load. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Random, Ref } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { all, burst, laning, reads, settled, shares, writes } from "./laning.js"
import { proxied } from "./support.js"
import type { Naming } from "./tap.js"

const seed = process.env["TEST_SEED"] ?? "tables"

/** What is wrong with what was named on one connection, in the order of time. */
const misnamed = (names: ReadonlyArray<Naming>) => {
  const [sent, parsed, closed] = [new Set<string>(), new Set<string>(), new Set<string>()]
  /** The name whose Parse came last, nothing but it having been sent since. */
  let own = ""
  return Arr.filter(names, ({ name, what }) => {
    if (name === "") return false
    const mine = own === name
    own = what === "parse" ? name : what === "bind" ? "" : own
    const wrong =
      what === "parse" ? sent.has(name) : what === "bind" ? closed.has(name) || !(mine || parsed.has(name)) : false
    const group = { parse: sent, parsed, close: closed, bind: undefined }[what]
    group?.add(name)
    return wrong
  })
}

const byConnection = (names: ReadonlyArray<Naming>) =>
  Object.values(Arr.groupBy(names, ({ connection }) => String(connection)))

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Prepared statements on lanes", (it) => {
  for (const size of [4, 256]) {
    it.scoped(
      `are parsed under a name once, and nobody uses it before the server has answered that, with ${size} names`,
      () =>
        Effect.gen(function* () {
          // Always new connections, and eight texts, so that there is much to parse.
          const client = yield* laning({ maxConnections: 3, maxUses: 150, preparedStatements: { size } })
          const { sql, tap } = client
          const texts = Arr.makeBy(
            8,
            (text) => (id: number) => sql`SELECT id, ${sql.literal(String(text))} AS text FROM t WHERE id = ${id}`
          )
          for (let n = 0; n < 20; n++) {
            yield* Effect.all(
              texts.map((read) => all(burst, read)),
              { concurrency: "unbounded" }
            )
          }
          assert.isNotEmpty(yield* tap.shared())
          const names = yield* tap.names
          const used = Arr.filter(names, ({ name, what }) => what === "bind" && name !== "")
          assert.isAtLeast(used.length, 100)
          assert.deepStrictEqual(byConnection(names).flatMap(misnamed), [])
        })
    )
  }

  it.scoped("go without a name behind a Parse that the server has not answered", () =>
    Effect.gen(function* () {
      const { proxy } = yield* proxied
      const client = yield* laning({ maxConnections: 1, through: proxy.url })
      const { read, tap, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      yield* settled(client)
      // A new connection, on which the text has come once.
      yield* proxy.reset
      yield* TestPg.eventually(client.pool, ({ total }) => total === 0)
      yield* read(1)
      yield* tap.clear
      const held = yield* proxy.hold({ on: FaultProxy.query(reads) })
      const fibers = yield* Effect.forEach(Arr.range(1, 10), (id) => Effect.fork(read(id)))
      yield* held.happened()
      // Not all of them, where a process that has just started takes its time.
      const behind = (yield* tap.shared(reads)).length
      assert.isAtLeast(behind, 1)
      const names = Arr.filter(yield* tap.names, ({ what }) => what === "bind").map(({ name }) => name)
      assert.notStrictEqual(names[0], "")
      assert.deepStrictEqual(names.slice(1), Arr.replicate("", behind))
      yield* held.release
      const rows = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(
        Arr.flatten(rows),
        Arr.makeBy(10, (i) => ({ id: i + 1, n: i + 1 }))
      )
      yield* tap.clear
      yield* all(10, read)
      assert.deepStrictEqual(Arr.dedupe(Arr.map(yield* tap.names, ({ name, what }) => `${what} ${name}`)), [
        `bind ${names[0]}`
      ])
    })
  )

  for (const whose of ["somebody else's", "the program's own"]) {
    it.scoped(`survive ${whose} changes of tables under load: only right answers, and no error`, () =>
      Effect.gen(function* () {
        const client = yield* laning({ maxConnections: 3 })
        const { sql, tap, url } = client
        yield* TestPg.control(
          "CREATE TABLE w AS SELECT id, id AS n FROM generate_series(1, 200) AS id; ALTER TABLE w ADD PRIMARY KEY (id)",
          [],
          url
        )
        const star = (id: number) =>
          sql<{ id: number; n: number | string; extra?: string | null }>`SELECT * FROM w WHERE id = ${id}`
        const update = (id: number) => sql<{ id: number }>`UPDATE w SET n = ${String(id)} WHERE id = ${id} RETURNING *`
        yield* shares(tap, /^SELECT \* FROM w/, star)
        yield* shares(tap, /^UPDATE w/, update)
        const answers = yield* Ref.make(0)
        const stop = yield* Ref.make(false)
        const right = (id: number, rows: ReadonlyArray<object>) =>
          Effect.sync(() => {
            const [row, ...others] = rows as ReadonlyArray<Record<string, unknown>>
            assert.isEmpty(others)
            const { extra, ...rest } = row!
            assert.isTrue(rest["n"] === id || rest["n"] === String(id), JSON.stringify(row))
            assert.deepStrictEqual(rest, { id, n: rest["n"] })
            assert.isTrue(extra === undefined || extra === "x", JSON.stringify(row))
          })
        const one = Effect.gen(function* () {
          const id = yield* Random.nextIntBetween(1, 201)
          yield* right(id, yield* (yield* Random.nextBoolean) ? star(id) : update(id))
          yield* Ref.update(answers, (n) => n + 1)
        })
        const load = yield* Effect.fork(all(24, () => Effect.repeat(one, { until: () => Ref.get(stop) })))
        const changes = [
          "ALTER TABLE w ADD COLUMN extra text DEFAULT 'x'",
          "ALTER TABLE w ALTER COLUMN n TYPE text",
          "ALTER TABLE w DROP COLUMN extra",
          "ALTER TABLE w ALTER COLUMN n TYPE int USING n::int"
        ]
        for (let n = 0; n < 24; n++) {
          const change = changes[n % changes.length]!
          yield* whose === "the program's own" ? sql.unsafe(change) : TestPg.control(change, [], url)
          const before = yield* Ref.get(answers)
          yield* TestPg.eventually(Ref.get(answers), (n) => n > before + 100 || load.unsafePoll() !== null)
          if (load.unsafePoll() !== null) break
        }
        yield* Ref.set(stop, true)
        yield* Fiber.join(load)
        assert.isNotEmpty(yield* tap.shared(/^SELECT \* FROM w/))
        yield* settled(client)
      }).pipe(
        Effect.withRandom(Random.make(seed)),
        Effect.tapErrorCause(() => Effect.sync(() => console.error(`TEST_SEED=${seed}`)))
      )
    )
  }
})
