/** What the fibers of a storm were told, and how it compares with the table. */
import { Array } from "effect"
import type { PgError } from "effect-pg-resilience"
import type { Action } from "./plan.js"
import * as Plan from "./plan.js"

/** `open`: interrupted, or of unknown outcome. */
export type Told = "stored" | "absent" | "open"

/** Rows that are stored together or not at all. */
export interface Group {
  readonly parts: ReadonlyArray<number>
  told: Told
}

/** What one action wrote. Groups inside hold only if the action itself does. */
export interface Entry {
  readonly action: Action
  told: Told
  /** Cut short; else it ended by itself. */
  cut: boolean
  parts: ReadonlyArray<number>
  groups: Array<Group>
}

export interface Book {
  readonly entries: Map<string, Entry>
  readonly violations: Array<string>
  /** Actions that ended, how many of them were cut short, and failures by tag. */
  actions: number
  cuts: number
  readonly failures: Map<PgError.Tag, number>
  /** Milliseconds from an action's cut to the caller's going on, at most. */
  latest: number
}

export const empty = (): Book => ({
  entries: new Map(),
  violations: [],
  actions: 0,
  cuts: 0,
  failures: new Map(),
  latest: 0
})

export const open = (book: Book, action: Action): Entry => {
  const entry: Entry = { action, told: "open", cut: false, parts: [], groups: [] }
  book.entries.set(action.id, entry)
  return entry
}

export const violation = (book: Book, action: Action, what: string): void => {
  book.violations.push(`${what}, in ${JSON.stringify(action)}`)
}

/** The book in one line. */
export const figures = (book: Book): string => {
  const writes = Array.groupBy(
    [...book.entries.values()].filter(({ parts }) => parts.length > 0),
    ({ told }) => told
  )
  const failures = [...book.failures].map(([tag, n]) => `${tag} ${n}`).join(", ")
  return [
    `${book.actions} actions, ${book.cuts} of them cut short, at most ${book.latest.toFixed(0)} ms late`,
    `writes told stored ${writes["stored"]?.length ?? 0}, absent ${writes["absent"]?.length ?? 0}, open ${writes["open"]?.length ?? 0}`,
    `failures: ${failures || "none"}`
  ].join("; ")
}

/** Kinds of work that never ended by themselves, or were never cut short: of these the storm has shown nothing. */
export const unseen = (book: Book): ReadonlyArray<string> =>
  [false, true].flatMap((cut) => {
    const seen = new Set([...book.entries.values()].flatMap((entry) => (entry.cut === cut ? [entry.action.body] : [])))
    return Plan.bodies.flatMap((body) => (seen.has(body) ? [] : [`${body}: never ${cut ? "cut short" : "finished"}`]))
  })

/** How often each part of an action is stored. */
export type Stored = ReadonlyMap<number, number>

const wholeOr = (stored: Stored, { parts, told }: Group, what: string): string | undefined => {
  const found = parts.filter((part) => stored.has(part)).length
  if (told === "stored" && found < parts.length) return `${what} reported as stored: ${found} of ${parts.length} rows`
  if (told === "absent" && found > 0) return `${what} reported as not applied: ${found} of ${parts.length} rows`
  if (found > 0 && found < parts.length) return `${what} stored in part: ${found} of ${parts.length} rows`
  return undefined
}

/** What is wrong with one action's rows. */
const faults = ({ groups, parts, told }: Entry, stored: Stored): ReadonlyArray<string> => {
  const all: Array<string | undefined> = [...stored].map(([part, times]) =>
    times > 1 ? `part ${part} stored ${times} times` : undefined
  )
  all.push(wholeOr(stored, { parts, told }, "work"))
  const applied = parts.length > 0 && parts.every((part) => stored.has(part))
  for (const group of groups) {
    all.push(wholeOr(stored, { parts: group.parts, told: applied ? group.told : "absent" }, "nested work"))
  }
  const known = new Set([...parts, ...groups.flatMap((group) => group.parts)])
  for (const part of stored.keys()) if (!known.has(part)) all.push(`part ${part} stored, which was not asked for`)
  return all.filter((fault) => fault !== undefined)
}

/** Compares the book with the table, and adds what does not fit to the violations. */
export const audit = (book: Book, rows: ReadonlyArray<{ readonly id: string; readonly part: number; n: number }>) => {
  const stored = new Map<string, Map<number, number>>()
  for (const { id, n, part } of rows) {
    const parts = stored.get(id) ?? new Map<number, number>()
    stored.set(id, parts.set(part, n))
  }
  for (const [id, entry] of book.entries) {
    for (const fault of faults(entry, stored.get(id) ?? new Map())) violation(book, entry.action, fault)
    stored.delete(id)
  }
  for (const id of stored.keys()) book.violations.push(`rows of ${id}, which nobody wrote`)
}
