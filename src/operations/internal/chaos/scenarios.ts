/**
 * What production does to a database, one scenario each: a workload, a fault, and claims that are checked afterwards against
 * the database itself. No claim is about speed; how long it took until the first success is a figure beside them.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as PgError from "../../../error/PgError.js"
import * as ResilientPg from "../../../ResilientPg.js"
import type { EmbeddedPostgres, EmbeddedPostgresError } from "../../../testing/EmbeddedPostgres.js"
import * as FaultProxy from "../../../testing/FaultProxy.js"
import * as Book from "./book.js"
import * as Workload from "./workload.js"

export interface World {
  readonly server: EmbeddedPostgres["Type"]
  readonly proxy: FaultProxy.FaultProxy["Type"]
  /** Of a fresh database, through the proxy. */
  readonly url: Redacted.Redacted
  readonly database: string
  /** How long a fault that lasts does so. */
  readonly seconds: number
  readonly workers: number
  readonly seed: number
}

export interface Outcome {
  readonly operations: number
  readonly acknowledged: number
  readonly failed: number
  readonly unknown: number
  /** From the moment that the server could be reached again until the first success; undefined where that is no question. */
  readonly recoveryMs: number | undefined
  /** What the program saw, by tag. */
  readonly errors: { readonly [tag: string]: number }
  readonly claims: ReadonlyArray<Book.Claim>
}

export type Failure = PgError.PgError | SqlError | EmbeddedPostgresError | FaultProxy.FaultProxyError

export interface Scenario {
  readonly name: string
  /** One line. */
  readonly what: string
  readonly run: (world: World) => Effect.Effect<Outcome, Failure>
}

/** Longer than any recovery should take: who needs longer has not recovered. */
const patience = "30 seconds"

const client = (world: World, options: Partial<ResilientPg.Options> = {}) =>
  ResilientPg.layer({ url: world.url, maxConnections: 8, ...options })

const outcome = (
  world: World,
  book: Book.Book,
  recoveryMs: number | undefined,
  claims: (audit: Book.Audit) => ReadonlyArray<Book.Claim>
): Effect.Effect<Outcome, EmbeddedPostgresError> =>
  Effect.map(Workload.audit(world.server, world.database, book), ({ audit, sum }) => ({
    operations: book.operations,
    acknowledged: audit.acknowledged,
    failed: audit.failed,
    unknown: audit.unknown,
    recoveryMs,
    errors: Object.fromEntries(book.errors),
    claims: [...Book.sound(audit, sum), ...claims(audit)]
  }))

/**
 * Waits until so many operations have succeeded that began from now on. Milliseconds until the first of them; undefined where
 * patience ended before all had.
 */
const successes = (book: Book.Book, wanted: number) =>
  Effect.gen(function* () {
    const since = performance.now()
    const enough = yield* Deferred.make<void>()
    let first: number | undefined
    let left = wanted
    const tell = () => {
      first ??= performance.now() - since
      left--
      if (left === 0) Deferred.unsafeDone(enough, Effect.void)
    }
    book.onSuccess = { since, tell }
    const came = yield* Effect.timeoutOption(Deferred.await(enough), patience)
    book.onSuccess = undefined
    return Option.isSome(came) ? first : undefined
  })

const recovered = (ms: number | undefined) =>
  Book.claim("recovered", ms !== undefined, ms === undefined ? `not within ${patience}` : `after ${Math.round(ms)} ms`)

interface Harm {
  readonly kind?: Workload.Kind
  /** Returns when the server may be reached again. What it tells is whether the fault was there at all. */
  readonly inflict: (world: World) => Effect.Effect<Book.Claim, Failure>
  readonly claims?: (audit: Book.Audit) => ReadonlyArray<Book.Claim>
}

/** Work until it goes well, the fault, work until it goes well again, and the audit. */
const underLoad =
  ({ claims, inflict, kind = "anything" }: Harm) =>
  (world: World): Effect.Effect<Outcome, Failure> =>
    Effect.gen(function* () {
      const book = Book.empty()
      yield* Workload.createTables
      const workers = yield* Effect.fork(Workload.run(book, world.workers, kind))
      const calm = 2 * world.workers
      yield* successes(book, calm)
      const felt = yield* inflict(world)
      yield* Effect.retry(world.server.query("SELECT 1"), { schedule: Schedule.spaced("50 millis"), times: 600 })
      const recovery = yield* successes(book, calm)
      book.stopping = true
      yield* Fiber.join(workers)
      yield* world.proxy.heal
      return yield* outcome(world, book, recovery, (audit) => [felt, recovered(recovery), ...(claims?.(audit) ?? [])])
    }).pipe(Effect.provide(client(world)))

/** Processes are numbered upwards; a server that has started again has another one. */
const startedAnew = (world: World, harm: Effect.Effect<unknown, Failure>) =>
  Effect.gen(function* () {
    const before = yield* world.server.pid
    yield* harm
    const after = yield* world.server.pid
    return Book.claim("the fault was there", before !== after, `the server's process was ${before}, and is ${after}`)
  })

const restart: Scenario = {
  name: "restart",
  what: "The server is restarted (pg_ctl restart -m fast)",
  run: underLoad({ inflict: (world) => startedAnew(world, world.server.restart()) })
}

const crash: Scenario = {
  name: "crash",
  what: "All of the server's processes are killed, and it recovers",
  run: underLoad({
    inflict: (world) => startedAnew(world, Effect.zipRight(world.server.crash, world.server.start))
  })
}

const felt = (connections: number) =>
  Book.claim("the fault was there", connections > 0, `${connections} connections were open`)

const blackHole: Scenario = {
  name: "black-hole",
  what: "All open connections fall silent, as when a firewall forgets them",
  run: underLoad({
    inflict: ({ proxy, seconds }) =>
      Effect.gen(function* () {
        const { open } = yield* proxy.stats
        yield* proxy.blackHole({ existing: true })
        yield* Effect.sleep(`${seconds} seconds`)
        return felt(open)
      })
  })
}

const cut: Scenario = {
  name: "network-cut",
  what: "All connections are reset, and new ones refused for a while",
  run: underLoad({
    inflict: ({ proxy, seconds }) =>
      Effect.gen(function* () {
        const { open } = yield* proxy.stats
        yield* proxy.refuse
        yield* proxy.reset
        yield* Effect.sleep(`${seconds} seconds`)
        yield* proxy.accept
        return felt(open)
      })
  })
}

/** COMMITs whose answer gets lost. */
const commits = 5

const commitCut: Scenario = {
  name: "commit-cut",
  what: `The answers to ${commits} COMMITs get lost, after the server has applied them`,
  run: underLoad({
    kind: "transfers",
    inflict: ({ proxy }) =>
      Effect.gen(function* () {
        const rule = yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/i), times: commits })
        yield* Effect.timeoutOption(rule.happened(commits), patience)
        const cut = yield* rule.count
        return Book.claim("the fault was there", cut === commits, `${cut} answers got lost`)
      }),
    claims: ({ unknown }) => [
      Book.claim("every COMMIT settled", unknown === 0, `${unknown} transfers ended with OutcomeUnknownError`)
    ]
  })
}

const slow: Scenario = {
  name: "slow-network",
  what: "Every packet takes 100 ms more, give or take 50",
  run: underLoad({
    inflict: ({ proxy, seconds, seed }) =>
      Effect.gen(function* () {
        const { open } = yield* proxy.stats
        yield* proxy.latency({ delay: "100 millis", jitter: "50 millis", seed })
        yield* Effect.sleep(`${seconds} seconds`)
        yield* proxy.latency({ delay: 0 })
        return felt(open)
      })
  })
}

const poolOf = Effect.flatMap(ResilientPg.ResilientPg, (_) => _.pool)

/** What must get a connection before the scenario begins, and after it, with a client that waits for one only briefly. */
const patiently = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.retry(self, { times: 50 })

const exhaustion: Scenario = {
  name: "pool-exhaustion",
  what: "All connections are held, and callers wait in vain",
  run: (world) =>
    Effect.gen(function* () {
      const book = Book.empty()
      const sql = yield* SqlClient.SqlClient
      yield* patiently(Workload.createTables)
      const release = yield* Deferred.make<void>()
      const { max } = yield* poolOf
      const holders = yield* Effect.forEach(
        Array.from({ length: max }),
        () =>
          Effect.gen(function* () {
            const taken = yield* Deferred.make<void>()
            const hold = Effect.zipRight(Deferred.succeed(taken, undefined), Deferred.await(release))
            const fiber = yield* Effect.fork(patiently(sql.withTransaction(Effect.zipRight(sql`SELECT 1`, hold))))
            yield* Effect.raceFirst(Deferred.await(taken), Fiber.join(fiber))
            return fiber
          }),
        { concurrency: "unbounded" }
      )
      yield* Effect.forEach(Array.from({ length: world.workers }), () => Workload.transfer(book), {
        concurrency: "unbounded",
        discard: true
      })
      const refused = book.errors.get("PoolTimeoutError") ?? 0
      const stored = (yield* Workload.audit(world.server, world.database, book)).audit
      const since = performance.now()
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.joinAll(holders)
      const succeeded = yield* Effect.repeat(Workload.transfer(book), { until: (done) => done, times: 50 })
      const recovery = succeeded ? performance.now() - since : undefined
      // The ledger is tidied up behind a transaction, on a connection of the pool.
      const idle = yield* Effect.repeat(poolOf, {
        until: ({ used, waiting }) => used + waiting === 0,
        schedule: Schedule.spaced("20 millis")
      }).pipe(Effect.timeoutOption(patience))
      return yield* outcome(world, book, recovery, () => [
        Book.claim(
          "callers are told so",
          refused === world.workers && stored.acknowledged === 0,
          `${refused} of ${world.workers} ended with PoolTimeoutError`
        ),
        Book.claim(
          "the pool is whole",
          Option.isSome(idle),
          `connections are ${Option.isSome(idle) ? "no longer" : `still, after ${patience},`} in use`
        ),
        recovered(recovery)
      ])
    }).pipe(
      Effect.provide(
        // Each caller's one wait is what is looked at.
        client(world, { maxConnections: 2, acquireTimeout: "300 millis", retry: false })
      )
    )
}

const deadlocks: Scenario = {
  name: "deadlocks",
  what: "Pairs of transactions lock the same two rows in opposite orders",
  run: (world) =>
    Effect.gen(function* () {
      const book = Book.empty()
      yield* Workload.createTables
      let attempts = 0
      /** Both have their first lock before either asks for its second: a deadlock for certain, once. */
      const meeting = Effect.gen(function* () {
        const both = yield* Deferred.make<void>()
        let there = 0
        return Effect.suspend(() => {
          attempts++
          there++
          if (there === 2) Deferred.unsafeDone(both, Effect.void)
          return Deferred.await(both)
        })
      })
      const pairs = Math.max(1, Math.floor(world.workers / 2))
      yield* Effect.forEach(
        Array.from({ length: pairs }, (_, n) => n),
        (n) =>
          Effect.gen(function* () {
            const met = yield* meeting
            const [a, b] = [2 * (n % 10) + 1, 2 * (n % 10) + 2]
            const one = (from: number, to: number) => {
              const id = crypto.randomUUID()
              return Workload.noted(book, id, Workload.move(id, from, to, { between: met, timeout: "30 seconds" }))
            }
            yield* Effect.all([one(a, b), one(b, a)], { concurrency: 2 })
          }),
        // No more at once than the retry budget has room for (3), or a victim would be told to give up.
        { concurrency: 2, discard: true }
      )
      return yield* outcome(world, book, undefined, ({ acknowledged }) => [
        Book.claim("the fault was there", attempts > 2 * pairs, `${attempts} attempts at ${2 * pairs} transfers`),
        Book.claim(
          "all succeed in the end",
          acknowledged === 2 * pairs,
          `${acknowledged} of ${2 * pairs} transfers; errors: ${[...book.errors.keys()].join(", ") || "none"}`
        )
      ])
    }).pipe(Effect.provide(client(world)))
}

export const all: ReadonlyArray<Scenario> = [restart, crash, blackHole, cut, commitCut, slow, exhaustion, deadlocks]

export const names = all.map(({ name }) => name)
