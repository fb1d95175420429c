/**
 * The pool's connections, from the moment they are open to the moment their socket has closed.
 *
 * 1. A connection is idle, used or quarantined, and has at most one holder.
 * 2. It is handed out only if it has answered after the last suspicion, and within `checkAfterIdle`; else it is checked
 *    first.
 * 3. It is idle again only in status `I` and with nothing in flight.
 * 4. Evicted, its place is free at once; its socket is counted until it has closed.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { classify } from "../../error/classify.js"
import type * as PgError from "../../error/PgError.js"
import type { Environment, EvictionReason, Lease, Lent, Options } from "../Pool.js"
import type { Absence } from "./absence.js"
import type { Lanes } from "./lanes.js"
import { patience } from "./patience.js"
import { Request } from "./request.js"
import { type Session, terminated } from "./session.js"
import type { Waiting } from "./waiting.js"

interface Entry {
  readonly session: Session
  /** Live clock, milliseconds. */
  readonly openedAt: number
  /** Policy clock, milliseconds. */
  readonly expiresAt: number
  idleSince: number
  uses: number
  state: "idle" | "used" | "quarantined"
  lease: (Lent & { reported: boolean }) | undefined
}

/** What the connections need of the rest of the pool. */
export interface Surroundings {
  readonly waiting: Waiting<Lease, PgError.PgError>
  readonly absence: Absence
  readonly closing: () => boolean
  /** A connection turned out to be a failure to connect. */
  readonly failed: (error: PgError.PgError) => void
  /** Something changed that may let somebody be served. */
  readonly pump: () => void
  /** A socket has closed. */
  readonly gone: () => void
  /** Places on connections in use, for those at the head of the queue that may share one. */
  readonly lanes: () => Lanes
}

/** Milliseconds for an answer to a check, or to a ROLLBACK. */
const checkLimit = 1_000
/** Milliseconds for a socket to close. */
export const goodbye = 500

export const make = (options: Options, env: Environment, surroundings: Surroundings) => {
  const { absence, closing, failed, gone, lanes, pump, waiting } = surroundings
  const { clock, listener } = env
  const entries = new Set<Entry>()
  const idle: Array<Entry> = []
  const leaving = new Set<Session>()
  let quarantined = 0
  /** Of the quarantined: those that are being checked, to be handed out then. */
  let checking = 0
  /** Reported for being held for long, and not given back. */
  let leaked = 0
  let readOnlyAt = 0

  const trusted = ({ session }: Entry, now: number) =>
    absence.trusts(session.answeredAt) && now - session.answeredAt <= options.checkAfterIdle

  const enter = (entry: Entry, state: Entry["state"]) => {
    if (entry.state === "quarantined") quarantined--
    if (state === "quarantined") quarantined++
    entry.state = state
    listener.changed()
  }

  const lend = (entry: Entry): Lent => {
    const since = performance.now()
    const lease: NonNullable<Entry["lease"]> = {
      session: entry.session,
      get released(): boolean {
        return entry.lease !== lease
      },
      span: undefined,
      since,
      reported: false,
      usesLeft: options.maxUses - entry.uses,
      release: (uses = 1) => {
        if (entry.lease !== lease) return
        entry.lease = undefined
        if (lease.reported) leaked--
        entry.uses += uses
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

  /** To whoever came first; others that may share it follow at once. */
  const serve = (entry: Entry) => {
    waiting.serve(({ cargo }) => {
      const lease = lend(entry)
      return cargo === undefined ? lease : lanes().open(lease, cargo)
    })
    board()
  }

  const board = () => {
    for (let cargo = waiting.firstCargo(); cargo !== undefined; cargo = waiting.firstCargo()) {
      const place = lanes().join(cargo)
      if (place === undefined) return
      waiting.serve(() => place)
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

  /** Why a healthy connection is not kept. `now`: policy clock. */
  const outlived = ({ expiresAt, openedAt, uses }: Entry, now: number): EvictionReason | undefined => {
    if (closing() && waiting.size === 0) return "closing"
    if (openedAt <= readOnlyAt) return "read-only"
    if (entries.size > options.max) return "surplus"
    if (expiresAt <= now) return "lifetime"
    return uses >= options.maxUses ? "uses" : undefined
  }

  /** Nobody holds it and nothing is in flight: idle again, cleaned first, or out. `asked`: it has just answered us. */
  const judge = (entry: Entry, asked = false) => {
    if (!entries.has(entry) || entry.lease !== undefined || entry.state === "idle") return
    const { openedAt, session } = entry
    // Lost in use, it comes back to us before `onLost` is told.
    if (session.lost !== undefined) return lose(entry, "lost", session.lost)
    absence.answered({ openedAt, answeredAt: session.answeredAt })
    if (session.status !== "I") return ask(entry, "ROLLBACK", "dirty")
    const now = clock.unsafeCurrentTimeMillis()
    const reason = outlived(entry, now)
    if (reason !== undefined) return evict(entry, reason)
    // Not by way of the idle stack, where it would be asked again for ever when `checkAfterIdle` is 0.
    if (asked && waiting.size > 0 && absence.trusts(session.answeredAt)) {
      serve(entry)
      return pump()
    }
    entry.idleSince = now
    enter(entry, "idle")
    idle.push(entry)
    if (asked || waiting.size > 0) pump()
  }

  const lose = (entry: Entry, reason: EvictionReason, cause: unknown) => {
    const { openedAt, session } = entry
    if (absence.lost({ openedAt, answeredAt: session.answeredAt })) failed(classify(cause, { phase: "Acquire" }))
    evict(entry, reason, cause)
  }

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

  const evictIdle = (reason: EvictionReason) => {
    for (const entry of [...idle]) evict(entry, reason)
  }

  /** Nobody waits for its answer: it is settled in the background, and its connection goes on, or is closed. */
  const settle: NonNullable<Session["onAbandoned"]> = (session, slot) =>
    env.fork(
      Effect.onExit(env.settle(session, slot), (exit) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) session.destroy(terminated("what was abandoned on it could not be settled"))
          session.resume()
        })
      )
    )

  return {
    get total(): number {
      return entries.size
    },
    get checking(): number {
      return checking
    },
    figures: () => ({ total: entries.size, idle: idle.length, quarantined, leaked, checking, closing: leaving.size }),

    /** An idle connection that needs no check. */
    take: (): Lent | undefined => {
      const latest = idle[idle.length - 1]
      if (latest === undefined || !trusted(latest, performance.now())) return undefined
      idle.pop()
      return lend(latest)
    },

    /** Serve the queue from what is idle, or have that checked for it. */
    offer: () => {
      board()
      const now = performance.now()
      while (waiting.size > 0 && idle.length > 0) {
        const cargo = waiting.firstCargo()
        if (cargo !== undefined && lanes().crowded(cargo)) break
        const latest = idle[idle.length - 1]!
        if (trusted(latest, now)) serve(idle.pop()!)
        else if (checking < waiting.size) check(idle.pop()!)
        else break
      }
    },

    /** One in use may be given more to do. */
    sound: ({ session, since }: Lent): boolean =>
      session.lost === undefined && since > readOnlyAt && absence.trusts(session.answeredAt),

    /** A new connection. `done`: what it was opened for is over. */
    admit: (session: Session, done: () => void) => {
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
        gone()
      }
      session.onAbandoned = settle
      session.onLost = (cause) => lose(entry, "lost", cause)
      entries.add(entry)
      // After failures it shows that it lives before it counts.
      if (session.lost === undefined && absence.away !== undefined && absence.away.failures > 0) {
        return check(entry, done)
      }
      done()
      if (session.lost !== undefined) return lose(entry, "lost", session.lost)
      absence.back()
      judge(entry)
    },

    /** One of them has answered after the last suspicion. */
    answering: (): boolean => {
      for (const { session } of entries) if (absence.trusts(session.answeredAt)) return true
      return false
    },

    /** None of today's connections is handed out again. */
    turnedReadOnly: () => {
      readOnlyAt = performance.now()
      absence.raise()
      evictIdle("read-only")
    },

    /** Idle connections beyond `min`, and old ones, leave; long-held ones are reported. */
    tend: () => {
      const now = clock.unsafeCurrentTimeMillis()
      for (const entry of [...idle]) {
        if (entry.expiresAt <= now) evict(entry, "lifetime")
        else if (now - entry.idleSince >= options.idleTimeout && entries.size > options.min) evict(entry, "idle")
      }
      for (const { lease } of entries) {
        if (lease === undefined || lease.reported || performance.now() - lease.since < options.leakAfter) continue
        lease.reported = true
        leaked++
        listener.held(lease.span, (performance.now() - lease.since) / 1000)
      }
    },

    evictIdle,

    /** What is in flight is cancelled, and all connections are closed. */
    cut: Effect.suspend(() => {
      const cut = (entry: Entry) =>
        Effect.ensuring(
          env.cancel(entry.session),
          Effect.sync(() => evict(entry, "closing", terminated("the pool closed while this was in flight")))
        )
      return Effect.forEach([...entries], cut, { concurrency: "unbounded", discard: true })
    }),

    /** Those that have not said goodbye in time. */
    destroyLeaving: () => {
      for (const session of leaving) session.destroy(terminated("the pool is closed"))
    }
  }
}

export type Entries = ReturnType<typeof make>
