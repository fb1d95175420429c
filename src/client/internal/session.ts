/**
 * One server session over `pg.Client`, spoken to in callbacks: a queue of statements, one on the wire at a time (`submit`);
 * or several, each sent without waiting for the answer of those before it (`pipeline`).
 *
 * Invariants, each of which the pool relies on:
 * 1. A statement is replied to exactly once: at its ReadyForQuery, or when the socket is lost. Never at the ErrorResponse
 *    alone, which `pg` reports while the transaction status is still that of the statement before.
 * 2. When all that is on the wire has been abandoned, nothing else is sent until `resume` is called; what was abandoned
 *    before it was sent never is.
 * 3. From construction to the socket's `close` there is an `error` listener, so that no event ends the process.
 * 4. Values are serialised before anything is sent, so that a bind can not fail half-way.
 * 5. The server answers in the order of sending, and `pg.Client` passes messages on to one statement: the oldest on the wire.
 */

import type { Socket } from "node:net"
import type { ConnectionOptions } from "node:tls"
import * as Effect from "effect/Effect"
import * as Pg from "pg"
import { Request, serialize } from "./request.js"
import { type Policy, Statements } from "./statements.js"

/** `I`dle, in a `T`ransaction, or in a failed one (`E`): the status byte of ReadyForQuery. */
export type Status = "I" | "T" | "E"

/** What became of one statement. `error` is undefined exactly when the server completed it. */
export interface Reply {
  readonly error: unknown
  readonly result: Pg.QueryArrayResult | ReadonlyArray<Pg.QueryArrayResult>
  /**
   * Whether the server may have begun with it: false only if the socket was known to be gone, or if the server's last words
   * were about one before it.
   */
  readonly written: boolean
  /** Whether the server gave its final answer: completion, or an ErrorResponse that did not end the session. */
  readonly answered: boolean
  /** Whether a transaction block was open when it was sent. */
  readonly inTransaction: boolean
  /** A portal that has more rows. */
  readonly suspended: boolean
}

/** Where a session's server is, as `pg` resolved it from URL, options and environment. */
export interface Endpoint {
  readonly host: string
  readonly port: number
  readonly ssl: boolean | ConnectionOptions
  readonly sslNegotiation: string
}
interface PgClient extends Omit<Pg.Client, "ssl"> {
  readonly ssl: boolean | ConnectionOptions
  readonly sslNegotiation: string
  readonly _queryable: boolean
  readonly _ending: boolean
  readonly processID: number | null
  readonly secretKey: number | null
}
/** One statement's place in the queue. */
export interface Slot {
  readonly request: Request
  onReply: ((reply: Reply) => void) | undefined
  inTransaction: boolean
  /** Abandoned in flight, it is settled: whether the server was silent. */
  onSettled: ((silent: boolean) => void) | undefined
  /** A COMMIT in flight is waited for, never cancelled. */
  readonly cancellable: boolean
}

/** Why we ended a session ourselves. The beginning is what `classify` knows a closed connection by. */
export const terminated = (why: string): Error => new Error(`Connection terminated: ${why}`)

/**
 * Said by a server process as it ends: what it has not answered by then, but for the one that it was at, it has not read. A
 * pooler, which may have passed that on to another process, does not name a routine.
 */
const isLastWord = (cause: unknown): boolean => cause instanceof Pg.DatabaseError && cause.routine !== undefined

const noResult = { command: "", rowCount: null, oid: 0, fields: [], rows: [] } satisfies Pg.QueryArrayResult

const notify = (listeners: Array<() => void>): Array<() => void> => {
  if (listeners.length === 0) return listeners
  for (const listener of listeners) listener()
  return []
}

export class Session {
  status: Status = "I"
  /** When ReadyForQuery was last seen: `performance.now()`, the live clock. */
  answeredAt = 0
  /** Why it can no longer be used. */
  lost: unknown = undefined
  /** The socket has closed: nothing of it is left on this side. */
  closed = false
  /** Called once, when it is lost without our asking. */
  onLost: ((cause: unknown) => void) | undefined = undefined
  onClosed: (() => void) | undefined = undefined
  /** Called when a statement in flight is abandoned: nothing else is sent until whoever settles it calls `resume`. */
  onAbandoned: ((session: Session, slot: Slot) => void) | undefined = undefined
  /** On the wire, in the order of sending: the first is the one that is being answered. */
  private wire: Array<Slot> = []
  /** To be sent behind those, all together, at the end of this turn. */
  private outbox: Array<Slot> = []
  /** How many on the wire nobody waits for. */
  private unwanted = 0
  /** To be sent when nothing is on the wire. */
  private queue: Array<Slot> = []
  private held = false
  private answerListeners: Array<() => void> = []
  private idleListeners: Array<() => void> = []
  private readonly client: PgClient

  constructor(
    client: Pg.Client,
    private readonly statements: Statements | undefined = undefined
  ) {
    this.client = client as unknown as PgClient
    client.on("error", (error) => this.lose(error))
    client.on("end", () => {
      this.lose(new Error("Connection terminated unexpectedly"))
      this.closed = true
      this.onClosed?.()
    })
  }

  get processId(): number {
    return this.client.processID ?? 0
  }
  get secretKey(): number {
    return this.client.secretKey ?? 0
  }
  get socket(): Socket {
    return this.client.connection.stream as Socket
  }
  get endpoint(): Endpoint {
    return this.client
  }
  get onWire(): boolean {
    return this.wire.length > 0
  }
  /** The one on the wire that is answered next. */
  get oldest(): Slot | undefined {
    return this.wire[0]
  }
  /** It may be cancelled: not a COMMIT. */
  get cancellable(): boolean {
    return this.oldest?.cancellable === true
  }
  /** A statement is on the wire, or about to be, or an abandoned one is being settled. */
  get busy(): boolean {
    return this.wire.length > 0 || this.outbox.length > 0 || this.held
  }

  /** To be called right after `client.connect`: our listener must come after those that `pg` adds there. */
  attach(): void {
    const { connection } = this.client
    connection.on("readyForQuery", () => this.ready())
    if (this.statements === undefined) return
    connection.on("parseComplete", () => this.wire[0]?.request.handleParseComplete())
    connection.on("bindComplete", () => this.wire[0]?.request.handleBindComplete())
  }

  onNotification(listener: (notification: Pg.Notification) => void): void {
    this.client.on("notification", listener)
  }

  /** Send, or queue behind what is in flight. The reply may come before this returns when the session is lost. */
  submit(request: Request, onReply: (reply: Reply) => void, cancellable = true): Slot {
    const slot: Slot = { request, onReply, onSettled: undefined, inTransaction: false, cancellable }
    if (this.busy) this.queue.push(slot)
    else this.send(slot)
    return slot
  }

  /**
   * Send behind what is on the wire, without waiting for its answer, in one packet with the others of this turn. Only for
   * single commands outside of transactions, on a session on which nobody uses `submit` at the time.
   */
  pipeline(request: Request, onReply: (reply: Reply) => void): Slot {
    const slot: Slot = { request, onReply, onSettled: undefined, inTransaction: false, cancellable: true }
    this.post(slot)
    return slot
  }

  /** Past the queue: only for whoever settles an abandoned statement. */
  submitHeld(request: Request, onReply: (reply: Reply) => void): void {
    this.send({ request, onReply, onSettled: undefined, inTransaction: false, cancellable: false })
  }

  /**
   * Nobody wants this reply any more. In flight, it is settled, if anybody does so, once nobody wants any other that is on
   * the wire. Returns whether it was in flight.
   */
  abandon(slot: Slot): boolean {
    slot.onReply = undefined
    const inFlight = this.wire.includes(slot)
    if (inFlight) this.unwanted++
    else {
      this.queue = this.queue.filter((other) => other !== slot)
      this.outbox = this.outbox.filter((other) => other !== slot)
    }
    this.settleUnwanted()
    return inFlight
  }

  /**
   * Cancel what is on the wire, although somebody still waits for its reply, which then is the server's refusal. What is
   * queued is never sent, but for a COMMIT and what comes before it.
   */
  cutOff(cause: unknown): void {
    const last = this.queue.findLastIndex(({ cancellable }) => !cancellable)
    const refused = this.queue.splice(last + 1)
    const slot = this.wire[0]
    if (slot?.cancellable) this.settle(slot)
    for (const other of refused) this.reply(other, cause, false, false)
  }

  private settleUnwanted(): void {
    const slot = this.wire[0]
    if (slot !== undefined && this.unwanted === this.wire.length && this.outbox.length === 0) this.settle(slot)
  }

  /** Where nobody settles (set-up, LISTEN), what is abandoned comes to its end by itself, and the queue goes on then. */
  private settle(slot: Slot): void {
    if (this.held || this.onAbandoned === undefined) return
    this.held = true
    this.onAbandoned(this, slot)
  }

  /** What was abandoned is settled: go on with the queue. */
  resume(): void {
    this.held = false
    this.next()
  }

  /** When the one that was the `oldest` has been answered or lost: at once if that is so. */
  whenAnswered(slot: Slot | undefined, listener: () => void): void {
    if (slot !== undefined && slot === this.oldest) this.answerListeners.push(listener)
    else listener()
  }

  /** At once if nothing is on the wire, queued or being settled, else when that is so. */
  whenIdle(listener: () => void): void {
    if (this.busy || this.queue.length > 0) this.idleListeners.push(listener)
    else listener()
  }

  /** Close the socket without a word. Statements on it are replied to as lost. */
  destroy(cause: unknown): void {
    this.onLost = undefined
    this.lose(cause)
    this.socket.destroy()
  }

  /** Say goodbye, and close after `grace` milliseconds of the live clock at the latest. */
  end(grace: number): void {
    if (this.closed || this.lost !== undefined) {
      this.destroy(this.lost)
      return
    }
    this.onLost = undefined
    const timer = setTimeout(() => this.socket.destroy(), grace)
    this.client.once("end", () => clearTimeout(timer))
    this.lost = new Error("Connection terminated")
    this.client.end(() => {})
  }

  /** Whether anything can be sent: what turns out to be gone is lost. */
  private usable(): boolean {
    if (this.lost === undefined && (!this.socket.writable || !this.client._queryable || this.client._ending)) {
      this.lose(new Error("Connection terminated"))
    }
    return this.lost === undefined
  }

  private send(slot: Slot): void {
    if (this.usable()) this.write([slot])
    else this.reply(slot, this.lost, false, false)
  }

  private post(slot: Slot): void {
    if (this.outbox.push(slot) === 1) process.nextTick(() => this.flush())
  }

  /** What is to be sent in this turn, in one packet. */
  private flush(): void {
    if (this.outbox.length === 0 || this.held) return
    const usable = this.usable()
    const slots = this.outbox
    this.outbox = []
    if (usable) this.write(slots)
    else {
      for (const slot of slots) this.reply(slot, this.lost, false, false)
      this.next()
    }
  }

  private write(slots: ReadonlyArray<Slot>): void {
    const idle = this.wire.length === 0
    const packets = slots.map((slot) => {
      const { request } = slot
      slot.inTransaction = this.status !== "I" || request.before !== undefined
      request.session = this
      this.statements?.use(request, this.processId, slot.inTransaction)
      this.wire.push(slot)
      return request.encode()
    })
    if (idle) this.expect()
    this.socket.write(packets.length === 1 ? packets[0]! : Buffer.concat(packets))
  }

  /** The messages that come next are for the oldest on the wire. */
  private expect(): void {
    const slot = this.wire[0]
    if (slot !== undefined) this.client.query(slot.request as unknown as Pg.Submittable)
  }

  private next(): void {
    this.flush()
    while (!this.busy) {
      const slot = this.queue.shift()
      if (slot === undefined) {
        this.idleListeners = notify(this.idleListeners)
        return
      }
      this.send(slot)
    }
  }

  private ready(): void {
    this.answeredAt = performance.now()
    this.status = this.client.getTransactionStatus() ?? "I"
    const slot = this.wire.shift()
    if (slot === undefined) return
    this.expect()
    const { request } = slot
    if (slot.onReply === undefined) this.unwanted--
    const again = this.statements?.answered(request, this.isWanted(slot)) === true
    if (this.status === "I") this.statements?.settled()
    if (again) {
      request.reset()
      if (this.onWire) this.post(slot)
      else this.send(slot)
      return
    }
    this.reply(slot, request.error, true, request.error === undefined || request.fromServer)
    this.answerListeners = notify(this.answerListeners)
    if (this.unwanted > 0) this.settleUnwanted()
    this.next()
  }

  /** Of what failed for its name: whether it may be sent once more, without anybody's knowledge. */
  private isWanted({ inTransaction, onReply }: Slot): boolean {
    return onReply !== undefined && !inTransaction && !this.held && this.lost === undefined
  }

  private reply(slot: Slot, error: unknown, written: boolean, answered: boolean): void {
    const { onReply, request } = slot
    slot.onReply = undefined
    onReply?.({
      error,
      result: error === undefined ? request.result : noResult,
      written,
      answered,
      inTransaction: slot.inTransaction,
      suspended: request.suspended
    })
    request.answered()
  }

  /** It is of no more use: whoever waits on it is told, and then `onLost`. */
  lose(cause: unknown): void {
    if (this.lost !== undefined && this.wire.length + this.outbox.length + this.queue.length === 0) return
    const unexpected = this.lost === undefined
    this.lost ??= cause
    this.statements?.settled()
    const [slot, ...behind] = this.wire
    const unsent = [...this.outbox, ...this.queue]
    this.wire = []
    this.outbox = []
    this.queue = []
    this.unwanted = 0
    if (!this.closed) this.socket.destroy()
    // The server's own last words (57P01 …) say more than the socket's.
    if (slot !== undefined) this.reply(slot, slot.request.error ?? cause, true, false)
    const begun = !isLastWord(cause)
    for (const other of behind) this.reply(other, cause, begun, false)
    for (const other of unsent) this.reply(other, this.lost, false, false)
    this.answerListeners = notify(this.answerListeners)
    if (unexpected) this.onLost?.(this.lost)
    if (!this.held) this.next()
  }
}

/**
 * Open a session. Fails with what `pg` or the socket said. Interrupted, the socket is destroyed.
 */
export const open = (config: Pg.ClientConfig, policy?: Policy): Effect.Effect<Session, unknown> =>
  Effect.async((resume) => {
    let client: Pg.Client
    try {
      client = new Pg.Client(config)
    } catch (error) {
      resume(Effect.fail(error))
      return
    }
    const session = new Session(client, policy === undefined ? undefined : new Statements(policy))
    client.connect((error: Error | null) => {
      if (error === null || error === undefined) resume(Effect.succeed(session))
      else {
        session.destroy(error)
        resume(Effect.fail(error))
      }
    })
    session.attach()
    return Effect.sync(() => session.destroy(terminated("connecting was given up")))
  })

/** One statement of our own. Fails with what the server or the socket said. Interrupted, it is abandoned. */
export const query = (
  session: Session,
  text: string,
  values: ReadonlyArray<unknown> = []
): Effect.Effect<Reply, unknown> =>
  Effect.async((resume) => {
    const slot = session.submit(new Request(text, serialize(values)), (reply) =>
      resume(reply.error === undefined ? Effect.succeed(reply) : Effect.fail(reply.error))
    )
    return Effect.sync(() => session.abandon(slot))
  })
