/**
 * Judges a history against what the database holds in the end: every acknowledged write stored, none twice, none of those
 * that were reported as failed; values returned as stored; money neither made nor lost; and an order of the transactions
 * that explains every read, as far as the isolation level promises one.
 *
 * Pure, and linear in the history but for sorting: 100,000 transactions take seconds.
 */
import * as Bank from "./checks/bank.js"
import * as Lists from "./checks/lists.js"
import * as Registers from "./checks/registers.js"
import * as Cycles from "./cycles.js"
import * as Findings from "./findings.js"
import { type Edge, Graph } from "./graph.js"
import type { Final, History, Isolation, Told } from "./model.js"

export interface Options {
  /**
   * Whether what had ended before something else began must come before it. What was told unknown has no end. Default
   * false: serializability does not ask for it.
   */
  readonly realTime?: boolean | undefined
}

export interface Report {
  readonly violations: ReadonlyArray<Findings.Violation>
  readonly told: { readonly [told in Told]: number }
  /** Transactions stored twice or more, in whole or in part, whatever was told of them. */
  readonly doubled: number
  /** Transactions told ok that are not there, or in part only. */
  readonly lost: number
  /** What became of those told unknown; `open`: nothing tells. */
  readonly unknown: { readonly present: number; readonly absent: number; readonly open: number }
}

/** Cycles that a level forbids. "repeatable read" is PostgreSQL's: snapshot isolation. Source: manual, section 13.2. */
const forbidden: { readonly [level in Isolation]: ReadonlySet<Cycles.Cycle["kind"]> } = {
  "read committed": new Set(["G0", "G1c"]),
  "repeatable read": new Set(["G0", "G1c", "G-single"]),
  serializable: new Set(["G0", "G1c", "G-single", "G2", "real time"])
}

/**
 * Orders by time with one edge in and one out per transaction: the ends, in their order, make a chain of nodes of their
 * own, which each transaction joins where it ends and leaves where it began.
 */
const addRealTime = ({ transactions }: History, graph: Graph): void => {
  const place = (moment: number) => transactions.length + moment
  const ends = transactions
    .flatMap(({ completed, told }, at) => (told === "ok" ? [{ at, completed }] : []))
    .sort((a, b) => a.completed - b.completed)
  ends.forEach(({ at }, moment) => {
    graph.add(at, place(moment), "rt", "time", 0, 0)
    if (moment > 0) graph.add(place(moment - 1), place(moment), "rt", "time", 0, 0)
  })
  const begins = transactions.map(({ invoked }, at) => ({ at, invoked })).sort((a, b) => a.invoked - b.invoked)
  let moment = 0
  for (const { at, invoked } of begins) {
    while (moment < ends.length && ends[moment]!.completed < invoked) moment++
    if (moment > 0) graph.add(place(moment - 1), at, "rt", "time", 0, 0)
  }
}

/** The cycle from transaction to transaction, in words. */
const words = ({ edges }: Cycles.Cycle, { transactions }: History): string => {
  const name = (place: number) => Findings.name(transactions[place]!)
  const why = ({ dependency, from, number, object, to, value }: Edge): string => {
    switch (dependency) {
      case "ww":
        return `${name(to)} wrote ${value} to ${object} ${number} next`
      case "wr":
        return `${name(to)} read its ${value} in ${object} ${number}`
      case "rw":
        return `${name(from)} read ${object} ${number} before ${value} was there`
      case "rt":
        return "had ended before it began"
    }
  }
  // Begin at a transaction, and let the moments between two of them be one step.
  const isTransaction = (place: number) => place < transactions.length
  const first = edges.findIndex(({ from }) => isTransaction(from))
  const steps = [...edges.slice(first), ...edges.slice(0, first)].filter(({ from }) => isTransaction(from))
  const path = steps.map((edge, i) => {
    const to = steps[(i + 1) % steps.length]!.from
    return `${name(edge.from)} -${edge.dependency}-> ${name(to)} (${why(edge)})`
  })
  return path.join(", ")
}

export const check = (history: History, final: Final, { realTime = false }: Options = {}): Report => {
  const findings = Findings.make(history)
  const graph = new Graph()
  Bank.check(findings, final)
  Lists.check(findings, final, graph)
  Registers.check(findings, final, graph)
  if (realTime) addRealTime(history, graph)
  // What was done twice has two places in the order: it is reported as that, and not as every cycle that it closes.
  for (const cycle of Cycles.find(graph, findings.isDoubled)) {
    if (forbidden[history.isolation].has(cycle.kind)) findings.add(cycle.kind, words(cycle, history))
  }
  const told = (told: Told) => findings.count((transaction) => transaction.told === told)
  const { absent, open, present } = told("unknown")
  const number = (told: Told) => history.transactions.filter((transaction) => transaction.told === told).length
  return {
    violations: findings.violations,
    told: { ok: number("ok"), failed: number("failed"), unknown: number("unknown") },
    doubled: findings.count(() => true).doubled,
    lost: told("ok").absent,
    unknown: { present, absent, open }
  }
}

/** The report in one line, without the violations. */
export const figures = ({ doubled, lost, told, unknown, violations }: Report): string =>
  [
    `${told.ok} transactions acknowledged, ${told.failed} failed`,
    `${told.unknown} unknown (${unknown.present} of them applied, ${unknown.absent} not)`,
    `${doubled} doubled, ${lost} lost`,
    violations.length === 0 ? "no violations" : `${violations.length} violations`
  ].join("; ")

/** Violations in words, the first of each kind and how many more there are. */
export const summary = ({ violations }: Report, each = 3): ReadonlyArray<string> => {
  const byKind = new Map<Findings.Kind, Array<string>>()
  for (const { kind, message } of violations) {
    const same = byKind.get(kind)
    if (same) same.push(message)
    else byKind.set(kind, [message])
  }
  return [...byKind].flatMap(([kind, messages]) => [
    ...messages.slice(0, each).map((message) => `${kind}: ${message}`),
    ...(messages.length > each ? [`${kind}: ${messages.length - each} more`] : [])
  ])
}
