/** What follows from files and rows, and how a file of SQL is taken apart: without a server. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck as fc } from "effect"
import * as model from "../../src/operations/internal/migrations/model.js"
import { parse, unhurried } from "../../src/operations/internal/migrations/sql.js"

const statements = (text: string) => parse(text).statements.map(({ sql }) => sql)

describe("a file of SQL", () => {
  it("is as many statements as the server would see", () => {
    assert.deepStrictEqual(statements(" ; ;; "), [])
    assert.deepStrictEqual(statements("-- nothing\n/* ; */"), [])
    assert.deepStrictEqual(statements("SELECT 1; SELECT ';' ; SELECT $x$;$x$, \";\" -- ;"), [
      "SELECT 1",
      "SELECT ';'",
      'SELECT $x$;$x$, ";"'
    ])
    const rule = "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); INSERT INTO u VALUES (2))"
    const body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"
    assert.deepStrictEqual(statements(`${rule}; ${body}; SELECT 3`), [rule, body, "SELECT 3"])
    assert.deepStrictEqual(
      parse("\n\n-- first\nSELECT 1;\nSELECT\n2").statements.map(({ line }) => line),
      [4, 5]
    )
  })

  it("is outside a transaction if it says so before its first statement", () => {
    assert.isTrue(parse("SELECT 1").transaction)
    assert.isTrue(parse("-- transaction: true\nSELECT 1").transaction)
    assert.isFalse(parse("-- Why.\n  -- Transaction: false  \nSELECT 1").transaction)
    assert.isTrue(parse("SELECT 1;\n-- transaction: false\n").transaction)
    assert.isTrue(parse("SELECT '\n-- transaction: false\n'").transaction)
  })

  it("may end a transaction only where it has none", () => {
    for (const command of ["BEGIN", "COMMIT", "ROLLBACK", "END", "START TRANSACTION", "PREPARE TRANSACTION 'a'"]) {
      assert.isDefined(parse(`SELECT 1;\n${command};`).problem, command)
      assert.isUndefined(parse(`-- transaction: false\n${command};`).problem, command)
    }
    for (const command of ["SAVEPOINT a", "ROLLBACK TO a", "rollback work to savepoint a", "RELEASE a"]) {
      assert.isUndefined(parse(`${command};`).problem, command)
    }
    assert.isUndefined(parse("CREATE FUNCTION f() RETURNS void AS $$BEGIN END$$ LANGUAGE plpgsql").problem)
  })

  it("takes its time only where it blocks nobody", () => {
    for (const sql of ["CREATE INDEX CONCURRENTLY i ON t (a)", "drop index concurrently i", "VACUUM t"]) {
      assert.isTrue(unhurried(sql), sql)
    }
    for (const sql of ["CREATE INDEX i ON t (a)", "SELECT 'concurrently'", 'ALTER TABLE "vacuum" ADD a int']) {
      assert.isFalse(unhurried(sql), sql)
    }
  })
})

const known = (id: number, checksum?: string): model.Known =>
  Object.assign(
    [id, "m", Effect.void] as const,
    checksum === undefined ? {} : { [model.SourceId]: { file: "", checksum } }
  )
const row = (id: number, more: Partial<model.Recorded> = {}): model.Recorded => ({
  id,
  name: "m",
  applied: true,
  appliedAt: new Date(0),
  mark: undefined,
  run: undefined,
  checksum: undefined,
  adopted: false,
  ...more
})

const id = fc.integer({ min: 1, max: 12 })
const set = fc.uniqueArray(id, { maxLength: 12 })
const target: fc.Arbitrary<model.Target> = fc.oneof(
  fc.constant("latest" as const),
  fc.integer({ min: 0, max: 13 }).map((to) => ({ to })),
  fc.integer({ min: 1, max: 13 }).map((rollback) => ({ rollback }))
)

/** What is applied after the steps. */
const after = (applied: ReadonlyArray<number>, steps: ReadonlyArray<model.Step>) => {
  const now = new Set(applied)
  for (const { direction, id } of steps) {
    assert.strictEqual(now.has(id), direction === "down", "a step does what is not done yet")
    if (direction === "up") now.add(id)
    else now.delete(id)
  }
  return [...now].sort((a, b) => a - b)
}

describe("the steps", () => {
  it("lead to what was asked for, whatever is there", () => {
    fc.assert(
      fc.property(set, set, target, (files, applied, target) => {
        const all = model.entries(
          files.map((id) => known(id)),
          applied.map((id) => row(id))
        )
        const steps = model.steps(all, target)
        const now = after(applied, steps)
        const both = [...new Set([...files, ...applied])].sort((a, b) => a - b)
        const expected =
          target === "latest"
            ? both
            : "to" in target
              ? both.filter((id) => id <= target.to)
              : [...applied].sort((a, b) => a - b).slice(0, Math.max(0, applied.length - target.rollback))
        assert.deepStrictEqual(now, expected)
        // Down from the latest, then up from the first.
        const order = steps.map(({ direction, id }) => (direction === "down" ? -100 - id : id))
        const downs = steps.filter(({ direction }) => direction === "down").length
        assert.deepStrictEqual(
          order.slice(0, downs),
          [...order.slice(0, downs)].sort((a, b) => a - b)
        )
        assert.deepStrictEqual(
          order.slice(downs),
          [...order.slice(downs)].sort((a, b) => a - b)
        )
      })
    )
  })

  it("are none where something is wrong, the gravest first", () => {
    const allowed = { edited: false, skipped: false }
    const mark = { direction: "up", since: new Date(0) } as const
    const of = (
      files: ReadonlyArray<model.Known>,
      rows: ReadonlyArray<model.Recorded>,
      target: model.Target = "latest"
    ) => model.objection(model.entries(files, rows), target, allowed)?._tag
    const edited = row(1, { checksum: "ts:old" })
    assert.isUndefined(of([known(1), known(2)], [row(1)]))
    assert.strictEqual(of([known(1, "ts:new"), known(2)], [edited, row(2, { applied: false, mark })]), "Unfinished")
    assert.strictEqual(of([known(1, "ts:new")], [edited], { to: 7 }), "UnknownId")
    assert.strictEqual(of([known(1, "ts:new")], [edited]), "Edited")
    assert.isUndefined(of([known(1, "js:new")], [edited]), "a file of another kind has another text")
    assert.isUndefined(of([known(1)], [edited]), "a loader that knows no texts")
    assert.strictEqual(of([known(1), known(2)], [row(2)]), "Skipped")
    assert.isUndefined(
      of([known(1), known(2)], [row(2)], { rollback: 1 }),
      "what is left out is no hindrance to undoing"
    )
    assert.isUndefined(of([], [row(3)]), "an older version of the program")
  })
})
