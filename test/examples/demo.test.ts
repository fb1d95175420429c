/** The demo's judge: it finds what it is there to find, in the database and in what the program was told. */
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { audit } from "../../examples/demo/audit.js"
import { summary } from "../../examples/demo/display.js"
import {
  accounts,
  type Book,
  createTables,
  emptyBook,
  openingBalance,
  type Told
} from "../../examples/demo/workload.js"
import * as TestPg from "../support/TestPg.js"

/** The id of a write, by what the program was told of it. */
const ids = {
  stored: "00000000-0000-0000-0000-000000000001",
  missing: "00000000-0000-0000-0000-000000000002",
  other: "00000000-0000-0000-0000-000000000003"
}

const bookOf = (writes: ReadonlyArray<readonly [string, Told]>): Book => ({ ...emptyBook(), writes: new Map(writes) })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("The demo's audit", (it) => {
  /** What the audit says of a book, the row `stored` being there as often as told. */
  const judged = (book: Book, { moved = 0, times = 1 }: { readonly moved?: number; readonly times?: number } = {}) =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      yield* Effect.provide(createTables, PgClient.layer({ url: server.url }))
      yield* Effect.addFinalizer(() => TestPg.control("DROP TABLE accounts, writes, transfers"))
      yield* TestPg.control("INSERT INTO writes SELECT $1::uuid FROM generate_series(1, $2)", [ids.stored, times])
      yield* TestPg.control("UPDATE accounts SET balance = balance + $1 WHERE id = 1", [moved])
      return yield* audit(book)
    })

  it.scoped("passes what was told right, and counts what is unknown apart", () =>
    Effect.gen(function* () {
      const result = yield* judged(
        bookOf([
          [ids.stored, "acknowledged"],
          [ids.missing, "failed"],
          [ids.other, "unknown"]
        ])
      )
      const sum = accounts * openingBalance
      assert.deepStrictEqual(result, {
        acknowledged: 1,
        lost: 0,
        doubled: 0,
        lied: 0,
        failed: 1,
        unknown: { applied: 0, notApplied: 1 },
        defects: 0,
        sum: { expected: sum, found: sum },
        sound: true
      })
    })
  )

  it.scoped.each([
    ["lost", bookOf([[ids.missing, "acknowledged"]]), {}],
    ["doubled", bookOf([[ids.stored, "acknowledged"]]), { times: 2 }],
    ["doubled", bookOf([[ids.stored, "unknown"]]), { times: 2 }],
    ["lied", bookOf([[ids.stored, "failed"]]), {}],
    ["sum", emptyBook(), { moved: 1 }]
  ] as const)("fails what is %s, and says so", ([what, book, database]) =>
    Effect.gen(function* () {
      const result = yield* judged(book, database)
      assert.isFalse(result.sound)
      if (what !== "sum") assert.strictEqual(result[what], 1)
      const told = summary("a client", book, [{ fault: "a fault", recovery: Duration.millis(7) }], result, 1)
      assert.include(told, "NOT SOUND")
      assert.match(told, /a fault +7 ms/)
    })
  )
})
