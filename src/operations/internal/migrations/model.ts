/** What is known of each migration, from its file and from the database, and what follows from the two. Pure. */
import type { ResolvedMigration } from "@effect/sql/Migrator"

/** What a loader of ours knows of the file that a migration comes from; other loaders say nothing of it. */
export interface Source {
  /** The file's name, without its folder. */
  readonly file: string
  /** SHA-256 of the text with LF line ends, in hexadecimal, after what kind of file it is: `ts:…`, `js:…`, `sql:…`. */
  readonly checksum: string
}

/** Where a loader of ours puts the `Source`: on the tuple that every loader gives. */
export const SourceId: unique symbol = Symbol.for("effect-pg-resilience/Migrations/Source")

/** A migration as a loader gives it. */
export type Known = ResolvedMigration & { readonly [SourceId]?: Source | undefined }

/** What the two tables say of a migration. */
export interface Recorded {
  readonly id: number
  readonly name: string
  /** There is a row in the migrator's own table: it has been applied, and not been undone. */
  readonly applied: boolean
  readonly appliedAt: Date | undefined
  /** Of a migration outside a transaction that was begun: which way, since when, and by which run. */
  readonly mark: { readonly direction: Direction; readonly since: Date } | undefined
  /** Names the run that wrote the row or the mark. */
  readonly run: string | undefined
  readonly checksum: string | undefined
  /** The checksum was taken when the migration had long been applied. */
  readonly adopted: boolean
}

export type Direction = "up" | "down"

/**
 * `applied`, `pending`; `missing`: applied, and the loader does not know it (an older version of the program, say);
 * `unfinished`: begun outside a transaction, and nobody has said how it ended; `skipped`: never applied, although a later one
 * has been.
 */
export type State = "applied" | "pending" | "missing" | "unfinished" | "skipped"

/**
 * What can be said of a migration's text. `matches`: as it was when it was applied. `adopted`: as it was when this library
 * first saw it, applied already. `edited`, `renamed`: not as it was. `unchecked`: nothing to compare with.
 */
export type Check = "matches" | "adopted" | "edited" | "renamed" | "unchecked"

export interface Entry {
  readonly id: number
  /** As the loader has it now, or else as it is recorded. */
  readonly name: string
  readonly recordedName: string | undefined
  readonly state: State
  readonly check: Check
  readonly appliedAt: Date | undefined
  /** Of an `unfinished` one. */
  readonly mark: Recorded["mark"]
}

/** Which migrations are to be applied when all is done. */
export type Target = "latest" | { readonly to: number } | { readonly rollback: number }

export interface Step {
  readonly id: number
  readonly name: string
  readonly direction: Direction
}

/** The least and the greatest id: what the migrator's own column holds, 0 excepted, which stands for "none". */
export const ids = { min: 1, max: 2 ** 31 - 1 } as const

const kindOf = (checksum: string) => checksum.slice(0, checksum.indexOf(":"))

/** Files of two kinds, such as a migration and what it was compiled to, have nothing to be compared. */
const comparable = (a: string | undefined, b: string | undefined): boolean =>
  a !== undefined && b !== undefined && kindOf(a) === kindOf(b)

const checkOf = (known: Known, recorded: Recorded): Check => {
  if (known[1] !== recorded.name) return "renamed"
  const now = known[SourceId]?.checksum
  if (!comparable(recorded.checksum, now)) return "unchecked"
  if (recorded.checksum !== now) return "edited"
  return recorded.adopted ? "adopted" : "matches"
}

/** One entry for each migration that files or database know, by id. */
export const entries = (known: ReadonlyArray<Known>, recorded: ReadonlyArray<Recorded>): ReadonlyArray<Entry> => {
  const byId = new Map(known.map((migration) => [migration[0], migration]))
  const rows = new Map(recorded.map((row) => [row.id, row]))
  const latest = Math.max(0, ...recorded.flatMap((row) => (row.applied ? [row.id] : [])))
  const all = [...new Set([...byId.keys(), ...rows.keys()])].sort((a, b) => a - b)
  return all.flatMap((id): ReadonlyArray<Entry> => {
    const migration = byId.get(id)
    const row = rows.get(id)
    const common = {
      id,
      name: migration?.[1] ?? row!.name,
      recordedName: row?.name,
      appliedAt: row?.appliedAt,
      mark: row?.mark
    }
    const check = migration !== undefined && row !== undefined ? checkOf(migration, row) : "unchecked"
    if (row?.mark !== undefined) return [{ ...common, state: "unfinished", check }]
    if (row?.applied === true) return [{ ...common, state: migration === undefined ? "missing" : "applied", check }]
    // A note about what the migrator's table knows nothing of any more says nothing.
    if (migration === undefined) return []
    const state = id < latest ? "skipped" : "pending"
    return [{ ...common, appliedAt: undefined, state, check: "unchecked" }]
  })
}

/** Applied migrations whose checksum is to be noted for the first time. */
export const toAdopt = (known: ReadonlyArray<Known>, recorded: ReadonlyArray<Recorded>): ReadonlyArray<Known> => {
  const rows = new Map(recorded.map((row) => [row.id, row]))
  return known.filter((migration) => {
    const row = rows.get(migration[0])
    const bare = row?.applied && row.mark === undefined && row.checksum === undefined
    return bare && row.name === migration[1] && migration[SourceId] !== undefined
  })
}

const isApplied = ({ state }: Entry) => state === "applied" || state === "missing"
const isOpen = ({ state }: Entry) => state === "pending" || state === "skipped"

/** What is to be done, in that order: down from the latest, then up from the first. */
export const steps = (all: ReadonlyArray<Entry>, target: Target): ReadonlyArray<Step> => {
  const step =
    (direction: Direction) =>
    ({ id, name }: Entry): Step => ({ id, name, direction })
  const applied = all.filter(isApplied).reverse()
  if (target === "latest") return all.filter(isOpen).map(step("up"))
  if ("rollback" in target) return applied.slice(0, target.rollback).map(step("down"))
  return [
    ...applied.filter(({ id }) => id > target.to).map(step("down")),
    ...all.filter((entry) => isOpen(entry) && entry.id <= target.to).map(step("up"))
  ]
}

export type Objection =
  | { readonly _tag: "Unfinished"; readonly entries: ReadonlyArray<Entry> }
  | { readonly _tag: "Edited"; readonly entries: ReadonlyArray<Entry> }
  | { readonly _tag: "Skipped"; readonly entries: ReadonlyArray<Entry> }
  | { readonly _tag: "UnknownId"; readonly id: number }

/** Why nothing may be done, if so: the gravest reason. */
export const objection = (
  all: ReadonlyArray<Entry>,
  target: Target,
  allowed: { readonly edited: boolean; readonly skipped: boolean }
): Objection | undefined => {
  const unfinished = all.filter(({ state }) => state === "unfinished")
  if (unfinished.length > 0) return { _tag: "Unfinished", entries: unfinished }
  if (target !== "latest" && "to" in target && target.to !== 0 && !all.some(({ id }) => id === target.to)) {
    return { _tag: "UnknownId", id: target.to }
  }
  const edited = all.filter(({ check }) => check === "edited" || check === "renamed")
  if (edited.length > 0 && !allowed.edited) return { _tag: "Edited", entries: edited }
  const due = new Set(steps(all, target).flatMap(({ direction, id }) => (direction === "up" ? [id] : [])))
  const skipped = all.filter(({ id, state }) => state === "skipped" && due.has(id))
  return skipped.length > 0 && !allowed.skipped ? { _tag: "Skipped", entries: skipped } : undefined
}
