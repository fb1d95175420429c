/** What is stored is not what was told. */
import { Operation } from "../model.js"
import { all, alone, embed, forget, fresh, move, one, type Plant, pick, three, two } from "./draft.js"

const { Append, Write } = Operation

export const stored: ReadonlyArray<Plant> = [
  {
    name: "an acknowledged transfer that is gone",
    kind: "missing",
    plant: (draft, random) => {
      const { operation, transaction } = pick(all(draft, "Transfer", "ok"), random)
      draft.final.transfers = draft.final.transfers.filter(({ id }) => id !== operation.id)
      move(draft, operation, -1)
      return [`transfer ${operation.id} by #${transaction.id}`]
    }
  },
  {
    name: "an acknowledged append that is gone",
    kind: "missing",
    plant: (draft, random) => {
      const { operation, transaction } = pick(all(draft, "Append", "ok", alone), random)
      forget(draft, operation)
      return [`append of ${operation.value} to list ${operation.list} by #${transaction.id}`]
    }
  },
  {
    name: "an acknowledged write of a register that is gone",
    kind: "missing",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      const [who] = embed(draft, random, ["ok", Write({ register, value: one, version: 1 })])
      return [`write of ${one} to register ${register} by ${who}`]
    }
  },
  {
    name: "a register that has counted less than was acknowledged",
    kind: "missing",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: two, version: 1 }
      // Nobody saw what the version was: only the count tells.
      embed(draft, random, ["ok", Write({ register, value: one })], ["ok", Write({ register, value: two })])
      return [`register ${register} counted 1 writes, and 2 were told ok`]
    }
  },
  {
    name: "a transfer stored twice",
    kind: "twice",
    plant: (draft, random) => {
      const stored = pick(draft.final.transfers, random)
      draft.final.transfers.push({ ...stored, row: draft.final.transfers.length + 1 })
      move(draft, { _tag: "Transfer", ...stored }, 1)
      return [`transfer ${stored.id} by`, "2 times"]
    }
  },
  {
    name: "an append stored twice",
    kind: "twice",
    plant: (draft, random) => {
      const { operation, transaction } = pick(all(draft, "Append", "ok"), random)
      draft.final.lists[operation.list]!.push(operation.value)
      return [`append of ${operation.value} to list ${operation.list} by #${transaction.id}`, "2 times"]
    }
  },
  {
    name: "a register written twice by one write, and seen both times",
    kind: "twice",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: two, version: 3 }
      const names = embed(
        draft,
        random,
        ["ok", Write({ register, value: one, version: 1 })],
        ["ok", Write({ register, value: two, version: 2 })],
        ["unknown", Write({ register, value: three })]
      )
      return [`write of ${two} to register ${register} by ${names[1]} is stored 2 times`]
    }
  },
  {
    name: "a register that has counted more than was ever sent",
    kind: "twice",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: one, version: 2 }
      embed(draft, random, ["ok", Write({ register, value: one })])
      return [`register ${register} counted 2 writes, and 1 were told ok, 0 unknown`]
    }
  },
  {
    name: "a transfer told failed, and stored",
    kind: "failed but present",
    plant: (draft, random) => {
      const { operation, transaction } = pick(all(draft, "Transfer", "failed"), random)
      const { amount, id, source, target } = operation
      draft.final.transfers.push({ row: draft.final.transfers.length + 1, id, source, target, amount })
      move(draft, operation, 1)
      return [`transfer ${operation.id} by #${transaction.id}, told failed`]
    }
  },
  {
    name: "an append told failed, and stored",
    kind: "failed but present",
    plant: (draft, random) => {
      const list = draft.final.lists.length - 1
      draft.final.lists[list]!.push(one)
      const [who] = embed(draft, random, ["failed", Append({ list, value: one })])
      return [`append of ${one} to list ${list} by ${who}, told failed`]
    }
  },
  {
    name: "a register that holds what was told failed",
    kind: "failed but present",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: one, version: 1 }
      const [who] = embed(draft, random, ["failed", Write({ register, value: one })])
      return [`write of ${one} to register ${register} by ${who}, told failed`]
    }
  },
  {
    name: "a transaction of unknown outcome that is stored in part",
    kind: "torn",
    plant: (draft, random) => {
      const [list, other] = fresh(draft)
      draft.final.lists[list] = [one]
      const [who] = embed(draft, random, ["unknown", Append({ list, value: one }), Append({ list: other, value: two })])
      return [`of ${who} a part is stored`]
    }
  },
  {
    name: "a transfer that nobody made",
    kind: "foreign",
    plant: (draft) => {
      draft.final.transfers.push({ row: 0, id: one, source: 0, target: 1, amount: 0 })
      return [`transfer ${one}`]
    }
  },
  {
    name: "a transfer stored with another amount",
    kind: "foreign",
    plant: (draft, random) => {
      const stored = pick(draft.final.transfers, random)
      move(draft, { _tag: "Transfer", ...stored, amount: 1 }, 1)
      stored.amount++
      return [`transfer ${stored.id} of`, `is ${stored.amount} from ${stored.source} to ${stored.target}`]
    }
  },
  {
    name: "an element that nobody appended",
    kind: "foreign",
    plant: (draft) => {
      const [list] = fresh(draft)
      draft.final.lists[list] = [one]
      return [`list ${list} holds ${one}`]
    }
  },
  {
    name: "a register with what nobody wrote",
    kind: "foreign",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: one, version: 1 }
      embed(draft, random, ["unknown", Write({ register, value: two })])
      return [`register ${register} holds ${one}`]
    }
  },
  {
    name: "a transfer whose row is not the one that was returned",
    kind: "returned",
    plant: (draft, random) => {
      const { operation, transaction } = pick(all(draft, "Transfer", "ok"), random)
      const { row } = operation
      operation.row = one
      return [`#${transaction.id} was told row ${one} for transfer ${operation.id}, which is ${row}`]
    }
  },
  {
    name: "money in an account that nobody opened",
    kind: "sum",
    plant: (draft) => {
      draft.final.balances.push(5)
      return ["all accounts together hold"]
    }
  },
  {
    name: "money that moved without a transfer",
    kind: "balance",
    plant: (draft, random) => {
      const from = random.integer(1, draft.history.bank.accounts - 1)
      draft.final.balances[from]!--
      draft.final.balances[0]!++
      return [`account ${from} holds`]
    }
  }
]
