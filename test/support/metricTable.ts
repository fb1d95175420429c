import { MetricKeyType, Option } from "effect"
import * as classic from "../../src/telemetry/internal/classic.js"
import * as exposition from "../../src/telemetry/internal/exposition.js"
import * as Metrics from "../../src/telemetry/Metrics.js"

const code = (text: string) => `\`${text}\``

const kindOf = (metric: (typeof Metrics.metrics)[keyof typeof Metrics.metrics]) =>
  MetricKeyType.isHistogramKey(metric.keyType)
    ? "histogram"
    : MetricKeyType.isCounterKey(metric.keyType) && metric.keyType.incremental
      ? "counter"
      : "gauge"

/** The README's table of metrics, as Markdown: the names that a program gives them, and those that Prometheus sees. */
export const metricTable = (): string =>
  [
    "| metric | for Prometheus | kind | unit | labels | what it is |",
    "| --- | --- | --- | --- | --- | --- |",
    ...Object.entries(Metrics.metrics).map(([key, metric]) => {
      const kind = kindOf(metric)
      const unit = metric.tags.find(({ key }) => key === "unit")?.value
      const labels = Metrics.labels[key as keyof typeof Metrics.metrics].map(code).join(", ")
      const what = Option.getOrElse(metric.description, () => "")
      const cells = [code(metric.name), code(exposition.metricName(metric.name, kind, unit)), kind, unit, labels, what]
      return `| ${cells.join(" | ")} |`
    })
  ].join("\n")

/** The classic names. */
export const classicTable = (): string =>
  [
    "| name | kind | what it is |",
    "| --- | --- | --- |",
    ...classic.definitions.map(({ help, name, type }) => `| ${code(name)} | ${type} | ${help} |`)
  ].join("\n")
