/** Which backups to keep: a pure decision. */

/** How many of each. 0 turns a rule off; at least one must be on. */
export interface Retention {
  /** The newest ones. */
  readonly keepLast: number
  /** The newest one of each of so many days that have any. Days, weeks and months are those of UTC. */
  readonly keepDaily: number
  /** Of each of so many ISO weeks. */
  readonly keepWeekly: number
  /** Of each of so many months. */
  readonly keepMonthly: number
}

export interface Candidate {
  readonly name: string
  /** What it is a backup of: each subject is looked at by itself. */
  readonly subject: string
  /** Milliseconds since the epoch: when it was begun. */
  readonly at: number
  /** False: it was restored, and was not what it should be. It takes nobody's place. */
  readonly good: boolean
  /** Being restored or verified at this moment. */
  readonly inUse: boolean
}

export interface Decision {
  readonly name: string
  readonly keep: boolean
  /** Why it is kept: `last`, `daily 2026-11-30`, `newest`, `in use`. Empty when it is not. */
  readonly reasons: ReadonlyArray<string>
}

const day = 86_400_000

const dayOf = (at: number) => new Date(at).toISOString().slice(0, 10)
const monthOf = (at: number) => new Date(at).toISOString().slice(0, 7)

/** The Thursday of a week names its year. Source: ISO 8601. */
const weekOf = (at: number) => {
  const thursday = new Date(at + (4 - (new Date(at).getUTCDay() || 7)) * day)
  const year = thursday.getUTCFullYear()
  const week = Math.floor((Math.floor(thursday.getTime() / day) - Math.floor(Date.UTC(year, 0, 1) / day)) / 7) + 1
  return `${year}-W${String(week).padStart(2, "0")}`
}

/** The newest of each of the first `count` buckets. Expects the newest first. */
const buckets = (kind: string, sorted: ReadonlyArray<Candidate>, count: number, bucketOf: (at: number) => string) => {
  const reasons = new Map<string, string>()
  const seen = new Set<string>()
  for (const { at, name } of sorted) {
    const bucket = bucketOf(at)
    if (seen.has(bucket)) continue
    if (seen.size >= count) break
    seen.add(bucket)
    reasons.set(name, `${kind} ${bucket}`)
  }
  return reasons
}

/**
 * Whatever the rules are, kept is the newest good backup of each subject, and what is in use. A bad one is kept only while
 * it is in use, or when there is no good one of its subject: half a backup may still be all there is.
 */
export const decide = (candidates: ReadonlyArray<Candidate>, rules: Retention): ReadonlyArray<Decision> => {
  const decisions: Array<Decision> = []
  for (const subject of new Set(candidates.map((_) => _.subject))) {
    const all = candidates
      .filter((_) => _.subject === subject)
      .sort((a, b) => b.at - a.at || (a.name < b.name ? 1 : -1))
    const good = all.filter((_) => _.good)
    const grounds = [
      new Map(good.slice(0, rules.keepLast).map(({ name }) => [name, "last"])),
      buckets("daily", good, rules.keepDaily, dayOf),
      buckets("weekly", good, rules.keepWeekly, weekOf),
      buckets("monthly", good, rules.keepMonthly, monthOf),
      new Map(good.slice(0, 1).map(({ name }) => [name, "newest"])),
      new Map(all.filter((_) => _.inUse).map(({ name }) => [name, "in use"])),
      new Map(good.length === 0 ? all.map(({ name }) => [name, "no good one"]) : [])
    ]
    for (const { name } of all) {
      const reasons = grounds.flatMap((kept) => kept.get(name) ?? [])
      decisions.push({ name, keep: reasons.length > 0, reasons })
    }
  }
  return decisions
}
