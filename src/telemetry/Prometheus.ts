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
const frequencyLabels = new Set(["key"])
const noLabels = new Set<string>()

/** What the format keeps for counters and for the lines of histograms; a name of another type with such an end is untyped. */
const reservedEnd = /_(total|count|sum|bucket)$/

/** What never changes of a metric: worked out at its first scrape. */
interface Described extends Omit<exposition.Family, "samples"> {
  /** Its labels, as they stand in the text. */
  readonly labels: string
}

const described = new WeakMap<object, Described>()

const describe = ({ metricKey, metricState }: MetricPair.MetricPair.Untyped): Described => {
  const { keyType, name: given, tags } = metricKey
  const [type, reserved]: readonly [exposition.Type, ReadonlySet<string>] = MetricState.isCounterState(metricState)
    ? [MetricKeyType.isCounterKey(keyType) && keyType.incremental ? "counter" : "gauge", noLabels]
    : MetricState.isGaugeState(metricState)
      ? ["gauge", noLabels]
      : MetricState.isHistogramState(metricState)
        ? ["histogram", histogramLabels]
        : MetricState.isSummaryState(metricState)
          ? ["summary", summaryLabels]
          : ["counter", frequencyLabels]
  const unit = tags.find(({ key }) => unitLabels.has(key))?.value
  const name = exposition.metricName(given, type, unit)
  const labels = exposition.labels(
    tags.flatMap(({ key, value }) => (unitLabels.has(key) ? [] : [[key, value] as const])),
    reserved
  )
  return {
    name,
    type: type === "gauge" && reservedEnd.test(name) ? "untyped" : type,
    help: [Option.getOrElse(metricKey.description, () => ""), given].find((_) => _.trim() !== "") ?? name,
    labels: exposition.labelText(labels)
  }
}

const sumAndCount = ({ count, sum }: { readonly count: number; readonly sum: number }, labels: string) => [
  { suffix: "_sum", labels, value: sum },
  { suffix: "_count", labels, value: count }
]

const bucket = (labels: string, bound: number, value: number): exposition.Sample => ({
  suffix: "_bucket",
  labels: exposition.withLabel(labels, "le", bound),
  value
})

/** Undefined for a state that there is no text for. */
const samples = (
  state: MetricPair.MetricPair.Untyped["metricState"],
  labels: string
): ReadonlyArray<exposition.Sample> | undefined => {
  if (MetricState.isCounterState(state)) return [{ suffix: "", labels, value: state.count }]
  if (MetricState.isGaugeState(state)) return [{ suffix: "", labels, value: state.value }]
  if (MetricState.isHistogramState(state)) {
    const finite = state.buckets.filter(([bound]) => Number.isFinite(bound))
    return [
      ...finite.map(([bound, cumulative]) => bucket(labels, bound, cumulative)),
      bucket(labels, Number.POSITIVE_INFINITY, state.count),
      ...sumAndCount(state, labels)
    ]
  }
  if (MetricState.isSummaryState(state)) {
    return [
      ...Array.from(state.quantiles, ([quantile, value]) => ({
        suffix: "",
        labels: exposition.withLabel(labels, "quantile", quantile),
        value: Option.getOrElse(value, () => Number.NaN)
      })),
      ...sumAndCount(state, labels)
    ]
  }
  if (MetricState.isFrequencyState(state)) {
    return Array.from(state.occurrences, ([key, value]) => ({
      suffix: "",
      labels: exposition.withLabel(labels, "key", key),
      value
    }))
  }
  return undefined
}

const family = (pair: MetricPair.MetricPair.Untyped): ReadonlyArray<exposition.Family> => {
  const { metricKey, metricState } = pair
  let known = described.get(metricKey)
  if (known === undefined) {
    known = describe(pair)
    described.set(metricKey, known)
  }
  const { help, labels, name, type } = known
  const found = samples(metricState, labels)
  return found === undefined ? [] : [{ name, type, help, samples: found }]
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
