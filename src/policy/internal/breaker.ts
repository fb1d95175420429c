/**
 * The circuit breaker as a pure state machine: no clock, no randomness, no I/O. Times are milliseconds of one origin.
 *
 * Every change of state raises `generation`, and so does a connection that succeeds while the circuit is closed. A permit
 * is the generation that admitted its call: a result that comes back under another generation says nothing about the
 * present state, and is dropped.
 */
import * as Data from "effect/Data"
import * as Option from "effect/Option"
import type * as PgError from "../../error/PgError.js"
import { isRecoverable, Verdict } from "./verdict.js"
import * as window from "./window.js"

export interface Config extends window.Rules {
  /** How long a circuit that opened stays open, and how long probes may be silent before others are sent. */
  readonly resetMs: number
  /** What `resetMs` grows to at most while probes fail. */
  readonly maxResetMs: number
  /** Probes under way at once, but for those that are sent past slow ones. */
  readonly probes: number
  /** Probes that must succeed before the circuit closes. */
  readonly successes: number
}

/**
 * Each state holds only what it needs. `reopened`: how often probes have failed since the circuit was last closed.
 * `admittedAt`: when the latest probe was sent.
 */
export type State = Data.TaggedEnum<{
  Closed: { readonly window: window.Window }
  Open: { readonly until: number; readonly reopened: number; readonly cause: ReadonlyArray<PgError.Tag> }
  HalfOpen: {
    readonly probing: number
    readonly successes: number
    readonly admittedAt: number
    readonly reopened: number
  }
  ForcedOpen: {}
  ForcedClosed: {}
}>

export const State = Data.taggedEnum<State>()

/** Why a state was entered. */
export type Reason =
  | window.TripReason
  | "created"
  | "resetTimeout"
  | "recovered"
  | "probesSucceeded"
  | "probeFailed"
  | "probesSilent"
  | "forced"
  | "reset"

export interface Machine {
  readonly generation: number
  readonly state: State
  readonly since: number
  readonly reason: Reason
  /** Since when calls have been refused, probes that failed included; absent while all calls pass. */
  readonly openedAt: number | undefined
  /** How often it has opened by itself. */
  readonly trips: number
}

/**
 * What happens to a breaker, apart from calls that ask for admission. `jitter`, from 0 to 1, lengthens the time until
 * the next probe; it is looked at only when a probe has failed.
 */
export type Event = Data.TaggedEnum<{
  Settle: {
    readonly permit: number
    readonly verdict: Verdict
    readonly durationMs: number
    readonly jitter: number
  }
  /** A failure found out after its call had settled as neutral. */
  Report: { readonly permit: number; readonly tag: PgError.Tag; readonly jitter: number }
  /** A connection has succeeded: what was seen of failing connections before is over. */
  Recovered: {}
  ForceOpen: {}
  ForceClosed: {}
  Reset: {}
}>

export const Event = Data.taggedEnum<Event>()

/** `retryAfterMs` is absent when no passing of time alone will admit a call. */
export type Admission = Data.TaggedEnum<{
  Admitted: { readonly permit: number }
  Refused: { readonly retryAfterMs: number | undefined }
}>

const { Admitted, Refused } = Data.taggedEnum<Admission>()

export const make = (now: number): Machine => ({
  generation: 0,
  state: State.Closed({ window: window.empty }),
  since: now,
  reason: "created",
  openedAt: undefined,
  trips: 0
})

/** Whether calls pass without being counted, so that admitting one changes nothing. */
export const passes = ({ state }: Machine): boolean => state._tag === "Closed" || state._tag === "ForcedClosed"

/** Whether a success changes nothing: the circuit is closed, and there is nothing to forget and nothing to count. */
export const ignoresSuccess = ({ state }: Machine, config: Config): boolean =>
  state._tag === "ForcedClosed" ||
  (state._tag === "Closed" && state.window === window.empty && !window.countsCalls(config))

/** Counted failures that the window of a closed circuit holds. */
export const failureCount = ({ state }: Machine, now: number, config: Config): number =>
  state._tag === "Closed" ? window.failureCount(state.window, now, config) : 0

/** What a caller is told while all probes are out: their verdict is a matter of moments, not of the reset timeout. */
const verdictMs = 1_000

/**
 * For how long the latest probe keeps the next one back while all places are taken. A slow statement in a place must not
 * hold up everybody until it ends, and a server that answers nothing must not get probe after probe: so one more is sent
 * after a second, and each further one after twice as long as the one before.
 */
const patienceMs = (probing: number, { probes }: Config): number => verdictMs * 2 ** Math.max(0, probing - probes)

/** When a refused call may be admitted although nothing happens until then; never, if absent. */
export const nextAdmissionAt = ({ state }: Machine, config: Config): number | undefined => {
  switch (state._tag) {
    case "Open":
      return state.until
    case "HalfOpen":
      return state.admittedAt + Math.min(patienceMs(state.probing, config), config.resetMs)
    default:
      return undefined
  }
}

const enter = (machine: Machine, state: State, reason: Reason, now: number): Machine => ({
  generation: machine.generation + 1,
  state,
  since: now,
  reason,
  openedAt: state._tag === "Closed" || state._tag === "ForcedClosed" ? undefined : (machine.openedAt ?? now),
  trips: machine.trips + (state._tag === "Open" ? 1 : 0)
})

const update = (machine: Machine, state: State): Machine => ({ ...machine, state })

const close = (machine: Machine, reason: Reason, now: number) =>
  enter(machine, State.Closed({ window: window.empty }), reason, now)

/** The reset timeout; after failed probes doubled for each, up to the cap, and drawn from its upper half. */
export const openForMs = (reopened: number, jitter: number, { maxResetMs, resetMs }: Config): number => {
  if (reopened === 0) return resetMs
  const longest = Math.min(maxResetMs, resetMs * 2 ** reopened)
  return Math.max(resetMs, Math.round((longest * (1 + jitter)) / 2))
}

const opened = (
  cause: ReadonlyArray<PgError.Tag>,
  reopened: number,
  jitter: number,
  now: number,
  config: Config
): State => State.Open({ until: now + openForMs(reopened, jitter, config), reopened, cause })

const halfOpen = (now: number, probing: number, reopened: number): State =>
  State.HalfOpen({ probing, successes: 0, admittedAt: now, reopened })

/** Whether a call may go ahead, and the state after that. */
export const admit = (machine: Machine, now: number, config: Config): readonly [Admission, Machine] => {
  const { state } = machine
  const probe = (reopened: number, reason: Reason) => {
    const next = enter(machine, halfOpen(now, 1, reopened), reason, now)
    return [Admitted({ permit: next.generation }), next] as const
  }
  switch (state._tag) {
    case "Closed":
    case "ForcedClosed":
      return [Admitted({ permit: machine.generation }), machine]
    case "ForcedOpen":
      return [Refused({ retryAfterMs: undefined }), machine]
    case "Open":
      return now < state.until
        ? [Refused({ retryAfterMs: state.until - now }), machine]
        : probe(state.reopened, "resetTimeout")
    case "HalfOpen": {
      const silence = now - state.admittedAt
      const patience = patienceMs(state.probing, config)
      if (state.probing >= config.probes) {
        if (silence >= config.resetMs) return probe(state.reopened, "probesSilent")
        if (silence < patience) {
          const waitMs = Math.min(patience, config.resetMs) - silence
          return [Refused({ retryAfterMs: Math.min(waitMs, verdictMs) }), machine]
        }
      }
      const next = update(machine, State.HalfOpen({ ...state, probing: state.probing + 1, admittedAt: now }))
      return [Admitted({ permit: machine.generation }), next]
    }
  }
}

type Settled = Data.TaggedEnum.Value<Event, "Settle">

const settleClosed = (machine: Machine, before: window.Window, event: Settled, now: number, config: Config) => {
  const after = window.record(before, event.verdict, event.durationMs, now, config)
  if (after === before) return machine
  return Option.match(window.tripped(after, config), {
    onNone: () => update(machine, State.Closed({ window: after })),
    onSome: ({ cause, reason }) => enter(machine, opened(cause, 0, event.jitter, now, config), reason, now)
  })
}

/** A slow probe of a circuit that trips on slowness is a failed one: closing would only trip it again. */
const settleProbe = (
  machine: Machine,
  state: Data.TaggedEnum.Value<State, "HalfOpen">,
  { durationMs, jitter, verdict }: Settled,
  now: number,
  config: Config
) => {
  const probing = state.probing - 1
  if (verdict._tag === "Neutral") return update(machine, State.HalfOpen({ ...state, probing }))
  if (verdict._tag === "Failure" || window.isSlow(durationMs, config)) {
    const cause = verdict._tag === "Failure" ? [verdict.tag] : []
    return enter(machine, opened(cause, state.reopened + 1, jitter, now, config), "probeFailed", now)
  }
  const successes = state.successes + 1
  return successes < config.successes
    ? update(machine, State.HalfOpen({ ...state, probing, successes }))
    : close(machine, "probesSucceeded", now)
}

const settle = (machine: Machine, event: Settled, now: number, config: Config): Machine => {
  const { state } = machine
  if (event.permit !== machine.generation) return machine
  if (state._tag === "Closed") return settleClosed(machine, state.window, event, now, config)
  return state._tag === "HalfOpen" ? settleProbe(machine, state, event, now, config) : machine
}

/** The state after an event: the same machine where the event changes nothing. */
export const transition = (machine: Machine, event: Event, now: number, config: Config): Machine => {
  const { state } = machine
  switch (event._tag) {
    case "Settle":
      return settle(machine, event, now, config)
    case "Report": {
      const failure = Verdict.Failure({ tag: event.tag })
      return settle(machine, Event.Settle({ ...event, verdict: failure, durationMs: 0 }), now, config)
    }
    case "Recovered":
      // Closed it stays, but calls that began before this have an outage to tell of that is over.
      if (state._tag === "Closed") {
        const next = State.Closed({ window: window.reconnected(state.window) })
        return { ...machine, generation: machine.generation + 1, state: next }
      }
      return state._tag === "Open" && isRecoverable(state.cause)
        ? enter(machine, halfOpen(now, 0, state.reopened), "recovered", now)
        : machine
    case "ForceOpen":
      return state._tag === "ForcedOpen" ? machine : enter(machine, State.ForcedOpen(), "forced", now)
    case "ForceClosed":
      return state._tag === "ForcedClosed" ? machine : enter(machine, State.ForcedClosed(), "forced", now)
    case "Reset":
      return close(machine, "reset", now)
  }
}
