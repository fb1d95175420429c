/**
 * Settling a statement that nobody waits for any more, so that its connection may be used again.
 *
 * Invariants:
 * 1. A CancelRequest names a server process, not a statement: it goes out only while nothing is in flight but what was
 *    abandoned, and nothing else is sent until its effect can not come any more.
 * 2. That is certain after: the server has closed the cancel socket (the signal is sent), ReadyForQuery was seen, and one
 *    empty query went through as a barrier that takes a late signal instead of the next statement.
 * 3. A COMMIT is never cancelled: its answer is waited for.
 * 4. Whatever is late or unclear: the connection is destroyed. Never more than `limit` for each step; but the time in which
 *    our own event loop stands still is nobody's silence, and does not count (`patience.ts`).
 *
 * All times here are the live clock's: a program under `TestClock` must not hang on a network.
 */

import { isIP } from "node:net"
import * as Effect from "effect/Effect"
import * as Pg from "pg"
import { patience } from "./patience.js"
import { Request } from "./request.js"
import { type Session, type Slot, terminated } from "./session.js"

/** How the settling ended. `Silent`: the server did not answer, so it may be gone. */
export type Settled = "Ended" | "Cancelled" | "Silent"

/** Cancels under way at once, so that a storm of interruptions is no storm of connections. */
export const atOnce = 4

/** Milliseconds in which the statement may end by itself before anything is sent. */
const grace = 10
/** Milliseconds for the cancel socket, for the answer after it, and for the barrier, each. */
const limit = 1_000
/**
 * Milliseconds for the answer of a COMMIT that nobody waits for. It may take seconds in good health (a standby's word,
 * deferred constraints), so longer than a cancel; but others wait for the place of its connection, and from a network gone
 * black no answer comes. To let it go harms nothing: the server commits, or not, as if we were there.
 */
const commitLimit = 5_000

/** Whether the listener was called within so many milliseconds, and the session is still there then. */
const within = (session: Session, wait: (listener: () => void) => void, millis: number): Effect.Effect<boolean> =>
  Effect.async<boolean>((resume) => {
    const stop = patience(millis, () => resume(Effect.succeed(false)))
    wait(() => {
      stop()
      resume(Effect.sync(() => session.lost === undefined))
    })
    return Effect.sync(stop)
  }).pipe(Effect.interruptible) // also within a finalizer

const answered = (session: Session, slot: Slot | undefined, millis: number) =>
  within(session, (listener) => session.whenAnswered(slot, listener), millis)

/** An empty query: whatever it is answered, a late cancel has hit it and not the next statement. */
const barrier = (session: Session) =>
  within(session, (listener) => session.submitHeld(new Request(""), listener), limit)

/** What `pg.Connection` does that its type declarations leave out. */
interface PgConnection extends Pg.Connection {
  connect(port: number | string, host?: string): void
  requestSsl(): void
  cancel(processId: number, secretKey: number): void
}
const PgConnection = Pg.Connection as unknown as new (config: object) => PgConnection

/** Write the request to the address of the session's own socket, and wait until the server closes. */
export const request = (session: Session, stream: Pg.ClientConfig["stream"]): Effect.Effect<boolean> =>
  Effect.async<boolean>((resume) => {
    const { host, port, ssl, sslNegotiation } = session.endpoint
    const { remoteAddress, remotePort } = session.socket
    // The certificate is for the name we were given; the process to signal is behind the address that was reached.
    const named = { host, ...(isIP(host) === 0 ? { servername: host } : {}) }
    const connection = new PgConnection({
      stream,
      sslNegotiation,
      ssl: ssl ? { ...(ssl === true ? {} : ssl), ...named } : false
    })
    let sent = false
    const finish = () => {
      resume(Effect.succeed(sent))
      connection.stream.destroy()
    }
    connection.on("error", () => connection.stream.destroy())
    if (ssl && sslNegotiation !== "direct") connection.once("connect", () => connection.requestSsl())
    connection.once(ssl ? "sslconnect" : "connect", () => {
      sent = true
      connection.cancel(session.processId, session.secretKey)
      // The socket's own end comes a turn of the event loop before its close, and patience may end in between.
      connection.stream.once("end", finish)
    })
    connection.once("end", finish)
    if (host.startsWith("/")) connection.connect(`${host}/.s.PGSQL.${port}`)
    else connection.connect(remotePort ?? port, remoteAddress ?? host)
    const stop = patience(limit, () => {
      sent = false // whether the signal is sent nobody knows
      finish()
    })
    connection.once("end", stop)
    return Effect.sync(() => connection.stream.destroy())
  }).pipe(
    Effect.interruptible,
    // The program's own `stream` may throw.
    Effect.catchAllDefect(() => Effect.succeed(false))
  )

/** For a session that goes anyway: ask for the end of what is on the wire, one after the other, and give the callers the answers. */
export const last = (session: Session, stream: Pg.ClientConfig["stream"]): Effect.Effect<unknown> =>
  Effect.gen(function* () {
    let answers = true
    while (answers && session.cancellable) {
      const { oldest } = session
      answers = (yield* request(session, stream)) && (yield* answered(session, oldest, limit))
    }
    if (answers) yield* answered(session, session.oldest, limit)
  })

/** Ends when the session may be used again (`Ended`, `Cancelled`) or has been destroyed (`Silent`). */
export const settle = (
  session: Session,
  slot: Slot,
  stream: Pg.ClientConfig["stream"],
  permits: Effect.Semaphore
): Effect.Effect<Settled> =>
  Effect.gen(function* () {
    let settled: Settled = "Ended"
    // Mostly one; several where they were pipelined. Nobody waits for any of them.
    for (let { oldest } = session; oldest !== undefined; oldest = session.oldest) {
      if (yield* answered(session, oldest, slot.cancellable ? grace : commitLimit)) continue
      if (!slot.cancellable) return silent(session)
      const sent = yield* permits.withPermits(1)(
        Effect.suspend(() => (session.oldest === oldest ? request(session, stream) : Effect.succeed(undefined)))
      )
      if (sent === undefined) continue
      // By now it may be answered, and the next one at work.
      if (!sent || !(yield* answered(session, oldest, limit))) return silent(session)
      settled = "Cancelled"
    }
    if (session.lost !== undefined || (settled === "Cancelled" && !(yield* barrier(session)))) return silent(session)
    return settled
  })

const silent = (session: Session): Settled => {
  session.destroy(terminated("no answer to a cancelled statement in time"))
  return "Silent"
}
