import { spawnSync } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck as fc, Metric, MetricBoundaries } from "effect"
import * as HealthProbe from "../../src/health/HealthProbe.js"
import * as Metrics from "../../src/telemetry/Metrics.js"
import { POOL_NAME } from "../../src/telemetry/names.js"
import * as Prometheus from "../../src/telemetry/Prometheus.js"
import * as promText from "../support/promText.js"

let pools = 0
/** One pool that has seen something of everything. */
const busyPool = (poolName = `scraped-${++pools}`) => {
  const metrics = Metrics.forPool({ poolName, namespace: "shop", address: "db.internal", port: 5433, min: 1, max: 10 })
  metrics.pool({ idle: 3, used: 4, pending: 2 })
  for (let i = 0; i < 7; i++) metrics.operation("get-user", 0.02, undefined)
  metrics.operation("get-user", 1.5, undefined)
  metrics.operation("get-user", 0.5, "StatementTimeoutError")
  metrics.operation("get-user", 0.5, "Interrupted")
  metrics.unserved("PoolTimeoutError")
  metrics.operationTimeout("get-user")
  metrics.connected(0.03)
  metrics.waited(0.001)
  metrics.used(0.2)
  metrics.acquireTimeout()
  metrics.evicted("lost")
  metrics.retry("ConnectionError")
  metrics.budget(1, 3)
  metrics.breaker("Closed", "HalfOpen")
  metrics.outcomeUnknown("ConnectionError")
  metrics.transaction("committed" as Metrics.TransactionOutcome)
  metrics.settled("settledCommitted", 0.3)
  metrics.cancel("Cancelled")
  metrics.leak()
  Metric.tagged(
    Metric.fromMetricKey(Metrics.metrics.healthScore),
    "db.client.connection.pool.name",
    poolName
  ).unsafeUpdate(83, [])
  return poolName
}

const pairs = (name: string) => Metric.unsafeSnapshot().filter(({ metricKey }) => metricKey.name.startsWith(name))

const promtool = (text: string) => {
  const { error, status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], {
    input: text,
    encoding: "utf8"
  })
  return error === undefined ? { status, said: `${stdout}${stderr}` } : undefined
}
const hasPromtool = promtool("") !== undefined
if (!hasPromtool) console.log("promtool is not on PATH: the strict parser alone judges the text")

describe("Prometheus", () => {
  it.effect("tells every metric of the library under the name that a collector gives it", () =>
    Effect.gen(function* () {
      const pool = busyPool()
      const families = promText.parse(yield* Prometheus.text({ classic: false }))
      const of = (name: string) =>
        families.get(name)!.samples.filter(({ labels }) => labels["db_client_connection_pool_name"] === pool)
      const types = Object.values(Metrics.metrics).map(({ name }) =>
        Array.from(families.keys()).find((family) => family.startsWith(name.replaceAll(".", "_")))
      )
      assert.notInclude(types, undefined)
      assert.strictEqual(families.get("db_client_connection_count")!.type, "untyped")
      assert.strictEqual(families.get("pgresilience_retry_attempts_total")!.type, "counter")
      assert.strictEqual(families.get("pgresilience_health_score")!.type, "gauge")
      assert.deepStrictEqual(of("db_client_connection_count"), [
        {
          name: "db_client_connection_count",
          labels: { db_client_connection_pool_name: pool, db_client_connection_state: "idle" },
          value: 3
        },
        {
          name: "db_client_connection_count",
          labels: { db_client_connection_pool_name: pool, db_client_connection_state: "used" },
          value: 4
        }
      ])
      const duration = of("db_client_operation_duration_seconds").filter(({ labels }) => !("error_type" in labels))
      assert.strictEqual(families.get("db_client_operation_duration_seconds")!.type, "histogram")
      assert.deepStrictEqual(
        duration.flatMap(({ labels, value }) => (labels["le"] === undefined ? [] : [[labels["le"], value]])),
        [
          ["0.001", 0],
          ["0.005", 0],
          ["0.01", 0],
          ["0.05", 7],
          ["0.1", 7],
          ["0.5", 7],
          ["1", 7],
          ["5", 8],
          ["10", 8],
          ["+Inf", 8]
        ]
      )
      assert.approximately(duration.find(({ name }) => name.endsWith("_sum"))!.value, 1.64, 1e-9)
      assert.strictEqual(duration.find(({ name }) => name.endsWith("_count"))!.value, 8)
      assert.notInclude(Object.keys(duration[0]!.labels), "unit")
    })
  )

  it("tells the labels that each metric is said to have, and no others", () => {
    const pool = busyPool()
    const found = new Map<string, Set<string>>()
    for (const { metricKey } of Metric.unsafeSnapshot()) {
      const own = metricKey.tags.filter(({ key }) => key !== "unit" && key !== POOL_NAME)
      if (own.length === metricKey.tags.length || !metricKey.tags.some(({ value }) => value === pool)) continue
      const keys = found.get(metricKey.name) ?? new Set()
      for (const { key } of own) keys.add(key)
      found.set(metricKey.name, keys)
    }
    for (const [key, { name }] of Object.entries(Metrics.metrics))
      assert.sameMembers(
        [...(found.get(name) ?? ["none"])],
        [...Metrics.labels[key as keyof typeof Metrics.metrics]],
        name
      )
  })

  it.effect("tells the classic names for each pool, computed from the same metrics", () =>
    Effect.gen(function* () {
      const pool = busyPool()
      const live = (name: string) => (name === pool ? { breakerFailures: 4, operationsActive: 9 } : {})
      const families = promText.parse(yield* Prometheus.text({ live }))
      const of = (name: string) => families.get(name)?.samples.filter(({ labels }) => labels["pool"] === pool)
      const value = (name: string) => of(name)?.map(({ value }) => value)
      assert.deepStrictEqual(
        {
          total: value("db_connections_total"),
          active: value("db_connections_active"),
          idle: value("db_connections_idle"),
          utilization: value("db_pool_utilization_percent"),
          average: value("db_query_duration_avg_ms")?.map(Math.round),
          slow: value("db_queries_slow_total"),
          successful: value("db_queries_successful_total"),
          failed: value("db_queries_failed_total"),
          score: value("db_health_score"),
          failures: value("db_circuit_breaker_failures"),
          operations: value("db_operations_active"),
          timeouts: value("db_timeouts_total")
        },
        {
          total: [7],
          active: [4],
          idle: [3],
          utilization: [40],
          average: [264],
          slow: [1],
          successful: [8],
          failed: [2],
          score: [83],
          failures: [4],
          operations: [9],
          timeouts: [3]
        }
      )
      assert.deepStrictEqual(
        of("db_circuit_breaker_state")?.map(({ labels, value }) => [labels["value"], value]),
        [
          ["closed", 0],
          ["half_open", 1],
          ["open", 0],
          ["forced_open", 0],
          ["forced_closed", 0]
        ]
      )
    })
  )

  it.effect("gives the classic names to pools that work, not to the connection of their health checks", () =>
    Effect.gen(function* () {
      const pool = busyPool()
      const own = [busyPool(HealthProbe.poolName(pool)), busyPool("localhost:5432/health")]
      const families = promText.parse(yield* Prometheus.text())
      const told = (name: string, label: string) => families.get(name)!.samples.map(({ labels }) => labels[label])
      assert.includeMembers(told("db_connections_active", "pool"), [pool, "localhost:5432/health"])
      assert.notInclude(told("db_connections_active", "pool"), own[0])
      assert.includeMembers(told("db_client_connection_max", "db_client_connection_pool_name"), [pool, ...own])
    })
  )

  it("tells counters, gauges, timers, summaries, frequencies and big numbers of the program, too", () => {
    Metric.counter("app.orders", { incremental: true, bigint: true }).unsafeUpdate(2n ** 60n, [])
    Metric.counter("app.balance").unsafeUpdate(-3, [])
    Metric.gauge("app.level", { description: "a \\ b\nc" }).unsafeUpdate(Number.NEGATIVE_INFINITY, [])
    Metric.tagged(Metric.gauge("app.fill"), "unit", "1").unsafeUpdate(0.5, [])
    Metric.tagged(
      Metric.histogram("app.timer", MetricBoundaries.linear({ start: 0, width: 10, count: 3 })),
      "time_unit",
      "milliseconds"
    ).unsafeUpdate(500, [])
    Metric.summary({ name: "app.summary", maxAge: "1 day", maxSize: 10, error: 0, quantiles: [0.5] }).unsafeUpdate(
      7,
      []
    )
    Metric.frequency("app.kinds").unsafeUpdate('a"b\\c\nd', [])
    const families = promText.parse(Prometheus.render(pairs("app.")))
    const told = (name: string) => families.get(name)?.samples.map(({ labels, name, value }) => [name, labels, value])
    assert.deepStrictEqual(told("app_orders_total"), [["app_orders_total", {}, 2 ** 60]])
    assert.deepStrictEqual(told("app_balance"), [["app_balance", {}, -3]])
    assert.deepStrictEqual(told("app_level"), [["app_level", {}, Number.NEGATIVE_INFINITY]])
    assert.strictEqual(families.get("app_level")!.help, "a \\ b\nc")
    assert.deepStrictEqual(told("app_fill_ratio"), [["app_fill_ratio", {}, 0.5]])
    assert.deepInclude(told("app_timer_milliseconds")!, ["app_timer_milliseconds_bucket", { le: "+Inf" }, 1])
    assert.deepStrictEqual(told("app_summary"), [
      ["app_summary", { quantile: "0.5" }, 7],
      ["app_summary_sum", {}, 7],
      ["app_summary_count", {}, 1]
    ])
    assert.deepStrictEqual(told("app_kinds_total"), [["app_kinds_total", { key: 'a"b\\c\nd' }, 1]])
  })

  it("never uses a name twice, however metrics are called", () => {
    const boundaries = MetricBoundaries.linear({ start: 0, width: 1, count: 2 })
    Metric.gauge("twice.x").unsafeUpdate(1, [])
    Metric.gauge("twice_x").unsafeUpdate(2, [])
    Metric.histogram("twice-x", boundaries).unsafeUpdate(3, [])
    Metric.gauge("twice.x.count").unsafeUpdate(4, [])
    Metric.histogram("twice.y", boundaries).unsafeUpdate(5, [])
    Metric.gauge("twice.y_sum").unsafeUpdate(6, [])
    const families = promText.parse(Prometheus.render(pairs("twice")))
    assert.strictEqual(families.size, 5)
    assert.strictEqual(families.get("twice_x")!.samples[0]!.value, 1)
  })

  it("is valid text whatever names, labels, descriptions and numbers there are", () => {
    let run = 0
    const string = fc.oneof(
      fc.string(),
      fc.string({ unit: "binary" }),
      fc.constantFrom("le", "quantile", "__x", "unit", "s")
    )
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            kind: fc.constantFrom("counter", "gauge", "histogram", "summary", "frequency"),
            name: string,
            description: string,
            tags: fc.dictionary(string, string, { maxKeys: 3 }),
            value: fc.double()
          }),
          { maxLength: 8 }
        ),
        (list) => {
          const prefix = `fuzz${++run}.`
          for (const { description, kind, name, tags, value } of list) {
            const id = `${prefix}${name}`
            const labelled = <T, O>(metric: Metric.Metric<T, any, O>) =>
              Object.entries(tags).reduce((_, [key, value]) => Metric.tagged(_, key, value), metric)
            if (kind === "counter")
              labelled(Metric.counter(id, { description, incremental: true })).unsafeUpdate(value, [])
            if (kind === "gauge") labelled(Metric.gauge(id, { description })).unsafeUpdate(value, [])
            if (kind === "histogram") {
              const boundaries = MetricBoundaries.fromIterable([0, 1, 2])
              labelled(Metric.histogram(id, boundaries, description)).unsafeUpdate(value, [])
            }
            if (kind === "summary") {
              const options = {
                name: id,
                maxAge: "1 day",
                maxSize: 5,
                error: 0,
                quantiles: [0.5, 0.9],
                description
              } as const
              labelled(Metric.summary(options)).unsafeUpdate(value, [])
            }
            if (kind === "frequency") labelled(Metric.frequency(id, { description })).unsafeUpdate(name, [])
          }
          promText.parse(Prometheus.render(pairs(prefix)))
        }
      )
    )
  })

  it.skipIf(!hasPromtool)(
    "has nothing that promtool finds fault with, but the unit that a classic name ends in",
    () => {
      busyPool()
      const own = Metric.unsafeSnapshot().filter(({ metricKey }) => /^(db\.|pgresilience\.)/.test(metricKey.name))
      assert.deepStrictEqual(promtool(Prometheus.render(own, { classic: false })), { status: 0, said: "" })
      const live = () => ({ breakerFailures: 0, operationsActive: 0 })
      assert.deepStrictEqual(promtool(Prometheus.render(own, { live })), {
        status: 3,
        said: "db_query_duration_avg_ms metric names should not contain abbreviated units\n"
      })
    }
  )
})
