import { Effect, Layer, Stream } from "effect"
import type * as Pool from "../../src/client/Pool.js"
import * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import { ResilientPg } from "../../src/ResilientPg.js"
import * as Metrics from "../../src/telemetry/Metrics.js"

/** One of its four connections is in use, and nobody waits. */
export const idlePool: Pool.Snapshot = {
  max: 10,
  min: 0,
  total: 4,
  idle: 3,
  used: 1,
  quarantined: 0,
  leaked: 0,
  connecting: 0,
  waiting: 0,
  generation: 0,
  closing: 0
}

let worlds = 0

/**
 * What a monitor sees, for tests of policy under `TestClock`: a pool whose figures the test sets, a breaker and metrics that
 * are the real ones. What it sees of a server is HealthMonitor.live.test.ts's.
 */
export const world = Effect.gen(function* () {
  const poolName = `monitored-${++worlds}`
  const metrics = Metrics.forPool({ poolName, namespace: "shop", address: "db", port: 5432, min: 0, max: 10 })
  const breaker = yield* CircuitBreaker.make()
  let pool = idlePool
  const monitor = (options: HealthMonitor.MakeOptions) =>
    Effect.provide(
      HealthMonitor.make({ poolName, ...options }),
      Layer.merge(
        Layer.succeed(ResilientPg, {
          pool: Effect.sync(() => pool),
          ready: () => Effect.void,
          listen: () => Stream.empty
        }),
        Layer.succeed(CircuitBreaker.CircuitBreaker, breaker)
      )
    )
  return {
    poolName,
    metrics,
    breaker,
    monitor,
    setPool: (change: Partial<Pool.Snapshot>) => {
      pool = { ...pool, ...change }
    }
  }
})
