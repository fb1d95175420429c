/** Transactions that must not lie: what is reported as stored is stored, and what went wrong has a name. */
import { Array as Arr, Deferred, Effect, Exit, Fiber } from "effect"
import { Operation } from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import type { Row } from "../row.js"
import { ending, isTyped } from "../world.js"

/** Each once. */
const inWords = (endings: ReadonlyArray<string>) => Arr.dedupe(endings).join(", ")

const failureCaught: Row = {
  number: 1,
  what: "a statement fails inside `withTransaction`, the program catches the error and goes on",
  run: ({ connect, kept }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      const exit = yield* Effect.exit(
        sql.withTransaction(Effect.zipRight(sql`INSERT INTO kept VALUES (1)`, Effect.either(sql`SELECT 1 / 0`)))
      )
      const stored = (yield* kept).length > 0
      return {
        held: ending(exit) === "TransactionAbortedError" && !stored,
        seen: `${ending(exit)}, ${stored ? "stored" : "nothing stored"}`
      }
    })
}

const lostInside: Row = {
  number: 2,
  what: "the connection dies inside a transaction",
  run: ({ connect, kept, proxy }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      const exit = yield* Effect.exit(
        sql.withTransaction(
          Effect.all([sql`INSERT INTO kept VALUES (1)`, proxy.reset, sql`INSERT INTO kept VALUES (2)`])
        )
      )
      const next = yield* Effect.exit(sql`SELECT 1`)
      const nothing = (yield* kept).length === 0
      return {
        held: ending(exit) === "ConnectionError" && ending(next) === "success" && nothing,
        seen: `${ending(exit)}; next query: ${ending(next)}`
      }
    })
}

const commitFails: Row = {
  number: 3,
  what: "COMMIT itself fails: a deferred constraint, or 40001 under SERIALIZABLE",
  run: ({ ask, connect }) =>
    Effect.gen(function* () {
      const sql = yield* connect(2)
      yield* ask("CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
      const constraint = yield* Effect.exit(sql.withTransaction(sql`INSERT INTO once VALUES (1), (1)`))

      // Each counts the rows and adds one that the other has not counted; the second to commit must fail.
      const added = yield* Deferred.make<void>()
      const counted = yield* Deferred.make<void>()
      const countAndAdd = sql`INSERT INTO kept SELECT count(*) FROM kept`
      const serializable = sql`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`
      const first = sql.withTransaction(
        Effect.all([serializable, countAndAdd, Deferred.succeed(added, undefined), counted])
      )
      const second = sql.withTransaction(
        Effect.gen(function* () {
          yield* serializable
          yield* added
          yield* countAndAdd
          yield* Deferred.succeed(counted, undefined)
          yield* Fiber.join(committed)
        })
      )
      const committed = yield* Effect.fork(first)
      const conflict = yield* Effect.exit(second)
      return {
        held: ending(constraint) === "UniqueViolation" && ending(conflict) === "SerializationError",
        seen: inWords([ending(constraint), ending(conflict)])
      }
    })
}

const commitReplyLost: Row = {
  number: 4,
  what: "COMMIT is applied, and its reply is lost",
  run: ({ connect, kept, proxy }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/i) })
      const exit = yield* Effect.exit(sql.withTransaction(sql`INSERT INTO kept VALUES (1)`))
      const rows = yield* kept
      return {
        held: ending(exit) === "OutcomeUnknownError" && rows.length === 1,
        seen: `${ending(exit)}, ${rows.length === 1 ? "although the row is there" : `${rows.length} rows`}`
      }
    })
}

const siblings: Row = {
  number: 6,
  what: "a nested transaction rolls back beside another one, or beside a plain statement of their parent",
  run: ({ connect, kept }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      const insert = (n: number) => sql`INSERT INTO kept VALUES (${n})`
      // Takes long enough for the other's statement to be sent before it rolls back, if that does not wait for its turn.
      const rollsBack = sql.withTransaction(
        Effect.all([insert(1), sql`SELECT`, sql`SELECT`, Effect.fail("rolled back")] as const)
      )
      const beside = <A, E>(other: Effect.Effect<A, E>) =>
        Effect.exit(sql.withTransaction(Effect.all([Effect.flip(rollsBack), other], { concurrency: "unbounded" })))
      const nested = yield* beside(sql.withTransaction(insert(2)))
      const plain = yield* beside(Effect.zipRight(Effect.yieldNow(), insert(3)))
      const rows = yield* kept
      const fate = (exit: Exit.Exit<unknown, unknown>, n: number) =>
        `${ending(exit)}, its row ${rows.includes(n) ? "stored" : "gone"}`
      return {
        held: Exit.isSuccess(nested) && Exit.isSuccess(plain) && rows.join() === "2,3",
        seen: `nested: ${fate(nested, 2)}; plain: ${fate(plain, 3)}`
      }
    })
}

const beginFails: Row = {
  number: 16,
  what: "BEGIN fails",
  run: ({ connect, proxy }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      yield* proxy.cut({ on: FaultProxy.query(/^BEGIN/i), when: "before", times: Infinity })
      const exit = yield* sql
        .withTransaction(sql`SELECT 1`)
        .pipe(Operation.named("transfer", { timeout: "1 second" }), Effect.exit)
      return {
        held: isTyped(exit),
        seen: isTyped(exit) ? "typed" : ending(exit),
        figure: isTyped(exit) ? ending(exit) : undefined
      }
    })
}

const savepointsPileUp: Row = {
  number: 17,
  what: "many nested transactions succeed in one transaction",
  run: ({ connect }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      const nested = 20
      // A subtransaction that wrote locks its own id for as long as it is open.
      const locks = sql<{ n: number }>`
        SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'transactionid' AND pid = pg_backend_pid()`
      const [open] = yield* sql.withTransaction(
        Effect.zipRight(Effect.replicateEffect(sql.withTransaction(sql`INSERT INTO kept VALUES (1)`), nested), locks)
      )
      const left = open!.n - 1
      return { held: left === 0, seen: `${left} of ${nested} subtransactions still open` }
    })
}

const outlived: Row = {
  number: 20,
  what: "a fiber outlives the transaction, or the `reserve` scope, whose connection it has",
  run: ({ connect, kept }) =>
    Effect.gen(function* () {
      const sql = yield* connect(1)
      const opened = yield* Deferred.make<void>()
      const insert = sql`INSERT INTO kept VALUES (1)`
      const daemon = yield* sql.withTransaction(Effect.forkDaemon(Effect.exit(Effect.zipRight(opened, insert))))
      const reserved = yield* Effect.scoped(sql.reserve)
      const endings: Array<string> = []
      const strangers = Effect.gen(function* () {
        yield* Deferred.succeed(opened, undefined)
        endings.push(ending(yield* Fiber.join(daemon)))
        const insertion = reserved.executeUnprepared("INSERT INTO kept VALUES (2)", [], undefined)
        endings.push(ending(yield* Effect.exit(insertion)))
        return yield* Effect.fail("rolled back")
      })
      yield* Effect.flip(sql.withTransaction(strangers))
      const rows = yield* kept
      return {
        held: endings.every((ending) => ending === "TransactionAbortedError") && rows.length === 0,
        seen: `${inWords(endings)}, ${rows.length === 0 ? "nothing stored" : "stored"}`
      }
    })
}

const twoClients: Row = {
  number: 21,
  what: "two clients in one program: B used inside `A.withTransaction`",
  run: (world) =>
    Effect.gen(function* () {
      const other = yield* world.anotherDatabase
      const a = yield* world.connect(1)
      const b = yield* world.connect(1, other)
      const where = b<{ name: string }>`SELECT current_database() AS name`
      const [outside] = yield* where
      let inside: string | undefined
      yield* Effect.gen(function* () {
        inside = (yield* where)[0]?.name
        yield* b`CREATE TABLE beside ()`
        return yield* Effect.fail("rolled back")
      }).pipe(a.withTransaction, Effect.flip)
      const onItsOwn = inside === outside?.name
      const kept = (yield* b`SELECT FROM pg_tables WHERE tablename = 'beside'`).length === 1
      return {
        held: onItsOwn && kept,
        seen: `B's statement ran on ${onItsOwn ? "B's" : "A's"} database, its work ${kept ? "stored" : "gone with A's rollback"}`
      }
    })
}

export const rows: ReadonlyArray<Row> = [
  failureCaught,
  lostInside,
  commitFails,
  commitReplyLost,
  siblings,
  beginFails,
  savepointsPileUp,
  outlived,
  twoClients
]
