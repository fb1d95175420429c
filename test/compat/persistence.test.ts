/** What Effect's own modules keep in a database, kept through our layer: queues, event journals and event logs. */

import { EventJournal, EventLogServer, PersistedQueue } from "@effect/experimental"
import { SqlClient, SqlEventJournal, SqlEventLogServer, SqlPersistedQueue } from "@effect/sql"
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Layer, Order, Ref, Schema } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { agree } from "./support.js"

const Job = Schema.Struct({ n: Schema.Number, at: Schema.Date })
const at = new Date("2024-02-29T12:00:00Z")

/** A factory of queues on whatever client is provided; its poller looks often. */
const queues = PersistedQueue.layer.pipe(
  Layer.provide(SqlPersistedQueue.layerStore({ pollInterval: "20 millis", tableName: "jobs" }))
)

const jobs = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => sql`SELECT id, element, completed, attempts FROM jobs ORDER BY sequence`
)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("What Effect persists", (it) => {
  it.effect("a persisted queue hands out its elements in order, once each, and again after a failure", () =>
    Effect.gen(function* () {
      const { failed, rows, taken } = yield* agree(
        Effect.gen(function* () {
          const queue = yield* PersistedQueue.make({ name: "work", schema: Job })
          for (const n of [1, 2, 3]) yield* queue.offer({ n, at }, { id: `job-${n}` })
          yield* queue.offer({ n: 99, at }, { id: "job-1" })
          const first = yield* queue.take((job, meta) => Effect.succeed([job, meta] as const))
          const failed = yield* Effect.flip(queue.take(({ n }) => Effect.fail(`no ${n}`)))
          const others = yield* Effect.replicateEffect(
            queue.take((job, meta) => Effect.succeed([job, meta] as const)),
            2
          )
          return { failed, taken: [first, ...others], rows: yield* jobs }
        }).pipe(Effect.provide(queues))
      )
      assert.strictEqual(failed, "no 2")
      assert.deepStrictEqual(taken, [
        [
          { n: 1, at },
          { id: "job-1", attempts: 0 }
        ],
        [
          { n: 3, at },
          { id: "job-3", attempts: 0 }
        ],
        [
          { n: 2, at },
          { id: "job-2", attempts: 1 }
        ]
      ])
      assert.deepStrictEqual(
        rows.map(({ attempts, completed }: any) => [completed, attempts]),
        [
          [true, 1],
          [true, 2],
          [true, 1]
        ]
      )
    })
  )

  it.effect("a persisted queue keeps an element whose taker was interrupted", () =>
    Effect.gen(function* () {
      const taken = yield* agree(
        Effect.gen(function* () {
          const queue = yield* PersistedQueue.make({ name: "work", schema: Job })
          yield* queue.offer({ n: 1, at })
          const started = yield* Deferred.make<void>()
          const taker = yield* Effect.fork(
            queue.take(() => Effect.zipRight(Deferred.succeed(started, undefined), Effect.never))
          )
          yield* Deferred.await(started)
          yield* Fiber.interrupt(taker)
          return yield* queue.take(({ n }, { attempts }) => Effect.succeed({ n, attempts }))
        }).pipe(Effect.provide(queues))
      )
      assert.deepStrictEqual(taken, { n: 1, attempts: 0 })
    })
  )

  it.scoped("a persisted queue shared by two programs loses nothing when the server restarts", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      const count = 40
      const done = yield* Ref.make<ReadonlyArray<number>>([])
      const all = yield* Deferred.make<void>()
      const half = yield* Deferred.make<void>()
      const consumer = Effect.gen(function* () {
        const queue = yield* PersistedQueue.make({ name: "work", schema: Job })
        const take = queue.take(({ n }) =>
          Effect.flatMap(Ref.updateAndGet(done, Arr.append(n)), ({ length }) =>
            Effect.zipRight(
              Effect.when(Deferred.succeed(half, undefined), () => length >= count / 2),
              Effect.when(Deferred.succeed(all, undefined), () => length >= count)
            )
          )
        )
        return yield* Effect.forever(Effect.ignore(Effect.sandbox(take)))
      }).pipe(
        Effect.provide(
          Layer.provide(
            PersistedQueue.layer.pipe(
              Layer.provide(
                SqlPersistedQueue.layerStore({
                  pollInterval: "20 millis",
                  tableName: "jobs",
                  lockExpiration: "2 seconds",
                  lockRefreshInterval: "500 millis"
                })
              )
            ),
            ResilientPg.layer({ url })
          )
        )
      )
      yield* Effect.gen(function* () {
        const queue = yield* PersistedQueue.make({ name: "work", schema: Job })
        yield* Effect.forEach(Arr.range(1, count), (n) => queue.offer({ n, at }), { concurrency: 4 })
      }).pipe(Effect.provide(Layer.provide(queues, ResilientPg.layer({ url }))))
      const consumers = yield* Effect.all([Effect.fork(consumer), Effect.fork(consumer)])
      yield* Deferred.await(half)
      yield* server.restart()
      yield* Deferred.await(all)
      yield* TestPg.eventually(
        TestPg.control("SELECT count(*)::int AS n FROM jobs WHERE NOT completed", [], url),
        ([row]) => row.n === 0
      )
      yield* Fiber.interruptAll(consumers)
      // Taken twice is allowed, and rare: an element whose completion was lost is handed out again.
      assert.sameMembers(Arr.dedupe(yield* Ref.get(done)), Arr.range(1, count))
    })
  )

  /** With columns that take what the module writes: its own do not, on PostgreSQL (`timestamp BIGINT` for a `Date`). */
  const journalTables = `
    CREATE TABLE effect_event_journal (
      id bytea PRIMARY KEY, event text NOT NULL, primary_key text NOT NULL, payload bytea NOT NULL, timestamp timestamptz NOT NULL
    );
    CREATE TABLE effect_event_remotes (
      remote_id bytea NOT NULL, entry_id bytea NOT NULL, sequence int NOT NULL, PRIMARY KEY (remote_id, entry_id)
    );`

  it.effect("an event journal keeps an entry exactly if the effect that goes with it succeeded", () =>
    Effect.gen(function* () {
      const { entries, failed } = yield* agree(
        Effect.gen(function* () {
          const journal = yield* EventJournal.EventJournal
          const write = <A, E>(n: number, effect: Effect.Effect<A, E>) =>
            journal.write({
              event: "Renamed",
              primaryKey: `user-${n}`,
              payload: new Uint8Array([n]),
              effect: ({ payload }) => Effect.zipRight(effect, Effect.succeed(payload))
            })
          const changes = yield* journal.changes
          const written = [yield* write(1, Effect.void), yield* write(2, Effect.void)]
          const failed = (yield* Effect.flip(write(3, Effect.fail("no")))) as EventJournal.EventJournalError
          const remoteId = EventJournal.RemoteId.make(new Uint8Array(16).fill(7))
          const view = ({ payload, primaryKey }: EventJournal.Entry) => [primaryKey, payload]
          const entries = Arr.map(yield* journal.entries, view)
          return {
            written,
            failed: [failed._tag, failed.method, failed.cause],
            entries: Arr.sortWith(entries, ([key]) => key as string, Order.string),
            published: Arr.map(Arr.fromIterable(yield* changes.takeUpTo(10)), view),
            next: yield* journal.nextRemoteSequence(remoteId),
            uncommitted: yield* journal.withRemoteUncommited(remoteId, ({ length }) => Effect.succeed(length)),
            destroyed: yield* Effect.zipRight(journal.destroy, Effect.exit(Effect.asVoid(Effect.flip(journal.entries))))
          }
        }).pipe(Effect.provide(SqlEventJournal.layer())),
        { setup: journalTables }
      )
      assert.deepStrictEqual(failed, ["EventJournalError", "write", "no"])
      assert.deepStrictEqual(
        entries.map(([key]) => key),
        ["user-1", "user-2"]
      )
    })
  )

  it.effect("an event log server stores and gives back its encrypted entries", () =>
    Effect.gen(function* () {
      const { again, entries } = yield* agree(
        Effect.gen(function* () {
          const storage = yield* EventLogServer.Storage
          const entry = (n: number) =>
            new EventLogServer.PersistedEntry({
              entryId: EventJournal.EntryId.make(new Uint8Array(16).fill(n)),
              iv: new Uint8Array(12).fill(n),
              encryptedEntry: new Uint8Array([n, n, n])
            })
          const written = yield* storage.write("public-key", [entry(1), entry(2)])
          const again = yield* storage.write("public-key", [entry(2), entry(3)])
          return { written, again, entries: yield* storage.entries("public-key", 2) }
        }).pipe(Effect.provide(SqlEventLogServer.layerStorageSubtle()))
      )
      assert.lengthOf(again, 2)
      assert.deepStrictEqual(
        entries.map(({ encryptedEntry, sequence }) => [sequence, Array.from(encryptedEntry)]),
        [
          [2, [2, 2, 2]],
          // The one that was there already has used up a number.
          [4, [3, 3, 3]]
        ]
      )
    })
  )
})
