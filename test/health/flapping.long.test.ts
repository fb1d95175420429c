/** A server that comes and goes, at every pace: how many alerts that makes, and whether each of them finds its end. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, FastCheck as fc, Layer, Stream } from "effect"
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

/** Milliseconds up and then down, over and over. */
type Schedule = ReadonlyArray<readonly [up: number, down: number]>

const minute = 60_000
const between = 10_000
const flapping = 60 * minute
/** Longer than the cooldown and a window. */
const quiet = 18 * minute

const period = fc.integer({ min: 1_000, max: 10 * minute })
/** Short ones as often as long ones. */
const paced = fc.oneof(fc.integer({ min: 1_000, max: 10_000 }), fc.integer({ min: 1_000, max: minute }), period)
const schedule: fc.Arbitrary<Schedule> = fc.array(fc.tuple(paced, paced), { minLength: 1, maxLength: 20 })

const steady = (every: number): Schedule => [[every / 2, every / 2]]

/** The moments at which the server goes or comes, until it comes to stay. */
const edges = (schedule: Schedule): ReadonlyArray<readonly [at: number, up: boolean]> => {
  const found: Array<readonly [number, boolean]> = []
  for (let at = 0, i = 0; at < flapping; i++) {
    const [up, down] = schedule[i % schedule.length]!
    found.push([Math.min(at + up, flapping), false], [Math.min(at + up + down, flapping), true])
    at += up + down
  }
  return found
}

/** A database by a schedule: while it is away nothing is answered, the circuit is open and the pool is full. */
const watched = (schedule: Schedule) =>
  Effect.gen(function* () {
    const { breaker, metrics, monitor, setPool } = yield* world
    let up = true
    const ping = Effect.suspend(() => (up ? Effect.void : Effect.fail(lost)))
    const health = yield* monitor({ interval: "infinity", probe: { ping } })
    const told: Array<Alerts.Notice> = []
    const sinks = Layer.merge(
      Alerts.layerCallback((notice) => void told.push(notice)),
      Alerts.layerSink("dead", () => Effect.never)
    )
    const alerts = Context.get(
      yield* Layer.build(
        Layer.provideMerge(sinks, Layer.provide(Alerts.layer(), Layer.succeed(HealthMonitor.HealthMonitor, health)))
      ),
      Alerts.Alerts
    )
    const listen = Effect.gen(function* () {
      const heard: Array<Alerts.Notice> = []
      yield* Effect.forkScoped(Stream.runForEach(alerts.notices, (notice) => Effect.sync(() => heard.push(notice))))
      return heard
    })

    const ahead = [...edges(schedule)]
    /** What happened until now, and then a check of what is left of it. */
    const step = (now: number) =>
      Effect.gen(function* () {
        while (ahead.length > 0 && ahead[0]![0] <= now) {
          up = ahead.shift()![1]
          yield* up ? breaker.reset : breaker.forceOpen
        }
        for (let n = 0; n < 5; n++) metrics.operation("get", up ? 0.01 : 2, up ? undefined : "ConnectionError")
        setPool(up ? { total: 4, idle: 3, used: 1, waiting: 0 } : { total: 10, idle: 0, used: 10, waiting: 60 })
        return yield* health.check
      })
    return { schedule, alerts, told, heard: [yield* listen] as Array<Array<Alerts.Notice>>, listen, step }
  })

/**
 * A clock that the test moves, on which nobody is woken: nothing here sleeps but limits that are not reached. TestClock wakes
 * what slept behind every limit, which for twenty databases and an hour takes minutes.
 */
const movedClock = () => {
  const clock = Clock.make()
  let now = 0
  const moved: Clock.Clock = {
    ...clock,
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: () => now,
    currentTimeMillis: Effect.sync(() => now),
    unsafeCurrentTimeNanos: () => BigInt(now) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(now) * 1_000_000n),
    sleep: () => Effect.never
  }
  const moveTo = (at: number) =>
    Effect.sync(() => {
      now = at
    })
  return { clock: moved, moveTo }
}

/** Every fiber that can go on has gone on. */
const settled = Effect.promise(() => new Promise<void>((done) => void setImmediate(done)))

const names = Array.from(Alerts.rules, ({ name }) => name)
const cooldown = Math.max(...Alerts.rules.map(({ cooldown }) => cooldown))

describe("A flapping server", () => {
  it.scoped("makes a bounded number of alerts, loses none, and leaves none standing", () => {
    const { clock, moveTo } = movedClock()
    return Effect.gen(function* () {
      const seed = Math.floor(Math.random() * 2 ** 31)
      const random = fc.sample(schedule, { numRuns: 5, seed })
      const paces = [1_000, 4_000, 10_000, 30_000, minute, 2 * minute, 5 * minute, 10 * minute]
      const said = (schedule: Schedule) => `seed ${seed}, schedule ${JSON.stringify(schedule)}`
      const worlds = yield* Effect.forEach([...paces.map(steady), ...random], watched)

      for (let now = between; now <= flapping + quiet; now += between) {
        yield* moveTo(now)
        const reports = yield* Effect.forEach(worlds, ({ step }) => step(now))
        yield* settled
        for (const [i, { alerts, schedule }] of worlds.entries()) {
          const seen = Alerts.observe(reports[i]!)
          const standing = (yield* alerts.standing).map(({ rule }) => rule)
          for (const { measure, name, raise, when } of Alerts.rules) {
            const value = seen[measure]
            if (value === undefined || !(when === "above" ? value > raise : value < raise)) continue
            assert.include(standing, name, `${said(schedule)}: lost at ${now}`)
          }
        }
        if (now === flapping / 2) for (const world of worlds) world.heard.push(yield* world.listen)
      }

      for (const { alerts, heard, schedule, told } of worlds) {
        assert.deepStrictEqual(yield* alerts.standing, [], said(schedule))
        const raised = told.filter(({ _tag }) => _tag === "Raised")
        assert.isNotEmpty(raised, said(schedule))
        for (const name of names) {
          const times = raised.filter(({ alert }) => alert.rule === name).map(({ at }) => at)
          // Any three are further apart than a cooldown.
          times.forEach((at, i) => {
            const third = times[i + 2]
            assert.isTrue(third === undefined || third - at > cooldown, `${said(schedule)}: ${name} at ${times}`)
          })
        }
        for (const notices of [told, ...heard]) {
          const standing = new Set<string>()
          const ids = new Set<string>()
          for (const { _tag, alert } of notices) {
            if (_tag === "Resolved") assert.isTrue(standing.delete(alert.id), `${said(schedule)}: ${alert.id}`)
            else {
              assert.isFalse(ids.has(alert.id), `${said(schedule)}: ${alert.id} told twice`)
              ids.add(alert.id)
              standing.add(alert.id)
            }
          }
          assert.strictEqual(standing.size, 0, said(schedule))
        }
        // Whoever was there from the beginning has heard the same.
        assert.deepStrictEqual(heard[0], told)
      }
      const counts = worlds.map(({ told }) => told.length / 2)
      console.log(`alerts per flapping hour: ${counts.join(", ")} (${names.length} rules)`)
    }).pipe(Effect.withClock(clock))
  })
})
