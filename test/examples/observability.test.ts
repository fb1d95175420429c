/** The rules and the dashboard of examples/observability name what the library really emits, and say what `Alerts` says. */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { SqlClient } from "@effect/sql"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel, Metric, type Scope } from "effect"
import {
  Alerts,
  CircuitBreaker,
  HealthMonitor,
  Metrics,
  Operation,
  PgError,
  Prometheus,
  ResilientPg,
  Transaction
} from "effect-pg-resilience"
import { FaultProxy } from "effect-pg-resilience/testing"
import { metricName } from "../../src/telemetry/internal/exposition.js"
import * as figures from "../../src/telemetry/internal/figures.js"
import * as promql from "../support/promql.js"
import * as promText from "../support/promText.js"
import { root } from "../support/root.js"
import * as TestPg from "../support/TestPg.js"

const directory = Path.join(root, "examples", "observability")
const read = (...path: ReadonlyArray<string>) => Fs.readFileSync(Path.join(directory, ...path), "utf8")

interface AlertRule {
  readonly name: string
  readonly expression: string
  readonly text: string
  readonly label: (name: string) => string | undefined
}

/** Each in a block of its own; a long expression is indented below `expr: |`. */
const rules: ReadonlyArray<AlertRule> = read("rules.yml")
  .split(/^ {6}- alert: /m)
  .slice(1)
  .map((text) => {
    const expression = /^ {8}expr: (?:\|\n((?: {10}.*\n)+)|(.+)\n)/m.exec(text)
    const labels = /^ {8}labels: \{(.+)\}/m.exec(text)?.[1] ?? ""
    return {
      name: text.slice(0, text.indexOf("\n")),
      expression: expression?.[1] ?? expression?.[2] ?? "",
      text,
      label: (name) => new RegExp(`\\b${name}: ([\\w-]+)`).exec(labels)?.[1]
    }
  })

interface Panel {
  readonly id: number
  readonly title: string
  readonly datasource: { readonly uid: string }
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets: ReadonlyArray<{
    readonly refId: string
    readonly expr: string
    readonly legendFormat: string
    readonly datasource: { readonly uid: string }
  }>
}

interface Variable {
  readonly name: string
  readonly datasource: { readonly uid: string }
  readonly query: { readonly query: string }
}

const dashboard: {
  readonly panels: ReadonlyArray<Panel>
  readonly templating: { readonly list: ReadonlyArray<Variable> }
} = JSON.parse(read("grafana", "dashboards", "postgresql.json"))

/** Every expression, by where it stands. */
const expressions: ReadonlyArray<readonly [where: string, expression: string]> = [
  ...rules.map(({ expression, name }) => [name, expression] as const),
  ...dashboard.panels.flatMap(({ targets, title }) => targets.map(({ expr }) => [title, expr] as const)),
  ...dashboard.templating.list.map(({ name, query: { query } }) => {
    const [, series, label] = /^label_values\((.+), (\w+)\)$/.exec(query) ?? []
    return [`variable ${name}`, `sum by (${label}) (${series})`] as const
  })
]

/** What Prometheus adds, and what it measures itself. */
const scraped = ["job", "instance"]
const prometheusOwn = new Set(["up"])

/** Something of everything: each metric that there is has been told of when this ends. */
const workload: Effect.Effect<
  void,
  unknown,
  | SqlClient.SqlClient
  | ResilientPg.ResilientPg
  | CircuitBreaker.CircuitBreaker
  | HealthMonitor.HealthMonitor
  | Transaction.Transactor
  | FaultProxy.FaultProxy
  | Scope.Scope
> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const proxy = yield* FaultProxy.FaultProxy
  const breaker = yield* CircuitBreaker.CircuitBreaker
  yield* sql`CREATE TABLE told (id int)`
  yield* Transaction.createLedger
  yield* Effect.flip(sql`SELECT nothing`)

  // a read is repeated, its connection evicted
  yield* proxy.cut({ on: FaultProxy.query(/read twice/), when: "after" })
  yield* sql`SELECT 1 -- read twice`
  // nobody knows
  yield* proxy.swallowReply({ on: FaultProxy.query(/^INSERT/) })
  yield* Effect.flip(sql`INSERT INTO told VALUES (1)`)
  // found out
  yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/) })
  yield* Transaction.run(sql`INSERT INTO told VALUES (2)`, { exactlyOnce: true })
  // given up, and out of time
  yield* Effect.timeoutOption(sql`SELECT pg_sleep(60)`, "50 millis")
  yield* Effect.flip(sql`SELECT pg_sleep(60)`.pipe(Operation.named("out-of-time", { timeout: "50 millis" })))
  // held for too long
  yield* Effect.scoped(
    Effect.zipRight(
      sql.reserve,
      TestPg.eventually(leaks, (count) => count > 0)
    )
  )
  // nobody there
  yield* Effect.provide(
    Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.flip(sql`SELECT 1`)),
    ResilientPg.layer({ host: "127.0.0.1", port: 1, username: "nobody", database: "nowhere", retry: false })
  )
  // another state
  yield* breaker.forceOpen
  yield* breaker.reset
  yield* Effect.flatMap(HealthMonitor.HealthMonitor, (_) => _.check)
  yield* TestPg.eventually(emitted, (families) => missing(families).length === 0, {
    message: "some metrics were not told"
  })
})

const leaks = Effect.sync(() => {
  const pairs = Metric.unsafeSnapshot()
  return [...figures.perPool(pairs).values()].reduce((sum, { leaks }) => sum + leaks, 0)
})

const emitted = Effect.sync(() =>
  promText.parse(Prometheus.render(Metric.unsafeSnapshot(), { live: () => ({ breakerFailures: 0 }) }))
)

type Families = ReadonlyMap<string, promText.Family>

/** Definitions of `Metrics.metrics` that have not been told. */
const missing = (families: Families) =>
  Object.values(Metrics.metrics).flatMap(({ keyType, name, tags }) => {
    const unit = tags.find(({ key }) => key === "unit")?.value
    const counts = "incremental" in keyType && keyType.incremental === true
    const exported = metricName(name, counts ? "counter" : "gauge", unit)
    return families.has(exported) ? [] : [exported]
  })

/** The lines' names, each with all labels that it has had. */
const labelsByName = (families: Families): ReadonlyMap<string, ReadonlySet<string>> => {
  const names = new Map<string, Set<string>>()
  for (const { samples } of families.values())
    for (const { labels, name } of samples) {
      const known = names.get(name) ?? new Set(scraped)
      for (const label of Object.keys(labels)) known.add(label)
      names.set(name, known)
    }
  return names
}

const observed = Layer.unwrapScoped(
  Effect.gen(function* () {
    const { config, url } = yield* TestPg.database
    const proxy = yield* FaultProxy.make({ upstream: config })
    return HealthMonitor.layer({ interval: "infinity" }).pipe(
      Layer.provideMerge(
        ResilientPg.layer({
          url: proxy.url(url),
          poolName: "observed",
          leakThreshold: "100 millis"
        })
      ),
      Layer.merge(Layer.succeed(FaultProxy.FaultProxy, proxy)),
      Layer.provide(Logger.minimumLogLevel(LogLevel.None))
    )
  })
)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("examples/observability", (it) => {
  it.scoped("names no metric and no label in a rule or on the dashboard that the library does not emit", () =>
    Effect.gen(function* () {
      const known = yield* Effect.provide(Effect.zipRight(workload, Effect.map(emitted, labelsByName)), observed)
      const unknown = expressions.flatMap(([where, expression]) => {
        const { groupedBy, metrics } = promql.named(expression)
        const used = metrics.filter(({ name }) => !prometheusOwn.has(name))
        const own = used.flatMap(({ labels, name }) => {
          const has = known.get(name)
          if (has === undefined) return [`${where}: ${name}`]
          return labels.filter((label) => !has.has(label)).map((label) => `${where}: ${name}{${label}}`)
        })
        const grouped = groupedBy.filter((label) => used.some(({ name }) => known.get(name)?.has(label) === false))
        return [...own, ...grouped.map((label) => `${where}: by (${label})`)]
      })
      assert.deepStrictEqual(unknown, [])
      assert.isAbove(expressions.length, 30)
    })
  )
})

describe("examples/observability/rules.yml", () => {
  const byRule = new Map(rules.map((rule) => [rule.label("rule"), rule]))

  it("has each rule of Alerts, by its name and with its severity, and one more for a service that is not there", () => {
    assert.deepStrictEqual(
      rules.map((rule) => [rule.label("rule"), rule.label("severity")]),
      [[undefined, "critical"], ...orderOf(rules).map(({ name, severity }) => [name, severity])]
    )
    assert.sameMembers(
      rules.flatMap((rule) => rule.label("rule") ?? []),
      Alerts.rules.map(({ name }) => name)
    )
  })

  it("raises where Alerts does", () => {
    const seconds = (ms: number) => ms / 1000
    const percent = (share: number) => share * 100
    for (const { measure, name, raise, when } of Alerts.rules) {
      const { expression, text } = byRule.get(name)!
      const threshold: Record<Alerts.Measure, string> = {
        score: `< ${raise}`,
        probeFailed: `> ${raise}`,
        pingMs: `> ${seconds(raise)}`,
        utilization: `> ${percent(raise)}`,
        waitMs: `> ${seconds(raise)}`,
        averageQueryMs: `> ${seconds(raise)}`,
        errorRate: `> ${raise}`,
        breakerChanges: `> ${raise}`,
        breakerOpenMs: "> 0",
        storm: ">= 2 * sum",
        leaks: `> ${raise}`,
        poolExhaustedInMs: `[5m], ${seconds(raise)}) >= 100`
      }
      assert.include(expression, threshold[measure], name)
      assert.strictEqual(expression.includes("<"), when === "below" && measure !== "poolExhaustedInMs", name)
      if (measure === "breakerOpenMs") assert.include(text, `for: ${seconds(raise)}s\n`)
    }
  })

  it("counts as an error what the health score counts as one", () => {
    const tags = Object.keys(PgError.retrySafety) as ReadonlyArray<PgError.Tag>
    const troubled = tags.filter((tag) => {
      const poolName = `troubled by ${tag}`
      const metrics = Metrics.forPool({ poolName, namespace: "", address: "", port: 5432, min: 0, max: 1 })
      metrics.operation("SELECT", 0.001, tag)
      metrics.close()
      return figures.perPool(Metric.unsafeSnapshot()).get(poolName)!.troubled > 0
    })
    const left = /error_type!~"([\w|]+)"/.exec(byRule.get("error-rate")!.expression)![1]!.split("|")
    assert.sameMembers(
      left.filter((tag) => tag !== "Interrupted"),
      tags.filter((tag) => !troubled.includes(tag))
    )
    assert.include(left, "Interrupted")
  })
})

/** The rules of `Alerts` in the order of the file. */
const orderOf = (file: ReadonlyArray<AlertRule>) =>
  file.flatMap((rule) => Alerts.rules.filter(({ name }) => name === rule.label("rule")))

describe("examples/observability/grafana", () => {
  it("has panels of ids of their own that do not overlap, on a grid of 24 columns", () => {
    const { panels } = dashboard
    assert.strictEqual(new Set(panels.map(({ id }) => id)).size, panels.length)
    const overlapping = panels.flatMap(({ gridPos: a, title }, i) =>
      panels
        .slice(i + 1)
        .filter(({ gridPos: b }) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h)
        .map((other) => `${title} and ${other.title}`)
    )
    assert.deepStrictEqual(overlapping, [])
    for (const { gridPos, targets, title } of panels) {
      assert.isAtMost(gridPos.x + gridPos.w, 24, title)
      assert.strictEqual(new Set(targets.map(({ refId }) => refId)).size, targets.length, title)
    }
  })

  it("asks a datasource that is provisioned, and says in the legend what it groups by", () => {
    const provisioned = Array.from(
      read("grafana", "provisioning", "datasources", "prometheus.yml").matchAll(/^ {4}uid: (\S+)$/gm),
      ([, uid]) => uid
    )
    const { panels, templating } = dashboard
    for (const { datasource } of [...panels, ...panels.flatMap(({ targets }) => targets), ...templating.list])
      assert.include(provisioned, datasource.uid)
    for (const { expr, legendFormat } of panels.flatMap(({ targets }) => targets))
      for (const [, label] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
        assert.match(expr, new RegExp(`\\b${label}\\b|^[^(]+$|without`))
  })
})

const hasPromtool = spawnSync("promtool", ["--version"], { stdio: "ignore" }).status === 0

describe("promtool", () => {
  it.skipIf(!hasPromtool).each([
    ["check", "rules", "rules.yml"],
    ["check", "config", "prometheus.yml"],
    ["test", "rules", "rules.test.yml"]
  ])("%s %s takes %s (skipped where promtool is not installed)", (...command) => {
    const { status, stderr, stdout } = spawnSync("promtool", command, { cwd: directory, encoding: "utf8" })
    assert.strictEqual(status, 0, `${stdout}${stderr}`)
  })

  it("is given a test for each rule", () => {
    const tests = read("rules.test.yml")
    assert.deepStrictEqual(
      rules.filter(({ name }) => !tests.includes(name)).map(({ name }) => name),
      []
    )
  })
})
