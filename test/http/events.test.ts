import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Exit, Queue, Scope, Stream, TestClock } from "effect"
import * as Alerts from "../../src/health/Alerts.js"
import { HealthMonitor } from "../../src/health/HealthMonitor.js"
import * as Events from "../../src/http/internal/events.js"
import * as RetryBudget from "../../src/policy/RetryBudget.js"
import { idlePool, world } from "../health/support.js"
import * as TestPg from "../support/TestPg.js"
import * as sse from "./sse.js"

const pool = { ...idlePool, waiting: 2 }

/** The stream of a monitor that checks when it is told to. */
const hub = Effect.gen(function* () {
  const { breaker, metrics, monitor: make, poolName } = yield* world
  const monitor = yield* make({ interval: "infinity", probe: { ping: Effect.void } })
  const alerts = yield* Effect.provideService(Alerts.make(), HealthMonitor, monitor)
  const budget = yield* RetryBudget.make()
  let looks = 0
  const look = Effect.sync(() => {
    looks += 1
    return pool
  })
  const pg = { pool: look, ready: () => Effect.void, listen: () => Stream.empty }
  const scope = yield* Scope.make()
  const events = yield* Scope.extend(Events.make({ poolName, pg, breaker, budget, monitor, alerts }), scope)
  return {
    ...{ alerts, breaker, metrics, monitor, budget, events, poolName },
    looks: () => looks,
    close: Scope.close(scope, Exit.void)
  }
})

const noAbort = () => {
  throw new Error("a connection was ended")
}

const subscribe = ({ events }: Effect.Effect.Success<typeof hub>) => Effect.flatMap(events.subscribe(noAbort), sse.read)

const tagOf = (frame: sse.Frame) => (frame === "heartbeat" ? frame : frame.message._tag)
const idsOf = (frames: Iterable<sse.Frame>) => Array.from(frames).flatMap((_) => (_ === "heartbeat" ? [] : [_.id]))

/** All that has come, given that every fiber has had its turn. */
const arrived = (queue: Queue.Queue<sse.Frame>) => Effect.zipRight(TestClock.adjust(0), Queue.takeAll(queue))

describe("the stream of events", () => {
  it.scoped("says all that a newcomer has to know first, and then what each second brought", () =>
    Effect.gen(function* () {
      const made = yield* hub
      const { breaker, budget, metrics, monitor } = made
      yield* monitor.check
      yield* breaker.forceOpen
      yield* TestClock.adjust(0)
      budget.unsafeEnter()
      const queue = yield* subscribe(made)
      const hello = yield* Queue.take(queue)
      if (hello === "heartbeat" || hello.message._tag !== "Hello") return assert.fail("Hello is not first")
      assert.strictEqual(hello.retry, Events.retryMs)
      const { message } = hello
      assert.deepInclude(message, { pool: made.poolName, monitoring: false, alerts: [] })
      assert.deepInclude(message.tick, { pool, inFlight: 1, seconds: 0, operations: 0 })
      assert.strictEqual(message.tick.breaker.state, "ForcedOpen")
      assert.strictEqual(message.reports.length, 1)
      assert.deepInclude(message.events[0], { _tag: "BreakerChange", to: "ForcedOpen" })

      yield* TestClock.adjust(999)
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* arrived(queue)), [])
      metrics.operation("SELECT", 0.02, undefined)
      metrics.operation("SELECT", 0.02, "ConnectionError")
      metrics.retry("ConnectionError")
      yield* TestClock.adjust(1)
      const second = yield* Queue.take(queue)
      if (second === "heartbeat" || second.message._tag !== "Tick") return assert.fail("no Tick after a second")
      assert.strictEqual(second.retry, undefined)
      assert.deepInclude(second.message.tick, { seconds: 1, operations: 2, perSecond: 2, retries: 1 })
      assert.deepStrictEqual(second.message.tick.errors, { ConnectionError: 1 })
      assert.isAbove(second.message.tick.p99Ms, 0)

      yield* TestClock.adjust("1 second")
      const third = yield* Queue.take(queue)
      assert.isTrue(third !== "heartbeat" && third.message._tag === "Tick" && third.message.tick.operations === 0)
      assert.isAbove(third === "heartbeat" ? 0 : third.id, second.id)
    })
  )

  it.scoped("tells each report, event and notice to everyone once, be it with Hello or after it", () =>
    Effect.gen(function* () {
      const made = yield* hub
      const { breaker, monitor } = made
      const early = yield* subscribe(made)
      yield* monitor.check
      yield* TestClock.adjust(500)
      yield* breaker.forceOpen
      yield* TestClock.adjust(0)
      yield* monitor.check
      yield* TestClock.adjust(0)

      // Newcomers in the middle of a second know what the others are told for their sake.
      const late = yield* subscribe(made)
      yield* TestClock.adjust("10 seconds")
      const told = (frames: Iterable<sse.Frame>) =>
        Array.from(frames).flatMap((frame) => {
          if (frame === "heartbeat") return []
          const { message } = frame
          switch (message._tag) {
            case "Hello":
              return [
                ...message.reports.map(({ at }) => `Report ${at}`),
                ...message.events.map(({ _tag, at }) => `${_tag} ${at}`),
                ...message.alerts.map(({ id }) => `Raised ${id}`)
              ]
            case "Report":
              return [`Report ${message.report.at}`]
            case "Event":
              return [`${message.event._tag} ${message.event.at}`]
            case "Notice":
              return [`${message.notice._tag} ${message.notice.alert.id}`]
            default:
              return []
          }
        })
      const toEarly = told(yield* arrived(early))
      const toLate = told(yield* arrived(late))
      const standing = yield* made.alerts.standing
      assert.isNotEmpty(standing)
      const all = [
        ...(yield* monitor.history).map(({ at }) => `Report ${at}`),
        ...(yield* monitor.events).map(({ _tag, at }) => `${_tag} ${at}`),
        ...standing.map(({ id }) => `Raised ${id}`)
      ]
      assert.deepStrictEqual(toEarly.toSorted(), all.toSorted())
      assert.deepStrictEqual(toLate.toSorted(), all.toSorted())

      yield* breaker.reset
      for (let i = 0; i < 20; i++) {
        yield* TestClock.adjust("30 seconds")
        yield* monitor.check
      }
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* made.alerts.standing, [])
      const after = told(yield* arrived(early))
      for (const { id } of standing) assert.strictEqual(after.filter((_) => _ === `Resolved ${id}`).length, 1)
      assert.strictEqual(after.filter((_) => _.startsWith("Report")).length, 20)
    })
  )

  it.scoped("looks only while there is somebody to tell", () =>
    Effect.gen(function* () {
      const made = yield* hub
      const snapshot = Effect.zipRight(TestClock.adjust(0), made.events.snapshot)
      assert.deepStrictEqual(yield* snapshot, { subscribers: 0, looking: false })
      const [one, two] = [yield* Scope.make(), yield* Scope.make()]
      yield* Scope.extend(subscribe(made), one)
      yield* Scope.extend(subscribe(made), two)
      assert.deepStrictEqual(yield* snapshot, { subscribers: 2, looking: true })
      yield* Scope.close(one, Exit.void)
      assert.deepStrictEqual(yield* snapshot, { subscribers: 1, looking: true })
      yield* Scope.close(two, Exit.void)
      assert.deepStrictEqual(yield* snapshot, { subscribers: 0, looking: false })
      const before = made.looks()
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(made.looks(), before)

      const again = yield* subscribe(made)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(Array.from(yield* arrived(again), tagOf), ["Hello", "Tick", "Tick"])
    })
  )

  it.scoped("sends a comment every 15 seconds", () =>
    Effect.gen(function* () {
      const made = yield* hub
      const queue = yield* subscribe(made)
      yield* TestClock.adjust("45 seconds")
      const tags = Array.from(yield* arrived(queue), tagOf)
      assert.deepStrictEqual(
        tags.flatMap((tag, i) => (tag === "heartbeat" ? [i] : [])),
        [16, 32, 48]
      )
    })
  )

  it.scoped("sends away who does not keep up, ends a connection that hangs, and keeps nobody else waiting", () =>
    Effect.gen(function* () {
      const made = yield* hub
      let aborted = 0
      const slow = yield* Scope.make()
      const stream = yield* Scope.extend(
        made.events.subscribe(() => {
          aborted += 1
        }),
        slow
      )
      const fast = yield* subscribe(made)
      yield* TestClock.adjust(`${Events.unread + 10} seconds`)
      const frames = Array.from(yield* arrived(fast))
      assert.strictEqual(frames.filter((frame) => tagOf(frame) === "Tick").length, Events.unread + 10)
      assert.deepStrictEqual(
        idsOf(frames),
        idsOf(frames).toSorted((a, b) => a - b)
      )
      // Its connection is given a second of real time to go by itself.
      yield* TestPg.eventually(
        Effect.sync(() => aborted),
        (count) => count === 1
      )
      // What had been sent before it was sent away is all that there is.
      assert.isAtMost((yield* Stream.runCollect(stream)).length, Events.unread + 1)
      yield* Scope.close(slow, Exit.void)
      assert.deepInclude(yield* made.events.snapshot, { subscribers: 1 })
    })
  )

  it.scoped(`has room for ${Events.maxSubscribers}, and for another when one has gone`, () =>
    Effect.gen(function* () {
      const made = yield* hub
      const first = yield* Scope.make()
      yield* Scope.extend(made.events.subscribe(noAbort), first)
      for (let i = 1; i < Events.maxSubscribers; i++) yield* made.events.subscribe(noAbort)
      assert.strictEqual((yield* Effect.flip(made.events.subscribe(noAbort)))._tag, "Full")
      yield* Scope.close(first, Exit.void)
      yield* made.events.subscribe(noAbort)
      assert.strictEqual((yield* made.events.snapshot).subscribers, Events.maxSubscribers)
    })
  )

  it.scoped("ends every stream with its scope, and takes nobody any more", () =>
    Effect.gen(function* () {
      const made = yield* hub
      const inner = yield* Scope.make()
      const stream = yield* Scope.extend(made.events.subscribe(noAbort), inner)
      const reading = yield* Effect.fork(Effect.ensuring(Stream.runDrain(stream), Scope.close(inner, Exit.void)))
      yield* TestClock.adjust("1 second")
      yield* made.close
      yield* reading
      assert.deepStrictEqual(yield* made.events.snapshot, { subscribers: 0, looking: false })
      assert.strictEqual((yield* Effect.flip(made.events.subscribe(noAbort)))._tag, "Full")
    })
  )
})
