/** `@effect/sql-drizzle` and `@effect/sql-kysely` on our layer: the bare client's results, transactions and errors. */

import { SqlClient, type SqlError } from "@effect/sql"
import * as PgDrizzle from "@effect/sql-drizzle/Pg"
import * as PgKysely from "@effect/sql-kysely/Pg"
import { assert, layer } from "@effect/vitest"
import { asc, eq, gt, sql as raw } from "drizzle-orm"
import * as Pg from "drizzle-orm/pg-core"
import type { PgRemoteDatabase } from "drizzle-orm/pg-proxy"
import { Effect } from "effect"
import type { Generated } from "kysely"
import * as TestPg from "../support/TestPg.js"
import { agree } from "./support.js"

// What `@effect/sql-drizzle` declares for the CommonJS types of drizzle, for those that an ES module sees.
declare module "drizzle-orm/query-promise" {
  interface QueryPromise<T> extends Effect.Effect<T, SqlError.SqlError> {}
}
const drizzle = Effect.map(PgDrizzle.PgDrizzle, (db) => db as unknown as PgRemoteDatabase)

const setup = `
  CREATE TABLE accounts (id serial PRIMARY KEY, owner text NOT NULL UNIQUE, balance int NOT NULL DEFAULT 0,
                         opened timestamptz NOT NULL DEFAULT '2024-02-29T00:00:00Z', extra jsonb);
  INSERT INTO accounts (owner, balance, extra) VALUES ('Ada', 10, '{"a": 1}'), ('Grace', 20, NULL);
`

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Query builders", (it) => {
  const accounts = Pg.pgTable("accounts", {
    id: Pg.serial().primaryKey(),
    owner: Pg.text().notNull(),
    balance: Pg.integer().notNull().default(0),
    opened: Pg.timestamp({ withTimezone: true }).notNull().defaultNow(),
    extra: Pg.jsonb()
  })

  it.effect("drizzle selects, writes, joins and returns", () =>
    Effect.gen(function* () {
      const { after, inserted, selected } = yield* agree(
        Effect.gen(function* () {
          const db = yield* drizzle
          const selected = yield* db.select().from(accounts).where(gt(accounts.balance, 5)).orderBy(asc(accounts.id))
          const inserted = yield* db
            .insert(accounts)
            .values({ owner: "Alan", extra: { b: [2] } })
            .returning({ id: accounts.id, extra: accounts.extra })
          const plain = yield* db.insert(accounts).values({ owner: "Kurt" })
          const updated = yield* db
            .update(accounts)
            .set({ balance: raw`${accounts.balance} + 1` })
            .where(eq(accounts.owner, "Ada"))
            .returning()
          const removed = yield* db.delete(accounts).where(eq(accounts.owner, "Grace"))
          const summed = yield* db
            .select({ sum: raw<number>`sum(${accounts.balance})::int` })
            .from(accounts)
            .innerJoin(raw`generate_series(1, 2) AS g`, raw`true`)
          const commands = [plain, removed].map((result: any) => ({ ...result, fields: [], _parsers: [] }))
          return { selected, inserted, updated, summed, commands, after: yield* db.select().from(accounts) }
        }).pipe(Effect.provide(PgDrizzle.layer)),
        { setup }
      )
      assert.deepStrictEqual(
        selected.map(({ owner, opened }) => [owner, opened instanceof Date]),
        [
          ["Ada", true],
          ["Grace", true]
        ]
      )
      assert.deepStrictEqual(inserted, [{ id: 3, extra: { b: [2] } }])
      assert.lengthOf(after, 3)
    })
  )

  it.effect("drizzle works within withTransaction, and its failures carry the SQLSTATE", () =>
    Effect.gen(function* () {
      const [code, owners] = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const db = yield* drizzle
          const insert = (owner: string) => db.insert(accounts).values({ owner })
          yield* sql.withTransaction(Effect.zipRight(insert("Alan"), insert("Kurt")))
          yield* Effect.ignore(sql.withTransaction(Effect.zipRight(insert("Barbara"), Effect.fail("no"))))
          const error = yield* Effect.flip(insert("Ada"))
          let code: unknown
          for (let at: any = error; at !== undefined; at = at.cause) code ??= at.code
          return [code, yield* db.select({ owner: accounts.owner }).from(accounts).orderBy(accounts.id)] as const
        }).pipe(Effect.provide(PgDrizzle.layer)),
        { setup }
      )
      assert.strictEqual(code, "23505")
      assert.deepStrictEqual(
        owners.map(({ owner }) => owner),
        ["Ada", "Grace", "Alan", "Kurt"]
      )
    })
  )

  interface Database {
    readonly accounts: {
      readonly id: Generated<number>
      readonly owner: string
      readonly balance: Generated<number>
      readonly opened: Generated<Date>
      readonly extra: unknown
    }
  }

  it.effect("kysely selects, writes, changes the schema and works within its own withTransaction", () =>
    Effect.gen(function* () {
      const { code, owners, selected } = yield* agree(
        Effect.gen(function* () {
          const db = yield* PgKysely.make<Database>()
          const selected = yield* db.selectFrom("accounts").selectAll().where("balance", ">", 5).orderBy("id")
          const inserted = yield* db
            .insertInto("accounts")
            .values({ owner: "Alan", extra: null })
            .returning(["id", "owner"])
          const updated = yield* db
            .updateTable("accounts")
            .set((eb) => ({ balance: eb("balance", "+", 1) }))
            .where("owner", "=", "Ada")
            .returningAll()
          yield* db.schema.createTable("notes").addColumn("id", "serial").addColumn("text", "varchar")
          yield* db.schema.alterTable("accounts").addColumn("closed", "boolean")
          const insert = (owner: string) => db.insertInto("accounts").values({ owner, extra: null })
          yield* db.withTransaction(Effect.zipRight(insert("Kurt"), insert("Barbara")))
          const error = yield* Effect.flip(db.withTransaction(Effect.zipRight(insert("Gottlob"), insert("Ada"))))
          yield* db.deleteFrom("accounts").where("owner", "=", "Grace")
          const owners = yield* db
            .selectFrom("accounts")
            .select(["owner", "closed" as any])
            .orderBy("id")
          return { selected, inserted, updated, owners, code: (error.cause as { readonly code?: unknown }).code }
        }),
        { setup }
      )
      assert.deepStrictEqual(
        selected.map(({ extra }) => extra),
        [{ a: 1 }, null]
      )
      assert.strictEqual(code, "23505")
      assert.deepStrictEqual(
        owners.map(({ owner }: any) => owner),
        ["Ada", "Alan", "Kurt", "Barbara"]
      )
    })
  )
})
