/** Two results side by side. Pure. */
import { milliseconds, quantity } from "./format.js"
import type { Figures, Latency, Result } from "./result.js"

/** One figure of both. `unit`: milliseconds, operations a second, or a share from 0 to 1; null: was not measured. */
export interface Row {
  /** Of one operation; undefined for all of them together. */
  readonly operation: string | undefined
  readonly figure: string
  readonly unit: "ms" | "/s" | "share"
  /** Whether less is better, or more. */
  readonly better: "less" | "more"
  readonly before: number | null
  readonly after: number | null
}

export interface Comparison {
  readonly before: { readonly label: string | null; readonly startedAt: string }
  readonly after: { readonly label: string | null; readonly startedAt: string }
  /** What the tests themselves differ in, in words: then the figures differ for that reason, too. */
  readonly differences: ReadonlyArray<string>
  readonly rows: ReadonlyArray<Row>
}

const latencies = ["p50", "p90", "p99", "p99_9", "max"] as const

/** As a person writes it. */
export const figureName = (key: keyof Omit<Latency, "histogram">): string => (key === "p99_9" ? "p99.9" : key)

const failedShare = (figures: Figures | undefined): number | null => {
  const all = figures === undefined ? 0 : figures.succeeded + figures.failed
  return figures === undefined || all === 0 ? null : figures.failed / all
}

const rowsOf = (
  operation: string | undefined,
  before: Figures | undefined,
  after: Figures | undefined
): ReadonlyArray<Row> => [
  {
    operation,
    figure: "rate",
    unit: "/s",
    better: "more",
    before: before?.rate ?? null,
    after: after?.rate ?? null
  },
  ...latencies.map(
    (key): Row => ({
      operation,
      figure: figureName(key),
      unit: "ms",
      better: "less",
      before: before?.response?.[key] ?? null,
      after: after?.response?.[key] ?? null
    })
  ),
  {
    operation,
    figure: "failed",
    unit: "share",
    better: "less",
    before: failedShare(before),
    after: failedShare(after)
  }
]

/** Settings that make a difference, as a person calls them: not the seed, which is another each time. */
const names: Readonly<Record<string, string>> = {
  model: "model",
  concurrency: "concurrency",
  rate: "rate",
  arrivals: "arrivals",
  operations: "operations",
  durationMs: "duration",
  rampMs: "ramp",
  warmUpMs: "warm-up",
  thinkTimeMs: "think time",
  maxInFlight: "most in flight"
}

const word = (key: string, value: unknown): string =>
  typeof value !== "number" ? String(value ?? "none") : key.endsWith("Ms") ? milliseconds(value) : quantity(value)

const settingsOf = (result: Result): ReadonlyMap<string, string> =>
  new Map<string, string>([
    ...Object.entries(result.settings).flatMap(([key, value]) => {
      const name = names[key]
      return name === undefined ? [] : [[name, word(key, value)] as const]
    }),
    ["operations of the scenario", result.operations.map(({ name, weight }) => `${name}=${weight}`).join(",")],
    ["label", result.label ?? "none"],
    ["run to its end", result.complete ? "yes" : "no"]
  ])

export const compare = (before: Result, after: Result): Comparison => {
  const [was, is] = [settingsOf(before), settingsOf(after)]
  // What only one of the models has goes without saying.
  const differences = [...is].flatMap(([name, to]) => {
    const from = was.get(name) ?? to
    return from === to ? [] : [`${name}: ${from} before, ${to} now`]
  })
  const named = (result: Result, name: string) => result.operations.find((operation) => operation.name === name)
  const kinds = [...new Set([...after.operations, ...before.operations].map(({ name }) => name))]
  return {
    before: { label: before.label, startedAt: before.startedAt },
    after: { label: after.label, startedAt: after.startedAt },
    differences,
    rows: [
      ...rowsOf(undefined, before.total, after.total),
      ...(kinds.length > 1 ? kinds.flatMap((name) => rowsOf(name, named(before, name), named(after, name))) : [])
    ]
  }
}
