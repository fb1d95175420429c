/**
 * The pool: a bounded set of sessions, an idle stack, one fair queue of waiters and one connector.
 *
 * Everything that moves is synchronous, so that each step keeps these invariants (`test/client/Pool.test.ts`):
 * 1. `idle + used + quarantined + checking + connecting <= max`, but for the prober's one connection while the server
 *    is away.
 * 2. A connection is in exactly one of these states, and has at most one holder. Whoever waits is served in order.
 * 3. A waiter that gives up (timeout, interruption) is out of the queue at once; a connection that reached it at that
 *    very moment goes back.
 * 4. A connection is handed out only if it has answered after the last suspicion, and within `checkAfterIdle`;
 *    else it is checked first.
 * 5. A connection is idle again only in status `I` and with nothing in flight.
 * 6. While the server is away one prober connects; nobody else. Afterwards the pool fills by slow start: 1, 2, 4, ….
 *    After a failure, back is who has answered a question, not who has only greeted.
 * 7. A connect is tied to no caller: whoever asked for it may leave, the connection comes to the pool.
 *
 * Waiting and lifetime are policy, by the `Clock`; checks, probing and slow start are transport, by the live clock.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Tracer from "effect/Tracer"
import { classify } from "../error/classify.js"
import * as PgError from "../error/PgError.js"
import { patience } from "./internal/patience.js"
import { Request, type Session, type Slot, terminated } from "./internal/session.js"
import type { Restore } from "./internal/stages.js"

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
  /** It is somebody else's by now, or will be: not a word more on it. */
  readonly released: boolean
  span: Tracer.AnySpan | undefined
  readonly release: () => void
}

export interface Pool {
  /** A connection at once, or undefined if one must be waited for. */
  readonly unsafeTake: () => Lease | undefined
  /**
   * A connection, waited for in order. To be run in an uninterruptible region whose end releases it, with what restores
   * the interruptibility of the caller for the wait, and the clock that `acquireTimeout` goes by. Fails with `PoolTimeoutError`, `PoolClosedError`, or with what connecting failed with.
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
  /** Settles an abandoned statement; ends when the session is usable or destroyed. */
  readonly settle: (session: Session, slot: Slot) => Effect.Effect<void>
  /** Asks the server to cancel what is in flight, for closing, and waits shortly for its answer. */
  readonly cancel: (session: Session) => Effect.Effect<unknown>
  readonly listener: Listener
}

interface Entry {
  readonly session: Session
  /** Live clock, milliseconds. */
  readonly openedAt: number
  /** Policy clock, milliseconds. */
  readonly expiresAt: number
  idleSince: number
  uses: number
  state: "idle" | "used" | "quarantined"
  lease: (Lease & { readonly since: number; reported: boolean }) | undefined
}

/** From a loss, or a failure to connect, until the server is known to be there. Live clock. */
interface Absence {
  readonly since: number
  /** What connecting failed with last. */
  cause: PgError.PgError | undefined
  failures: number
  /** When the last failure was seen; `since` if there was none. */
  failedAt: number
  /** The prober is at it, or waits for its time. */
  probing: boolean
}

interface Waiter {
  readonly since: number
  readonly clock: Clock.Clock
  /** Milliseconds of its clock. */
  readonly expiresAt: number
  lease: Lease | undefined
  resume: (effect: Effect.Effect<Lease, PgError.PgError>) => void
}

const checkLimit = 1_000
const goodbye = 500
const probeDelay = { first: 50, cap: 1_000 }
/** Lost at this age at most, and without an answer to anything since its set-up, a connection is a failure to connect. */
const infancy = 2 * checkLimit

export const make = (options: Options, env: Environment): Pool => {
  const entries = new Set<Entry>()
  const idle: Array<Entry> = []
  const waiters = new Set<Waiter>()
  const leaving = new Set<Session>()
  const { clock, listener } = env
  let connecting = 0
  let quarantined = 0
  /** Of the quarantined: those that are being checked, to be handed out then. */
  let checking = 0
  /** How many may be opened at once: slow start. */
  let ramp = 1
  let generation = 0
  let suspectedAt = 0
  let readOnlyAt = 0
  let closing = false
  let closed = false
  let quiet: (() => void) | undefined
  let away: Absence | undefined

  const trusted = ({ session }: Entry, now: number) =>
    session.answeredAt > suspectedAt && now - session.answeredAt <= options.checkAfterIdle

  const lend = (entry: Entry, span?: Tracer.AnySpan): Lease => {
    const since = performance.now()
    const lease = {
      session: entry.session,
      get released(): boolean {
        return entry.lease !== lease
      },
      span,
      since,
      reported: false,
      release: () => {
        if (entry.lease !== lease) return
        entry.lease = undefined
        entry.uses++
        listener.used((performance.now() - since) / 1000)
        if (!entries.has(entry)) return
        if (entry.session.busy) enter(entry, "quarantined")
        entry.session.whenIdle(() => judge(entry))
      }
    }
    entry.lease = lease
    enter(entry, "used")
    return lease
  }

  const enter = (entry: Entry, state: Entry["state"]) => {
    if (entry.state === "quarantined") quarantined--
    if (state === "quarantined") quarantined++
    entry.state = state
    listener.changed()
  }

  const unsafeTake = () => {
    const entry = idle[idle.length - 1]
    if (entry === undefined || waiters.size > 0 || closing || !trusted(entry, performance.now())) return undefined
    idle.pop()
    return lend(entry)
  }

  /** Serve the queue from what is idle, and see to it that enough is being opened or checked for the rest. */
  const pump = () => {
    const now = performance.now()
    while (waiters.size > 0 && idle.length > 0) {
      const latest = idle[idle.length - 1]!
      if (trusted(latest, now)) serve(idle.pop()!)
      else if (checking < waiters.size) check(idle.pop()!)
      else break
    }
    if (closing) return finishClosing()
    if (away !== undefined) return probe()
    const wanted = Math.max(waiters.size - connecting - checking, options.min - entries.size - connecting)
    const room = options.max - entries.size - connecting
    for (let n = Math.min(wanted, room, ramp - connecting); n > 0; n--) open()
  }

  const serve = (entry: Entry) => {
    for (const waiter of waiters) {
      waiters.delete(waiter)
      listener.waited((performance.now() - waiter.since) / 1000)
      waiter.lease = lend(entry)
      waiter.resume(Effect.succeed(waiter.lease))
      return disarm()
    }
  }

  /** A connection that may be dead: one empty query. */
  const check = (entry: Entry, done: () => void = () => {}) => {
    checking++
    ask(entry, "", "check", () => {
      checking--
      done()
    })
  }

  /** A statement of the pool's own. No answer within a second: the connection is gone, and the others are suspect. */
  const ask = (entry: Entry, sql: string, reason: EvictionReason, done: () => void = () => {}) => {
    enter(entry, "quarantined")
    const silent = () => lose(entry, reason, terminated("no answer to a check within a second"))
    const stop = patience(checkLimit, silent)
    entry.session.submit(new Request(sql), ({ answered, error }) => {
      stop()
      done()
      if (error !== undefined && answered && entry.session.status !== "I") evict(entry, reason, error)
      else entry.session.whenIdle(() => judge(entry, true))
    })
  }

  /** Nobody holds it and nothing is in flight: idle again, cleaned first, or out. `asked`: it has just answered us. */
  const judge = (entry: Entry, asked = false) => {
    if (!entries.has(entry) || entry.lease !== undefined || entry.state === "idle") return
    const { session } = entry
    // Lost in use, it comes back to us before `onLost` is told.
    if (session.lost !== undefined) return lose(entry, "lost", session.lost)
    if (away !== undefined && entry.openedAt > away.failedAt && session.answeredAt > entry.openedAt) back()
    if (session.status !== "I") return ask(entry, "ROLLBACK", "dirty")
    if (closing && waiters.size === 0) return evict(entry, "closing")
    if (entry.openedAt <= readOnlyAt) return evict(entry, "read-only")
    if (entries.size > options.max) return evict(entry, "surplus")
    const now = clock.unsafeCurrentTimeMillis()
    if (entry.expiresAt <= now) return evict(entry, "lifetime")
    if (entry.uses >= options.maxUses) return evict(entry, "uses")
    // Not by way of the idle stack, where it would be asked again for ever when `checkAfterIdle` is 0.
    if (asked && waiters.size > 0 && session.answeredAt > suspectedAt) {
      serve(entry)
      return pump()
    }
    entry.idleSince = now
    enter(entry, "idle")
    idle.push(entry)
    if (asked || waiters.size > 0) pump()
  }

  /** One that came lately and has answered nothing is as good as a failure to connect. Of several at once, one is. */
  const lose = (entry: Entry, reason: EvictionReason, cause: unknown) => {
    const { openedAt, session } = entry
    const now = performance.now()
    const stillborn =
      session.answeredAt <= openedAt &&
      now - openedAt < infancy &&
      openedAt > (away?.failedAt ?? Number.NEGATIVE_INFINITY)
    distrust()
    if (stillborn && away !== undefined) {
      // The first one may be chance, and whoever waits can wait for the next one.
      if (away.failures > 0) failed(classify(cause, { phase: "Acquire" }))
      else {
        away.failures = 1
        away.failedAt = now
      }
    }
    evict(entry, reason, cause)
  }

  /** The slot is free at once; the socket is counted until it has closed. */
  const evict = (entry: Entry, reason: EvictionReason, cause?: unknown) => {
    if (!entries.delete(entry)) return
    if (entry.state === "idle") idle.splice(idle.indexOf(entry), 1)
    enter(entry, "used")
    listener.evicted(reason, cause)
    const { session } = entry
    session.onLost = undefined
    if (!session.closed) {
      leaving.add(session)
      if (cause === undefined) session.end(goodbye)
      else session.destroy(cause)
    }
    listener.changed()
    pump()
  }

  /** `done`: what it was opened for is over. */
  const admit = (session: Session, done: () => void) => {
    const jitter = options.lifetime * 0.1 * env.random()
    const entry: Entry = {
      session,
      openedAt: performance.now(),
      expiresAt: clock.unsafeCurrentTimeMillis() + options.lifetime - (Number.isFinite(jitter) ? jitter : 0),
      idleSince: 0,
      uses: 0,
      state: "used",
      lease: undefined
    }
    session.onClosed = () => {
      leaving.delete(session)
      finishClosing()
    }
    session.onAbandoned = (_, slot) =>
      env.fork(
        Effect.onExit(env.settle(session, slot), (exit) =>
          Effect.sync(() => {
            if (Exit.isFailure(exit)) session.destroy(terminated("what was abandoned on it could not be settled"))
            session.resume()
          })
        )
      )
    session.onLost = (cause) => lose(entry, "lost", cause)
    entries.add(entry)
    // After failures it shows that it lives before it counts: there are servers, and proxies, that greet and hang up.
    if (session.lost === undefined && away !== undefined && away.failures > 0) return check(entry, done)
    done()
    if (session.lost !== undefined) return lose(entry, "lost", session.lost)
    back()
    judge(entry)
  }

  /** Open one connection; whatever asked for it may be gone when it comes. */
  const open = (done: () => void = () => {}) => {
    connecting++
    const since = performance.now()
    env.fork(
      Effect.onExit(env.connect, (exit) =>
        Effect.sync(() => {
          connecting--
          if (Exit.isSuccess(exit)) {
            if (closed) return exit.value.destroy(terminated("the pool is closed"))
            listener.connected((performance.now() - since) / 1000)
            // One more for each that came: when all of a round have come, the next one is twice as large.
            ramp = Math.min(options.max, ramp + 1)
            admit(exit.value, done)
          } else {
            done()
            for (const error of Cause.failures(exit.cause)) failed(error)
          }
          pump()
        })
      ).pipe(Effect.ignore)
    )
  }

  const failed = (error: PgError.PgError) => {
    const gone = error._tag === "ConnectionError" || error._tag === "ServerUnavailableError"
    if (gone && away === undefined) distrust()
    ramp = 1
    away ??= absent()
    away.failures++
    away.failedAt = performance.now()
    away.cause = error
    listener.server(error, (away.failedAt - away.since) / 1000)
    // While a connection that answers is in use, its release serves the queue; else nobody will before the next try.
    for (const { session } of entries) if (session.answeredAt > suspectedAt) return
    for (const waiter of waiters) {
      waiters.delete(waiter)
      waiter.resume(Effect.fail(error))
    }
  }

  const raise = () => {
    generation++
    suspectedAt = performance.now()
  }

  /** The server may be gone: nothing is handed out that has not answered since, and the prober looks for it. */
  const distrust = () => {
    if (closing) return
    raise()
    ramp = 1
    away ??= absent()
  }

  const absent = (): Absence => {
    const since = performance.now()
    return { since, cause: undefined, failures: 0, failedAt: since, probing: false }
  }

  const back = () => {
    if (away === undefined) return
    const { failures, since } = away
    away = undefined
    listener.server(undefined, failures === 0 ? 0 : (performance.now() - since) / 1000)
  }

  /** While the server is away: one try at a time, at once after a loss, then 50 ms doubling up to 1 s, with jitter. */
  const probe = () => {
    if (away === undefined || away.probing) return
    // What waiting does not mend (a wrong password) is tried again only for somebody.
    if (away.cause?.transient === false && waiters.size === 0) return
    const current = away
    current.probing = true
    const cap = Math.min(probeDelay.cap, probeDelay.first * 2 ** Math.min(current.failures - 1, 10))
    const delay = current.failures === 0 ? 0 : cap * (0.5 + env.random() / 2)
    env.fork(
      Effect.zipRight(
        Effect.sleep(delay),
        Effect.sync(() => {
          if (closing || away !== current) return
          open(() => {
            current.probing = false
          })
        })
      )
    )
  }

  /** One alarm a clock, for whoever waits longest: all wait equally long, in order. */
  const alarms = new Map<Clock.Clock, () => void>()
  const arm = (clock: Clock.Clock): void => {
    if (options.acquireTimeout === Number.POSITIVE_INFINITY || alarms.has(clock)) return
    for (const waiter of waiters) {
      if (waiter.clock !== clock) continue
      const ring = () => {
        alarms.delete(clock)
        expire(clock)
        arm(clock)
      }
      alarms.set(clock, env.alarm(clock, waiter.expiresAt - clock.unsafeCurrentTimeMillis(), ring))
      return
    }
  }

  const expire = (clock: Clock.Clock) => {
    const now = clock.unsafeCurrentTimeMillis()
    for (const waiter of waiters) {
      if (waiter.clock !== clock || waiter.expiresAt > now) continue
      waiters.delete(waiter)
      waiter.resume(timedOut(full(`No connection came free within ${options.acquireTimeout} ms`)))
    }
  }

  /** Nobody waits any more: no clock is kept waiting for nothing. Not at once, as the queue may fill again in this turn. */
  const disarm = () => {
    if (alarms.size === 0 || waiters.size > 0) return
    setImmediate(() => {
      if (waiters.size > 0) return
      for (const cancel of alarms.values()) cancel()
      alarms.clear()
    })
  }

  const forget = (waiter: Waiter) => {
    waiters.delete(waiter)
    disarm()
    waiter.lease?.release()
  }

  const refusal = (message: string, transient: boolean) => ({
    message,
    transient,
    phase: "Acquire" as const,
    outcome: "NotApplied" as const,
    attempts: 1,
    cause: away?.cause
  })

  const timedOut = (message: string) =>
    Effect.suspend(() => {
      listener.timedOut()
      return Effect.fail(new PgError.PoolTimeoutError(refusal(message, true)))
    })

  const shut = Effect.suspend(() =>
    Effect.fail(new PgError.PoolClosedError(refusal("The pool is closed, or closing: nothing was sent", false)))
  )

  const full = (what: string) => {
    const { max, used, waiting } = snapshot()
    const lost = away?.cause === undefined ? "" : ` The last attempt to connect failed: ${away.cause.message}`
    return `${what}: ${used} of ${max} connections in use, ${waiting} waiting. Shorten what holds connections, raise maxConnections, or ask for less at once.${lost}`
  }

  const acquire: Pool["acquire"] = (restore, clock) =>
    Effect.suspend(() => {
      if (closing) return shut
      const lease = unsafeTake()
      if (lease !== undefined) return Effect.succeed(lease)
      // Those for whom there is a place in the pool wait for its server, not for somebody else.
      const places = Math.max(0, options.max - (entries.size - idle.length - checking))
      if (waiters.size >= options.maxWaiting + places) return timedOut(full("The queue for a connection is full"))
      const waiter: Waiter = {
        since: performance.now(),
        clock,
        expiresAt: clock.unsafeCurrentTimeMillis() + options.acquireTimeout,
        lease: undefined,
        resume: () => {}
      }
      const wait = Effect.async<Lease, PgError.PgError>((resume) => {
        waiter.resume = resume
        waiters.add(waiter)
        listener.changed()
        pump()
        if (waiters.has(waiter)) arm(clock)
      })
      return Effect.onExit(restore(wait), (exit) =>
        Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => forget(waiter))
      )
    })

  const snapshot = (): Snapshot => ({
    max: options.max,
    min: options.min,
    total: entries.size,
    idle: idle.length,
    used: entries.size - idle.length - quarantined,
    quarantined,
    connecting,
    waiting: waiters.size,
    generation,
    closing: leaving.size
  })

  const finishClosing = () => {
    if (!closing) return
    if (entries.size === 0 || closed) {
      for (const waiter of waiters) {
        waiters.delete(waiter)
        waiter.resume(shut)
      }
    }
    if (waiters.size === 0) for (const entry of [...idle]) evict(entry, "closing")
    if (entries.size === 0 && leaving.size === 0) quiet?.()
  }

  /** Interruptible although closing is not: else the limit on it could not end it. */
  const drained = Effect.interruptible(
    Effect.async<void>((resume) => {
      quiet = () => resume(Effect.void)
      finishClosing()
    })
  )

  /** Once a second: idle connections beyond `min`, and old ones, leave; long-held ones are reported; `min` is kept. */
  const tend = () => {
    const now = clock.unsafeCurrentTimeMillis()
    for (const entry of [...idle]) {
      if (entry.expiresAt <= now) evict(entry, "lifetime")
      else if (now - entry.idleSince >= options.idleTimeout && entries.size > options.min) evict(entry, "idle")
    }
    for (const { lease } of entries) {
      if (lease === undefined || lease.reported || performance.now() - lease.since < options.leakAfter) continue
      lease.reported = true
      listener.held(lease.span, (performance.now() - lease.since) / 1000)
    }
    pump()
  }

  return {
    unsafeTake,
    acquire,
    snapshot,
    tend,
    suspect: () => {
      distrust()
      pump()
    },
    turnedReadOnly: () => {
      readOnlyAt = performance.now()
      raise()
      for (const entry of [...idle]) evict(entry, "read-only")
    },
    closed: () => closed,
    away: () => away?.cause,
    close: Effect.suspend(() => {
      closing = true
      return Effect.timeoutOption(drained, options.closeGrace)
    }).pipe(
      Effect.zipRight(
        Effect.suspend(() => {
          closed = true
          finishClosing()
          const cut = (entry: Entry) =>
            Effect.ensuring(
              env.cancel(entry.session),
              Effect.sync(() => evict(entry, "closing", terminated("the pool closed while this was in flight")))
            )
          return Effect.forEach([...entries], cut, { concurrency: "unbounded", discard: true })
        })
      ),
      Effect.zipRight(Effect.timeoutOption(drained, goodbye)),
      Effect.zipRight(
        Effect.sync(() => {
          for (const session of leaving) session.destroy(terminated("the pool is closed"))
        })
      ),
      Effect.zipRight(Effect.timeoutOption(drained, goodbye)),
      Effect.asVoid
    )
  }
}
