/**
 * A history: what the clients of a database did, when, and what each was told; and what the database held in the end. Plain
 * data, so that it can be printed, kept, and judged without a server.
 */
import { Data } from "effect"

/**
 * One step of a transaction. What was planned is always there; what was seen (`row`, `balances`, `values`, `version`) only
 * where the transaction was acknowledged, as part of the value that it returned: other runs of the body may have seen
 * something else.
 */
export type Operation = Data.TaggedEnum<{
  /** Moves money and leaves a row with `id`, unique in the history. `row`: the key that RETURNING gave. */
  Transfer: {
    readonly id: number
    readonly source: number
    readonly target: number
    readonly amount: number
    readonly row?: number | undefined
  }
  /** All balances by account. */
  ReadBalances: { readonly balances?: ReadonlyArray<number> | undefined }
  /** `value` is unique in the history. */
  Append: { readonly list: number; readonly value: number }
  /** A list that nobody has appended to is empty. */
  ReadList: { readonly list: number; readonly values?: ReadonlyArray<number> | undefined }
  /** `value` is unique in the history, and above 0. `version`: the register's after it. */
  Write: { readonly register: number; readonly value: number; readonly version?: number | undefined }
  /** Before the first write both are 0. */
  ReadRegister: {
    readonly register: number
    readonly value?: number | undefined
    readonly version?: number | undefined
  }
}>
export const Operation = Data.taggedEnum<Operation>()

/** `ok`: applied; `failed`: nothing was or will be applied; `unknown`: either. */
export type Told = "ok" | "failed" | "unknown"

/** One transaction of one client. */
export interface Recorded {
  /** Unique in the history, 0 or more. */
  readonly id: number
  readonly client: number
  /** Milliseconds of one monotonic clock. What was told `unknown` may be applied after `completed`. */
  readonly invoked: number
  readonly completed: number
  readonly told: Told
  readonly operations: ReadonlyArray<Operation>
  /** What it failed with, for whoever reads a report. */
  readonly error?: string | undefined
}

export type Isolation = "read committed" | "repeatable read" | "serializable"

export interface History {
  readonly isolation: Isolation
  /** Accounts have the numbers from 0 on; `balance` is what each began with. */
  readonly bank: { readonly accounts: number; readonly balance: number }
  readonly transactions: ReadonlyArray<Recorded>
}

export interface StoredTransfer {
  readonly row: number
  readonly id: number
  readonly source: number
  readonly target: number
  readonly amount: number
}

/** What the database holds when nobody is at work any more. Lists and registers by number; holes are untouched ones. */
export interface Final {
  readonly balances: ReadonlyArray<number>
  readonly transfers: ReadonlyArray<StoredTransfer>
  readonly lists: ReadonlyArray<ReadonlyArray<number> | undefined>
  readonly registers: ReadonlyArray<{ readonly value: number; readonly version: number } | undefined>
}
