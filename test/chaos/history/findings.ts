/** What the checks of one history find, and what of each transaction is in the database. */
import type { History, Recorded } from "./model.js"

/** What may be wrong. Names of dependency cycles and `G1a`, `G1b` as in Adya's thesis (MIT, 1999). */
export type Kind =
  | "missing" // told ok, not stored
  | "twice" // stored more than once
  | "failed but present" // told failed, stored
  | "torn" // one write stored, another of the same transaction not
  | "foreign" // stored or read, and written by nobody
  | "returned" // what the caller got is not what is stored
  | "sum" // money made or lost
  | "balance" // not what the stored transfers make it
  | "impossible read" // a sum that no moment had
  | "order" // reads that no single order of the writes explains
  | "internal" // a transaction that does not see its own writes
  | "G1a" // read from a transaction that failed
  | "G1b" // read in the middle of another transaction
  | "G0"
  | "G1c"
  | "G-single"
  | "G2"
  | "real time" // a cycle only because of what had ended before something else began

export interface Violation {
  readonly kind: Kind
  readonly message: string
}

const present = 1
const absent = 2
const doubled = 4

export interface Findings {
  readonly history: History
  readonly violations: ReadonlyArray<Violation>
  readonly add: (kind: Kind, message: string) => void
  /** How often one write of a transaction, by its place in the history, is stored. */
  readonly stored: (place: number, times: number, what: () => string) => void
  /** Whether a write of the transaction at that place is stored more than once. */
  readonly isDoubled: (place: number) => boolean
  /** How many transactions of this kind there are by what is stored of them. A doubled one is present, too. */
  readonly count: (predicate: (transaction: Recorded) => boolean) => {
    readonly present: number
    readonly absent: number
    readonly doubled: number
    /** Nothing tells. */
    readonly open: number
  }
}

/** The transaction's name in a report. */
export const name = ({ id }: { readonly id: number }): string => `#${id}`

export const make = (history: History): Findings => {
  const { transactions } = history
  const violations: Array<Violation> = []
  const marks = new Uint8Array(transactions.length)
  const add = (kind: Kind, message: string) => void violations.push({ kind, message })

  return {
    history,
    violations,
    add,
    stored: (place, times, what) => {
      const transaction = transactions[place]!
      const before = marks[place]!
      const now = before | (times === 0 ? absent : present) | (times > 1 ? doubled : 0)
      marks[place] = now
      const who = () => `${what()} by ${name(transaction)}`
      if (times > 1) add("twice", `${who()} is stored ${times} times`)
      if (times > 0 && transaction.told === "failed") add("failed but present", `${who()}, told failed, is stored`)
      if (times === 0 && transaction.told === "ok") add("missing", `${who()}, told ok, is not stored`)
      const torn = present | absent
      if ((now & torn) === torn && (before & torn) !== torn) {
        add(
          "torn",
          `of ${name(transaction)} a part is stored, and a part is not: ${what()} ${times > 0 ? "is" : "is not"}`
        )
      }
    },
    isDoubled: (place) => (marks[place]! & doubled) !== 0,
    count: (predicate) => {
      const counts = { present: 0, absent: 0, doubled: 0, open: 0 }
      transactions.forEach((transaction, place) => {
        if (!predicate(transaction)) return
        const mark = marks[place]!
        if (mark & doubled) counts.doubled++
        if (mark & absent) counts.absent++
        else if (mark & present) counts.present++
        else counts.open++
      })
      return counts
    }
  }
}
