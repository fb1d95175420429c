/** Migrates `DATABASE_URL`; each of its two migrations stops half-way until it gets an advisory lock of its own number. */
import { NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer } from "effect"
import { Migrations, ResilientPg } from "../../../src/index.js"
import { record, sql } from "../migrationsSupport.js"

const gated = (name: string, gate: number) =>
  sql(
    `INSERT INTO trace VALUES ('${name} a')`,
    `SELECT pg_advisory_xact_lock(${gate})`,
    `INSERT INTO trace VALUES ('${name} b')`
  )

export const loader = record({
  "1_one": gated("one", 1),
  "2_two": Migrations.define(gated("two", 2), { transaction: false })
})

if (process.env.DATABASE_URL !== undefined) {
  const client = Layer.unwrapEffect(Effect.map(Config.redacted("DATABASE_URL"), (url) => ResilientPg.layer({ url })))
  NodeRuntime.runMain(Effect.provide(Migrations.up({ loader }), client))
}
