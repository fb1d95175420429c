/** One action of a storm: statements that know whose they are, cut short at a planned moment. */
import { SqlClient, type SqlError } from "@effect/sql"
import { Cause, Effect, Exit, Fiber, Option, Stream } from "effect"
import { Operation, PgError, Transaction } from "effect-pg-resilience"
import * as Book from "./book.js"
import type { Action, Wait } from "./plan.js"

type Failure = SqlError.SqlError | PgError.PgError
type Work = Effect.Effect<unknown, Failure, SqlClient.SqlClient | Transaction.Transactor>

export const table = "CREATE TABLE storm (id text NOT NULL, part int NOT NULL)"

const pause = (wait: Wait): Effect.Effect<void> =>
  "yields" in wait ? Effect.repeatN(Effect.yieldNow(), wait.yields) : Effect.sleep(wait.millis)

const millisOf = (wait: Wait) => ("yields" in wait ? wait.yields + 1 : wait.millis + 1)

/** Some: it ended by itself before the moment came. */
const cutAt = <A, E, R>(self: Effect.Effect<A, E, R>, wait: Wait) =>
  Effect.raceFirst(Effect.asSome(self), Effect.as(pause(wait), Option.none<A>()))

const body = (book: Book.Book, entry: Book.Entry): Work =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const { id, inner, shade, slow } = entry.action
    const [first = { millis: 0 }, second = { millis: 0 }] = inner

    const mine = (expected: string) => (rows: ReadonlyArray<object>) =>
      Effect.sync(() => {
        const tokens = rows.map((row) => (row as { readonly token?: unknown }).token)
        if (tokens.length === 1 && tokens[0] === expected) return
        Book.violation(book, entry.action, `asked for ${expected}, got ${JSON.stringify(tokens)}`)
      })
    const read = Effect.flatMap(sql`SELECT ${id}::text AS token`, mine(id))
    const insert = (part: number, seconds = 0) =>
      Effect.flatMap(
        seconds === 0
          ? sql`INSERT INTO storm VALUES (${id}, ${part}) RETURNING id || '/' || part AS token`
          : sql`INSERT INTO storm SELECT ${id}, ${part} FROM pg_sleep(${seconds}) RETURNING id || '/' || part AS token`,
        mine(`${id}/${part}`)
      )
    /** With `retry` the body may run again: what it said about its groups before is void. */
    const inTransaction = (parts: ReadonlyArray<number>, inside: Work): Work => {
      const fresh = Effect.suspend(() => {
        entry.parts = parts
        entry.groups = []
        return inside
      })
      return shade % 2 === 0 ? sql.withTransaction(fresh) : Transaction.run(fresh, { retry: shade % 3 === 0 })
    }
    const group = (number: number, wait: Wait | undefined, failing = false) =>
      Effect.suspend(() => {
        const [one, two] = [number * 10 + 1, number * 10 + 2] as const
        const own: Book.Group = { parts: [one, two], told: "open" }
        entry.groups.push(own)
        const inside = sql.withTransaction(
          Effect.all([insert(one), failing ? sql`SELECT 1 / (${shade}::int - ${shade}::int)` : read, insert(two)])
        )
        return Effect.matchEffect(wait === undefined ? Effect.asSome(inside) : cutAt(inside, wait), {
          onSuccess: (ended) =>
            Effect.sync(() => {
              if (Option.isSome(ended)) own.told = "stored"
            }),
          onFailure: (error) =>
            failing && PgError.fromSqlError(error).sqlState === "22012"
              ? Effect.sync(() => {
                  own.told = "absent"
                })
              : Effect.fail(error)
        })
      })

    switch (entry.action.body) {
      case "read":
        return yield* read
      case "slow read":
        return yield* Effect.flatMap(sql`SELECT ${id}::text AS token FROM pg_sleep(${slow})`, mine(id))
      case "write":
        entry.parts = [1]
        return yield* insert(1)
      case "slow write":
        entry.parts = [1]
        return yield* insert(1, slow)
      case "transaction":
        return yield* inTransaction([1, 2, 3], Effect.all([insert(1), pause(first), insert(2), read, insert(3)]))
      case "locked transaction": {
        const lock = sql`SELECT pg_advisory_xact_lock(${shade % 3})`
        return yield* inTransaction([1, 2], Effect.all([insert(1), lock, pause(first), insert(2, slow / 10)]))
      }
      case "nested":
        return yield* inTransaction(
          [1, 2, 3],
          Effect.all([
            insert(1),
            group(1, first),
            group(2, undefined, shade > 5),
            insert(2),
            group(3, second),
            insert(3)
          ])
        )
      case "siblings": {
        const beside = Effect.all([group(1, first), insert(2), group(2, undefined), read, group(3, second, true)], {
          concurrency: "unbounded"
        })
        return yield* inTransaction([1, 2, 3], Effect.all([insert(1), beside, insert(3)]))
      }
      case "careless": {
        const careless = cutAt(insert(2, slow), first)
        return yield* inTransaction(
          [1, 3],
          Effect.gen(function* () {
            yield* insert(1)
            const ended = yield* careless
            entry.groups.push({ parts: [2], told: Option.isSome(ended) ? "stored" : "open" })
            yield* insert(3)
          })
        )
      }
      case "stream": {
        const wanted = shade % 4 === 0 ? 10 : shade * 90
        let seen = 0
        const rows = sql<{ token: string }>`SELECT ${id}::text AS token FROM generate_series(1, ${shade * 90 + 10})`
          .stream
        yield* Stream.runForEach(Stream.take(rows, wanted), (row) =>
          Effect.zipRight(
            mine(id)([row]),
            Effect.sync(() => seen++)
          )
        )
        if (seen !== wanted) Book.violation(book, entry.action, `a stream of ${wanted} rows ended after ${seen}`)
        return
      }
      case "reserve":
      case "dirty reserve": {
        const dirty = entry.action.body === "dirty reserve"
        if (dirty) entry.told = "absent"
        else entry.parts = [1]
        return yield* Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* sql.reserve
            const execute = (text: string, values: ReadonlyArray<unknown> = []) =>
              connection.execute(text, values, undefined)
            if (dirty) yield* execute("BEGIN")
            yield* execute("SELECT set_config('storm.token', $1, false)", [id])
            yield* pause(first)
            const insert = execute(
              "INSERT INTO storm VALUES ($1, 1) RETURNING current_setting('storm.token') AS token",
              [id]
            )
            yield* Effect.flatMap(insert, mine(id))
          })
        )
      }
    }
  })

interface Ended {
  readonly exit: Exit.Exit<unknown, Failure>
  readonly cut: boolean
  /** Milliseconds from the cut to the caller's going on. */
  readonly late: number
}

/** A deadline of ours, which is what was planned. */
const isDeadline = (error: PgError.PgError): boolean =>
  error._tag === "QueryTimeoutError" || (error._tag === "OutcomeUnknownError" && isDeadline(error.reason))

/** Most wait for an open circuit; those who do not would be all that is seen of one. */
const whenOpen = (shade: number) => (shade > 1 ? "wait" : "fail")

const cutShort = (work: Work, { cut, shade, wait }: Action, limit: Operation.Options["timeout"]) =>
  Effect.gen(function* () {
    const self = Operation.named("storm", { timeout: limit, whenOpen: whenOpen(shade) })(work)
    const since = performance.now()
    const late = (from: number) => performance.now() - from
    const option = (exit: Exit.Exit<Option.Option<unknown>, Failure>): Ended => ({
      exit,
      cut: Exit.isSuccess(exit) && Option.isNone(exit.value),
      late: late(since + ("millis" in wait ? wait.millis : 0))
    })
    switch (cut) {
      case "none":
        return { exit: yield* Effect.exit(self), cut: false, late: 0 }
      case "timeout":
        return option(yield* Effect.exit(Effect.timeoutOption(self, millisOf(wait))))
      case "race":
        return option(yield* Effect.exit(cutAt(self, wait)))
      case "interrupt": {
        const fiber = yield* Effect.fork(self)
        yield* pause(wait)
        const from = performance.now()
        const exit = yield* Fiber.interrupt(fiber)
        return { exit, cut: Exit.isInterrupted(exit), late: late(from) }
      }
      case "deadline": {
        const millis = millisOf(wait)
        const exit = yield* Effect.exit(
          Operation.named("deadline", { timeout: millis, whenOpen: whenOpen(shade) })(self)
        )
        const cut = Exit.isFailure(exit) && Option.exists(Cause.failureOption(exit.cause), isDeadline)
        return { exit, cut, late: cut ? late(since + millis) : 0 }
      }
    }
  })

const isHit = (error: PgError.PgError): boolean =>
  error.sqlState === "57014" || (error._tag === "OutcomeUnknownError" && isHit(error.reason))

/**
 * Work that is cut inside and goes on. A statement's end ends its transaction, which is PostgreSQL's own rule; a nested
 * transaction's does so if it comes while RELEASE is on its way, when it can no longer be undone alone.
 */
const abortable = new Set<Action["body"]>(["careless", "nested", "siblings"])

/** The action, its end in the book. `limit` bounds it, and `mayFail` says what may fail here beside what was planned. */
export const perform = (
  book: Book.Book,
  action: Action,
  limit: Operation.Options["timeout"],
  mayFail: (error: PgError.PgError) => boolean
) =>
  Effect.gen(function* () {
    const entry = Book.open(book, action)
    const { cut, exit, late } = yield* cutShort(body(book, entry), action, limit)
    book.actions++
    entry.cut = cut
    if (cut) {
      book.cuts++
      book.latest = Math.max(book.latest, late)
    }
    const told = (how: Book.Told) => {
      if (action.body !== "dirty reserve") entry.told = how
    }
    if (Exit.isSuccess(exit)) return cut ? undefined : told("stored")
    for (const defect of Cause.defects(exit.cause)) {
      Book.violation(book, action, `defect ${String((defect as Error)?.stack ?? defect)}`)
    }
    for (const failure of Cause.failures(exit.cause)) {
      const error = PgError.isPgError(failure) ? failure : PgError.fromSqlError(failure)
      book.failures.set(error._tag, (book.failures.get(error._tag) ?? 0) + 1)
      if (error.outcome === "NotApplied") told("absent")
      if (isHit(error)) Book.violation(book, action, `innocent hit: ${error.message}`)
      const planned =
        (action.cut === "deadline" && isDeadline(error)) ||
        (error._tag === "TransactionAbortedError" && abortable.has(action.body))
      if (!planned && !mayFail(error)) {
        Book.violation(book, action, `${error._tag} in ${error.phase}, ${error.outcome}: ${error.message}`)
      }
    }
  })
