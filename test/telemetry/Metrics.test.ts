import { assert, describe, it } from "@effect/vitest"
import { Array, Metric, MetricKeyType, MetricState, Option, Record } from "effect"
import { expectTypeOf } from "vitest"
import type { EvictionReason } from "../../src/client/Pool.js"
import * as Metrics from "../../src/telemetry/Metrics.js"

let pools = 0
/** Metrics are global to the process: a name of its own keeps each test's apart. */
const fresh = (options: Partial<Omit<Metrics.Options, "poolName">> = {}) => ({
  poolName: `pool-${++pools}`,
  namespace: "shop",
  address: "db.internal",
  port: 5432,
  min: 1,
  max: 8,
  ...options
})

/** All metrics of one pool: name and labels (pool name and unit left out) to value; to the count, of a histogram. */
const figures = (poolName: string): Record<string, number> =>
  Object.fromEntries(
    Metric.unsafeSnapshot().flatMap(({ metricKey, metricState }) => {
      const labels = Object.fromEntries(metricKey.tags.map(({ key, value }) => [key, value]))
      if (labels["db.client.connection.pool.name"] !== poolName) return []
      const shown = Object.entries(labels)
        .filter(([key]) => key !== "unit" && key !== "db.client.connection.pool.name")
        .map(([key, value]) => `${key}=${value}`)
      const value =
        MetricState.isCounterState(metricState) || MetricState.isHistogramState(metricState)
          ? Number(metricState.count)
          : Number.NaN
      return [[`${metricKey.name}{${shown.sort().join(",")}}`, value]]
    })
  )

const server = "db.namespace=shop,db.operation.name=get-user,db.system.name=postgresql"

describe("Metrics", () => {
  it("have the conventions' names, kinds and units", () => {
    const kindOf = (type: unknown) =>
      MetricKeyType.isHistogramKey(type as never)
        ? "histogram"
        : MetricKeyType.isGaugeKey(type as never)
          ? "gauge"
          : (type as { readonly incremental: boolean }).incremental
            ? "counter"
            : "up-down counter"
    const table = Object.values(Metrics.metrics).map(({ keyType, name, tags }) => [
      name,
      kindOf(keyType),
      tags.find(({ key }) => key === "unit")?.value
    ])
    assert.sameDeepMembers(table, [
      ["db.client.connection.count", "up-down counter", "{connection}"],
      ["db.client.connection.idle.min", "up-down counter", "{connection}"],
      ["db.client.connection.idle.max", "up-down counter", "{connection}"],
      ["db.client.connection.max", "up-down counter", "{connection}"],
      ["db.client.connection.pending_requests", "up-down counter", "{request}"],
      ["db.client.connection.timeouts", "counter", "{timeout}"],
      ["pgresilience.operation.timeouts", "counter", "{operation}"],
      ["pgresilience.operation.unserved", "counter", "{attempt}"],
      ["db.client.connection.create_time", "histogram", "s"],
      ["db.client.connection.wait_time", "histogram", "s"],
      ["db.client.connection.use_time", "histogram", "s"],
      ["db.client.operation.duration", "histogram", "s"],
      ["pgresilience.breaker.state", "up-down counter", "1"],
      ["pgresilience.breaker.transitions", "counter", "{transition}"],
      ["pgresilience.retry.attempts", "counter", "{retry}"],
      ["pgresilience.retry.budget", "up-down counter", "{retry}"],
      ["pgresilience.connection.evicted", "counter", "{connection}"],
      ["pgresilience.outcome.unknown", "counter", "{operation}"],
      ["pgresilience.transactions", "counter", "{transaction}"],
      ["pgresilience.transaction.settle_time", "histogram", "s"],
      ["pgresilience.cancels", "counter", "{statement}"],
      ["pgresilience.leaks", "counter", "{connection}"],
      ["pgresilience.health.score", "gauge", "{point}"]
    ])
    for (const { description, name } of Object.values(Metrics.metrics)) assert.isTrue(Option.isSome(description), name)
  })

  it("sort operations into the advised buckets, and waiting into finer ones", () => {
    const bounds = ({ keyType }: (typeof Metrics.metrics)["operationDuration"]) =>
      keyType.boundaries.values.filter(Number.isFinite)
    assert.deepStrictEqual(bounds(Metrics.metrics.operationDuration), [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10])
    assert.deepStrictEqual(bounds(Metrics.metrics.waitTime).slice(0, 3), [0.0001, 0.0005, 0.001])
  })

  it("record an attempt under its operation, its server, and its error if it failed", () => {
    const options = fresh()
    const metrics = Metrics.forPool(options)
    metrics.operation("get-user", 0.004, undefined)
    metrics.operation("get-user", 0.002, undefined)
    metrics.operation("get-user", 5, "QueryTimeoutError")
    const seen = Record.filter(figures(options.poolName), (_, key) => key.startsWith("db.client.operation"))
    assert.deepStrictEqual(seen, {
      [`db.client.operation.duration{${server},server.address=db.internal}`]: 2,
      [`db.client.operation.duration{${server},error.type=QueryTimeoutError,server.address=db.internal}`]: 1
    })
  })

  it("name the port only where it is not PostgreSQL's own", () => {
    const options = fresh({ port: 6432 })
    Metrics.forPool(options).operation("get-user", 1, undefined)
    assert.strictEqual(
      figures(options.poolName)[`db.client.operation.duration{${server},server.address=db.internal,server.port=6432}`],
      1
    )
  })

  it("tell the first 200 operation names apart and no more, whatever a program puts into names", () => {
    const options = fresh()
    const metrics = Metrics.forPool(options)
    for (let id = 0; id < 10_000; id++) metrics.operation(`get-user-${id}`, 0.001, undefined)
    metrics.operation("get-user-199", 0.001, undefined)
    metrics.operation("get-user-200", 0.001, "ConnectionError")
    const counts = Object.entries(figures(options.poolName)).filter(([key]) => key.startsWith("db.client.operation"))
    assert.lengthOf(counts, Metrics.maxOperationNames + 2)
    const countOf = (name: string) =>
      counts.filter(([key]) => key.includes(`db.operation.name=${name},`)).map(([, count]) => count)
    assert.deepStrictEqual(countOf("get-user-199"), [2])
    assert.sameMembers(countOf(Metrics.otherOperation), [9_800, 1])
  })

  it("show the pool as it is told", () => {
    const options = fresh({ min: 2, max: 10 })
    const metrics = Metrics.forPool(options)
    metrics.pool({ idle: 2, used: 5, pending: 1 })
    metrics.pool({ idle: 1, used: 6, pending: 0 })
    assert.include(figures(options.poolName), {
      "db.client.connection.count{db.client.connection.state=idle}": 1,
      "db.client.connection.count{db.client.connection.state=used}": 6,
      "db.client.connection.pending_requests{}": 0,
      "db.client.connection.idle.min{}": 2,
      "db.client.connection.idle.max{}": 10,
      "db.client.connection.max{}": 10,
      "db.client.connection.timeouts{}": 0,
      "pgresilience.leaks{}": 0
    })
  })

  it("add pools of one name up, and take a closed one out, late reports of it included", () => {
    const options = fresh({ max: 8 })
    const first = Metrics.forPool(options)
    const second = Metrics.forPool(options)
    first.pool({ idle: 3, used: 1, pending: 2 })
    second.pool({ idle: 4, used: 0, pending: 0 })
    const idle = "db.client.connection.count{db.client.connection.state=idle}"
    assert.include(figures(options.poolName), { [idle]: 7, "db.client.connection.max{}": 16 })
    first.close()
    first.pool({ idle: 100, used: 100, pending: 100 })
    first.close()
    assert.include(figures(options.poolName), { [idle]: 4, "db.client.connection.max{}": 8 })
    second.close()
    for (const [key, value] of Object.entries(figures(options.poolName))) assert.strictEqual(value, 0, key)
  })

  it("show the one state that the circuit is in, and count the ways between states", () => {
    const options = fresh()
    const metrics = Metrics.forPool(options)
    assert.include(figures(options.poolName), { "pgresilience.breaker.state{state=Closed}": 1 })
    metrics.breaker("Closed", "Open")
    metrics.breaker("Open", "HalfOpen")
    metrics.breaker("HalfOpen", "Open")
    const seen = Record.filter(figures(options.poolName), (_, key) => key.startsWith("pgresilience.breaker"))
    assert.deepStrictEqual(seen, {
      "pgresilience.breaker.state{state=Closed}": 0,
      "pgresilience.breaker.state{state=Open}": 1,
      "pgresilience.breaker.state{state=HalfOpen}": 0,
      "pgresilience.breaker.transitions{from=Closed,to=Open}": 1,
      "pgresilience.breaker.transitions{from=Open,to=HalfOpen}": 1,
      "pgresilience.breaker.transitions{from=HalfOpen,to=Open}": 1
    })
  })

  it("count what happens by a reason of a closed set", () => {
    const options = fresh()
    const metrics = Metrics.forPool(options)
    metrics.unserved("ConnectionError")
    metrics.retry("SerializationError")
    metrics.retry("SerializationError")
    metrics.evicted("lifetime")
    metrics.outcomeUnknown("ConnectionError")
    metrics.transaction("committed")
    metrics.transaction("rolledBack")
    metrics.cancel("Cancelled")
    metrics.acquireTimeout()
    metrics.leak()
    metrics.connected(0.02)
    metrics.waited(0.0002)
    metrics.used(0.3)
    assert.include(figures(options.poolName), {
      "pgresilience.operation.unserved{error.type=ConnectionError}": 1,
      "pgresilience.retry.attempts{error.type=SerializationError}": 2,
      "pgresilience.connection.evicted{reason=lifetime}": 1,
      "pgresilience.outcome.unknown{error.type=ConnectionError}": 1,
      "pgresilience.transactions{outcome=committed}": 1,
      "pgresilience.transactions{outcome=rolledBack}": 1,
      "pgresilience.cancels{result=Cancelled}": 1,
      "db.client.connection.timeouts{}": 1,
      "pgresilience.leaks{}": 1,
      "db.client.connection.create_time{}": 1,
      "db.client.connection.wait_time{}": 1,
      "db.client.connection.use_time{}": 1
    })
    expectTypeOf(metrics.evicted).parameter(0).toEqualTypeOf<EvictionReason>()
  })

  it("show the retry budget, but no limit where there is none", () => {
    const options = fresh()
    const metrics = Metrics.forPool(options)
    metrics.budget(2, 3)
    metrics.budget(4, Number.POSITIVE_INFINITY)
    assert.include(figures(options.poolName), {
      "pgresilience.retry.budget{state=used}": 4,
      "pgresilience.retry.budget{state=allowed}": 3
    })
  })

  it("name a pool after server and database unless told otherwise", () => {
    const { poolName: _, ...options } = fresh({ address: "unnamed.internal", port: 6432 })
    Metrics.forPool(options).acquireTimeout()
    assert.include(figures("unnamed.internal:6432/shop"), { "db.client.connection.timeouts{}": 1 })
  })

  it("cost less than a microsecond for all that one statement records", () => {
    const metrics = Metrics.forPool(fresh())
    const batch = () => {
      const start = performance.now()
      for (let i = 0; i < 10_000; i++) {
        metrics.pool({ idle: 1, used: i & 7, pending: 0 })
        metrics.waited(0.0002)
        metrics.operation("get-user", 0.003, undefined)
        metrics.used(0.003)
        metrics.pool({ idle: 2, used: 0, pending: 0 })
      }
      return (performance.now() - start) * 100
    }
    // The best of many batches: what others on the machine take away is not ours.
    const nanos = Math.min(...Array.makeBy(30, batch))
    console.log(`one statement's metrics: ${Math.round(nanos)} ns`)
    assert.isBelow(nanos, 1_000)
  })
})
