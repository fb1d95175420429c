/** How a violation is planted into a valid history: where there is something to change, and where there is room. */
import { Function } from "effect"
import type * as Seeds from "../../seeds.js"
import type { Kind } from "../findings.js"
import type { Final, History, Operation, Recorded, Told } from "../model.js"

export type Random = ReturnType<typeof Seeds.random>
type Mutable<A> = A extends object ? { -readonly [K in keyof A]: Mutable<A[K]> } : A
type Of<Tag extends Operation["_tag"]> = Extract<Mutable<Operation>, { _tag: Tag }>

/** A history of one's own, to be changed. */
export interface Draft {
  readonly history: Mutable<History>
  readonly final: Mutable<Final>
}

export interface Plant {
  readonly name: string
  /** The one kind of violation that must be found. */
  readonly kind: Kind
  /** Changes the draft, and returns what a message must contain. */
  readonly plant: (draft: Draft, random: Random) => ReadonlyArray<string>
}

/** One of them; a generated history is long enough to have some of everything. */
export const pick = <A>(all: ReadonlyArray<A>, random: Random): A => {
  if (all.length === 0) throw new Error("nothing to plant in")
  return all[random.integer(0, all.length - 1)]!
}

interface Found<Tag extends Operation["_tag"]> {
  readonly transaction: Mutable<Recorded>
  readonly operation: Of<Tag>
  readonly place: number
}

/** Every operation of a kind in transactions of a fate, with where it is. */
export const all = <Tag extends Operation["_tag"]>(
  { history }: Draft,
  tag: Tag,
  told: Told,
  predicate: (found: Found<Tag>) => boolean = Function.constTrue
): ReadonlyArray<Found<Tag>> =>
  history.transactions
    .filter((transaction) => transaction.told === told)
    .flatMap((transaction) =>
      transaction.operations.flatMap((operation, place) =>
        operation._tag === tag ? [{ transaction, operation: operation as Of<Tag>, place }] : []
      )
    )
    .filter(predicate)

/** The transaction does nothing else. */
export const alone = ({ transaction }: { readonly transaction: { readonly operations: ReadonlyArray<unknown> } }) =>
  transaction.operations.length === 1

export const move = ({ final }: Draft, { amount, source, target }: Of<"Transfer">, times: number) => {
  final.balances[source]! -= amount * times
  final.balances[target]! += amount * times
}

/** Removes a value from a list and from all reads of it. */
export const forget = ({ final, history }: Draft, { list, value }: Of<"Append">) => {
  const without = (values: ReadonlyArray<number>) => values.filter((other) => other !== value)
  final.lists[list] = without(final.lists[list] ?? [])
  for (const { operations } of history.transactions) {
    for (const operation of operations) {
      if (operation._tag === "ReadList" && operation.values) operation.values = without(operation.values)
    }
  }
}

/** Adds transactions of our own at random places, on lists and registers that nobody else uses. */
export const embed = (
  draft: Draft,
  random: Random,
  ...transactions: ReadonlyArray<readonly [Told, ...Array<Operation>]>
) => {
  const { history } = draft
  return transactions.map(([told, ...operations], n) => {
    const id = 1_000_000 + n
    const at = { invoked: 0, completed: Number.MAX_SAFE_INTEGER }
    const transaction = { id, client: 1_000 + n, ...at, told, operations } as Mutable<Recorded>
    history.transactions.splice(random.integer(0, history.transactions.length), 0, transaction)
    return `#${id}`
  })
}

/** Numbers of untouched lists and registers. Values from 9,000,001 on are written by nobody else. */
export const fresh = ({ final }: Draft) => {
  const number = Math.max(final.lists.length, final.registers.length) + 1
  return [number, number + 1] as const
}
export const one = 9_000_001
export const two = 9_000_002
export const three = 9_000_003
export const four = 9_000_004
