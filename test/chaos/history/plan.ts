/** What the clients of a workload do: a pure function of the seed, the client, and how often it has done something. */
import * as Seeds from "../seeds.js"
import { Operation } from "./model.js"

/** `bank`: transfers between accounts; `append`: lists that grow; `register`: values that are replaced. */
export type Kind = "bank" | "append" | "register"

export const kinds: ReadonlyArray<Kind> = ["bank", "append", "register"]

export interface Planned {
  /** Unique in the run: client and number together. */
  readonly id: number
  readonly operations: ReadonlyArray<Operation>
  /** The body fails after its last operation: a failure of the program's own. */
  readonly refused: boolean
}

export interface Shape {
  readonly seed: number
  readonly clients: number
  readonly accounts: number
  /** Lists in use at one moment, and after how many transactions of a client the next ones are: their length stays small. */
  readonly lists: number
  readonly transactionsPerList: number
  readonly registers: number
}

export const defaults: Omit<Shape, "seed"> = {
  clients: 8,
  accounts: 10,
  lists: 4,
  transactionsPerList: 20,
  registers: 6
}

/** Values that one transaction may write at most: its values are its id and a digit. */
const digits = 8

export const transaction = (shape: Shape, kind: Kind, client: number, n: number): Planned => {
  const { accounts, clients, lists, registers, seed, transactionsPerList } = shape
  const random = Seeds.random(seed, client, n)
  const id = n * clients + client
  const value = (digit: number) => id * digits + digit + 1
  /** In the order of their keys, so that two transactions rarely wait for each other. */
  const inOrder = (make: (key: number, digit: number) => Operation, keys: number, from: number) =>
    Array.from({ length: random.integer(1, 4) }, () => from + random.integer(0, keys - 1))
      .sort((a, b) => a - b)
      .map((key, digit) => make(key, digit))
  const operations = (): ReadonlyArray<Operation> => {
    switch (kind) {
      case "bank": {
        const source = random.integer(0, accounts - 1)
        const target = (source + random.integer(1, accounts - 1)) % accounts
        const transfer = Operation.Transfer({ id, source, target, amount: random.integer(1, 100) })
        const read = Operation.ReadBalances({})
        const what = random.pick({ transfer: 6, read: 2, both: 2 })
        return what === "transfer" ? [transfer] : what === "read" ? [read] : [transfer, read]
      }
      case "append": {
        const from = Math.floor(n / transactionsPerList) * lists
        const make = (list: number, digit: number) =>
          random.chance(0.5) ? Operation.Append({ list, value: value(digit) }) : Operation.ReadList({ list })
        return inOrder(make, lists, from)
      }
      case "register": {
        const make = (register: number, digit: number) =>
          random.chance(0.5) ? Operation.Write({ register, value: value(digit) }) : Operation.ReadRegister({ register })
        return inOrder(make, registers, 0)
      }
    }
  }
  return { id, operations: operations(), refused: random.chance(0.03) }
}
