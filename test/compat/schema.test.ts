/** `SqlSchema`, `SqlResolver` and `Model` on our layer: the bare client's results, and really one statement a batch. */

import { Model, SqlClient, SqlResolver, SqlSchema } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, DateTime, Effect, Exit, Option, Schema } from "effect"
import { agree, loggingServer, statementsOf } from "./support.js"

const setup = `
  CREATE TABLE users (
    id serial PRIMARY KEY, name text NOT NULL UNIQUE, tags jsonb NOT NULL DEFAULT '[]', note text,
    created_at timestamptz NOT NULL DEFAULT '2024-02-29T00:00:00Z', updated_at timestamptz NOT NULL DEFAULT '2024-02-29T00:00:00Z'
  );
  INSERT INTO users (name, tags) VALUES ('Ada', '["first"]'), ('Grace', '[]'), ('Edsger', '["last", "best"]');
`

class User extends Schema.Class<User>("User")({
  id: Schema.Number,
  name: Schema.NonEmptyString,
  tags: Schema.Array(Schema.String),
  created: Schema.propertySignature(Schema.ValidDateFromSelf).pipe(Schema.fromKey("created_at"))
}) {}

const applicationName = "batching"

/** The statements on `users`, both layers' in their order. */
const onUsers = (statements: ReadonlyArray<string>) => statements.filter((text) => text.includes("users"))

layer(loggingServer, { excludeTestServices: true, timeout: "60 seconds" })("SqlSchema, SqlResolver and Model", (it) => {
  it.effect("SqlSchema finds all, one, a single one, and runs what has no result", () =>
    Effect.gen(function* () {
      const { all, absent } = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const all = SqlSchema.findAll({
            Request: Schema.Number,
            Result: User,
            execute: (above) => sql`SELECT * FROM users WHERE id > ${above} ORDER BY id`
          })
          const one = SqlSchema.findOne({
            Request: Schema.String,
            Result: User,
            execute: (name) => sql`SELECT * FROM users WHERE name = ${name}`
          })
          const single = SqlSchema.single({
            Request: Schema.Struct({ name: Schema.String }),
            Result: User,
            execute: (request) => sql`INSERT INTO users ${sql.insert(request).returning("*")}`
          })
          const rename = SqlSchema.void({
            Request: Schema.Struct({ id: Schema.NumberFromString, name: Schema.String }),
            execute: ({ id, name }) => sql`UPDATE users SET name = ${name} WHERE id = ${Number(id)}`
          })
          const misread = SqlSchema.findAll({
            Request: Schema.Void,
            Result: Schema.Struct({ id: Schema.String }),
            execute: () => sql`SELECT id FROM users`
          })
          return {
            all: yield* all(1),
            found: yield* one("Ada"),
            absent: yield* one("Alan"),
            inserted: yield* single({ name: "Alan" }),
            duplicate: yield* Effect.flip(single({ name: "Ada" })).pipe(Effect.map(({ _tag }) => _tag)),
            renamed: yield* rename({ id: 1, name: "Lovelace" }),
            misread: yield* Effect.flip(misread()).pipe(Effect.map(({ _tag }) => _tag)),
            after: yield* all(0)
          }
        }),
        { setup }
      )
      assert.deepStrictEqual(
        all.map(({ name }) => name),
        ["Grace", "Edsger"]
      )
      assert.instanceOf(all[0], User)
      assert.deepStrictEqual(absent, Option.none())
    })
  )

  const loaders = Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const byId = yield* SqlResolver.findById("UserById", {
      Id: Schema.Number,
      Result: User,
      ResultId: (user) => user.id,
      execute: (ids) => sql`SELECT * FROM users WHERE ${sql.in("id", ids)}`
    })
    const insert = yield* SqlResolver.ordered("InsertUser", {
      Request: Schema.Struct({ name: Schema.String }),
      Result: User,
      execute: (requests) => sql`INSERT INTO users ${sql.insert(requests)} RETURNING *`
    })
    const byInitial = yield* SqlResolver.grouped("UsersByInitial", {
      Request: Schema.String,
      RequestGroupKey: (initial) => initial,
      Result: User,
      ResultGroupKey: ({ name }) => name.slice(0, 1),
      execute: (initials) => sql`SELECT * FROM users WHERE left(name, 1) IN ${sql.in(initials)} ORDER BY id`
    })
    const remove = yield* SqlResolver.void("RemoveUser", {
      Request: Schema.Number,
      execute: (ids) => sql`DELETE FROM users WHERE ${sql.in("id", ids)}`
    })
    return { sql, byId, insert, byInitial, remove }
  })

  /** The same requests, with what is around all of them. */
  const requests = (
    around: (sql: SqlClient.SqlClient) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, any, R>
  ) =>
    Effect.gen(function* () {
      const { byId, insert, remove, sql } = yield* loaders
      const all = <A, E, R>(effects: ReadonlyArray<Effect.Effect<A, E, R>>) =>
        Effect.all(effects, { batching: true, concurrency: "unbounded" })
      return yield* around(sql)(
        Effect.gen(function* () {
          const inserted = yield* all(Arr.map(["Alan", "Barbara", "Kurt"], (name) => insert.execute({ name })))
          const found = yield* all(Arr.map([3, 1, 99, 2, 4], (id) => byId.execute(id)))
          const removed = yield* all(Arr.map([5, 6], (id) => remove.execute(id)))
          return { inserted, found, removed, left: yield* sql<{ n: number }>`SELECT count(*)::int AS n FROM users` }
        })
      )
    })

  const expectBatches = (statements: ReadonlyArray<string>) => {
    const texts = onUsers(statements)
    // The bare client's four, then our four.
    assert.lengthOf(texts, 8)
    assert.deepStrictEqual(texts.slice(0, 4), texts.slice(4))
    assert.match(texts[0]!, /^INSERT INTO users \("name"\) VALUES \(\$1\),\(\$2\),\(\$3\) RETURNING \*$/)
    assert.match(texts[1]!, /^SELECT \* FROM users WHERE "id" IN \(\$1,\$2,\$3,\$4,\$5\)$/)
    assert.match(texts[2]!, /^DELETE FROM users WHERE "id" IN \(\$1,\$2\)$/)
  }

  it.effect("SqlResolver sends one statement for all requests of a batch", () =>
    Effect.gen(function* () {
      const run = agree(
        requests(() => (self) => self),
        { setup, applicationName }
      )
      const { statements, value } = yield* statementsOf(applicationName, run)
      expectBatches(statements)
      assert.deepStrictEqual(value.found.map(Option.map(({ name }) => name)), [
        Option.some("Edsger"),
        Option.some("Ada"),
        Option.none(),
        Option.some("Grace"),
        Option.some("Alan")
      ])
      assert.deepStrictEqual(value.left, [{ n: 4 }])
    })
  )

  it.effect("SqlResolver does so inside a transaction too, on the transaction's own connection", () =>
    Effect.gen(function* () {
      const run = agree(
        requests((sql) => sql.withTransaction),
        { setup, applicationName }
      )
      const { statements, value } = yield* statementsOf(applicationName, run)
      expectBatches(statements)
      assert.deepStrictEqual(value.left, [{ n: 4 }])
      assert.deepStrictEqual(
        statements.filter((text) => /^(BEGIN|COMMIT|ROLLBACK)/.test(text)),
        ["BEGIN", "COMMIT", "BEGIN", "COMMIT"]
      )
    })
  )

  it.effect("what SqlResolver did in a transaction goes with its rollback", () =>
    Effect.gen(function* () {
      const left = yield* agree(
        Effect.gen(function* () {
          const { insert, sql } = yield* loaders
          const failed = yield* Effect.flip(
            sql.withTransaction(
              Effect.zipRight(
                Effect.forEach(["Alan", "Kurt"], (name) => insert.execute({ name }), { batching: true }),
                Effect.fail("no" as const)
              )
            )
          )
          return [failed, yield* sql`SELECT name FROM users ORDER BY id`] as const
        }),
        { setup }
      )
      assert.deepStrictEqual(left, ["no", [{ name: "Ada" }, { name: "Grace" }, { name: "Edsger" }]])
    })
  )

  it.effect("SqlResolver groups, caches, and fails every request of a failed batch", () =>
    Effect.gen(function* () {
      const { cached, failed, groups } = yield* agree(
        Effect.gen(function* () {
          const { byId, byInitial, insert, sql } = yield* loaders
          yield* sql`INSERT INTO users (name) VALUES ('Alan'), ('Gottlob')`
          const groups = yield* Effect.forEach(["A", "G", "Z"], (initial) => byInitial.execute(initial), {
            batching: true,
            concurrency: "unbounded"
          })
          const failed = yield* Effect.forEach(["Kurt", "Ada"], (name) => Effect.exit(insert.execute({ name })), {
            batching: true,
            concurrency: "unbounded"
          })
          const twice = Effect.zipRight(byId.execute(1), byId.execute(1)).pipe(
            Effect.zipLeft(sql`UPDATE users SET name = 'Lovelace' WHERE id = 1`),
            Effect.zip(byId.execute(1)),
            Effect.withRequestCaching(true)
          )
          return { groups, failed: failed.map(Exit.isFailure), cached: yield* twice }
        }),
        { setup }
      )
      assert.deepStrictEqual(groups.map(Arr.map(({ name }) => name)), [["Ada", "Alan"], ["Grace", "Gottlob"], []])
      assert.deepStrictEqual(failed, [true, true])
      assert.deepStrictEqual(cached.map(Option.map(({ name }) => name)), [Option.some("Ada"), Option.some("Ada")])
    })
  )

  class Person extends Model.Class<Person>("Person")({
    id: Model.Generated(Schema.Number),
    name: Schema.String,
    tags: Model.JsonFromString(Schema.Array(Schema.String)),
    note: Model.FieldOption(Schema.String),
    created_at: Model.FieldExcept("insert", "update")(Schema.ValidDateFromSelf),
    updated_at: Model.DateTimeUpdateFromDate
  }) {}

  const options = { tableName: "users", spanPrefix: "Users", idColumn: "id" } as const
  const person = (name: string) =>
    Person.insert.make({
      name,
      tags: ["new"],
      note: Option.some("noted"),
      updated_at: Model.Override(DateTime.unsafeMake("2024-03-01T12:00:00Z"))
    })
  /** JSON columns come back parsed; this model keeps its JSON as text. */
  const asText = setup.replaceAll("jsonb NOT NULL", "text NOT NULL")

  it.effect("a Model repository inserts, finds, updates and deletes", () =>
    Effect.gen(function* () {
      const { inserted, updated } = yield* agree(
        Effect.gen(function* () {
          const repository = yield* Model.makeRepository(Person, options)
          const inserted = yield* repository.insert(person("Alan"))
          yield* repository.insertVoid(person("Kurt"))
          const updated = yield* repository.update(
            Person.update.make({
              id: inserted.id,
              name: "Turing",
              tags: [],
              note: Option.none(),
              updated_at: Model.Override(DateTime.unsafeMake("2024-03-02T12:00:00Z"))
            })
          )
          yield* repository.delete(1)
          return {
            inserted,
            updated,
            found: yield* Effect.forEach([1, 2, inserted.id], repository.findById),
            duplicate: Exit.isFailure(yield* Effect.exit(repository.insert(person("Kurt"))))
          }
        }),
        { setup: asText }
      )
      assert.instanceOf(inserted, Person)
      assert.deepStrictEqual([inserted.id, inserted.tags, updated.name], [4, ["new"], "Turing"])
    })
  )

  it.effect("Model data loaders send one statement for what comes within their window", () =>
    Effect.gen(function* () {
      const run = agree(
        Effect.gen(function* () {
          // As many at once as a batch may hold: the batch goes when it is full, not when the window ends.
          const names = ["Alan", "Kurt", "Barbara"]
          const load = yield* Model.makeDataLoaders(Person, { ...options, window: "20 seconds", maxBatchSize: 3 })
          const at = { concurrency: "unbounded" } as const
          const inserted = yield* Effect.forEach(names, (name) => load.insert(person(name)), at)
          const found = yield* Effect.forEach([1, 5, 77], load.findById, at)
          yield* Effect.forEach([1, 2, 3], load.delete, at)
          return { inserted, found }
        }),
        { setup: asText, applicationName }
      )
      const { statements, value } = yield* statementsOf(applicationName, run)
      const texts = onUsers(statements)
      assert.lengthOf(texts, 6)
      assert.deepStrictEqual(texts.slice(0, 3), texts.slice(3))
      assert.deepStrictEqual(
        value.inserted.map(({ id, name }) => [id, name]),
        [
          [4, "Alan"],
          [5, "Kurt"],
          [6, "Barbara"]
        ]
      )
      assert.deepStrictEqual(value.found.map(Option.map(({ name }) => name)), [
        Option.some("Ada"),
        Option.some("Kurt"),
        Option.none()
      ])
    })
  )
})
