/**
 * LISTEN that survives its connection: one session outside the pool for all channels of a client, reconnected by itself,
 * with a `Gap` where notifications may have been missed.
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Mailbox from "effect/Mailbox"
import * as RcRef from "effect/RcRef"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Pg from "pg"
import { classify } from "../error/classify.js"
import * as PgError from "../error/PgError.js"
import { Request } from "./internal/request.js"
import { query, type Session, terminated } from "./internal/session.js"

/** What a channel tells. */
export type Event = Data.TaggedEnum<{
  /** `payload` is empty for a NOTIFY without one; `processId` is the notifying session's. */
  Notification: { readonly channel: string; readonly payload: string; readonly processId: number }
  /** The connection was lost and is back: what was notified in these milliseconds did not arrive. */
  Gap: { readonly channel: string; readonly millis: number }
}>
export const Event = Data.taggedEnum<Event>()

/** A sign of life is asked for this often; without one for `silence` the connection is replaced. Live clock. */
const pingEvery = "30 seconds"
const silence = "35 seconds"
const reconnectDelay = { first: 50, cap: 1_000 }
const goodbye = 500

interface Subscriber {
  readonly channel: string
  readonly mailbox: Mailbox.Mailbox<Event, SqlError>
  /** LISTEN was answered at least once: a loss of the connection is a gap for this one. */
  listening: boolean
}

export interface Listener {
  /**
   * Starts with the first notification after LISTEN; ends only with its scope, or with what no waiting mends: its channel
   * refused, or no connection to be had before it has listened at all. Whoever has listened once is never given up.
   */
  readonly listen: (channel: string) => Stream.Stream<Event, SqlError>
}

export const make = (options: {
  readonly connect: Effect.Effect<Session, PgError.PgError>
  /** Runs an effect on the live clock. */
  readonly live: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly random: () => number
  /** Told of each loss, and of each failure to come back. */
  readonly onLost: (error: PgError.PgError) => void
}): Effect.Effect<Listener, never, Scope.Scope> =>
  Effect.gen(function* () {
    const subscribers = new Set<Subscriber>()
    let session: Session | undefined

    const typed = (cause: unknown) => classify(cause, { phase: "Listen", outcome: "NotApplied" })
    const start = (on: Session, channel: string) =>
      Effect.mapError(query(on, `LISTEN ${Pg.escapeIdentifier(channel)}`), typed)

    /** Ends the streams of those subscribers with what no waiting mends. */
    const refuse = (all: Iterable<Subscriber>, error: PgError.PgError) => {
      const exit = Exit.fail(PgError.toSqlError(error))
      for (const { mailbox } of all) mailbox.unsafeDone(exit)
    }

    /** When the connection was lost that the subscribers have not been told the end of. Live clock. */
    let lostAt: number | undefined
    /** Connections in a row that did not get as far as to listen. */
    let failures = 0

    /** From one connection to its loss. */
    const connected = (current: Session) =>
      Effect.gen(function* () {
        const lost = Effect.async<never, PgError.PgError>((resume) => {
          current.onLost = (cause) => resume(Effect.fail(typed(cause)))
          if (current.lost !== undefined) resume(Effect.fail(typed(current.lost)))
        })
        current.onNotification(({ channel, payload = "", processId }) => {
          for (const { channel: wanted, mailbox } of subscribers) {
            if (wanted === channel) mailbox.unsafeOffer(Event.Notification({ channel, payload, processId }))
          }
        })
        // From here on a new subscriber starts its channel itself.
        session = current
        for (const subscriber of [...subscribers]) {
          const { channel, mailbox } = subscriber
          const started = yield* Effect.either(start(current, channel))
          if (Either.isLeft(started)) {
            // A channel that the server refuses for good is nothing to the others.
            if (current.lost !== undefined || started.left.transient) return yield* Effect.fail(started.left)
            refuse([subscriber], started.left)
            continue
          }
          if (subscriber.listening && lostAt !== undefined) {
            mailbox.unsafeOffer(Event.Gap({ channel, millis: Math.round(performance.now() - lostAt) }))
          }
          subscriber.listening = true
        }
        lostAt = undefined
        failures = 0
        const ping = Effect.sleep(pingEvery).pipe(
          Effect.zipRight(Effect.mapError(query(current, ""), typed)),
          Effect.timeoutFail({
            duration: silence,
            onTimeout: () => typed(terminated("no answer"))
          }),
          Effect.forever
        )
        return yield* Effect.raceFirst(lost, ping)
      })

    const supervise = Effect.gen(function* () {
      lostAt = undefined
      failures = 0
      while (true) {
        // Connecting can be interrupted, too: a password that never comes must not keep the layer from closing.
        const spell = Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(restore(options.connect), (current) =>
            Effect.ensuring(
              restore(connected(current)),
              Effect.sync(() => {
                if (session === current) session = undefined
                current.end(goodbye)
              })
            )
          )
        )
        const error = yield* Effect.flip(spell)
        lostAt ??= performance.now()
        failures++
        options.onLost(error)
        // Whoever has listened once waits on: a name that does not resolve, or a password, may be mended yet.
        if (!error.transient) {
          refuse(
            [...subscribers].filter(({ listening }) => !listening),
            error
          )
        }
        const longest = Math.min(reconnectDelay.cap, reconnectDelay.first * 2 ** Math.min(failures - 1, 10))
        yield* Effect.sleep(longest * (0.5 + options.random() / 2))
      }
    })
    const supervisor = yield* RcRef.make({ acquire: Effect.forkScoped(Effect.interruptible(options.live(supervise))) })

    const subscribe = (channel: string) =>
      Effect.gen(function* () {
        const mailbox = yield* Mailbox.make<Event, SqlError>()
        const subscriber: Subscriber = { channel, mailbox, listening: false }
        yield* Effect.acquireRelease(
          Effect.sync(() => subscribers.add(subscriber)),
          () =>
            Effect.sync(() => {
              subscribers.delete(subscriber)
              const last = [...subscribers].every((other) => other.channel !== channel)
              if (last) session?.submit(new Request(`UNLISTEN ${Pg.escapeIdentifier(channel)}`), () => {})
            })
        )
        yield* RcRef.get(supervisor)
        const current = session
        if (current !== undefined) {
          // Lost meanwhile: the supervisor starts the channel again with the others.
          yield* Effect.catchIf(
            start(current, channel),
            () => current.lost !== undefined,
            () => Effect.void
          )
          // Lost meanwhile, the supervisor may have said so already.
          if (current.lost === undefined) subscriber.listening = true
        }
        return mailbox
      })

    return {
      listen: (channel) =>
        Stream.unwrapScoped(
          Effect.map(Effect.mapError(subscribe(channel), PgError.toSqlError), (mailbox) => Mailbox.toStream(mailbox))
        )
    }
  })
