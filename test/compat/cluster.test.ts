/** `@effect/cluster` with its messages, runners and shard locks in PostgreSQL, through our layer. */

import {
  ClusterSchema,
  Entity,
  RunnerAddress,
  RunnerHealth,
  Runners,
  Sharding,
  ShardingConfig,
  SqlMessageStorage,
  SqlRunnerStorage
} from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { SqlClient } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import {
  Array as Arr,
  Deferred,
  Effect,
  ExecutionStrategy,
  Exit,
  Fiber,
  Layer,
  Option,
  type Redacted,
  Schedule,
  Schema,
  Scope
} from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { agree } from "./support.js"

/** An account in the cluster: each deposit is a message with an id of its own, kept until it has been answered. */
const Account = Entity.make("Account", [
  Rpc.make("Deposit", {
    payload: { id: Schema.String, amount: Schema.Number },
    success: Schema.Struct({ account: Schema.String, amount: Schema.Number }),
    primaryKey: ({ id }) => id
  }).annotate(ClusterSchema.Persisted, true)
])

const setup =
  "CREATE TABLE processed (n serial PRIMARY KEY, id text NOT NULL, account text NOT NULL, runner text NOT NULL)"

/**
 * What the entity does: whatever `before` says, then a row for each time that it processes a message. It tries until it is
 * done, because a defect while its shard moves is more than this version of the cluster survives, on any client.
 */
const accounts = (runner: string, before: (id: string) => Effect.Effect<unknown> = () => Effect.void) =>
  Account.toLayer(
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { entityId: account } = yield* Entity.CurrentAddress
      return {
        Deposit: ({ payload: { amount, id } }) =>
          Effect.zipRight(before(id), sql`INSERT INTO processed ${sql.insert({ id, account, runner })}`).pipe(
            Effect.retry(Schedule.spaced("50 millis")),
            Effect.orDie,
            Effect.as({ account, amount })
          )
      }
    })
  )

const shards = 12

/** A runner that keeps everything in the database, and looks there often. */
const runner = (port: number, options: Partial<ShardingConfig.ShardingConfig["Type"]> = {}) =>
  Sharding.layer.pipe(
    Layer.provideMerge(Runners.layerNoop),
    Layer.provideMerge(SqlMessageStorage.layer),
    Layer.provide([Layer.orDie(SqlRunnerStorage.layer), RunnerHealth.layerNoop]),
    Layer.provide(
      ShardingConfig.layer({
        runnerAddress: Option.some(RunnerAddress.make("localhost", port)),
        shardsPerGroup: shards,
        entityMessagePollInterval: "100 millis",
        entityReplyPollInterval: "50 millis",
        entityTerminationTimeout: "1 second",
        refreshAssignmentsInterval: "200 millis",
        sendRetryInterval: "50 millis",
        ...options
      })
    )
  )

interface Sent {
  readonly account: string
  readonly id: string
  readonly amount: number
}
const deposits = (prefix: string, count: number): ReadonlyArray<Sent> =>
  Arr.makeBy(count, (n) => ({ account: `account-${n % 6}`, id: `${prefix}-${n}`, amount: n }))

/** Sends them all at once and waits for the answers. What could not be stored is sent again: its id keeps it one message. */
const send = (all: ReadonlyArray<Sent>) =>
  Effect.gen(function* () {
    const client = yield* Account.client
    return yield* Effect.forEach(
      all,
      ({ account, amount, id }) => Effect.retry(client(account).Deposit({ id, amount }), Schedule.spaced("50 millis")),
      { concurrency: "unbounded" }
    )
  })

/** Messages and answers as they are stored. */
const stored = (url: Redacted.Redacted) =>
  Effect.all({
    messages: TestPg.control<{ id: string; processed: boolean }>(
      "SELECT payload::json->>'id' AS id, processed FROM cluster_messages ORDER BY 1",
      [],
      url
    ),
    replies: Effect.map(TestPg.control("SELECT 1 FROM cluster_replies", [], url), ({ length }) => length),
    processed: TestPg.control<{ id: string; runner: string }>("SELECT id, runner FROM processed ORDER BY n", [], url)
  })

/** How many shards are locked, by the session that holds them. */
const locks = (url: Redacted.Redacted) =>
  Effect.map(
    TestPg.control<{ n: number }>(
      `SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY pid ORDER BY 1`,
      [],
      url
    ),
    Arr.map(({ n }) => n)
  )

const sorted = (ids: Iterable<string>) => [...ids].sort()

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("A cluster", (it) => {
  it.effect("processes and stores each message once, and answers a repeated one from storage", () =>
    Effect.gen(function* () {
      const all = deposits("once", 24)
      const { again, answers, processed, rows } = yield* agree(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const answers = yield* send(all)
          const again = yield* send(all.slice(0, 6))
          const processed = yield* sql<{ id: string }>`SELECT id FROM processed`
          const rows = yield* sql<{ id: string }>`
            SELECT m.payload::json->>'id' AS id, m.processed, r.kind, r.payload::json AS reply, m.kind AS message_kind
            FROM cluster_messages m JOIN cluster_replies r ON r.request_id = m.id ORDER BY m.message_id`
          return { answers, again, processed: sorted(processed.map(({ id }) => id)), rows }
        }).pipe(Effect.provide(Layer.provideMerge(accounts("one"), runner(1)))),
        { setup }
      )
      assert.deepStrictEqual(
        answers,
        all.map(({ account, amount }) => ({ account, amount }))
      )
      assert.deepStrictEqual(again, answers.slice(0, 6))
      assert.deepStrictEqual(processed, sorted(all.map(({ id }) => id)))
      assert.lengthOf(rows, 24)
    })
  )

  it.scoped("answers every message although the server restarts while they are processed", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      yield* TestPg.control(setup, [], url)
      const released = yield* Deferred.make<void>()
      const before = (id: string) => (id === "during-0" ? Deferred.await(released) : Effect.void)
      // A lock that a busy machine does not refresh within this time counts as lost.
      const often = runner(1, { shardLockRefreshInterval: "2 seconds" })
      const cluster = Layer.provideMerge(accounts("one", before), often).pipe(
        Layer.provideMerge(ResilientPg.layer({ url }))
      )
      yield* Effect.gen(function* () {
        const during = deposits("during", 12)
        const answers = yield* Effect.fork(send(during))
        // All but the one that is held, and the one behind it in the same account.
        yield* TestPg.eventually(stored(url), ({ messages }) => messages.filter((_) => _.processed).length === 10)
        yield* server.restart()
        yield* Deferred.succeed(released, undefined)
        assert.lengthOf(yield* Fiber.join(answers), 12)
        // Sent while there is no server: stored, and answered, when there is one.
        yield* server.stop()
        const away = yield* Effect.fork(send(deposits("away", 6)))
        yield* server.start
        assert.lengthOf(yield* Fiber.join(away), 6)
        assert.lengthOf(yield* send(deposits("after", 6)), 6)
        const { messages, processed } = yield* TestPg.eventually(stored(url), ({ messages }) =>
          messages.every((_) => _.processed)
        )
        // The session that held them is gone: the runner has locked its shards on another one.
        yield* TestPg.eventually(locks(url), (held) => held.length === 1 && held[0] === shards)
        const ids = sorted(
          ["during", "away", "after"]
            .flatMap((prefix) => deposits(prefix, prefix === "during" ? 12 : 6))
            .map(({ id }) => id)
        )
        assert.deepStrictEqual(
          messages.map(({ id }) => id),
          ids
        )
        // The cluster's own promise: at least once.
        assert.deepStrictEqual(sorted(new Set(processed.map(({ id }) => id))), ids)
      }).pipe(Effect.provide(cluster))
    })
  )

  it.scoped("keeps a message that nobody processes yet, for a runner that comes later", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      yield* TestPg.control(setup, [], url)
      const sql = ResilientPg.layer({ url })
      const clientOnly = Layer.provide(runner(1, { runnerAddress: Option.none() }), sql)
      yield* Effect.gen(function* () {
        const client = yield* Account.client
        yield* client("account-1").Deposit({ id: "early", amount: 1 }, { discard: true })
      }).pipe(Effect.provide(clientOnly))
      assert.deepStrictEqual((yield* stored(url)).messages, [{ id: "early", processed: false }])
      yield* server.restart()
      yield* Effect.gen(function* () {
        yield* TestPg.eventually(stored(url), ({ messages }) => messages.every((_) => _.processed))
      }).pipe(Effect.provide(Layer.provide(Layer.provideMerge(accounts("late"), runner(2)), sql)))
      const { processed, replies } = yield* stored(url)
      assert.deepStrictEqual([processed, replies], [[{ id: "early", runner: "late" }], 1])
    })
  )

  it.scoped("shares its shards between two runners, and hands them over when one leaves", () =>
    Effect.gen(function* () {
      const { url } = yield* TestPg.database
      yield* TestPg.control(setup, [], url)
      const start = (name: string, port: number) =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.sequential)
          const layer = Layer.provide(Layer.provideMerge(accounts(name), runner(port)), ResilientPg.layer({ url }))
          const context = yield* Layer.buildWithScope(layer, scope)
          return { context, stop: Scope.close(scope, Exit.void) }
        })
      const one = yield* start("one", 1)
      const two = yield* start("two", 2)
      yield* TestPg.eventually(locks(url), (held) => held.length === 2 && held[0]! + held[1]! === shards)
      const answers = yield* Effect.provide(send(deposits("both", 48)), one.context)
      assert.lengthOf(answers, 48)
      const both = yield* stored(url)
      assert.deepStrictEqual(sorted(new Set(both.processed.map(({ runner }) => runner))), ["one", "two"])
      assert.deepStrictEqual(
        sorted(both.processed.map(({ id }) => id)),
        sorted(deposits("both", 48).map(({ id }) => id))
      )
      yield* two.stop
      assert.lengthOf(yield* Effect.provide(send(deposits("alone", 12)), one.context), 12)
      yield* TestPg.eventually(locks(url), (held) => held.length === 1 && held[0] === shards)
      const alone = (yield* stored(url)).processed.filter(({ id }) => id.startsWith("alone"))
      assert.deepStrictEqual(sorted(new Set(alone.map(({ runner }) => runner))), ["one"])
      assert.lengthOf(alone, 12)
    })
  )
})
