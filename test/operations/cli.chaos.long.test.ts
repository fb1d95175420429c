/** The scenarios, and what finds out that one of them does not hold. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import * as PgError from "../../src/error/PgError.js"
import * as Book from "../../src/operations/internal/chaos/book.js"
import * as Scenarios from "../../src/operations/internal/chaos/scenarios.js"
import { nothingRemains, remains, temporary } from "../support/Remains.js"
import { invoke } from "./cli.js"

const broken = (claims: ReadonlyArray<Book.Claim>) => claims.filter(({ holds }) => !holds).map(({ claim }) => claim)

describe("the book", () => {
  const told = new Map<string, Book.Told>([
    ["a", "acknowledged"],
    ["f", "failed"],
    ["u", "unknown"]
  ])
  const sum = { expected: 10, found: 10 }

  it("is sound when what was told is what is stored, and what is unknown may be either", () => {
    for (const stored of [new Map([["a", 1]]), new Map(Object.entries({ a: 1, u: 1 }))]) {
      const audit = Book.compare(told, stored)
      assert.deepInclude(audit, { acknowledged: 1, failed: 1, unknown: 1, lost: 0, doubled: 0, lied: 0 })
      assert.deepStrictEqual(broken(Book.sound(audit, sum)), [])
    }
  })

  it.each<[string, Readonly<Record<string, number>>]>([
    ["nothing lost", {}],
    ["nothing doubled", { a: 2 }],
    ["nothing doubled", { a: 1, u: 2 }],
    ["nothing misreported", { a: 1, f: 1 }]
  ])('finds out that "%s" is not so, with %j in the database', (claim, stored) => {
    const audit = Book.compare(told, new Map(Object.entries(stored)))
    assert.deepStrictEqual(broken(Book.sound(audit, sum)), [claim])
  })

  it("adds up", () => {
    const audit = Book.compare(new Map(), new Map())
    assert.deepStrictEqual(broken(Book.sound(audit, { expected: 10, found: 9 })), ["accounts add up"])
  })

  it("takes what the program is told by an error for what it says, and a defect for none", () => {
    const book = Book.empty()
    const error = (outcome: "NotApplied" | "Unknown") =>
      new PgError.ConnectionError({ message: "gone", phase: "Execute", outcome, transient: true, attempts: 1 })
    Book.note(book, 0, "1", Exit.succeed(1))
    Book.note(book, 0, "2", Exit.fail(error("NotApplied")))
    Book.note(book, 0, "3", Exit.fail(error("Unknown")))
    Book.note(book, 0, "4", Exit.die("bug"))
    assert.deepStrictEqual([...book.told.values()], ["acknowledged", "failed", "unknown", "defect"])
    assert.deepStrictEqual(Object.fromEntries(book.errors), { ConnectionError: 2, defect: 1 })
    assert.deepStrictEqual(
      broken(Book.sound(Book.compare(book.told, new Map([["1", 1]])), { expected: 0, found: 0 })),
      ["no defects"]
    )
  })
})

describe("chaos", () => {
  it.effect("names in its help the scenarios that there are", () =>
    Effect.map(invoke(["chaos", "--help"]), ({ stdout }) => assert.include(stdout, Scenarios.names.join(", ")))
  )

  it.live("runs scenarios on a server of its own, and prints what it found as one JSON document", () =>
    Effect.gen(function* () {
      const only = ["commit-cut", "pool-exhaustion", "deadlocks"]
      const { code, stderr, stdout } = yield* invoke([
        "chaos",
        "--json",
        "--seed",
        "7",
        "--workers",
        "8",
        ...only.flatMap((name) => ["--only", name])
      ])
      const { holds, scenarios, seed } = JSON.parse(stdout)
      assert.deepStrictEqual(
        scenarios.flatMap(({ claims }: { readonly claims: ReadonlyArray<Book.Claim> }) =>
          claims.filter((claim) => !claim.holds)
        ),
        []
      )
      assert.isTrue(holds)
      assert.strictEqual(code, 0)
      assert.strictEqual(seed, 7)
      assert.deepStrictEqual(
        scenarios.map(({ scenario }: { readonly scenario: string }) => scenario),
        only
      )
      const byName = Object.fromEntries(scenarios.map((one: { readonly scenario: string }) => [one.scenario, one]))
      assert.deepInclude(byName["commit-cut"], { unknown: 0 })
      assert.isAtLeast(byName["pool-exhaustion"].errors.PoolTimeoutError, 8)
      assert.deepInclude(byName["deadlocks"], { acknowledged: 8, failed: 0 })
      assert.include(stderr, "commit-cut: The answers to 5 COMMITs get lost")
    })
  )

  it.scopedLive("leaves no server behind when it is interrupted", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const before = process.env["TMPDIR"]
          process.env["TMPDIR"] = directory
          return before
        }),
        (before) =>
          Effect.sync(() => {
            if (before === undefined) delete process.env["TMPDIR"]
            else process.env["TMPDIR"] = before
          })
      )
      const begun = yield* Deferred.make<void>()
      const onLine = (line: string) => {
        if (line.startsWith("restart: ")) Deferred.unsafeDone(begun, Effect.void)
      }
      const command = yield* Effect.fork(invoke(["chaos", "--only", "restart"], undefined, onLine))
      yield* Deferred.await(begun)
      assert.isAbove((yield* remains(directory)).processes.length, 0)
      yield* Fiber.interrupt(command)
      yield* nothingRemains(directory, [])
    })
  )
})
