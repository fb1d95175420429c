/** What may happen to one message, and to what the server answers it. */
import { Effect, type Scope } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"

export interface Fault {
  readonly name: string
  /** Prepares it for the next message that matches; what it returns tells how often it has happened. */
  readonly arm: (
    on: FaultProxy.Match,
    database: string
  ) => Effect.Effect<
    Effect.Effect<number>,
    unknown,
    FaultProxy.FaultProxy | EmbeddedPostgres.EmbeddedPostgres | Scope.Scope
  >
  /** Whether it tells the messages of one command apart; else it is the same for all of them. */
  readonly perMessage: boolean
  /** Nothing is heard, so that only a deadline ends the wait. */
  readonly silent: boolean
}

const endings = ["reset", "close"] as const
const proxy = FaultProxy.FaultProxy

const cuts: ReadonlyArray<Fault> = (["before", "after"] as const).flatMap((when) =>
  endings.map((ending) => ({
    name: `the connection ends ${when} it (${ending})`,
    arm: (on) =>
      Effect.map(
        Effect.flatMap(proxy, (_) => _.cut({ on, when, ending })),
        ({ count }) => count
      ),
    perMessage: when === "before",
    silent: false
  }))
)

const swallows: ReadonlyArray<Fault> = [...endings, "blackHole" as const].map((ending) => ({
  name: ending === "blackHole" ? "its reply never comes" : `its reply is lost (${ending})`,
  arm: (on) =>
    Effect.map(
      Effect.flatMap(proxy, (_) => _.swallowReply({ on, ending })),
      ({ count }) => count
    ),
  perMessage: false,
  silent: ending === "blackHole"
}))

/** While the message is on its way, the server ends the sessions of the database. */
const terminated: Fault = {
  name: "the server ends the session before it arrives",
  arm: (on, database) =>
    Effect.gen(function* () {
      const { backends, terminate } = yield* EmbeddedPostgres.EmbeddedPostgres
      const held = yield* Effect.flatMap(proxy, (_) => _.hold({ on }))
      yield* Effect.forkScoped(
        Effect.gen(function* () {
          yield* held.happened()
          for (const backend of yield* backends) if (backend.database === database) yield* terminate(backend.pid)
          yield* held.release
        })
      )
      return held.count
    }),
  perMessage: false,
  silent: false
}

/** It arrives when the client has long given up. */
const late: Fault = {
  name: "it arrives after all the deadlines",
  arm: (on) =>
    Effect.map(
      Effect.flatMap(proxy, (_) => _.hold({ on })),
      ({ count }) => count
    ),
  perMessage: false,
  silent: true
}

export const faults: ReadonlyArray<Fault> = [...cuts, ...swallows, terminated, late]
