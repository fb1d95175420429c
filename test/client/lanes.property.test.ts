/** Programs cannot tell whether their statements share connections: the same results, errors and tables, with lanes and without. */
import type { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Effect, Either, FastCheck as fc, Runtime } from "effect"
import { Operation, PgError } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { laning, settled, shares } from "./laning.js"

const seed = Number(process.env["TEST_SEED"] ?? 20_260_102)

/** What a fiber does with keys of its own. */
type Step =
  | { readonly _tag: "Insert" | "Update"; readonly key: number; readonly value: number | string | null }
  | { readonly _tag: "Delete" | "Select"; readonly key: number }
  | { readonly _tag: "SelectAll" | "Expire" }
  | { readonly _tag: "Divide"; readonly by: number }
  | { readonly _tag: "Named"; readonly deadline: number | undefined; readonly step: Step }
  | {
      readonly _tag: "Caught"
      readonly tag: "UniqueViolation" | "ConstraintError" | "QueryTimeoutError"
      readonly step: Step
    }
  | { readonly _tag: "Transaction"; readonly steps: ReadonlyArray<Step>; readonly undone: boolean }

const keys = 5

/** The texts that share connections. Values below 0 and above 100 violate a constraint, as do null and a key that is there. */
const statements = (sql: SqlClient.SqlClient, fiber: number) => {
  const id = (key: number) => fiber * keys + key
  return {
    insert: (key: number, value: number | string | null) =>
      sql`INSERT INTO p (id, fiber, value) VALUES (${id(key)}, ${fiber}, ${value}) RETURNING id, value`,
    update: (key: number, value: number | string | null) =>
      sql`UPDATE p SET value = ${value} WHERE id = ${id(key)} RETURNING value`,
    remove: (key: number) => sql`DELETE FROM p WHERE id = ${id(key)} RETURNING value`,
    select: (key: number) => sql`SELECT value FROM p WHERE id = ${id(key)}`,
    selectAll: sql`SELECT id, value FROM p WHERE fiber = ${fiber} ORDER BY id`,
    divide: (by: number) => sql`SELECT 100 / ${by}::int AS result`
  }
}

/** What became of a step, as the program sees it. */
const perform = (sql: SqlClient.SqlClient, fiber: number, step: Step): Effect.Effect<unknown, any> => {
  const { divide, insert, remove, select, selectAll, update } = statements(sql, fiber)
  switch (step._tag) {
    case "Insert":
      return insert(step.key, step.value)
    case "Update":
      return update(step.key, step.value)
    case "Delete":
      return remove(step.key)
    case "Select":
      return select(step.key)
    case "SelectAll":
      return selectAll
    case "Divide":
      return divide(step.by)
    case "Expire":
      return Operation.named("expires", { timeout: "20 millis", readOnly: true })(sql`SELECT pg_sleep(600)`)
    case "Named":
      return Operation.named("named", { timeout: step.deadline ?? "infinity" })(perform(sql, fiber, step.step))
    case "Caught":
      return Effect.catchTag(PgError.refine(perform(sql, fiber, step.step)), step.tag, ({ _tag }) =>
        Effect.succeed(`caught ${_tag}`)
      )
    case "Transaction":
      return sql.withTransaction(
        Effect.flatMap(
          Effect.forEach(step.steps, (inner) => told(sql, fiber, inner)),
          (results) => (step.undone ? Effect.fail({ _tag: "Undone", results }) : Effect.succeed(results))
        )
      )
  }
}

const told = (sql: SqlClient.SqlClient, fiber: number, step: Step): Effect.Effect<unknown> =>
  Effect.map(Effect.either(PgError.refine(perform(sql, fiber, step))), (result) => {
    if (Either.isRight(result)) return { rows: result.right }
    const error = result.left as PgError.PgError & { readonly results?: unknown }
    const { _tag, attempts, message, operation, outcome, phase, sqlState, transient } = error
    return { _tag, attempts, message, operation, outcome, phase, sqlState, transient, results: error.results }
  })

const key = fc.integer({ min: 0, max: keys - 1 })
const value = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 100 }) },
  fc.constantFrom(-1, 101, null, "no number")
)
const { step } = fc.letrec<{ step: Step; inner: Step }>((tie) => ({
  inner: fc.oneof(
    { weight: 4, arbitrary: fc.record({ _tag: fc.constantFrom("Insert" as const, "Update" as const), key, value }) },
    {
      weight: 4,
      arbitrary: fc.record({ _tag: fc.constantFrom("Delete" as const, "Select" as const, "Select" as const), key })
    },
    { weight: 1, arbitrary: fc.constant({ _tag: "SelectAll" as const }) },
    { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Divide" as const), by: fc.integer({ min: 0, max: 2 }) }) }
  ),
  step: fc.oneof(
    { depthSize: "small" },
    { weight: 24, arbitrary: tie("inner") },
    {
      weight: 4,
      arbitrary: fc.record({
        _tag: fc.constant("Named" as const),
        deadline: fc.constantFrom(undefined, 60_000, 600_000),
        step: tie("step")
      })
    },
    {
      weight: 4,
      arbitrary: fc.record({
        _tag: fc.constant("Caught" as const),
        tag: fc.constantFrom("UniqueViolation" as const, "ConstraintError" as const, "QueryTimeoutError" as const),
        step: tie("step")
      })
    },
    {
      weight: 2,
      arbitrary: fc.record({
        _tag: fc.constant("Transaction" as const),
        steps: fc.array(tie("inner"), { maxLength: 4 }),
        undone: fc.boolean()
      })
    },
    { weight: 1, arbitrary: fc.constant({ _tag: "Expire" as const }) }
  )
}))
const program = fc.array(fc.array(step, { minLength: 4, maxLength: 14 }), { minLength: 6, maxLength: 16 })

/** A client on an empty table. */
const subject = (lanes: boolean) =>
  Effect.gen(function* () {
    const client = yield* laning({ lanes, maxConnections: 3 })
    const { sql, tap, url } = client
    yield* TestPg.control(
      "CREATE TABLE p (id int PRIMARY KEY, fiber int, value int NOT NULL CHECK (value BETWEEN 0 AND 100))",
      [],
      url
    )
    const run = (program: ReadonlyArray<ReadonlyArray<Step>>) =>
      Effect.gen(function* () {
        yield* sql`TRUNCATE p`
        const results = yield* Effect.forEach(
          program,
          (steps, fiber) => Effect.forEach(steps, (step) => told(sql, fiber, step)),
          { concurrency: "unbounded" }
        )
        return { results, table: yield* sql`SELECT id, fiber, value FROM p ORDER BY id`.unprepared }
      })
    return { ...client, run, tap }
  })

type Outcome = Effect.Effect.Success<ReturnType<Effect.Effect.Success<ReturnType<typeof subject>>["run"]>>

/** The first step that differs says more than all of them. */
const same = (program: ReadonlyArray<ReadonlyArray<Step>>, own: Outcome, expected: Outcome) => {
  for (const [fiber, steps] of program.entries()) {
    for (const [n, step] of steps.entries()) {
      const what = `fiber ${fiber}, step ${n}: ${JSON.stringify(step)}`
      assert.deepStrictEqual(own.results[fiber]![n], expected.results[fiber]![n], what)
    }
  }
  assert.deepStrictEqual(own.table, expected.table)
}

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Programs", (it) => {
  it.scoped("have the same results with lanes as without, whatever they do at the same time", () =>
    Effect.gen(function* () {
      const runtime = yield* Effect.runtime<never>()
      const [shared, apart] = yield* Effect.all([subject(true), subject(false)])
      const { sql, tap } = shared
      const warm: ReadonlyArray<readonly [RegExp, (n: number) => Effect.Effect<unknown, any>]> = [
        [/^INSERT INTO p/, (n) => statements(sql, 100 + n).insert(0, n % 100)],
        [/^UPDATE p/, (n) => statements(sql, 100 + n).update(0, n % 100)],
        [/^SELECT value FROM p/, (n) => statements(sql, 100 + n).select(0)],
        [/^SELECT id, value FROM p/, (n) => statements(sql, 100 + n).selectAll],
        [/^SELECT 100/, () => statements(sql, 0).divide(1)],
        [/^DELETE FROM p/, (n) => statements(sql, 100 + n).remove(0)]
      ]
      for (const [pattern, statement] of warm) {
        let times = 0
        yield* shares(tap, pattern, (n) => statement(n + 100 * times++))
      }
      yield* Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(program, (program) =>
            Runtime.runPromise(runtime)(
              Effect.map(Effect.all([shared.run(program), apart.run(program)], { concurrency: 2 }), ([own, expected]) =>
                same(program, own, expected)
              )
            )
          ),
          { numRuns: 20, seed, endOnFailure: true }
        )
      )
      for (const pattern of [/^INSERT INTO p/, /^UPDATE p/, /^SELECT value FROM p/, /^DELETE FROM p/]) {
        assert.isAbove((yield* tap.shared(pattern)).length, 3, String(pattern))
      }
      assert.isEmpty(yield* apart.tap.shared())
      yield* settled(shared)
      yield* settled(apart)
    })
  )
})
