/**
 * Lists: the final list is the order of its appends, every read is a beginning of it, and who read how much of it says
 * which transaction must come before which. Source: Kingsbury, Alvaro, "Elle: Inferring Isolation Anomalies from
 * Experimental Observations" (VLDB 2020).
 */
import type { Findings } from "../findings.js"
import { name } from "../findings.js"
import type { Graph } from "../graph.js"
import type { Final, Operation, Recorded } from "../model.js"

type Read = Extract<Operation, { readonly _tag: "ReadList" }>

/** The last value that a transaction appends to a list. */
const lastAppend = ({ operations }: Recorded, list: number): number | undefined => {
  let last: number | undefined
  for (const operation of operations) {
    if (operation._tag === "Append" && operation.list === list) last = operation.value
  }
  return last
}

/** The first place in which they differ, the length of `read` if it is a beginning of the other. */
const firstDifference = (read: ReadonlyArray<number>, whole: ReadonlyArray<number>): number => {
  let at = 0
  while (at < read.length && read[at] === whole[at]) at++
  return at
}

/** Some values around a place. */
const excerpt = (values: ReadonlyArray<number>, at: number): string => {
  const from = Math.max(0, at - 2)
  return `[${from > 0 ? "… " : ""}${values.slice(from, at + 3).join(" ")}${at + 3 < values.length ? " …" : ""}]`
}

export const check = ({ add, history, stored }: Findings, { lists }: Final, graph: Graph): void => {
  const { transactions } = history
  const writers = new Map<number, number>()
  const listOf = new Map<number, number>()
  transactions.forEach((transaction, place) => {
    for (const operation of transaction.operations) {
      if (operation._tag === "Append") {
        writers.set(operation.value, place)
        listOf.set(operation.value, operation.list)
      }
    }
  })
  const isForeign = (value: number, list: number) => listOf.get(value) !== list

  // --- what is stored, and the order of the writes
  const times = new Map<number, number>()
  lists.forEach((values, list) => {
    let before: number | undefined
    for (const value of values ?? []) {
      times.set(value, (times.get(value) ?? 0) + 1)
      const writer = writers.get(value)
      if (writer === undefined || isForeign(value, list)) {
        add("foreign", `list ${list} holds ${value}, which nobody appended to it`)
        continue
      }
      // What is stored twice is reported as that, and says nothing about order.
      if (times.get(value)! > 1) continue
      if (before !== undefined) graph.add(before, writer, "ww", "list", list, value)
      before = writer
    }
  })

  const judge = (transaction: Recorded, place: number, { list, values }: Read, own: ReadonlyArray<number>) => {
    if (values === undefined) return
    const who = name(transaction)
    const whole = lists[list] ?? []
    /** How much of it was there before the transaction's own appends. */
    const length = values.length - own.length
    if (length < 0 || own.some((value, i) => values[length + i] !== value)) {
      add("internal", `${who} read list ${list} as ${excerpt(values, values.length)} after appending ${own.join(" ")}`)
      return
    }
    const at = firstDifference(values, whole)
    if (at < values.length) {
      let explained = false
      for (const value of new Set(values.slice(at))) {
        const writer = writers.get(value)
        if (writer === undefined || isForeign(value, list)) {
          add("foreign", `${who} read ${value} in list ${list}, which nobody appended to it`)
          explained = true
        } else if (transactions[writer]!.told === "failed") {
          add("G1a", `${who} read ${value} in list ${list}, which ${name(transactions[writer]!)} appended, told failed`)
          explained = true
        }
      }
      if (!explained) {
        const ends = `and it ends as ${excerpt(whole, at)}`
        add("order", `${who} read list ${list} as ${excerpt(values, at)}, ${ends}: they differ at place ${at}`)
      }
      return
    }
    const writer = length > 0 ? writers.get(values[length - 1]!) : undefined
    if (writer !== undefined && writer !== place) {
      const value = values[length - 1]!
      graph.add(writer, place, "wr", "list", list, value)
      if (lastAppend(transactions[writer]!, list) !== value) {
        add(
          "G1b",
          `${who} read list ${list} up to ${value}, which is not the last that ${name(transactions[writer]!)} appended`
        )
      }
    }
    const following = whole[length]
    if (following === undefined || times.get(following) !== 1) return
    const next = writers.get(following)
    if (next !== undefined) graph.add(place, next, "rw", "list", list, following)
  }

  transactions.forEach((transaction, place) => {
    const own = new Map<number, Array<number>>()
    for (const operation of transaction.operations) {
      if (operation._tag === "Append") {
        const { list, value } = operation
        stored(place, times.get(value) ?? 0, () => `append of ${value} to list ${list}`)
        const mine = own.get(list)
        if (mine) mine.push(value)
        else own.set(list, [value])
      } else if (operation._tag === "ReadList") {
        judge(transaction, place, operation, own.get(operation.list) ?? [])
      }
    }
  })
}
