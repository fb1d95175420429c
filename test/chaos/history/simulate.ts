/**
 * Histories without a server: the planned transactions, one at a time, on values in memory. The clients overlap in time,
 * and are told ok, failed or unknown by chance; of the unknown some are applied, a part of them only later. Every such
 * history is valid at every isolation level, in real time too.
 */
import { Array } from "effect"
import * as Seeds from "../seeds.js"
import { type Final, type History, type Isolation, Operation, type Recorded, type StoredTransfer } from "./model.js"
import * as Plan from "./plan.js"

export interface Options extends Partial<Plan.Shape> {
  readonly seed: number
  readonly transactions: number
  readonly isolation?: Isolation | undefined
}

/** A database in memory. */
const database = (accounts: number, balance: number) => {
  const balances = Array.makeBy(accounts, () => balance)
  const transfers: Array<StoredTransfer> = []
  const lists: Array<Array<number>> = []
  const registers: Array<{ value: number; version: number }> = []
  const register = (number: number) => {
    registers[number] ??= { value: 0, version: 0 }
    return registers[number]
  }
  const list = (number: number) => {
    lists[number] ??= []
    return lists[number]
  }
  const apply = Operation.$match({
    Transfer: (operation) => {
      const row = transfers.length + 1
      const { amount, id, source, target } = operation
      transfers.push({ row, id, source, target, amount })
      balances[source]! -= amount
      balances[target]! += amount
      return Operation.Transfer({ ...operation, row })
    },
    ReadBalances: () => Operation.ReadBalances({ balances: [...balances] }),
    Append: (operation) => {
      list(operation.list).push(operation.value)
      return operation
    },
    ReadList: (operation) => Operation.ReadList({ ...operation, values: [...list(operation.list)] }),
    Write: (operation) => {
      const { version } = register(operation.register)
      registers[operation.register] = { value: operation.value, version: version + 1 }
      return Operation.Write({ ...operation, version: version + 1 })
    },
    ReadRegister: (operation) => Operation.ReadRegister({ ...operation, ...register(operation.register) })
  })
  const final: Final = { balances, transfers, lists, registers }
  return { apply, final }
}

export const simulate = (options: Options): { readonly history: History; readonly final: Final } => {
  const shape: Plan.Shape = { ...Plan.defaults, ...options }
  const random = Seeds.random(shape.seed, -1)
  const bank = { accounts: shape.accounts, balance: 1_000 }
  const { apply, final } = database(bank.accounts, bank.balance)
  const transactions: Array<Recorded> = []
  const late: Array<Plan.Planned> = []
  const numbers = Array.makeBy(shape.clients, () => 0)
  const ended = Array.makeBy(shape.clients, () => 0)
  while (transactions.length < options.transactions) {
    /** The moment at which the transaction happens: those of the others may begin before it and end after it. */
    const now = (transactions.length + 1) * 10
    const free = ended.flatMap((end, client) => (end < now ? [client] : []))
    const client = free[random.integer(0, free.length - 1)]
    if (client === undefined) throw new Error("no client is free") // a transaction takes less time than all clients together
    const kind = Plan.kinds[random.integer(0, Plan.kinds.length - 1)]!
    const planned = Plan.transaction(shape, kind, client, numbers[client]!++)
    const told = planned.refused ? "failed" : random.pick({ ok: 8, failed: 1, unknown: 2 })
    const fate = told === "unknown" ? random.pick({ now: 2, later: 1, never: 2 }) : told === "ok" ? "now" : "never"
    if (fate === "later") late.push(planned)
    const applied = fate === "now" ? planned.operations.map((operation): Operation => apply(operation)) : []
    const invoked = Math.max(ended[client]! + 1, now - random.integer(0, 30))
    const completed = now + random.integer(1, Math.max(1, (shape.clients - 1) * 8))
    ended[client] = completed
    transactions.push({
      id: planned.id,
      client,
      invoked,
      completed,
      told,
      operations: told === "ok" ? applied : planned.operations
    })
    if (late.length > 0 && random.chance(0.2)) late.shift()!.operations.forEach((operation) => void apply(operation))
  }
  for (const { operations } of late) for (const operation of operations) apply(operation)
  return { history: { isolation: options.isolation ?? "serializable", bank, transactions }, final }
}
