/**
 * Registers: each counts its writes, so that every value read or written has a version, and the versions are the order of
 * the writes. A write of unknown outcome that nobody read has no version that is known: the order has a gap there, which
 * hides an edge and invents none.
 */
import type { Findings } from "../findings.js"
import { name } from "../findings.js"
import type { Graph } from "../graph.js"
import type { Final, Recorded, Told } from "../model.js"

interface Register {
  /** Value by version, as far as it is known. */
  readonly values: Map<number, number>
  /** Version by value. */
  readonly versions: Map<number, number>
  /** Writes by what was told of them. */
  readonly told: { [told in Told]: number }
  /** The versions that are known and written by somebody, in order. */
  order: ReadonlyArray<number>
}

/** The last value that a transaction writes to a register. */
const lastWrite = ({ operations }: Recorded, register: number): number | undefined => {
  let last: number | undefined
  for (const operation of operations) {
    if (operation._tag === "Write" && operation.register === register) last = operation.value
  }
  return last
}

/** The first known version above this one. */
const after = (order: ReadonlyArray<number>, version: number): number | undefined => {
  let [low, high] = [0, order.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (order[middle]! > version) high = middle
    else low = middle + 1
  }
  return order[low]
}

export const check = ({ add, history, stored }: Findings, final: Final, graph: Graph): void => {
  const { transactions } = history
  const writers = new Map<number, number>()
  const registerOf = new Map<number, number>()
  const registers = new Map<number, Register>()
  const at = (number: number): Register => {
    let register = registers.get(number)
    if (!register) {
      register = { values: new Map(), versions: new Map(), told: { ok: 0, failed: 0, unknown: 0 }, order: [] }
      registers.set(number, register)
    }
    return register
  }
  transactions.forEach(({ operations, told }, place) => {
    for (const operation of operations) {
      if (operation._tag !== "Write") continue
      writers.set(operation.value, place)
      registerOf.set(operation.value, operation.register)
      at(operation.register).told[told]++
    }
  })

  // --- the order of the writes, out of everything that anybody saw
  const twice = new Set<number>()
  const known = (number: number, value: number, version: number, who: string) => {
    const { values, versions } = at(number)
    const other = values.get(version)
    if (other === undefined) values.set(version, value)
    else if (other !== value) {
      add("order", `register ${number} was both ${other} and ${value} at version ${version}, the latter for ${who}`)
      return
    }
    const before = versions.get(value)
    if (before === undefined) versions.set(value, version)
    else if (before !== version && !(value === 0)) twice.add(value)
  }
  final.registers.forEach((register, number) => {
    if (register) known(number, register.value, register.version, "the final state")
  })
  transactions.forEach((transaction) => {
    for (const operation of transaction.operations) {
      if (operation._tag !== "Write" && operation._tag !== "ReadRegister") continue
      const { register, value, version } = operation
      if (value !== undefined && version !== undefined) known(register, value, version, name(transaction))
    }
  })
  const written = (number: number, value: number): number | undefined =>
    registerOf.get(value) === number ? writers.get(value) : undefined
  const told = (value: number) => transactions[writers.get(value)!]!.told
  for (const [number, register] of registers) {
    register.order = [...register.values]
      .filter(([, value]) => written(number, value) !== undefined)
      .map(([version]) => version)
      .sort((a, b) => a - b)
    register.order.forEach((version, i) => {
      if (i === 0) return
      const [before, value] = [register.values.get(register.order[i - 1]!)!, register.values.get(version)!]
      graph.add(writers.get(before)!, writers.get(value)!, "ww", "register", number, value)
    })
    const last = final.registers[number] ?? { value: 0, version: 0 }
    if (last.value !== 0 && written(number, last.value) === undefined) {
      add("foreign", `register ${number} holds ${last.value}, which nobody wrote`)
    }
    const { ok, unknown } = register.told
    const counted = `register ${number} counted ${last.version} writes`
    if (last.version < ok) add("missing", `${counted}, and ${ok} were told ok`)
    const failed = register.order.filter((version) => told(register.values.get(version)!) === "failed").length
    if (last.version > ok + unknown + failed) add("twice", `${counted}, and ${ok} were told ok, ${unknown} unknown`)
  }

  // --- what is stored
  const isStored = (number: number, value: number): boolean => {
    const version = at(number).versions.get(value)
    return version !== undefined && version <= (final.registers[number]?.version ?? 0)
  }
  const judge = (transaction: Recorded, place: number, number: number, value: number, version: number) => {
    const who = name(transaction)
    const { order, values } = at(number)
    if (value !== 0) {
      const writer = written(number, value)
      if (writer === undefined) return add("foreign", `${who} read ${value} in register ${number}, which nobody wrote`)
      if (writer !== place) {
        const from = transactions[writer]!
        graph.add(writer, place, "wr", "register", number, value)
        if (from.told === "failed") {
          add("G1a", `${who} read ${value} in register ${number}, which ${name(from)} wrote, told failed`)
        } else if (lastWrite(from, number) !== value) {
          add("G1b", `${who} read ${value} in register ${number}, which is not the last that ${name(from)} wrote`)
        }
      }
    } else if (version !== 0) {
      add("foreign", `${who} read register ${number} as empty at version ${version}`)
    }
    const next = after(order, version)
    if (next === undefined) return
    const successor = values.get(next)!
    graph.add(place, writers.get(successor)!, "rw", "register", number, successor)
  }
  transactions.forEach((transaction, place) => {
    const own = new Map<number, number>()
    for (const operation of transaction.operations) {
      if (operation._tag === "Write") {
        const { register, value } = operation
        own.set(register, value)
        if (at(register).versions.has(value)) {
          const times = twice.has(value) ? 2 : isStored(register, value) ? 1 : 0
          stored(place, times, () => `write of ${value} to register ${register}`)
        }
      } else if (
        operation._tag === "ReadRegister" &&
        operation.value !== undefined &&
        operation.version !== undefined
      ) {
        const { register, value, version } = operation
        const mine = own.get(register)
        if (mine !== undefined && mine !== value) {
          add("internal", `${name(transaction)} read ${value} in register ${register} after writing ${mine}`)
        } else judge(transaction, place, register, value, version)
      }
    }
  })
}
