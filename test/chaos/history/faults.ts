/** Faults by a seed: what happens, and after how many transactions, as data; and how each of them is inflicted. */
import { Data, Effect, Schedule } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Seeds from "../seeds.js"

export type Fault = Data.TaggedEnum<{
  /** The next so many connections end just before, or just after, their COMMIT is forwarded. */
  CommitCut: { readonly when: "before" | "after"; readonly ending: FaultProxy.Ending; readonly times: number }
  /** The next so many COMMITs are done, and their clients never hear of it. */
  CommitReplyLost: { readonly ending: FaultProxy.Ending; readonly times: number }
  /** The next COMMIT is done and never answered, on a connection that stays open. Only a client with a deadline gets past it. */
  CommitUnanswered: {}
  /** SIGKILL to all processes of the server, and a start after so many milliseconds. */
  Crash: { readonly down: number }
  Stop: { readonly mode: "immediate" | "fast"; readonly down: number }
  /** One backend ended as by `pg_terminate_backend`; `victim` chooses among those there are. */
  Terminate: { readonly victim: number }
  /** One backend ended by SIGKILL: the server then cuts off all others, too, and recovers. */
  Kill: { readonly victim: number }
  /** Nothing passes, and nothing is refused, for so many milliseconds. */
  BlackHole: { readonly millis: number }
  /** The server stands still for so many milliseconds. */
  Pause: { readonly millis: number }
  /** Everything takes longer, in milliseconds, for so many of them. */
  Latency: { readonly delay: number; readonly jitter: number; readonly millis: number }
}>
export const Fault = Data.taggedEnum<Fault>()

export type Weights = { readonly [tag in Fault["_tag"]]: number }

const zero: Weights = {
  CommitCut: 0,
  CommitReplyLost: 0,
  CommitUnanswered: 0,
  Crash: 0,
  Stop: 0,
  Terminate: 0,
  Kill: 0,
  BlackHole: 0,
  Pause: 0,
  Latency: 0
}

/** Connections lost around COMMIT, and nothing else. */
export const commitCuts: Weights = { ...zero, CommitCut: 2, CommitReplyLost: 1 }

/** Replies of COMMIT lost, and nothing else. */
export const lostReplies: Weights = { ...zero, CommitReplyLost: 1 }

/** Everything; COMMITs most of all, as they are what is at stake. */
export const everything: Weights = {
  CommitCut: 12,
  CommitReplyLost: 6,
  CommitUnanswered: 1,
  Crash: 1,
  Stop: 1,
  Terminate: 3,
  Kill: 1,
  BlackHole: 1,
  Pause: 1,
  Latency: 1
}

export interface Planned {
  readonly fault: Fault
  /** Transactions that end, however they do, before it happens and after the last one was over. */
  readonly after: number
}

/** Faults by their number, from 0 on, without end. */
export type Sequence = (n: number) => Planned

/** Faults by a seed, at most `gap` transactions apart. */
export const seeded =
  (seed: number, weights: Weights, gap = 15): Sequence =>
  (n) => {
    const random = Seeds.random(seed, -3, n)
    const ending = () => random.pick({ reset: 1, close: 1 })
    const times = () => random.integer(1, 8)
    const make: { readonly [tag in Fault["_tag"]]: () => Fault } = {
      CommitCut: () =>
        Fault.CommitCut({ when: random.pick({ before: 1, after: 2 }), ending: ending(), times: times() }),
      CommitReplyLost: () => Fault.CommitReplyLost({ ending: ending(), times: times() }),
      CommitUnanswered: () => Fault.CommitUnanswered(),
      Crash: () => Fault.Crash({ down: random.integer(0, 300) }),
      Stop: () => Fault.Stop({ mode: random.pick({ immediate: 1, fast: 1 }), down: random.integer(0, 300) }),
      Terminate: () => Fault.Terminate({ victim: random.integer(0, 1_000) }),
      Kill: () => Fault.Kill({ victim: random.integer(0, 1_000) }),
      BlackHole: () => Fault.BlackHole({ millis: random.integer(10, 1_000) }),
      Pause: () => Fault.Pause({ millis: random.integer(10, 1_000) }),
      Latency: () =>
        Fault.Latency({ delay: random.integer(1, 20), jitter: random.integer(0, 20), millis: random.integer(50, 500) })
    }
    return { fault: make[random.pick(weights)](), after: random.integer(0, gap) }
  }

/** Nothing at all. */
export const none: Sequence = () => ({ fault: Fault.Terminate({ victim: 0 }), after: Infinity })

/** What has really happened so far. */
export interface Tally {
  readonly faults: Map<Fault["_tag"], number>
  /** Connections that were lost around their COMMIT: cut before it, after it, or with its reply swallowed. */
  commitCuts: number
}

export const emptyTally = (): Tally => ({ faults: new Map(), commitCuts: 0 })

export const figures = ({ commitCuts, faults }: Tally): string =>
  `${commitCuts} connections cut at COMMIT; faults: ${[...faults].map(([tag, n]) => `${tag} ${n}`).join(", ") || "none"}`

const commit = FaultProxy.query(/^COMMIT/i)

/** How long a rule waits for the COMMITs that it is for: the clients may have stopped meanwhile. */
const ruleLimit = "2 seconds"
/** A server that is not back by then is not coming back. */
const backLimit = "60 seconds"

/** Again and again until it succeeds; `what` is said of one that does not. */
const soon = <A, E, R>(self: Effect.Effect<A, E, R>, what: string) =>
  self.pipe(
    Effect.retry(Schedule.spaced("20 millis")),
    Effect.timeoutFail({ duration: backLimit, onTimeout: () => new Error(`not within ${backLimit}: ${what}`) })
  )

/** One fault on one database, from its beginning until the server answers again. */
export const inflict = (fault: Fault, database: string, tally: Tally) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.FaultProxy
    const cut = (rule: Effect.Effect<FaultProxy.Rule>, times: number) =>
      Effect.acquireUseRelease(
        rule,
        ({ happened }) => Effect.timeoutOption(happened(times), ruleLimit),
        ({ cancel, count }) =>
          Effect.zipRight(
            cancel,
            Effect.map(count, (n) => {
              tally.commitCuts += n
            })
          )
      )
    const lasting = (begin: Effect.Effect<void, unknown>, millis: number, end: Effect.Effect<void, unknown>) =>
      Effect.acquireUseRelease(
        begin,
        () => Effect.sleep(millis),
        () => Effect.orDie(end)
      )
    /** A killed backend stays in the server's books until the server has reset itself. */
    const gone = (pid: number) =>
      server.backends.pipe(
        Effect.filterOrFail(
          (all) => all.every((backend) => backend.pid !== pid),
          () => new Error(`backend ${pid} is still there`)
        ),
        (self) => soon(self, `backend ${pid} is gone`)
      )
    const one = (victim: number, end: (pid: number) => Effect.Effect<boolean>) =>
      Effect.flatMap(server.backends, (all) => {
        const ours = all.filter((backend) => backend.database === database)
        const chosen = ours[victim % ours.length]
        return chosen ? Effect.zipRight(end(chosen.pid), gone(chosen.pid)) : Effect.void
      })
    const inflicted: Effect.Effect<unknown, unknown> = Fault.$match(fault, {
      CommitCut: ({ ending, times, when }) => cut(proxy.cut({ on: commit, when, ending, times }), times),
      CommitReplyLost: ({ ending, times }) => cut(proxy.swallowReply({ on: commit, ending, times }), times),
      CommitUnanswered: () => cut(proxy.swallowReply({ on: commit, ending: "blackHole" }), 1),
      Crash: ({ down }) => lasting(server.crash, down, server.start),
      Stop: ({ down, mode }) => lasting(server.stop({ mode }), down, server.start),
      Terminate: ({ victim }) => one(victim, server.terminate),
      Kill: ({ victim }) => one(victim, server.kill),
      BlackHole: ({ millis }) =>
        lasting(
          proxy.blackHole({ existing: true, new: true }),
          millis,
          proxy.blackHole({ existing: false, new: false })
        ),
      Pause: ({ millis }) => lasting(server.pause, millis, server.resume),
      Latency: ({ delay, jitter, millis }) =>
        lasting(proxy.latency({ delay, jitter, seed: delay }), millis, proxy.latency({ delay: 0 }))
    })
    yield* inflicted
    yield* soon(server.query("SELECT 1"), `the server answers after ${JSON.stringify(fault)}`)
    tally.faults.set(fault._tag, (tally.faults.get(fault._tag) ?? 0) + 1)
  })

/** After the last fault, which may have been interrupted: a plain network, and a server that answers. */
export const heal = Effect.gen(function* () {
  yield* Effect.flatMap(FaultProxy.FaultProxy, ({ heal }) => heal)
  const { log, query, state } = yield* EmbeddedPostgres.EmbeddedPostgres
  yield* Effect.catchAll(soon(query("SELECT 1"), "the server answers in the end"), (error) =>
    Effect.flatMap(Effect.all([state, log]), ([state, log]) =>
      Effect.fail(new Error(`${error.message}. It is ${state}; its log ends:\n${log.slice(-3_000)}`))
    )
  )
})

export interface Options {
  readonly faults: Sequence
  /** The database whose backends are taken away. */
  readonly database: string
  /** How many transactions have ended so far. */
  readonly ended: () => number
  readonly onFault?: (fault: Fault) => void
}

/** One fault after the other, for ever. Interrupted, it leaves neither a stopped server nor a black hole. */
export const run = ({ database, ended, faults, onFault = () => {} }: Options, tally: Tally) =>
  Effect.gen(function* () {
    for (let n = 0; ; n++) {
      const { after, fault } = faults(n)
      const at = ended() + after
      yield* Effect.repeat(Effect.sync(ended), { until: (n) => n >= at, schedule: Schedule.spaced("2 millis") })
      onFault(fault)
      yield* inflict(fault, database, tally)
    }
  })
