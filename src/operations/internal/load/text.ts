/** A result, and a comparison, as a page of text for a terminal. Pure. */
import { type Comparison, figureName, type Row } from "./compare.js"
import { change, milliseconds, quantity, share, table, time } from "./format.js"
import type { Figures, Latency, Result, Settings } from "./result.js"

/** The settings in a sentence, for a person. */
export const settings = (given: Settings, operations: Result["operations"]): string => {
  const { durationMs, operations: count, rampMs, seed, warmUpMs } = given
  const bounds = [
    count === null ? [] : [`${quantity(count)} operations${given.model === "closed" ? " each" : ""}`],
    durationMs === null ? [] : [milliseconds(durationMs)]
  ].flat()
  const model =
    given.model === "closed"
      ? `${quantity(given.concurrency)} ${given.concurrency === 1 ? "fiber" : "fibers"}, ${bounds.join(" or ")}${
          given.thinkTimeMs > 0 ? `, thinking for ${milliseconds(given.thinkTimeMs)}` : ""
        }`
      : `${quantity(given.rate)} a second (${given.arrivals}), ${bounds.join(" or ")}, at most ${quantity(given.maxInFlight)} under way`
  const mix = operations.length > 1 ? [operations.map(({ name, weight }) => `${name} ${weight}`).join(", ")] : []
  return [
    model,
    ...(rampMs > 0 ? [`rising for ${milliseconds(rampMs)}`] : []),
    ...(warmUpMs > 0 ? [`after ${milliseconds(warmUpMs)} of warm-up`] : []),
    ...mix,
    `seed ${seed}`
  ].join("; ")
}

const columns = ["mean", "p50", "p90", "p95", "p99", "p99_9", "max"] as const

const cells = (latency: Latency | null) => columns.map((key) => (latency === null ? "–" : milliseconds(latency[key])))

const line = (name: string, { failed, rate, response, succeeded }: Figures) => [
  name,
  quantity(succeeded),
  quantity(failed),
  quantity(rate),
  ...cells(response)
]

/** What there is to say beyond the figures, each a sentence. */
export const notes = (result: Result): ReadonlyArray<string> => {
  const { behind, complete, delayed, outcomes, settings, unfinished, unstarted } = result
  const bound = settings.model === "open" ? quantity(settings.maxInFlight) : ""
  return [
    ...(complete
      ? []
      : [`Stopped before its end: ${quantity(unfinished)} operations were under way, and are not counted.`]),
    ...(delayed > 0
      ? [`${quantity(delayed)} operations began late, because ${bound} were under way; their response times say so.`]
      : []),
    ...(behind > 0
      ? [
          `${quantity(behind)} operations began more than 10 ms late, because this program had no time for them: the figures are its own, too.`
        ]
      : []),
    ...(unstarted > 0
      ? [`${quantity(unstarted)} operations were due and never begun, because ${bound} were under way until the end.`]
      : []),
    ...(outcomes.Unknown > 0
      ? [`Of ${quantity(outcomes.Unknown)} failures nobody knows whether what they were to write was written.`]
      : [])
  ]
}

/** The pool and the breaker at their worst. */
const strain = ({ samples }: Result): ReadonlyArray<string> => {
  const pools = samples.flatMap(({ pool }) => (pool === null ? [] : [pool]))
  const states = new Set(samples.flatMap(({ breaker }) => (breaker === null ? [] : [breaker])))
  const most = (of: (pool: (typeof pools)[number]) => number) => quantity(Math.max(...pools.map(of)))
  return [
    ...(pools.length === 0
      ? []
      : [
          `pool: at most ${most(({ used }) => used)} of ${most(({ max }) => max)} connections used, ${most(({ waiting }) => waiting)} waiting`
        ]),
    ...(states.size === 0 ? [] : [`breaker: ${[...states].join(", ")}`])
  ]
}

export const summary = (result: Result): string => {
  const { errors, failed, measuredMs, operations, settings: given, thresholds, total } = result
  const head = ["", "succeeded", "failed", "a second", ...columns.map(figureName)]
  const lines = [line("all", total), ...(operations.length > 1 ? operations.map((one) => line(one.name, one)) : [])]
  const service = total.service === null ? [] : [["all, from their beginning", "", "", "", ...cells(total.service)]]
  const slow = failed === null ? [] : [["all that failed", "", quantity(total.failed), "", ...cells(failed)]]
  const sections = [
    [
      ...(result.label === null ? [] : [result.label]),
      settings(given, operations),
      `measured for ${measuredMs < 120_000 ? milliseconds(measuredMs) : time(measuredMs)}`,
      ...strain(result)
    ].join("\n"),
    table([head, ...lines, ...service, ...slow]),
    errors
      .map(({ count, message, operation, tag }) => `${quantity(count)} × ${operation}: ${tag}: ${message}`)
      .join("\n"),
    notes(result).join("\n"),
    thresholds.map(({ found, ok, threshold }) => `${ok ? "ok    " : "FAILED"}  ${threshold}  (${found})`).join("\n")
  ]
  return sections.filter((section) => section !== "").join("\n\n")
}

const figure = (value: number | null, unit: Row["unit"]): string => {
  if (value === null) return "–"
  switch (unit) {
    case "ms":
      return milliseconds(value)
    case "/s":
      return `${quantity(value)}/s`
    case "share":
      return share(value)
  }
}

/** The difference, and whether it is for the better; nothing where there is no difference to speak of. */
export const difference = ({ after, before, better }: Row): string => {
  if (before === null || after === null) return "–"
  if (before === after) return "same"
  const relative = change(before, after)
  const improved = after < before === (better === "less")
  return `${relative ?? "from none"} ${improved ? "better" : "worse"}`
}

/** The rows as cells: what, before, now, difference. */
export const comparisonCells = ({ rows }: Comparison): ReadonlyArray<ReadonlyArray<string>> =>
  rows.map((row) => [
    `${row.operation ?? "all"} ${row.figure}`,
    figure(row.before, row.unit),
    figure(row.after, row.unit),
    difference(row)
  ])

export const comparison = (compared: Comparison): string =>
  [
    `Compared with ${compared.before.label ?? "the test"} of ${compared.before.startedAt}`,
    ...compared.differences.map((difference) => `  not the same test: ${difference}`),
    "",
    table([["", "before", "now", "difference"], ...comparisonCells(compared)])
  ].join("\n")
