/**
 * The pool: a bounded set of connections (`internal/entries.ts`), one fair queue for them (`waiting.ts`), what is known of
 * the server's absence (`absence.ts`), and what opens connections (`opening.ts`). Here they meet.
 *
 * Everything that moves is synchronous, so that each step keeps the invariants that each part names, and these
 * (`test/client/Pool.test.ts`):
 * 1. `total + connecting <= max`, but for the prober's one connection while the server is away.
 * 2. Nobody passes the queue: a connection is taken at once only if nobody waits.
 * 3. Whatever comes free, is opened or lost leads to `pump`, which serves the queue and opens what is missing.
 *
 * Waiting and lifetime are policy, by the `Clock`; checks, probing and slow start are transport, by the live clock.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Tracer from "effect/Tracer"
import type * as PgError from "../error/PgError.js"
import * as Absence from "./internal/absence.js"
import * as Entries from "./internal/entries.js"
import * as Lanes from "./internal/lanes.js"
import * as Opening from "./internal/opening.js"
import type { Paces } from "./internal/pace.js"
import * as refusal from "./internal/refusal.js"
import { type Session, type Slot, terminated } from "./internal/session.js"
import type { Restore } from "./internal/stages.js"
import * as Waiting from "./internal/waiting.js"

/** The figures of a moment. Counts are connections, but for `waiting` (fibers) and `generation`. */
export interface Snapshot {
  readonly max: number
  readonly min: number
  /** All connections that the pool answers for: idle, used, quarantined and those being checked. */
  readonly total: number
  readonly idle: number
  readonly used: number
  /** Not usable for the moment: a cancelled statement is being settled, or a connection is being checked. */
  readonly quarantined: number
  /** Held for longer than `leakThreshold` by now. */
  readonly leaked: number
  readonly connecting: number
  readonly waiting: number
  /** Raised by each suspicion: a lost connection, a silent one, a server that turned read-only. */
  readonly generation: number
  /** Sockets that have left the pool and are not closed yet. */
  readonly closing: number
}

/** Why a connection left the pool. */
export type EvictionReason =
  | "idle"
  | "lifetime"
  | "uses"
  | "surplus"
  | "lost"
  | "silent"
  | "check"
  | "dirty"
  | "read-only"
  | "closing"

/** Times in milliseconds, `Infinity` for none. */
export interface Options {
  readonly min: number
  readonly max: number
  readonly maxWaiting: number
  readonly acquireTimeout: number
  readonly idleTimeout: number
  readonly lifetime: number
  readonly maxUses: number
  readonly checkAfterIdle: number
  readonly closeGrace: number
  readonly leakAfter: number
}

/** What the pool tells, synchronously; it asks nothing. */
export interface Listener {
  readonly connected: (seconds: number) => void
  readonly evicted: (reason: EvictionReason, cause: unknown) => void
  /** 0 for who had not to wait; `acquireTimeout` for who waited in vain. */
  readonly waited: (seconds: number) => void
  readonly used: (seconds: number) => void
  readonly timedOut: () => void
  readonly changed: () => void
  /** A connection attempt failed, or (`undefined`) one succeeded after the pool had lost the server. */
  readonly server: (lost: PgError.PgError | undefined, awaySeconds: number) => void
  /** Held for longer than `leakAfter`. */
  readonly held: (span: Tracer.AnySpan | undefined, seconds: number) => void
}

/** A connection in somebody's hands. `release` is idempotent and may be called while a statement is in flight. */
export interface Lease {
  readonly session: Session
  /** Others use it at the same time: only single commands may be sent, by `pipeline`. */
  readonly lane?: Lanes.Lane | undefined
  /** It is somebody else's by now, or will be: not a word more on it. */
  readonly released: boolean
  span: Tracer.AnySpan | undefined
  readonly release: () => void
}

/** A connection as the pool itself lends it. */
export interface Lent extends Lease {
  /** Live clock, milliseconds. */
  readonly since: number
  /** How often it may be used before `maxUses` ends it. */
  readonly usesLeft: number
  /** Given back, used so many times: once, if not said. */
  readonly release: (uses?: number) => void
}

export interface Pool {
  /**
   * `acquire` for those who must not be kept waiting by a fiber: told at once, or in turn. Gives what leaves the queue, for
   * one who gives up before being told. Whoever tells of `cargo` may be given a place on a connection that others use too.
   */
  readonly unsafeAcquire: (turn: Waiting.Turn<Lease, PgError.PgError>, clock: Clock.Clock) => () => void
  /**
   * A connection, waited for in order. To be run in an uninterruptible region whose end releases it, with what restores
   * the interruptibility of the caller for the wait, and the clock that `acquireTimeout` goes by. Fails with
   * `PoolTimeoutError`, `PoolClosedError`, or with what connecting failed with.
   */
  readonly acquire: (restore: Restore, clock: Clock.Clock) => Effect.Effect<Lease, PgError.PgError>
  readonly snapshot: () => Snapshot
  /** Connections that have not answered since now are checked before use, and a prober looks for the server. */
  readonly suspect: () => void
  /** The server behind today's connections no longer takes writes: none of them is handed out again. */
  readonly turnedReadOnly: () => void
  /** The grace is over: what is in flight now is being cancelled. */
  readonly closed: () => boolean
  /** What connecting failed with last, while the server is away. */
  readonly away: () => PgError.PgError | undefined
  /** To be called about once a second of the live clock. */
  readonly tend: () => void
  /** Stop admitting, drain for `closeGrace`, cancel what is left, close everything. */
  readonly close: Effect.Effect<void>
}

/** What the pool needs of the world. */
export interface Environment {
  /** Opens a session, ready for use. Bounded in time by itself. */
  readonly connect: Effect.Effect<Session, PgError.PgError>
  /** Runs in the background, on the live clock, until the layer's scope closes. */
  readonly fork: (effect: Effect.Effect<void>) => void
  /** Runs once after so many milliseconds of a clock, unless what it returns is called before. */
  readonly alarm: (clock: Clock.Clock, millis: number, due: () => void) => () => void
  readonly random: () => number
  readonly clock: Clock.Clock
  /** The clock by which statements on a connection are told to take long. */
  readonly paces: Paces
  /** Settles an abandoned statement; ends when the session is usable or destroyed. */
  readonly settle: (session: Session, slot: Slot) => Effect.Effect<void>
  /** Asks the server to cancel what is in flight, for closing, and waits shortly for its answer. */
  readonly cancel: (session: Session) => Effect.Effect<unknown>
  readonly listener: Listener
}

export const make = (options: Options, env: Environment): Pool => {
  const { listener } = env
  const { max, min } = options
  let closing = false
  let closed = false
  let quiet: (() => void) | undefined

  const facts = () => ({ ...snapshot(), cause: absence.away?.cause })

  const refuse = (error: PgError.PoolTimeoutError) => {
    listener.timedOut()
    return error
  }

  const shut = () => refusal.shut(absence.away?.cause)

  const waiting = Waiting.make<Lease, PgError.PgError>({
    limit: options.acquireTimeout,
    alarm: env.alarm,
    late: () => {
      listener.waited(options.acquireTimeout / 1000)
      return refuse(refusal.late(options.acquireTimeout, facts()))
    },
    waited: listener.waited
  })

  const absence = Absence.make({ max, closing: () => closing, told: listener.server })

  const failed = (error: PgError.PgError) => {
    absence.failed(error)
    // While a connection that answers is in use, its release serves the queue; else nobody will before the next try.
    if (!entries.answering()) waiting.failAll(error)
  }

  /** Serve the queue from what is idle, and see to it that enough is being opened or checked for the rest. */
  const pump = () => {
    entries.offer()
    if (closing) return finishClosing()
    if (absence.away !== undefined) return opening.probe(waiting.size > 0)
    const { checking, total } = entries
    const { connecting } = opening
    // Asked for at every statement that has to wait: a pool that is full has no more to open.
    if (total + connecting >= max) return
    const { atOnce } = absence
    const missing = Opening.missing({ total, checking, waiting: waiting.size, connecting, min, max, atOnce })
    for (let n = missing; n > 0; n--) opening.open()
  }

  const finishClosing = () => {
    if (!closing) return
    if (entries.figures().total === 0 || closed) waiting.failAll(shut())
    if (waiting.size === 0) entries.evictIdle("closing")
    const left = entries.figures()
    if (left.total === 0 && left.closing === 0) quiet?.()
  }

  const entries: Entries.Entries = Entries.make(options, env, {
    waiting,
    absence,
    closing: () => closing,
    failed,
    pump,
    gone: finishClosing,
    lanes: () => lanes
  })

  const lanes = Lanes.make({
    paces: env.paces,
    take: () => entries.take(),
    sound: (lease) => entries.sound(lease),
    freed: () => {
      if (waiting.size > 0) pump()
    }
  })

  const opening = Opening.make(
    {
      connect: env.connect,
      fork: env.fork,
      random: env.random,
      closing: () => closing,
      came: (session, seconds, done) => {
        if (closed) return session.destroy(terminated("the pool is closed"))
        listener.connected(seconds)
        absence.opened()
        entries.admit(session, done)
      },
      failed,
      settled: pump
    },
    absence
  )

  /** A connection at once, or undefined if one must be waited for. */
  const unsafeTake = (cargo?: Lanes.Cargo) => {
    if (waiting.size > 0 || closing) return undefined
    const lease: Lease | undefined = cargo === undefined ? entries.take() : lanes.take(cargo)
    if (lease !== undefined) listener.waited(0)
    return lease
  }

  /** Why nobody can join the queue, if so. */
  const refused = (): PgError.PgError | undefined => {
    if (closing) return shut()
    // Those for whom there is a place in the pool wait for its server, not for somebody else.
    const { checking, idle, total } = entries.figures()
    const places = Math.max(0, max - (total - idle - checking))
    return waiting.size >= options.maxWaiting + places ? refuse(refusal.queueFull(facts())) : undefined
  }

  const joined = () => {
    listener.changed()
    pump()
  }

  const unsafeAcquire: Pool["unsafeAcquire"] = (turn, clock) => {
    const lease = unsafeTake(turn.cargo)
    if (lease !== undefined) turn.served(lease)
    else {
      const error = refused()
      if (error === undefined) return waiting.unsafeWait(turn, clock, joined)
      turn.failed(error)
    }
    return () => {}
  }

  const acquire: Pool["acquire"] = (restore, clock) =>
    Effect.suspend(() => {
      const lease = unsafeTake()
      if (lease !== undefined) return Effect.succeed(lease)
      const error = refused()
      return error === undefined ? waiting.wait(restore, clock, joined) : Effect.fail(error)
    })

  const snapshot = (): Snapshot => {
    const { closing, idle, leaked, quarantined, total } = entries.figures()
    return {
      max,
      min,
      total,
      idle,
      used: total - idle - quarantined,
      quarantined,
      leaked,
      connecting: opening.connecting,
      waiting: waiting.size,
      generation: absence.generation,
      closing
    }
  }

  /** Interruptible although closing is not: else the limit on it could not end it. */
  const drained = Effect.interruptible(
    Effect.async<void>((resume) => {
      quiet = () => resume(Effect.void)
      finishClosing()
    })
  )

  return {
    unsafeAcquire,
    acquire,
    snapshot,
    tend: () => {
      entries.tend()
      pump()
    },
    suspect: () => {
      absence.distrust()
      pump()
    },
    turnedReadOnly: entries.turnedReadOnly,
    closed: () => closed,
    away: () => absence.away?.cause,
    close: Effect.suspend(() => {
      closing = true
      return Effect.timeoutOption(drained, options.closeGrace)
    }).pipe(
      Effect.zipRight(
        Effect.suspend(() => {
          closed = true
          finishClosing()
          return entries.cut
        })
      ),
      Effect.zipRight(Effect.timeoutOption(drained, Entries.goodbye)),
      Effect.zipRight(Effect.sync(entries.destroyLeaving)),
      Effect.zipRight(Effect.timeoutOption(drained, Entries.goodbye)),
      Effect.asVoid
    )
  }
}
