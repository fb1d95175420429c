/**
 * Fast lanes: connections of the pool that several short statements use at the same time, each sent without waiting for the
 * answers of those before it. A lane is one from its first statement to the moment that nobody waits for anything on it; then
 * its connection goes back to the pool like any other.
 *
 * 1. Only autocommit statements are carried, each a single plain command (`Connection.ts`) that is known to be short
 *    (`pace.ts`), and reads apart from writes: nothing that reads ever waits behind a lock that a write waits for.
 * 2. Nobody is put behind what has been under way for long, nor on a lane whose work would take longer than `budget`.
 * 3. Nobody passes the pool's queue: who may share takes a place in it like all others, and lanes take no newcomers while
 *    somebody is in it, but from its head.
 * 4. A lane's statement is never cancelled as long as anybody waits for another one on it (`session.ts`): a CancelRequest names
 *    a server process, and would hit whatever that is at by then.
 * 5. Where it is our own event loop that keeps statements waiting, and not the server, more lanes would only make its turns
 *    longer: two that are full are enough.
 * 6. A lane lasts a second at most, so that what the pool has to say of its connection (lifetime, surplus, …) is said in time.
 */
import type * as Tracer from "effect/Tracer"
import type { Lease, Lent } from "../Pool.js"
import type { Mark, Paces } from "./pace.js"
import type { Session } from "./session.js"
import { isPooler } from "./statements.js"

/** What a statement that may share a connection tells of itself. */
export interface Cargo {
  readonly reads: boolean
  /** Milliseconds that it is likely to keep the server busy. */
  readonly load: number
}

/** Milliseconds of the server's time that a lane may have before it. */
const budget = 1
/** Statements that a lane may have before it, however short. */
const depth = 64
/** Reads have so many connections to themselves, if free, before they share one: there is work at both ends of each. */
const apart = 2
/** Milliseconds that a lane lasts. */
const lifetime = 1_000

export interface Options {
  readonly paces: Paces
  /** A free connection, if there is one that needs no check. */
  readonly take: () => Lent | undefined
  /** Whether a connection in use may be given more to do: it has answered since the last suspicion, and is not to leave. */
  readonly sound: (lease: Lent) => boolean
  /** A place has come free on a lane. */
  readonly freed: () => void
}

/** One statement's place: to its holder, a connection like any other. */
class Place implements Lease {
  released = false
  span: Tracer.AnySpan | undefined = undefined
  constructor(
    readonly lane: Lane,
    private readonly cargo: number
  ) {}
  get session(): Session {
    return this.lane.lease.session
  }
  readonly release = (): void => {
    if (this.released) return
    this.released = true
    this.lane.leave(this.cargo)
  }
}

export class Lane {
  private load = 0
  private places = 0
  private served = 0
  /** When the last answer came, or the first statement was sent. */
  latest: Mark

  constructor(
    readonly lease: Lent,
    readonly reads: boolean,
    private readonly all: Set<Lane>,
    private readonly options: Options
  ) {
    this.latest = options.paces.mark()
    all.add(this)
  }

  get work(): number {
    return this.load
  }

  takes(cargo: number, now: number): boolean {
    const { lease, options } = this
    return (
      this.load + cargo <= budget &&
      this.served < lease.usesLeft &&
      now - lease.since < lifetime &&
      !options.paces.isLong(this.latest) &&
      options.sound(lease)
    )
  }

  /** It has all that one turn of the event loop may bring, and the server is not what keeps that waiting. */
  get crowded(): boolean {
    return this.places >= depth && !this.options.paces.isLong(this.latest)
  }

  board(cargo: number): Place {
    this.places++
    this.served++
    this.load += cargo
    return new Place(this, cargo)
  }

  answered(): void {
    this.latest = this.options.paces.mark()
  }

  leave(cargo: number): void {
    this.load -= cargo
    this.places--
    if (this.places > 0) {
      this.options.freed()
      return
    }
    this.all.delete(this)
    this.lease.release(this.served)
  }
}

export const make = (options: Options) => {
  const lanes = new Set<Lane>()

  /** The lane with the least to do of those that take it. */
  const best = (reads: boolean, cargo: number): { readonly lane: Lane | undefined; readonly open: number } => {
    const now = performance.now()
    let lane: Lane | undefined
    let open = 0
    for (const other of lanes) {
      if (other.reads !== reads || !other.takes(cargo, now)) continue
      open++
      if (lane === undefined || other.work < lane.work) lane = other
    }
    return { lane, open }
  }

  const weigh = ({ load }: Cargo) => Math.min(budget, Math.max(load, budget / depth))

  const crowded = (reads: boolean): boolean => {
    let full = 0
    for (const lane of lanes) if (lane.reads === reads && lane.crowded) full++
    return full >= apart
  }

  const open = (lease: Lent, { reads }: Cargo, weight: number): Lease =>
    isPooler(lease.session.processId) ? lease : new Lane(lease, reads, lanes, options).board(weight)

  return {
    /** A place at once, or undefined if one must be waited for. */
    take: (cargo: Cargo): Lease | undefined => {
      const weight = weigh(cargo)
      const { lane, open: shared } = best(cargo.reads, weight)
      // A write may come to wait for a lock: none shares what it need not.
      if (lane !== undefined && cargo.reads && shared >= apart) return lane.board(weight)
      const lease = lane === undefined && crowded(cargo.reads) ? undefined : options.take()
      return lease === undefined ? lane?.board(weight) : open(lease, cargo, weight)
    },
    /** A place on a lane that is there, if one takes it. */
    join: (cargo: Cargo): Lease | undefined => {
      const weight = weigh(cargo)
      return best(cargo.reads, weight).lane?.board(weight)
    },
    /** Whether one is better off waiting for a place on a lane than on a connection that is free. */
    crowded: ({ reads }: Cargo): boolean => crowded(reads),
    /** A lane of its own, which others may join. */
    open: (lease: Lent, cargo: Cargo): Lease => open(lease, cargo, weigh(cargo))
  }
}

export type Lanes = ReturnType<typeof make>
