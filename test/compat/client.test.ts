/** What surrounds the statements: configuration, layers, runtimes and spans are those of the bare client. */

import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import {
  Array as Arr,
  Config,
  ConfigProvider,
  Context,
  Effect,
  Exit,
  Layer,
  ManagedRuntime,
  Option,
  Redacted,
  Stream,
  Tracer
} from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { agree, layers } from "./support.js"

/** A span, and what it was told while it lasted. */
interface Told extends Tracer.Span {
  readonly events: Array<string>
}

/** Runs the program under a tracer that keeps the spans of SQL, in the order of their beginnings. */
const traced = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const spans: Array<Told> = []
    const tracer = Tracer.make({
      span: (name, parent, context, links, startTime, kind) => {
        const attributes = new Map<string, unknown>()
        const events: Array<string> = []
        let status: Tracer.SpanStatus = { _tag: "Started", startTime }
        const span: Told = {
          _tag: "Span",
          name,
          spanId: `span-${spans.length}`,
          traceId: "trace",
          parent,
          context,
          links,
          kind,
          sampled: true,
          attributes,
          events,
          get status() {
            return status
          },
          attribute: (key, value) => void attributes.set(key, value),
          event: (event) => void events.push(event),
          addLinks: () => {},
          end: (endTime, exit) => {
            status = { _tag: "Ended", startTime, endTime, exit }
          }
        }
        if (name.startsWith("sql.")) spans.push(span)
        return span
      },
      context: (run) => run()
    })
    const exit = yield* Effect.exit(Effect.withTracer(self, tracer))
    return {
      exit: Exit.isSuccess(exit),
      spans: spans.map(({ attributes, events, kind, name, parent, status }) => ({
        name,
        kind,
        parent: Option.map(parent, (parent) => (parent._tag === "Span" ? parent.name : "")),
        status: status._tag === "Ended" ? status.exit._tag : status._tag,
        events: events.filter((event) => event.startsWith("db.transaction")),
        attributes: new Map([...attributes].filter(([key]) => key !== "db.namespace"))
      }))
    }
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("The client, as the bare one", (it) => {
  it.scoped("tells the same configuration, from a URL and from single options", () =>
    Effect.gen(function* () {
      const { config, url } = yield* TestPg.database
      const { database, host, password, port, username } = config
      const common = { applicationName: "config", maxConnections: 3, spanAttributes: { team: "data" } }
      for (const options of [
        { url, ...common },
        { host, port, database, username, password, ...common }
      ]) {
        const told = (layer: Layer.Layer<PgClient.PgClient, unknown>) =>
          Effect.provide(
            Effect.map(PgClient.PgClient, ({ config }) => ({
              ...Object.fromEntries(
                (
                  [
                    "host",
                    "port",
                    "database",
                    "username",
                    "applicationName",
                    "maxConnections",
                    "spanAttributes"
                  ] as const
                ).map((name) => [name, config[name]])
              ),
              password: Option.map(Option.fromNullable(config.password), Redacted.value)
            })),
            layer
          )
        const bare = yield* told(PgClient.layer(options))
        assert.deepStrictEqual(yield* told(ResilientPg.layer(options)), bare)
        assert.deepStrictEqual(bare.password, Option.some(Redacted.value(password)))
      }
    })
  )

  it.scoped("reads the same Config", () =>
    Effect.gen(function* () {
      const { config } = yield* TestPg.database
      const wrapped = {
        host: Config.string("HOST"),
        port: Config.integer("PORT"),
        database: Config.string("DATABASE"),
        username: Config.string("USERNAME"),
        password: Config.redacted("PASSWORD"),
        idleTimeout: Config.duration("IDLE"),
        maxConnections: Config.withDefault(Config.integer("MAX"), 2)
      }
      const environment = new Map([
        ["HOST", config.host],
        ["PORT", `${config.port}`],
        ["DATABASE", config.database],
        ["USERNAME", config.username],
        ["PASSWORD", Redacted.value(config.password)],
        ["IDLE", "3 seconds"]
      ])
      const answer = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT current_database() AS name`)
      const ask = (layer: Layer.Layer<SqlClient.SqlClient, unknown>, map: Map<string, string>) =>
        Effect.exit(Effect.provide(answer, layer)).pipe(Effect.withConfigProvider(ConfigProvider.fromMap(map)))
      for (const layer of [PgClient.layerConfig(wrapped), ResilientPg.layerConfig(wrapped)]) {
        assert.deepStrictEqual(yield* ask(layer, environment), Exit.succeed([{ name: config.database }]))
        const missing = yield* ask(layer, new Map([...environment].slice(1)))
        assert.include(JSON.stringify(missing), "HOST")
      }
    })
  )

  it.scoped("lives in a ManagedRuntime, outside of Effect, until that is disposed of", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { name, url } = yield* TestPg.database
      const runtime = ManagedRuntime.make(ResilientPg.layer({ url }))
      const count = Effect.flatMap(SqlClient.SqlClient, (sql) => sql<{ n: number }>`SELECT 1 AS n`)
      const rows = yield* Effect.promise(() => Promise.all(Arr.makeBy(5, () => runtime.runPromise(count))))
      assert.deepStrictEqual(rows, Arr.replicate([{ n: 1 }], 5))
      const sessions = Effect.map(server.backends, (all) => all.filter(({ database }) => database === name).length)
      assert.isAbove(yield* sessions, 0)
      yield* Effect.promise(() => runtime.dispose())
      yield* TestPg.eventually(sessions, (n) => n === 0)
    })
  )

  it.scoped("is one client for all who share the layer, and another for who asks for a fresh one", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      for (const make of Object.values(layers)) {
        const client = make(url, {})
        const get = Effect.map(Layer.build(Layer.merge(client, client)), Context.get(PgClient.PgClient))
        const both = yield* Layer.build(
          Layer.merge(client, Layer.effectDiscard(SqlClient.SqlClient).pipe(Layer.provide(client)))
        )
        assert.strictEqual(Context.get(both, PgClient.PgClient) as unknown, Context.get(both, SqlClient.SqlClient))
        assert.notStrictEqual(yield* get, yield* get)
      }
    })
  )

  it.effect("leaves the same spans: names, parents, attributes, and what a transaction came to", () =>
    Effect.gen(function* () {
      const { spans } = yield* agree(
        traced(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* sql`SELECT ${1}::int AS one`
            yield* sql`SELECT 1`.values
            yield* sql`SELECT 1`.raw
            yield* sql`SELECT 1`.unprepared
            yield* Stream.runDrain(sql`SELECT 1`.stream)
            yield* sql.withTransaction(Effect.zipRight(sql`SELECT 2`, sql.withTransaction(sql`SELECT 3`)))
            yield* sql.withTransaction(Effect.ignore(sql.withTransaction(Effect.fail("inner"))))
            yield* Effect.ignore(sql.withTransaction(Effect.fail("outer")))
            yield* Effect.flip(sql`SELECT * FROM nowhere`)
          }).pipe(Effect.withSpan("sql.program"))
        ),
        { spanAttributes: { team: "data" } }
      )
      assert.lengthOf(
        spans.filter(({ name }) => name === "sql.execute"),
        8
      )
      assert.deepStrictEqual(
        spans.filter(({ name }) => name === "sql.transaction").map(({ events }) => events.join()),
        [
          "db.transaction.commit",
          "db.transaction.savepoint",
          "db.transaction.commit",
          "db.transaction.rollback",
          "db.transaction.rollback"
        ]
      )
      assert.strictEqual(spans[1]?.attributes.get("team"), "data")
    })
  )
})
