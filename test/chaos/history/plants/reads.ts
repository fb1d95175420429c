/** What was read is not what any moment had. */
import { Operation } from "../model.js"
import { all, embed, fresh, one, type Plant, pick, three, two } from "./draft.js"

const { Append, ReadList, ReadRegister, Write } = Operation

export const reads: ReadonlyArray<Plant> = [
  {
    name: "a read in the middle of a transfer",
    kind: "impossible read",
    plant: (draft, random) => {
      const { operation, transaction } = pick(all(draft, "ReadBalances", "ok"), random)
      operation.balances![random.integer(0, operation.balances!.length - 1)]! -= 1
      return [`#${transaction.id} read`]
    }
  },
  {
    name: "a read with two appends in another order",
    kind: "order",
    plant: (draft, random) => {
      const { operation, transaction } = pick(
        all(
          draft,
          "ReadList",
          "ok",
          // Its own appends are judged by another rule.
          ({ operation, transaction }) =>
            operation.values!.length > 1 && transaction.operations.every(({ _tag }) => _tag === "ReadList")
        ),
        random
      )
      const at = random.integer(0, operation.values!.length - 2)
      operation.values!.splice(at, 2, operation.values![at + 1]!, operation.values![at]!)
      return [`#${transaction.id} read list ${operation.list} as`, `differ at place ${at}`]
    }
  },
  {
    name: "a read that lacks an append in its middle",
    kind: "order",
    plant: (draft, random) => {
      const [list] = fresh(draft)
      draft.final.lists[list] = [one, two, three]
      const names = embed(
        draft,
        random,
        ["ok", Append({ list, value: one })],
        ["ok", Append({ list, value: two })],
        ["ok", Append({ list, value: three })],
        ["ok", ReadList({ list, values: [one, three] })]
      )
      return [`${names[3]} read list ${list} as`, "differ at place 1"]
    }
  },
  {
    name: "a register with two values at one version",
    kind: "order",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: two, version: 2 }
      embed(
        draft,
        random,
        ["ok", Write({ register, value: one, version: 2 })],
        ["unknown", Write({ register, value: three })],
        ["unknown", Write({ register, value: two })]
      )
      return [`register ${register} was both`, `${one}`, `${two}`, "at version 2"]
    }
  },
  {
    name: "a transaction that does not see its own append",
    kind: "internal",
    plant: (draft, random) => {
      const [list] = fresh(draft)
      draft.final.lists[list] = [one]
      const [who] = embed(draft, random, ["ok", Append({ list, value: one }), ReadList({ list, values: [] })])
      return [`${who} read list ${list}`]
    }
  },
  {
    name: "a transaction that does not see its own write of a register",
    kind: "internal",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: one, version: 1 }
      const own = Write({ register, value: one, version: 1 })
      const [who] = embed(draft, random, ["ok", own, ReadRegister({ register, value: 0, version: 0 })])
      return [`${who} read 0 in register ${register} after writing ${one}`]
    }
  },
  {
    name: "an append read that nobody made",
    kind: "foreign",
    plant: (draft, random) => {
      const [list] = fresh(draft)
      const [who] = embed(draft, random, ["ok", ReadList({ list, values: [one] })])
      return [`${who} read ${one} in list ${list}`]
    }
  },
  {
    name: "a register read as nobody wrote it",
    kind: "foreign",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      const [who] = embed(draft, random, ["ok", ReadRegister({ register, value: one, version: 1 })])
      return [`${who} read ${one} in register ${register}`]
    }
  },
  {
    name: "an append read from a transaction that failed",
    kind: "G1a",
    plant: (draft, random) => {
      const [list] = fresh(draft)
      const [writer, who] = embed(
        draft,
        random,
        ["failed", Append({ list, value: one })],
        ["ok", ReadList({ list, values: [one] })]
      )
      return [`${who} read ${one} in list ${list}, which ${writer} appended`]
    }
  },
  {
    name: "a register read from a transaction that failed",
    kind: "G1a",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      const [writer, who] = embed(
        draft,
        random,
        ["failed", Write({ register, value: one })],
        ["ok", ReadRegister({ register, value: one, version: 1 })]
      )
      return [`${who} read ${one} in register ${register}, which ${writer} wrote`]
    }
  },
  {
    name: "an append read in the middle of another transaction",
    kind: "G1b",
    plant: (draft, random) => {
      const [list] = fresh(draft)
      draft.final.lists[list] = [one, two]
      // The reader has no place in the order either, which at this level alone is nothing worse.
      draft.history.isolation = "read committed"
      const [writer, who] = embed(
        draft,
        random,
        ["ok", Append({ list, value: one }), Append({ list, value: two })],
        ["ok", ReadList({ list, values: [one] })]
      )
      return [`${who} read list ${list} up to ${one}`, `${writer} appended`]
    }
  },
  {
    name: "a register read in the middle of another transaction",
    kind: "G1b",
    plant: (draft, random) => {
      const [register] = fresh(draft)
      draft.final.registers[register] = { value: two, version: 2 }
      draft.history.isolation = "read committed"
      const [writer, who] = embed(
        draft,
        random,
        ["ok", Write({ register, value: one, version: 1 }), Write({ register, value: two, version: 2 })],
        ["ok", ReadRegister({ register, value: one, version: 1 })]
      )
      return [`${who} read ${one} in register ${register}`, `${writer} wrote`]
    }
  }
]
