/**
 * When to raise an alert and when to say that it is over. Pure: `step(rules)(state, observation, now)`.
 *
 * Per rule there is at most one alert at a time. It is raised once its condition has held for `raiseAfter`, and resolved
 * once there was quiet for `clearAfter`: quiet is a figure on the far side of `clear`, not of `raise`, and a figure that is
 * not known is neither. An alert that is raised again within `cooldown` of the time before flaps: it is resolved only after
 * quiet for all of `cooldown`. So a rule raises at most two alerts per `cooldown`, whatever happens, none is held back, and
 * each is resolved in the end.
 */

export type Severity = "info" | "warning" | "critical"

/** What rules look at; undefined where it is not known. */
export type Observation<Measure extends string = string> = { readonly [M in Measure]?: number | undefined }

/** Times in milliseconds. */
export interface Rule<Measure extends string = string> {
  /** Unique among the rules. */
  readonly name: string
  readonly severity: Severity
  readonly measure: Measure
  /** On which side of `raise` the trouble is. */
  readonly when: "above" | "below"
  readonly raise: number
  /** Where it is over: at `raise` or on its far side. */
  readonly clear: number
  readonly raiseAfter: number
  readonly clearAfter: number
  readonly cooldown: number
  /** One line for people. */
  readonly title: string
}

/** An alert that stands. */
export interface Alert {
  /** Unique: the rule's name and when it was raised. */
  readonly id: string
  readonly rule: string
  readonly severity: Severity
  readonly title: string
  /** What the rule saw when it was raised, and what it goes by. */
  readonly value: number
  readonly threshold: number
  readonly raisedAt: number
}

export type Notice =
  | { readonly _tag: "Raised"; readonly at: number; readonly alert: Alert }
  | { readonly _tag: "Resolved"; readonly at: number; readonly alert: Alert }

/** What is remembered of one rule. `alert` stands, or else there is none; `since`: when trouble, or quiet, began. */
interface Memory {
  readonly alert: Alert | undefined
  readonly flapping: boolean
  readonly lastRaised: number
  readonly since: number | undefined
}

/** By the rule's name. */
export type State = ReadonlyMap<string, Memory>

export const initial: State = new Map()

const fresh: Memory = { alert: undefined, flapping: false, lastRaised: Number.NEGATIVE_INFINITY, since: undefined }

const beyond = (value: number, limit: number, when: "above" | "below") =>
  when === "above" ? value > limit : value < limit

/** A clock that was set back makes nobody wait until it is that time again. */
const began = ({ since = Number.POSITIVE_INFINITY }: Memory, now: number) => Math.min(since, now)

const one = (
  rule: Rule,
  memory: Memory,
  value: number | undefined,
  now: number
): readonly [Memory, Notice | undefined] => {
  if (value === undefined || Number.isNaN(value)) {
    // Trouble has to be seen all the while, and so has quiet.
    return [memory.since === undefined ? memory : { ...memory, since: undefined }, undefined]
  }
  if (memory.alert === undefined) {
    if (!beyond(value, rule.raise, rule.when)) return [{ ...memory, since: undefined }, undefined]
    const since = began(memory, now)
    if (now - since < rule.raiseAfter) return [{ ...memory, since }, undefined]
    const alert: Alert = {
      id: `${rule.name}-${now}`,
      rule: rule.name,
      severity: rule.severity,
      title: rule.title,
      value,
      threshold: rule.raise,
      raisedAt: now
    }
    const flapping = now - memory.lastRaised < rule.cooldown
    return [
      { alert, flapping, lastRaised: now, since: undefined },
      { _tag: "Raised", at: now, alert }
    ]
  }
  if (beyond(value, rule.clear, rule.when)) return [{ ...memory, since: undefined }, undefined]
  const since = began(memory, now)
  const quiet = memory.flapping ? Math.max(rule.clearAfter, rule.cooldown) : rule.clearAfter
  if (now - since < quiet) return [{ ...memory, since }, undefined]
  return [
    { ...memory, alert: undefined, since: undefined },
    { _tag: "Resolved", at: now, alert: memory.alert }
  ]
}

/** The next state, and what to tell, in the order of the rules. `now` in milliseconds. */
export const step =
  <Measure extends string>(rules: ReadonlyArray<Rule<Measure>>) =>
  (state: State, observation: Observation<Measure>, now: number): readonly [State, ReadonlyArray<Notice>] => {
    const notices: Array<Notice> = []
    const next = new Map<string, Memory>()
    for (const rule of rules) {
      const [memory, notice] = one(rule, state.get(rule.name) ?? fresh, observation[rule.measure], now)
      next.set(rule.name, memory)
      if (notice !== undefined) notices.push(notice)
    }
    return [next, notices]
  }

/** The alerts that stand. */
export const standing = (state: State): ReadonlyArray<Alert> =>
  Array.from(state.values()).flatMap(({ alert }) => (alert === undefined ? [] : [alert]))
