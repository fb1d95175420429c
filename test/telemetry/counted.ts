/** Metrics as this process has them: what an exporter would read. */
import { Effect, Metric, MetricState } from "effect"
import { POOL_NAME } from "../../src/telemetry/names.js"

/** A counter of this pool, or how many values a histogram of it has, by the labels that are asked for. */
export const counted = (poolName: string, name: string, ...by: ReadonlyArray<string>) =>
  Effect.map(Metric.snapshot, (pairs) => {
    const counts: Record<string, number> = {}
    for (const { metricKey, metricState } of pairs) {
      const labels = new Map(metricKey.tags.map(({ key, value }) => [key, value]))
      if (metricKey.name !== name || labels.get(POOL_NAME) !== poolName) continue
      if (!MetricState.isHistogramState(metricState) && !MetricState.isCounterState(metricState)) continue
      const key = by.map((label) => labels.get(label) ?? "").join(" ")
      counts[key] = (counts[key] ?? 0) + Number(metricState.count)
    }
    return counts
  })
