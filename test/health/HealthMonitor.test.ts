import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Metric, Stream, TestClock } from "effect"
import * as PgError from "../../src/error/PgError.js"
import * as figures from "../../src/telemetry/internal/figures.js"
import { world } from "./support.js"

const lost = new PgError.ConnectionError({
  message: "connection refused",
  phase: "Acquire",
  outcome: "NotApplied",
  transient: true,
  attempts: 1
})

/** A probe that takes as long as the test says, or fails. */
const scripted = () => {
  const script: { answers: Effect.Effect<void, PgError.PgError>; asked: number } = { answers: Effect.void, asked: 0 }
  const ping = Effect.suspend(() => {
    script.asked += 1
    return script.answers
  })
  return Object.assign(script, { probe: { ping } })
}

describe("HealthMonitor", () => {
  it.scoped.each([
    ["production", 30_000],
    ["development", 10_000],
    ["critical", 5_000]
  ] as const)("in %s asks at once and then every %d ms", ([environment, interval]) =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const script = scripted()
      yield* monitor({ environment, probe: script.probe })
      yield* TestClock.adjust(interval - 1)
      assert.strictEqual(script.asked, 1)
      yield* TestClock.adjust(1)
      assert.strictEqual(script.asked, 2)
      yield* TestClock.adjust(10 * interval)
      assert.strictEqual(script.asked, 12)
    })
  )

  it.scoped("asks only when asked to where there is no interval", () =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const script = scripted()
      const health = yield* monitor({ interval: "infinity", probe: script.probe })
      yield* TestClock.adjust("1 day")
      assert.strictEqual(script.asked, 0)
      assert.isUndefined(yield* health.latest)
      const report = yield* health.check
      assert.strictEqual(report.score, 100)
      assert.strictEqual(report.status, "healthy")
      assert.strictEqual(yield* health.latest, report)
    })
  )

  it.scoped("tells an open breaker that the server answers, and takes nothing back from a closed one", () =>
    Effect.gen(function* () {
      const { breaker, monitor } = yield* world
      const health = yield* monitor({ interval: "infinity", probe: scripted().probe })
      const lose = Effect.flip(breaker.protect(Effect.fail(lost)))
      yield* Effect.replicateEffect(lose, 4)
      yield* health.check
      assert.strictEqual((yield* breaker.snapshot).failures, 4)
      yield* lose
      assert.strictEqual(yield* breaker.state, "Open")
      yield* health.check
      assert.strictEqual(yield* breaker.state, "HalfOpen")
    })
  )

  it.scoped("measures the round trip and the query apart", () =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const health = yield* monitor({
        interval: "infinity",
        probe: { ping: Effect.sleep("40 millis"), query: Effect.sleep("700 millis") }
      })
      const checking = yield* Effect.fork(health.check)
      yield* TestClock.adjust("740 millis")
      const { deductions, probe } = yield* Fiber.join(checking)
      assert.deepStrictEqual(probe, { ok: true, pingMs: 40, queryMs: 700 })
      assert.deepStrictEqual(
        deductions.map(({ signal }) => signal),
        ["queryMs"]
      )
    })
  )

  it.scoped("gives up a probe at its limit, and not before", () =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const health = yield* monitor({
        interval: "infinity",
        probe: { ping: Effect.uninterruptible(Effect.sleep("1 hour")) }
      })
      const checking = yield* Effect.fork(health.check)
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(yield* health.latest)
      yield* TestClock.adjust("1 millis")
      const { probe, status } = yield* Fiber.join(checking)
      assert.deepStrictEqual(probe, { ok: false, error: "no answer within 3s", tag: undefined, afterMs: 3000 })
      assert.strictEqual(status, "unhealthy")
    })
  )

  it.scoped("runs one check at a time, for all who ask", () =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const script = scripted()
      script.answers = Effect.sleep("1 second")
      const health = yield* monitor({ interval: "infinity", probe: script.probe })
      const first = yield* Effect.fork(health.check)
      const others = yield* Effect.fork(
        Effect.all(
          Array.from({ length: 50 }, () => health.check),
          { concurrency: 50 }
        )
      )
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("500 millis")
      const reports = yield* Fiber.join(others)
      assert.strictEqual(script.asked, 1)
      assert.strictEqual(new Set(reports).size, 1)
      const next = yield* Effect.fork(health.check)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(next)
      assert.strictEqual(script.asked, 2)
    })
  )

  it.scoped("goes on after a probe that died", () =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const script = scripted()
      script.answers = Effect.die(new Error("secret"))
      const health = yield* monitor({ probe: script.probe })
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(script.asked, 2)
      assert.deepInclude((yield* health.latest)?.probe, { ok: false, error: "the health check died" })
    })
  )

  it.scoped("tells of a lost database and of its return, each once", () =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const script = scripted()
      const health = yield* monitor({ probe: script.probe })
      const changes = yield* Effect.fork(Stream.runCollect(Stream.take(health.changes, 2)))
      yield* TestClock.adjust("1 second")
      script.answers = Effect.fail(lost)
      yield* TestClock.adjust("2 minutes")
      script.answers = Effect.void
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(Chunk.toReadonlyArray(yield* Fiber.join(changes)), [
        {
          _tag: "StatusChange",
          at: 30_000,
          from: "healthy",
          to: "unhealthy",
          score: 40,
          why: ["a health check that failed"]
        },
        { _tag: "StatusChange", at: 150_000, from: "unhealthy", to: "healthy", score: 100, why: [] }
      ])
      assert.deepStrictEqual(
        (yield* health.events).map((event) => [event._tag, event.at]),
        [
          ["ProbeFailed", 30_000],
          ["StatusChange", 30_000],
          ["ProbeRecovered", 150_000],
          ["StatusChange", 150_000]
        ]
      )
    })
  )

  it.scoped("tells the breaker of a check that succeeded, and remembers its changes", () =>
    Effect.gen(function* () {
      const { breaker, monitor } = yield* world
      const script = scripted()
      script.answers = Effect.fail(lost)
      const health = yield* monitor({ probe: script.probe })
      yield* TestClock.adjust("1 second")
      for (let i = 0; i < 5; i++) yield* Effect.flip(breaker.protect(Effect.fail(lost)))
      assert.strictEqual(yield* breaker.state, "Open")
      yield* TestClock.adjust("28 seconds")
      script.answers = Effect.void
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* breaker.state, "HalfOpen")
      const report = (yield* health.latest)!
      assert.strictEqual(report.breaker.state, "HalfOpen")
      assert.isAtLeast(report.breakerChanges, 1)
      assert.includeDeepMembers(
        (yield* health.events).map((event) => (event._tag === "BreakerChange" ? event.to : event._tag)),
        ["ProbeFailed", "Open", "HalfOpen"]
      )
    })
  )

  it.scoped("judges what happened in its window, and forgets it afterwards", () =>
    Effect.gen(function* () {
      const { metrics, monitor, poolName } = yield* world
      metrics.operation("before", 5, "ConnectionError")
      const health = yield* monitor({ probe: scripted().probe })
      yield* TestClock.adjust("10 seconds")
      for (let i = 0; i < 90; i++) metrics.operation("get", 0.01, undefined)
      for (let i = 0; i < 10; i++) metrics.operation("get", 2, "ResourceError")
      yield* TestClock.adjust("20 seconds")
      const { score, signals, window } = (yield* health.latest)!
      assert.strictEqual(window.operations, 100)
      assert.deepInclude(signals, { errorRate: 0.1, slowQueries: 10, slowShare: 0.1 })
      assert.isBelow(score, 90)
      assert.strictEqual(figures.perPool(Metric.unsafeSnapshot()).get(poolName)?.score, score)
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual((yield* health.latest)!.score, 100)
    })
  )

  it.scoped("foresees when the pool is exhausted, and a round trip that grows", () =>
    Effect.gen(function* () {
      const { monitor, setPool } = yield* world
      const script = scripted()
      const health = yield* monitor({ interval: "infinity", probe: script.probe })
      for (let used = 2; used <= 6; used++) {
        setPool({ total: 10, idle: 10 - used, used })
        script.answers = Effect.sleep(used * 10)
        const checking = yield* Effect.fork(health.check)
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(checking)
      }
      const { trends } = (yield* health.latest)!
      assert.approximately(trends.poolExhaustedIn!, 240, 1)
      assert.approximately(trends.pingDrift!, 3, 0.01)
    })
  )

  it.scoped("calls it a storm when connections come and go, and not when a pool fills", () =>
    Effect.gen(function* () {
      const { metrics, monitor } = yield* world
      const health = yield* monitor({ interval: "infinity", probe: scripted().probe })
      for (let i = 0; i < 10; i++) metrics.connected(0.01)
      yield* TestClock.adjust("1 second")
      assert.isFalse((yield* health.check).trends.storm)
      for (let i = 0; i < 20; i++) metrics.connected(0.01)
      yield* TestClock.adjust("30 seconds")
      assert.isTrue((yield* health.check).trends.storm)
    })
  )

  it.scoped("goes on telling of a connection that is held for long until it is given back", () =>
    Effect.gen(function* () {
      const { metrics, monitor, setPool } = yield* world
      const health = yield* monitor({ probe: scripted().probe })
      metrics.leak()
      setPool({ leaked: 1 })
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual((yield* health.latest)?.signals.leaks, 1)
      setPool({ leaked: 0 })
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* health.latest)?.signals.leaks, 0)
    })
  )

  it.scoped("names every option that is out of range", () =>
    Effect.gen(function* () {
      const { monitor } = yield* world
      const error = yield* Effect.flip(
        monitor({ interval: 0, timeout: "-1 second" as never, historySize: 0, probe: {} as never })
      )
      assert.deepStrictEqual(
        error.faults.map(({ field }) => field),
        ["health.interval", "health.timeout", "health.historySize", "health.probe"]
      )
    })
  )
})
