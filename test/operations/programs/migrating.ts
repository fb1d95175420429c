/** Migrates `MIGRATING_URL`; each of its two migrations stops half-way until it gets an advisory lock of its own number. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Migrations from "../../../src/operations/Migrations.js"
import * as ResilientPg from "../../../src/ResilientPg.js"

const gated = (name: string, gate: number): Effect.Effect<void, unknown, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`INSERT INTO trace VALUES (${`${name} a`})`
    yield* sql`SELECT pg_advisory_xact_lock(${gate})`
    yield* sql`INSERT INTO trace VALUES (${`${name} b`})`
  })

export const loader = Migrator.fromRecord({
  "1_one": gated("one", 1),
  "2_two": Migrations.define(gated("two", 2), { transaction: false })
})

const url = process.env.MIGRATING_URL
if (url !== undefined) {
  NodeRuntime.runMain(Effect.provide(Migrations.up({ loader }), ResilientPg.layer({ url: Redacted.make(url) })))
}
