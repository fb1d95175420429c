import { assert, describe, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Layer, Stream, TestClock } from "effect"
import * as PgError from "../../src/error/PgError.js"
import * as Alerts from "../../src/health/Alerts.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import { world } from "./support.js"

const lost = new PgError.ConnectionError({
  message: "connection refused",
  phase: "Acquire",
  outcome: "NotApplied",
  transient: true,
  attempts: 1
})

const watched = Effect.gen(function* () {
  const seen = yield* world
  const script: { answers: Effect.Effect<void, PgError.PgError> } = { answers: Effect.void }
  const monitor = yield* seen.monitor({
    environment: "critical",
    probe: { ping: Effect.suspend(() => script.answers) }
  })
  const layer = Layer.provide(Alerts.layer(), Layer.succeed(HealthMonitor.HealthMonitor, monitor))
  return { ...seen, monitor, script, layer }
})

const named = (notices: Iterable<Alerts.Notice>) => Array.from(notices, ({ _tag, alert }) => `${_tag} ${alert.rule}`)

describe("Alerts", () => {
  it("have a rule for every trouble that a database can have, with names of their own and a way back", () => {
    assert.sameMembers(
      Alerts.rules.map(({ measure }) => measure),
      [...Object.keys(Alerts.measures), "pingMs"]
    )
    assert.strictEqual(new Set(Alerts.rules.map(({ name }) => name)).size, Alerts.rules.length)
    for (const { clear, name, raise, when } of Alerts.rules) {
      assert.isTrue(when === "above" ? clear <= raise : clear >= raise, name)
    }
  })

  it.scoped("tell of a lost database, and that it is back, once each", () =>
    Effect.gen(function* () {
      const { layer, script } = yield* watched
      yield* Effect.gen(function* () {
        const alerts = yield* Alerts.Alerts
        const told: Array<Alerts.Notice> = []
        yield* Effect.fork(Stream.runForEach(alerts.notices, (notice) => Effect.sync(() => told.push(notice))))
        yield* TestClock.adjust("1 second")
        script.answers = Effect.fail(lost)
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(named(told), ["Raised health-check-failed", "Raised health-score"])
        assert.strictEqual((yield* alerts.standing).length, 2)
        script.answers = Effect.void
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(named(told.slice(2)), ["Resolved health-check-failed", "Resolved health-score"])
        assert.deepStrictEqual(yield* alerts.standing, [])
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("tell of the pool, of queries and of connections by what their reports say", () =>
    Effect.gen(function* () {
      const { layer, metrics, setPool } = yield* watched
      yield* Effect.gen(function* () {
        const alerts = yield* Alerts.Alerts
        yield* TestClock.adjust("1 second")
        setPool({ total: 10, idle: 0, used: 10, waiting: 3 })
        for (let i = 0; i < 10; i++) metrics.operation("get", 1.5, i === 0 ? "ResourceError" : undefined)
        for (let i = 0; i < 30; i++) metrics.connected(0.1)
        metrics.waited(0.6)
        metrics.leak()
        yield* TestClock.adjust("5 seconds")
        assert.includeMembers(
          (yield* alerts.standing).map(({ rule }) => rule),
          ["error-rate", "pool-utilization", "pool-wait", "slow-queries", "connection-storm", "connection-leak"]
        )
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("tell of a circuit that changed, and of one that stays open for over a minute", () =>
    Effect.gen(function* () {
      const { breaker, layer } = yield* watched
      yield* Effect.gen(function* () {
        const alerts = yield* Alerts.Alerts
        const standing = Effect.map(alerts.standing, (list) => list.map(({ rule }) => rule))
        yield* TestClock.adjust("1 second")
        yield* breaker.forceOpen
        yield* breaker.reset
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(yield* standing, ["breaker-change"])
        yield* breaker.forceOpen
        yield* TestClock.adjust("60 seconds")
        assert.notInclude(yield* standing, "breaker-open")
        yield* TestClock.adjust("10 seconds")
        assert.include(yield* standing, "breaker-open")
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("tell of a circuit that does not close for over a minute, however often its probes fail", () =>
    Effect.gen(function* () {
      const { breaker, layer, script } = yield* watched
      script.answers = Effect.fail(lost)
      yield* Effect.gen(function* () {
        const alerts = yield* Alerts.Alerts
        const standing = Effect.map(alerts.standing, (list) => list.map(({ rule }) => rule))
        const call = Effect.ignore(breaker.protect(Effect.fail(lost)))
        yield* Effect.replicateEffect(call, 5)
        // Opened by five failures, and again by every probe: never open for a minute without one.
        for (let second = 0; second < 75; second++) yield* Effect.zipRight(TestClock.adjust("1 second"), call)
        assert.isAbove((yield* breaker.snapshot).trips, 1)
        assert.include(yield* standing, "breaker-open")
        script.answers = Effect.void
        yield* TestClock.adjust("5 seconds")
        yield* Effect.replicateEffect(breaker.protect(Effect.void), 2)
        assert.strictEqual(yield* breaker.state, "Closed")
        yield* TestClock.adjust("70 seconds")
        assert.notInclude(yield* standing, "breaker-open")
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("tell a slow round trip from a very slow one", () =>
    Effect.gen(function* () {
      const { layer, script } = yield* watched
      yield* Effect.gen(function* () {
        const alerts = yield* Alerts.Alerts
        const standing = Effect.map(alerts.standing, (list) => list.map(({ rule }) => rule))
        script.answers = Effect.sleep("501 millis")
        yield* TestClock.adjust("15 seconds")
        assert.deepStrictEqual(yield* standing, ["slow-ping"])
        script.answers = Effect.sleep("1001 millis")
        yield* TestClock.adjust("15 seconds")
        assert.deepStrictEqual(yield* standing, ["slow-ping", "very-slow-ping"])
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("begin a stream with what stands, and tell nothing twice", () =>
    Effect.gen(function* () {
      const { layer, script } = yield* watched
      yield* Effect.gen(function* () {
        const alerts = yield* Alerts.Alerts
        script.answers = Effect.fail(lost)
        yield* TestClock.adjust("1 minute")
        const late = yield* Effect.fork(Stream.runCollect(Stream.take(alerts.notices, 4)))
        yield* TestClock.adjust("1 minute")
        script.answers = Effect.void
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(named(Chunk.toReadonlyArray(yield* Fiber.join(late))), [
          "Raised health-check-failed",
          "Raised health-score",
          "Resolved health-check-failed",
          "Resolved health-score"
        ])
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("go on to the other sinks while one hangs, throws or fails", () =>
    Effect.gen(function* () {
      const { layer, script } = yield* watched
      const told: Array<Alerts.Notice> = []
      const hanging = yield* Deferred.make<void>()
      let failures = 0
      const sinks = Layer.mergeAll(
        Alerts.layerSink("hanging", () => Effect.zipRight(Deferred.succeed(hanging, undefined), Effect.never)),
        Alerts.layerSink("failing", () =>
          Effect.zipRight(
            Effect.sync(() => failures++),
            Effect.fail("no")
          )
        ),
        Alerts.layerCallback((notice) => {
          told.push(notice)
          throw new Error("no")
        }),
        Alerts.layerLog
      )
      yield* Effect.gen(function* () {
        script.answers = Effect.fail(lost)
        yield* TestClock.adjust("10 seconds")
        yield* Deferred.await(hanging)
        assert.strictEqual(told.length, 2)
        assert.strictEqual(failures, 2)
      }).pipe(Effect.provide(Layer.provideMerge(sinks, layer)))
    })
  )

  it("say what they saw in the unit of what they look at, and only their title where that is all", () => {
    const alert = (rule: string, value: number, threshold: number): Alerts.Alert => ({
      ...{ id: `${rule}-0`, rule, severity: "warning", title: "Trouble", raisedAt: 0 },
      ...{ value, threshold }
    })
    for (const [rule, value, threshold, headline] of [
      ["slow-ping", 761.834, 500, "Trouble (762 ms, threshold 500 ms)"],
      ["breaker-open", 61_234, 60_000, "Trouble (1m 1s, threshold 1m)"],
      ["pool-utilization", 0.85, 0.8, "Trouble (85 %, threshold 80 %)"],
      ["health-score", 60, 70, "Trouble (60, threshold 70)"],
      ["breaker-change", 2, 0, "Trouble"],
      ["of-my-own", 0.123456, 7, "Trouble (0.123, threshold 7)"],
      ["pool-exhaustion", Number.POSITIVE_INFINITY, 300_000, "Trouble (for ever, threshold 5m)"]
    ] as const)
      assert.strictEqual(Alerts.headline(alert(rule, value, threshold)), headline)
  })

  it.scoped("refuse rules that could not work", () =>
    Effect.gen(function* () {
      const [first] = Alerts.rules
      const monitor = Layer.succeed(HealthMonitor.HealthMonitor, (yield* watched).monitor)
      const build = (rules: ReadonlyArray<Alerts.Rule>) =>
        Effect.flip(Layer.build(Layer.provide(Alerts.layer({ rules }), monitor)))
      for (const rules of [
        [first!, first!],
        [{ ...first!, clear: 1 }],
        [{ ...first!, cooldown: -1 }],
        [{ ...first!, measure: "nothing" as never }]
      ]) {
        assert.strictEqual((yield* build(rules))._tag, "InvalidOptionsError")
      }
    })
  )
})
