/** What a program was told about each of its writes, and that compared with what the database holds. */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as PgError from "../../../error/PgError.js"

/** A defect is told as nothing at all. */
export type Told = "acknowledged" | "failed" | "unknown" | "defect"

export interface Book {
  /** By the write's id. */
  readonly told: Map<string, Told>
  /** By tag. */
  readonly errors: Map<string, number>
  operations: number
  /** Set to let every worker end after the operation that it is at. */
  stopping: boolean
  /** Told of every operation that succeeds and began after `since` (`performance.now()`). */
  onSuccess: { readonly since: number; readonly tell: () => void } | undefined
}

export const empty = (): Book => ({
  told: new Map(),
  errors: new Map(),
  operations: 0,
  stopping: false,
  onSuccess: undefined
})

/** One operation that has ended, and, of a write, its id. */
export const note = (
  book: Book,
  began: number,
  id: string | undefined,
  exit: Exit.Exit<unknown, PgError.PgError>
): void => {
  book.operations++
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined
  const told: Told = Exit.isSuccess(exit)
    ? "acknowledged"
    : error === undefined
      ? "defect"
      : error.outcome === "Unknown"
        ? "unknown"
        : "failed"
  if (id !== undefined) book.told.set(id, told)
  if (Exit.isSuccess(exit)) {
    if (book.onSuccess !== undefined && began >= book.onSuccess.since) book.onSuccess.tell()
    return
  }
  const tag = error?._tag ?? "defect"
  book.errors.set(tag, (book.errors.get(tag) ?? 0) + 1)
}

export interface Audit {
  readonly acknowledged: number
  readonly failed: number
  readonly unknown: number
  readonly defects: number
  /** Acknowledged, and not in the database. */
  readonly lost: number
  /** In the database more than once. */
  readonly doubled: number
  /** Reported as not applied, and yet in the database. */
  readonly lied: number
}

/** `stored`: how often each id is in the database. */
export const compare = (told: ReadonlyMap<string, Told>, stored: ReadonlyMap<string, number>): Audit => {
  const audit = { acknowledged: 0, failed: 0, unknown: 0, defects: 0, lost: 0, doubled: 0, lied: 0 }
  for (const [id, what] of told) {
    const times = stored.get(id) ?? 0
    if (times > 1) audit.doubled++
    if (what === "acknowledged") {
      audit.acknowledged++
      if (times === 0) audit.lost++
    } else if (what === "failed") {
      audit.failed++
      if (times > 0) audit.lied++
    } else if (what === "unknown") audit.unknown++
    else audit.defects++
  }
  return audit
}

export interface Claim {
  readonly claim: string
  readonly holds: boolean
  /** The figures behind it. */
  readonly why: string
}

export const claim = (claim: string, holds: boolean, why: string): Claim => ({ claim, holds, why })

/** What every scenario claims of the writes in it. */
export const sound = (
  audit: Audit,
  sum: { readonly expected: number; readonly found: number }
): ReadonlyArray<Claim> => [
  claim("nothing lost", audit.lost === 0, `${audit.lost} of ${audit.acknowledged} acknowledged writes are missing`),
  claim("nothing doubled", audit.doubled === 0, `${audit.doubled} writes are stored more than once`),
  claim(
    "nothing misreported",
    audit.lied === 0,
    `${audit.lied} of ${audit.failed} writes reported as not applied are stored`
  ),
  claim("accounts add up", sum.expected === sum.found, `the accounts hold ${sum.found} of ${sum.expected}`),
  claim("no defects", audit.defects === 0, `${audit.defects} writes ended in a defect`)
]
