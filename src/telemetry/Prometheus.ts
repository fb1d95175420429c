/**
 * All metrics of a program as Prometheus' text: for its scraper, or for people.
 *
 * Effect's registry is process-wide: what is told is everything that the program and its libraries measure, under the
 * names that an OpenTelemetry collector would give it (`db_client_operation_duration_seconds_bucket`), and for each pool of
 * this library the classic names beside them (`db_connections_active{pool="…"}`). Computed from memory: asks no database.
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as MetricKeyType from "effect/MetricKeyType"
import type * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Option from "effect/Option"
import * as classic from "./internal/classic.js"
import * as exposition from "./internal/exposition.js"
import * as figures from "./internal/figures.js"

/** Of the text. */
export const contentType = "text/plain; version=0.0.4; charset=utf-8"

/** What the registry does not hold of one pool. */
export type Live = classic.Live

export interface Options {
  /** Whether the classic names are told, too. Default true. */
  readonly classic?: boolean | undefined
  /** What the registry does not hold, by the pool's name. Default: nothing. */
  readonly live?: ((pool: string) => Live) | undefined
}

/** The unit of a metric is told by its name, not by a label. */
const unitLabels = new Set(["unit", "time_unit"])
const histogramLabels = new Set(["le"])
const summaryLabels = new Set(["quantile"])
const noLabels = new Set<string>()

/** What the format keeps for counters and for the lines of histograms; a name of another type with such an end is untyped. */
const reservedEnd = /_(total|count|sum|bucket)$/

interface Read {
  readonly type: exposition.Type
  readonly reserved: ReadonlySet<string>
  readonly samples: (labels: exposition.Labels) => ReadonlyArray<exposition.Sample>
}

const single = (type: exposition.Type, value: number | bigint): Read => ({
  type,
  reserved: noLabels,
  samples: (labels) => [{ suffix: "", labels, value }]
})

const sumAndCount = ({ count, sum }: { readonly count: number; readonly sum: number }, labels: exposition.Labels) => [
  { suffix: "_sum", labels, value: sum },
  { suffix: "_count", labels, value: count }
]

const read = ({ metricKey: { keyType }, metricState }: MetricPair.MetricPair.Untyped): Read | undefined => {
  if (MetricState.isCounterState(metricState)) {
    const rises = MetricKeyType.isCounterKey(keyType) && keyType.incremental
    return single(rises ? "counter" : "gauge", metricState.count)
  }
  if (MetricState.isGaugeState(metricState)) return single("gauge", metricState.value)
  if (MetricState.isHistogramState(metricState)) {
    const { buckets, count } = metricState
    return {
      type: "histogram",
      reserved: histogramLabels,
      samples: (labels) => {
        const bucket = (bound: number, value: number) => ({
          suffix: "_bucket",
          labels: [...labels, ["le", exposition.number(bound)] as const],
          value
        })
        const finite = buckets.filter(([bound]) => Number.isFinite(bound))
        return [
          ...finite.map(([bound, cumulative]) => bucket(bound, cumulative)),
          bucket(Number.POSITIVE_INFINITY, count),
          ...sumAndCount(metricState, labels)
        ]
      }
    }
  }
  if (MetricState.isSummaryState(metricState)) {
    return {
      type: "summary",
      reserved: summaryLabels,
      samples: (labels) => [
        ...Array.from(metricState.quantiles, ([quantile, value]) => ({
          suffix: "",
          labels: [...labels, ["quantile", exposition.number(quantile)] as const],
          value: Option.getOrElse(value, () => Number.NaN)
        })),
        ...sumAndCount(metricState, labels)
      ]
    }
  }
  if (MetricState.isFrequencyState(metricState)) {
    return {
      type: "counter",
      reserved: new Set(["key"]),
      samples: (labels) =>
        Array.from(metricState.occurrences, ([key, value]) => ({
          suffix: "",
          labels: [...labels, ["key", key] as const],
          value
        }))
    }
  }
  return undefined
}

const family = (pair: MetricPair.MetricPair.Untyped): ReadonlyArray<exposition.Family> => {
  const { metricKey } = pair
  const found = read(pair)
  if (found === undefined) return []
  const unit = metricKey.tags.find(({ key }) => unitLabels.has(key))?.value
  const name = exposition.metricName(metricKey.name, found.type, unit)
  const labels = exposition.labels(
    metricKey.tags.flatMap(({ key, value }) => (unitLabels.has(key) ? [] : [[key, value] as const])),
    found.reserved
  )
  return [
    {
      name,
      type: found.type === "gauge" && reservedEnd.test(name) ? "untyped" : found.type,
      help: [Option.getOrElse(metricKey.description, () => ""), metricKey.name].find((_) => _.trim() !== "") ?? name,
      samples: found.samples(labels)
    }
  ]
}

/** The text of a snapshot of the registry. */
export const render = (
  pairs: ReadonlyArray<MetricPair.MetricPair.Untyped>,
  { classic: withClassic = true, live = () => ({}) }: Options = {}
): string =>
  exposition.render([...(withClassic ? classic.families(figures.perPool(pairs), live) : []), ...pairs.flatMap(family)])

/** The text of this moment. */
export const text = (options?: Options): Effect.Effect<string> =>
  Effect.sync(() => render(Metric.unsafeSnapshot(), options))
