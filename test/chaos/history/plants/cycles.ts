/** Transactions that no order explains: each kind of cycle, on lists and on registers. */
import type { Isolation } from "../model.js"
import { Operation } from "../model.js"
import { type Draft, embed, four, fresh, one, type Plant, three, two } from "./draft.js"

/** A list or a register, as far as a cycle is concerned: the values that it had, in their order. */
interface Subject {
  readonly write: (values: ReadonlyArray<number>, value: number) => Operation
  /** A read of the first so many values. */
  readonly read: (values: ReadonlyArray<number>, length: number) => Operation
}

const subjects = {
  list: (draft: Draft, list: number, values: ReadonlyArray<number>): Subject => {
    draft.final.lists[list] = [...values]
    return {
      write: (_, value) => Operation.Append({ list, value }),
      read: (values, length) => Operation.ReadList({ list, values: values.slice(0, length) })
    }
  },
  register: (draft: Draft, register: number, values: ReadonlyArray<number>): Subject => {
    draft.final.registers[register] = { value: values.at(-1) ?? 0, version: values.length }
    return {
      write: (values, value) => Operation.Write({ register, value, version: values.indexOf(value) + 1 }),
      read: (values, length) => Operation.ReadRegister({ register, value: values[length - 1] ?? 0, version: length })
    }
  }
}

export interface CyclePlant extends Plant {
  /** The weakest level that forbids it. */
  readonly from: Isolation
}

/** A cycle on two subjects `x` and `y`, whose final values are given. */
const cycle = (
  name: string,
  kind: Plant["kind"],
  from: Isolation,
  x: ReadonlyArray<number>,
  y: ReadonlyArray<number>,
  transactions: (
    write: (subject: "x" | "y", value: number) => Operation,
    read: (subject: "x" | "y", length: number) => Operation
  ) => ReadonlyArray<ReadonlyArray<Operation>>
): ReadonlyArray<CyclePlant> =>
  (["list", "register"] as const).map((subject) => ({
    name: `${name}, on a ${subject}`,
    kind,
    from,
    plant: (draft, random) => {
      const values = { x, y }
      const [first, second] = fresh(draft)
      const of = { x: subjects[subject](draft, first, x), y: subjects[subject](draft, second, y) }
      const write = (which: "x" | "y", value: number) => of[which].write(values[which], value)
      const read = (which: "x" | "y", length: number) => of[which].read(values[which], length)
      return embed(
        draft,
        random,
        ...transactions(write, read).map((operations) => ["ok" as const, ...operations] as const)
      ).map((name) => `${name} -`)
    }
  }))

export const cycles: ReadonlyArray<CyclePlant> = [
  ...cycle("two writers, each before the other", "G0", "read committed", [one, two], [three, four], (write) => [
    [write("x", one), write("y", four)],
    [write("x", two), write("y", three)]
  ]),
  ...cycle("two who read each other's writes", "G1c", "read committed", [one], [two], (write, read) => [
    [write("x", one), read("y", 1)],
    [write("y", two), read("x", 1)]
  ]),
  ...cycle("one of two writes of another seen", "G-single", "repeatable read", [one], [two], (write, read) => [
    [write("x", one), write("y", two)],
    [read("x", 1), read("y", 0)]
  ]),
  ...cycle("a lost update", "G-single", "repeatable read", [one, two], [], (write, read) => [
    [read("x", 0), write("x", one)],
    [read("x", 0), write("x", two)]
  ]),
  ...cycle("write skew", "G2", "serializable", [one], [two], (write, read) => [
    [read("x", 0), write("y", two)],
    [read("y", 0), write("x", one)]
  ]),
  ...cycle(
    "a reader to whom two writes came the other way round",
    "G2",
    "serializable",
    [one],
    [two],
    (write, read) => [[write("x", one)], [write("y", two)], [read("x", 1), read("y", 0)], [read("x", 0), read("y", 1)]]
  )
]
