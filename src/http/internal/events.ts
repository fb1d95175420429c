/**
 * The stream of events, for all who listen: one look a second at pool, breaker, metrics, monitor and alerts, while there is
 * at least one of them.
 *
 * What a monitor has found is taken out of what it remembers, so that nothing is missed between two looks. Who does not keep
 * up is sent away rather than left with a gap: it comes back, and its first message tells it all.
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Alerts from "../../health/Alerts.js"
import type * as HealthMonitor from "../../health/HealthMonitor.js"
import * as windows from "../../health/internal/window.js"
import type * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import type * as RetryBudget from "../../policy/RetryBudget.js"
import type * as ResilientPg from "../../ResilientPg.js"
import * as figures from "../../telemetry/internal/figures.js"
import * as Model from "../Model.js"

/** Streams open at once; each holds a socket. */
export const maxSubscribers = 100
/** Messages that wait for one subscriber: about a minute's. One that is further behind is sent away. */
export const unread = 64
/** For the same time in milliseconds a subscriber waits before it comes back. */
export const retryMs = 2_000
/** A comment after so many looks, for whatever ends silent connections on the way: 15 seconds. */
export const looksPerHeartbeat = 15
/** What `Hello` tells of the past. */
const toldReports = 120
const toldEvents = 100
/** From the end of a stream to that of its connection, where a client does not read what was sent before. Milliseconds. */
const goodbye = 1_000

export interface Sources {
  readonly poolName: string
  readonly pg: ResilientPg.ResilientPg["Type"]
  readonly breaker: CircuitBreaker.CircuitBreaker["Type"]
  readonly budget: RetryBudget.RetryBudget["Type"]
  readonly monitor: HealthMonitor.HealthMonitor["Type"]
  readonly alerts: Alerts.Alerts["Type"]
}

/** There is no room for one more. */
export class Full extends Data.TaggedClass("Full") {}

export interface Events {
  /** A stream of its own for one subscriber, from now until the scope closes. `abort` ends a connection that hangs. */
  readonly subscribe: (abort: () => void) => Effect.Effect<Stream.Stream<Uint8Array>, Full, Scope.Scope>
  /** Streams that are open, and whether there is anybody who looks. */
  readonly snapshot: Effect.Effect<{ readonly subscribers: number; readonly looking: boolean }>
}

interface Subscriber {
  readonly queue: Queue.Queue<Uint8Array>
  readonly abort: () => void
}

/** All that is to be known of one moment. */
interface Look {
  readonly reading: windows.Reading
  readonly pool: Model.Tick["pool"]
  readonly breaker: Model.Tick["breaker"]
  readonly inFlight: number
  readonly history: ReadonlyArray<HealthMonitor.Report>
  readonly events: ReadonlyArray<HealthMonitor.Event>
  readonly standing: ReadonlyArray<Alerts.Alert>
}

const encode = Schema.encodeSync(Schema.parseJson(Model.Message))
const bytes = new TextEncoder()
const heartbeat = bytes.encode(":\n\n")

const frame = (message: Model.Message, id: number, first = "") =>
  bytes.encode(`${first}id: ${id}\nevent: ${message._tag}\ndata: ${encode(message)}\n\n`)

/** What came after `last`; everything where that is forgotten. */
const after = <A>(items: ReadonlyArray<A>, last: A | undefined): ReadonlyArray<A> =>
  last === undefined ? items : items.slice(items.lastIndexOf(last) + 1)

const tickOf = (before: Look, now: Look): Model.Tick => {
  const window = windows.over([before.reading, now.reading])
  const { errors, operations, p50Ms, p95Ms, p99Ms, perSecond, retries, seconds, timeouts, waitMs } = window
  return {
    at: now.reading.at,
    pool: now.pool,
    breaker: now.breaker,
    inFlight: now.inFlight,
    ...{ seconds, operations, perSecond, errors, retries, timeouts, p50Ms, p95Ms, p99Ms, waitMs }
  }
}

/** What happened between two looks, in the order in which it is told. */
export const news = (before: Look, now: Look): ReadonlyArray<Model.Message> => {
  const known = new Set(before.standing.map(({ id }) => id))
  const standing = new Set(now.standing.map(({ id }) => id))
  const at = now.reading.at
  return [
    ...after(now.events, before.events.at(-1)).map((event): Model.Message => ({ _tag: "Event", event })),
    ...after(now.history, before.history.at(-1)).map((report): Model.Message => ({ _tag: "Report", report })),
    ...now.standing
      .filter(({ id }) => !known.has(id))
      .map((alert): Model.Message => ({ _tag: "Notice", notice: { _tag: "Raised", at: alert.raisedAt, alert } })),
    ...before.standing
      .filter(({ id }) => !standing.has(id))
      .map((alert): Model.Message => ({ _tag: "Notice", notice: { _tag: "Resolved", at, alert } }))
  ]
}

/** Looks every `interval`, by the clock of whoever makes it; all streams end with the scope. */
export const make = Effect.fnUntraced(function* (sources: Sources, interval: number = 1_000) {
  const { alerts, breaker, budget, monitor, pg, poolName } = sources
  const runFork = yield* Effect.interruptible(FiberSet.makeRuntime<never>())
  const live = Clock.make()
  /** Between a look and what is told of it nobody comes, and nobody else looks. */
  const lock = yield* Effect.makeSemaphore(1)
  const subscribers = new Set<Subscriber>()
  let looking: Fiber.RuntimeFiber<void> | undefined
  let last: { readonly look: Look; readonly tick: Model.Tick } | undefined
  let id = 0
  let closed = false

  const look: Effect.Effect<Look> = Effect.gen(function* () {
    const [pool, snapshot, { inFlight }] = yield* Effect.all([pg.pool, breaker.snapshot, budget.snapshot])
    const [history, events, standing] = yield* Effect.all([monitor.history, monitor.events, alerts.standing])
    const at = yield* Clock.currentTimeMillis
    const reading = { at, figures: figures.perPool(Metric.unsafeSnapshot()).get(poolName) ?? figures.none }
    return { reading, pool, breaker: snapshot, inFlight, history, events, standing }
  })

  /** Ends its stream, and its connection too if that is still there after the goodbye. */
  const dismiss = (subscriber: Subscriber) =>
    Effect.zipRight(
      Queue.shutdown(subscriber.queue),
      Effect.delay(
        Effect.sync(() => subscribers.has(subscriber) && subscriber.abort()),
        goodbye
      )
    )

  const broadcast = (chunk: Uint8Array) => {
    for (const subscriber of subscribers) {
      const { queue } = subscriber
      if (!queue.isActive() || queue.unsafeOffer(chunk)) continue
      runFork(Effect.withClock(dismiss(subscriber), live))
    }
  }

  /** Tells what is new since the last look. */
  const tellNews = (now: Look) => {
    if (last === undefined) return
    for (const message of news(last.look, now)) broadcast(frame(message, ++id))
  }

  const turn = (count: number) =>
    lock.withPermits(1)(
      Effect.map(look, (now) => {
        const tick = tickOf(last?.look ?? now, now)
        tellNews(now)
        broadcast(frame({ _tag: "Tick", tick }, ++id))
        if (count % looksPerHeartbeat === 0) broadcast(heartbeat)
        last = { look: now, tick }
      })
    )

  const forever = Effect.asVoid(
    Effect.iterate(1, {
      while: () => true,
      body: (count) =>
        Effect.as(
          Effect.catchAllCause(Effect.delay(turn(count), interval), (cause) =>
            Effect.logError("The stream of events has missed a look", cause)
          ),
          count + 1
        )
    })
  )

  const leave = (subscriber: Subscriber) =>
    Effect.zipRight(
      Queue.shutdown(subscriber.queue),
      Effect.sync(() => {
        subscribers.delete(subscriber)
        if (subscribers.size > 0) return
        looking?.unsafeInterruptAsFork(FiberId.none)
        looking = undefined
        last = undefined
      })
    )

  const enter = (abort: () => void) =>
    Effect.gen(function* () {
      const queue = yield* Queue.dropping<Uint8Array>(unread)
      const now = yield* look
      if (closed || subscribers.size >= maxSubscribers) return yield* Effect.fail(new Full())
      const subscriber: Subscriber = { queue, abort }
      tellNews(now)
      const tick = last?.tick ?? tickOf(now, now)
      last = { look: last === undefined ? now : { ...now, reading: last.look.reading }, tick }
      subscribers.add(subscriber)
      looking ??= runFork(forever)
      const hello = frame(
        {
          _tag: "Hello",
          at: now.reading.at,
          pool: poolName,
          monitoring: monitor.intervalMs !== undefined,
          intervalMs: monitor.intervalMs,
          tick,
          reports: now.history.slice(-toldReports),
          events: now.events.slice(-toldEvents),
          alerts: now.standing
        },
        ++id,
        `retry: ${retryMs}\n`
      )
      return { subscriber, hello }
    })

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closed = true
      const gone = Effect.repeat(Effect.void, {
        schedule: Schedule.spaced("10 millis"),
        until: () => subscribers.size === 0
      })
      const dismissed = Effect.forEach(subscribers, dismiss, { concurrency: "unbounded", discard: true })
      return Effect.interruptible(Effect.withClock(Effect.raceFirst(dismissed, gone), live))
    })
  )

  return {
    subscribe: (abort) =>
      Effect.map(
        Effect.acquireRelease(lock.withPermits(1)(enter(abort)), ({ subscriber }) => leave(subscriber)),
        ({ hello, subscriber }) => Stream.concat(Stream.make(hello), Stream.fromQueue(subscriber.queue))
      ),
    snapshot: Effect.sync(() => ({ subscribers: subscribers.size, looking: looking !== undefined }))
  } satisfies Events
})
