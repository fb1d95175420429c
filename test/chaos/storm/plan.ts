/** What each fiber of a storm does, and when it is cut short: a pure function of the seed. */
import * as Seeds from "../seeds.js"

export type Body = keyof typeof weights

const weights = {
  read: 3,
  "slow read": 2,
  write: 3,
  "slow write": 1,
  transaction: 3,
  "locked transaction": 2,
  nested: 3,
  siblings: 2,
  careless: 2,
  stream: 2,
  reserve: 2,
  "dirty reserve": 1
} as const

export const bodies = Object.keys(weights) as ReadonlyArray<Body>

/** How an action is cut short: from outside (`timeout`, `interrupt`, `race`) or by its own `Operation`. */
export type Cut = keyof typeof cuts

const cuts = { none: 2, timeout: 2, interrupt: 4, race: 2, deadline: 2 } as const

/** A moment: after so many turns of the scheduler, to hit between two steps of ours, or milliseconds, to hit the network's. */
export type Wait = { readonly yields: number } | { readonly millis: number }

export interface Action {
  /** Unique within a storm: the token that statements select, and the key of what is written. */
  readonly id: string
  readonly body: Body
  readonly cut: Cut
  readonly wait: Wait
  /** The same for what is cut inside: a nested transaction, one statement of a transaction. */
  readonly inner: ReadonlyArray<Wait>
  /** Seconds that a slow statement takes on the server. */
  readonly slow: number
  /** From 0 to 9: which lock, how many rows, and the like. */
  readonly shade: number
}

export const action = (seed: number, fiber: number, n: number): Action => {
  const random = Seeds.random(seed, fiber, n)
  const wait = (): Wait => {
    const kind = random.pick({ yields: 3, short: 4, long: 3 })
    if (kind === "yields") return { yields: random.integer(0, 100) }
    return { millis: random.integer(0, kind === "short" ? 30 : 150) }
  }
  const cut = random.pick(cuts)
  return {
    id: `${fiber}-${n}`,
    body: random.pick(weights),
    cut,
    wait: wait(),
    inner: [wait(), wait()],
    slow: random.integer(1, cut === "none" ? 20 : 500) / 1000,
    shade: random.integer(0, 9)
  }
}
