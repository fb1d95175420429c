/** The books against the database. */
import { Effect } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { accounts, type Book, openingBalance, type Told } from "./workload.js"

/** Violations are `lost`, `doubled`, `lied` and a wrong `sum`; what is unknown is no violation, and counted apart. */
export interface Audit {
  readonly acknowledged: number
  /** Acknowledged, and not in the database. */
  readonly lost: number
  /** In the database more than once. */
  readonly doubled: number
  /** Reported as failed and not applied, and yet in the database. */
  readonly lied: number
  readonly failed: number
  readonly unknown: { readonly applied: number; readonly notApplied: number }
  readonly defects: number
  readonly sum: { readonly expected: number; readonly found: number }
  readonly sound: boolean
}

const count = (told: Iterable<readonly [string, Told]>, stored: ReadonlyMap<string, number>) => {
  const result = { acknowledged: 0, lost: 0, doubled: 0, lied: 0, failed: 0, applied: 0, notApplied: 0, defects: 0 }
  for (const [id, what] of told) {
    const times = stored.get(id) ?? 0
    if (times > 1) result.doubled++
    if (what === "acknowledged") {
      result.acknowledged++
      if (times === 0) result.lost++
    } else if (what === "failed") {
      result.failed++
      if (times > 0) result.lied++
    } else if (what === "defect") result.defects++
    else if (times > 0) result.applied++
    else result.notApplied++
  }
  return result
}

export const audit = (book: Book) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const stored = new Map<string, number>()
    for (const table of ["writes", "transfers"]) {
      for (const { id, n } of yield* server.query<{ id: string; n: number }>(
        `SELECT id, count(*)::int AS n FROM ${table} GROUP BY id`
      )) {
        stored.set(id, n)
      }
    }
    const [row] = yield* server.query<{ found: string }>("SELECT sum(balance) AS found FROM accounts")
    const sum = { expected: accounts * openingBalance, found: Number(row?.found) }
    const { applied, notApplied, ...counted } = count([...book.writes, ...book.transfers], stored)
    const sound = counted.lost + counted.doubled + counted.lied === 0 && sum.expected === sum.found
    const result: Audit = { ...counted, unknown: { applied, notApplied }, sum, sound }
    return result
  })
