/** What production does to a database, one after the other. */
import { Deferred, Duration, Effect, Random } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import type { Book } from "./workload.js"

export interface Fault {
  readonly name: string
  /** From the first harm until the server can be reached again. */
  readonly inflict: Effect.Effect<void, unknown, EmbeddedPostgres.EmbeddedPostgres | FaultProxy.FaultProxy>
}

const server = EmbeddedPostgres.EmbeddedPostgres
const proxy = FaultProxy.FaultProxy

/** All of them; those that last do so for this many seconds. */
export const faultsOf = (seconds: number): ReadonlyArray<Fault> => [
  { name: "restart", inflict: Effect.flatMap(server, (_) => _.restart()) },
  {
    name: "crash (kill -9 of everything)",
    inflict: Effect.flatMap(server, (_) => Effect.andThen(_.crash, _.start))
  },
  {
    name: "random backends terminated",
    inflict: Effect.gen(function* () {
      const { backends, terminate } = yield* server
      for (let n = 0; n < seconds * 4; n++) {
        const victims = yield* Random.shuffle(yield* backends)
        for (const { pid } of [...victims].slice(0, 3)) yield* terminate(pid)
        yield* Effect.sleep("200 millis")
      }
    })
  },
  {
    name: "one backend killed (the server resets)",
    inflict: Effect.gen(function* () {
      const { backends, kill } = yield* server
      for (const { pid } of (yield* backends).slice(0, 1)) yield* kill(pid)
    })
  },
  {
    name: `server paused for ${seconds} s`,
    inflict: Effect.flatMap(server, ({ pause, resume }) =>
      Effect.acquireUseRelease(
        pause,
        () => Effect.sleep(Duration.seconds(seconds)),
        () => Effect.orDie(resume)
      )
    )
  },
  {
    name: "connections half-open (a firewall forgot them)",
    inflict: Effect.flatMap(proxy, (_) =>
      Effect.andThen(_.blackHole({ existing: true }), Effect.sleep(Duration.seconds(seconds)))
    )
  },
  {
    name: `network cut for ${seconds} s`,
    inflict: Effect.flatMap(proxy, (_) =>
      _.refuse.pipe(
        Effect.andThen(_.reset),
        Effect.andThen(Effect.sleep(Duration.seconds(seconds))),
        Effect.andThen(_.accept)
      )
    )
  }
]

/** How a fault went. `recovery`: from the server's answer to a connection outside the pool to the first success. */
export interface Healed {
  readonly fault: string
  readonly recovery: Duration.Duration | undefined
}

/**
 * Inflict, wait until the server answers a connection of its own, and time the workload's first success after that.
 * `patience` is longer than any recovery should take; a client that needs longer is reported as not recovered.
 */
export const endure = (fault: Fault, book: Book, patience: Duration.DurationInput = "15 seconds") =>
  Effect.gen(function* () {
    const { query } = yield* server
    yield* fault.inflict
    yield* Effect.retry(query("SELECT 1"), { while: () => true })
    const since = performance.now()
    const success = yield* Deferred.make<void>()
    book.onSuccess = { since, tell: () => Deferred.unsafeDone(success, Effect.void) }
    const recovered = yield* Effect.timeoutOption(Deferred.await(success), patience)
    book.onSuccess = undefined
    const healed: Healed = {
      fault: fault.name,
      recovery: recovered._tag === "Some" ? Duration.millis(performance.now() - since) : undefined
    }
    return healed
  })
