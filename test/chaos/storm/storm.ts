/**
 * Many fibers on a small pool, whose work is interrupted at random moments, and the accounts afterwards: of what they were
 * told, of the pool's and the server's connections, and of every permit.
 */
import { SqlClient } from "@effect/sql"
import { Effect, Layer } from "effect"
import {
  CircuitBreaker,
  type Operation,
  type PgError,
  ResilientPg,
  RetryBudget,
  RetryPolicy
} from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import * as Remains from "../remains.js"
import * as Seeds from "../seeds.js"
import { unhandled } from "../unhandled.js"
import * as Act from "./act.js"
import * as Book from "./book.js"
import * as Plan from "./plan.js"

/**
 * `calm`: nothing fails but what is interrupted. `cuts`: connections are reset and backends ended while it goes on.
 * `half-open`: the circuit stays half-open, so that every statement needs one of few permits.
 */
export type Weather = "calm" | "cuts" | "half-open"

export interface Options {
  readonly seed: number
  readonly weather: Weather
  /** Ends when so many actions have been cut short. */
  readonly cuts: number
  /** Goes on until each kind of work has ended both ways, but for no more than five times as many actions. Default false. */
  readonly thorough?: boolean
  readonly fibers?: number
  readonly onProgress?: (book: Book.Book) => void
}

const maxConnections = 5

const quick = RetryPolicy.backoff({ retries: 6, first: "2 millis", factor: 2, cap: "50 millis" })
const layerOptions = {
  maxConnections,
  idleTimeout: "infinity",
  retry: RetryPolicy.make(RetryPolicy.whileUnavailable(quick))
} as const

const breakers: { readonly [weather in Weather]: CircuitBreaker.Options } = {
  calm: {},
  cuts: { failureThreshold: 5, resetTimeout: "20 millis", maxResetTimeout: "100 millis" },
  "half-open": { failureThreshold: 1, resetTimeout: "1 hour", probes: 3, successesToClose: 1_000_000 }
}

const mayFail: { readonly [weather in Weather]: (error: PgError.PgError) => boolean } = {
  calm: () => false,
  cuts: ({ _tag }) => _tag !== "UnknownError" && _tag !== "SqlSyntaxError",
  "half-open": ({ _tag }) => _tag === "CircuitOpenError"
}

/** A statement on a half-open connection ends by its deadline alone. */
const limits: { readonly [weather in Weather]: Operation.Options["timeout"] } = {
  calm: "infinity",
  cuts: "4 seconds",
  "half-open": "infinity"
}

/** Loses the server once, so that the circuit opens, and lets the prober find it again. */
const toHalfOpen = Effect.gen(function* () {
  const proxy = yield* FaultProxy.FaultProxy
  const breaker = yield* CircuitBreaker.CircuitBreaker
  const sql = yield* SqlClient.SqlClient
  yield* proxy.refuse
  yield* proxy.reset
  yield* TestPg.eventually(
    Effect.zipRight(Effect.ignore(Effect.timeout(sql`SELECT 1`, "50 millis")), breaker.state),
    (state) => state !== "Closed"
  )
  yield* proxy.accept
  yield* TestPg.eventually(breaker.state, (state) => state === "HalfOpen")
})

/** Every so many actions a fault, until interrupted. */
const cutting = (seed: number, book: Book.Book, database: string) =>
  Effect.gen(function* () {
    const proxy = yield* FaultProxy.FaultProxy
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const random = Seeds.random(seed, -1)
    for (let at = 0; ; ) {
      at = book.actions + random.integer(20, 60)
      yield* TestPg.eventually(
        Effect.sync(() => book.actions),
        (actions) => actions >= at
      )
      switch (random.pick({ reset: 4, terminate: 6, refuse: 3, pause: 2, forget: 2 })) {
        case "reset":
          yield* proxy.reset
          break
        case "terminate": {
          const ours = (yield* server.backends).filter((backend) => backend.database === database)
          for (const { pid } of ours.slice(0, random.integer(1, maxConnections))) yield* server.terminate(pid)
          break
        }
        case "refuse":
          yield* proxy.refuse
          yield* proxy.reset
          yield* Effect.sleep(random.integer(1, 150))
          yield* proxy.accept
          break
        case "pause":
          yield* Effect.acquireUseRelease(
            server.pause,
            () => Effect.sleep(random.integer(1, 1_500)),
            () => Effect.orDie(server.resume)
          )
          break
        case "forget":
          yield* proxy.blackHole({ existing: true })
      }
    }
  })

/** The book of one storm, violations included. */
export const run = ({ cuts, fibers = 12, onProgress = () => {}, seed, thorough = false, weather }: Options) =>
  Effect.gen(function* () {
    const proxy = yield* FaultProxy.FaultProxy
    const database = yield* TestPg.database
    yield* TestPg.control(Act.table, [], database.url)
    const book = Book.empty()
    const unheard = yield* unhandled
    const random = Seeds.random(seed, -2)
    // Statements that take some time on their way are met there, and those that take long outlive the grace of a cancel.
    const delay = random.pick({ 0: 2, 2: 2, 15: 1 })
    yield* proxy.latency({ delay: Number(delay), jitter: Number(delay), seed })

    const going = () => {
      if (book.violations.length > 0) return false
      return book.cuts < cuts || (thorough && book.actions < 5 * cuts && Book.unseen(book).length > 0)
    }
    const worker = (fiber: number) => {
      let n = 0
      return Effect.whileLoop({
        while: going,
        body: () => Act.perform(book, Plan.action(seed, fiber, n++), limits[weather], mayFail[weather]),
        step: () => onProgress(book)
      })
    }
    yield* Effect.gen(function* () {
      if (weather === "half-open") yield* toHalfOpen
      const work = Effect.forEach(Array.from({ length: fibers }).keys(), worker, {
        concurrency: "unbounded",
        discard: true
      })
      yield* weather === "cuts" ? Effect.raceFirst(work, cutting(seed, book, database.name)) : work
      yield* proxy.heal
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const budget = yield* RetryBudget.RetryBudget
      if (weather === "half-open") {
        const { state } = yield* breaker.snapshot
        if (state !== "HalfOpen") book.violations.push(`the circuit is ${state}, so that no permit was needed`)
      }
      book.violations.push(
        ...(yield* Remains.whole(database.name)),
        ...(yield* Remains.settled(
          "the circuit's waiting and probing calls",
          breaker.snapshot,
          (_) => _.probing + _.waiting
        )),
        ...(yield* Remains.settled("the budget's permits", budget.snapshot, (_) => _.retrying + _.inFlight))
      )
    }).pipe(
      Effect.provide(ResilientPg.layer({ ...layerOptions, url: proxy.url(database.url), breaker: breakers[weather] }))
    )
    book.violations.push(...(yield* Remains.nothing(database.name)), ...unheard)
    Book.audit(
      book,
      yield* TestPg.control("SELECT id, part, count(*)::int AS n FROM storm GROUP BY id, part", [], database.url)
    )
    return book
  }).pipe(Effect.scoped)

/** A server, and a network to it that fails as a storm asks. */
export const world = Layer.provideMerge(FaultProxy.layerEmbedded, TestPg.layer)
