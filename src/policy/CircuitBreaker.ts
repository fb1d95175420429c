/**
 * Refuses calls to a server that has just failed several times in a row, lets a few probes find out when it is back, and
 * keeps both a crowd of waiting callers and a server that is coming up from hurting each other.
 *
 * Closed, calls pass. Five counted failures within a minute, with no success after the first of them, open it; open, it
 * refuses. After the reset timeout, or as soon as a connection succeeds (`recovered`), it is half-open and admits three
 * probes at once: two successes close it, one counted failure opens it again, for longer. Counted are only failures that
 * speak of the server's health (internal/verdict.ts); what the server answers, it answers alive, and what was interrupted
 * says nothing.
 */
import type * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import { PCGRandom } from "effect/Utils"
import * as validate from "../config/internal/validate.js"
import * as PgError from "../error/PgError.js"
import * as admission from "./internal/admission.js"
import * as internal from "./internal/breaker.js"
import * as options from "./internal/breakerOptions.js"
import * as verdict from "./internal/verdict.js"

/** `ForcedOpen` refuses, and `ForcedClosed` admits, whatever happens, until `reset`. */
export type State = internal.State["_tag"]

/** Why a state was entered: a closed set, fit for a metric's label. */
export type Reason = internal.Reason

/** Which calls were admitted together: the generation, which rises with each change of state and when a closed circuit recovers. */
export type Permit = number

/** What an attempt says about the server. */
export type Verdict = verdict.Verdict

/** One change of state. */
export interface Change {
  readonly from: State
  readonly to: State
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly reason: Reason
  /** The tags that opened it, each once; empty for any other change. */
  readonly cause: ReadonlyArray<PgError.Tag>
}

/** The breaker at one moment. Times are milliseconds since the epoch. */
export interface Snapshot {
  /** `Open` until a call is admitted, although the reset timeout may have passed. */
  readonly state: State
  readonly since: number
  readonly reason: Reason
  readonly generation: number
  /** Counted failures that the window of a closed circuit holds. */
  readonly failures: number
  /** Probes of a half-open circuit that have succeeded, and that are under way, those sent past slow ones included. */
  readonly successes: number
  readonly probing: number
  /** Callers in `awaitAdmission`. */
  readonly waiting: number
  /** Since when calls have been refused: from its opening until it closes, whatever its probes found in between. */
  readonly openedAt: number | undefined
  readonly nextProbeAt: number | undefined
  /** How often it has opened by itself since it was made. */
  readonly trips: number
  /** The tags that opened an open circuit, each once. */
  readonly cause: ReadonlyArray<PgError.Tag>
}

export interface Options {
  /** Counted failures within `window`, without a success after the first, that open it: 1 or more. Default 5. */
  readonly failureThreshold?: number | "infinity" | undefined
  /** How long a call is remembered. The two rates count it in tenths. Default 1 minute. */
  readonly window?: Duration.DurationInput | undefined
  /** Share of counted failures among the calls of the window that opens it: 0.01 to 1. Default: not looked at. */
  readonly failureRate?: number | undefined
  /** Share of slow calls among the calls of the window that opens it: 0.01 to 1. Default: not looked at. */
  readonly slowCallRate?: number | undefined
  /** A call that takes longer is slow. Default 5 seconds. */
  readonly slowCallDuration?: Duration.DurationInput | undefined
  /** Calls in the window below which neither rate is looked at: 1 or more. Default 20. */
  readonly minimumCalls?: number | undefined
  /**
   * How long it stays open. Doubled for each time that probes fail in a row, up to `maxResetTimeout`, and then drawn
   * from the upper half. Once no probe has settled or been sent for so long, those under way are given up: others are
   * sent, and what they say later is dropped. Default 30 seconds.
   */
  readonly resetTimeout?: Duration.DurationInput | undefined
  /** `resetTimeout` or more, 24 days at most. Default 5 minutes, or `resetTimeout` where that is longer. */
  readonly maxResetTimeout?: Duration.DurationInput | undefined
  /**
   * Probes at once while half-open: 1 or more. Default 3. So that slow ones do not hold up all others until they end, one
   * more is sent when there has been no room for a second, the next when there has been none for 2 seconds after that,
   * then 4, 8 and so on below `resetTimeout`: by default never more than eight under way. All of their results count.
   */
  readonly probes?: number | undefined
  /** Probes that must succeed to close it: 1 or more. Default 2. */
  readonly successesToClose?: number | undefined
  /** Told of every change of state, at once. Must neither block nor throw. */
  readonly onChange?: ((change: Change) => void) | undefined
}

export const defaults = options.defaults

/** As `Effect.uninterruptibleMask` hands it out. */
export type Restore = admission.Restore

export class CircuitBreaker extends Context.Tag("effect-pg-resilience/CircuitBreaker")<
  CircuitBreaker,
  {
    readonly state: Effect.Effect<State>
    /** Every change of state from the moment of subscription on. */
    readonly changes: Stream.Stream<Change>
    readonly snapshot: Effect.Effect<Snapshot>
    /**
     * Runs the effect if it is admitted, and learns from how it ended. Refused, it fails with `CircuitOpenError` at once;
     * with `whenOpen: "wait"` it waits for its turn instead, for as long as the caller lets it.
     */
    readonly protect: <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options?: { readonly whenOpen?: "fail" | "wait" | undefined }
    ) => Effect.Effect<A, E | PgError.CircuitOpenError, R>
    /** As `protect`, but what this breaker refuses is answered by `onOpen`. Failures of the effect are left alone. */
    readonly withFallback: <A, E, R, A2, E2, R2>(
      self: Effect.Effect<A, E, R>,
      onOpen: (error: PgError.CircuitOpenError) => Effect.Effect<A2, E2, R2>
    ) => Effect.Effect<A | A2, E | E2, R | R2>
    /**
     * Waits until it is this caller's turn, in the order of arrival; the caller bounds it. For an uninterruptible region,
     * whose `restore` it takes: interrupted while it waits, it leaves the queue and gives back whatever it was given;
     * once it has succeeded, the permit is the caller's to settle.
     */
    readonly awaitAdmission: (restore: Restore) => Effect.Effect<Permit>
    /**
     * A connection has succeeded: an open circuit that lost or missed connections opened is half-open at once. A closed
     * one forgets failures of that kind, and drops what calls say that began before.
     */
    readonly recovered: Effect.Effect<void>
    readonly forceOpen: Effect.Effect<void>
    readonly forceClosed: Effect.Effect<void>
    /** Closes it and forgets everything, also what was forced. */
    readonly reset: Effect.Effect<void>
    /**
     * `protect` by hand, for those who settle every permit once, whatever happens. `operation` is the name that a refusal
     * carries.
     */
    readonly unsafeAdmit: (now: Now, operation?: string | undefined) => Permit | PgError.CircuitOpenError
    readonly unsafeSettle: (permit: Permit, verdict: Verdict, now: Now, durationMs: number) => void
    /** A failure found out after `permit` was settled as neutral: a connection that stayed silent after a cancel. */
    readonly unsafeReport: (permit: Permit, error: PgError.PgError, now: Now) => void
  }
>() {}

/** The time by `unsafeNow`, or the clock to ask for it: a circuit that is closed seldom needs to know. */
export type Now = number | Clock.Clock

/** Milliseconds since the epoch by a clock that nobody sets back, so that no outage lasts longer for it. */
export const unsafeNow: (clock: Clock.Clock) => number = admission.unsafeNow

const told = (now: Now): number => (Predicate.isNumber(now) ? now : unsafeNow(now))

/** The verdict on a failed attempt. `answered`: whether any byte of a reply to it had arrived. */
export const verdictOf = (error: PgError.PgError, { answered }: { readonly answered: boolean }): Verdict =>
  verdict.ofError(error, answered)

/** The verdict on an attempt that succeeded, and on one that was interrupted. */
export const success: Verdict = verdict.success
export const neutral: Verdict = verdict.neutral

const openCause = ({ state }: internal.Machine) => (state._tag === "Open" ? state.cause : [])

const changeOf = (before: internal.Machine, after: internal.Machine): Change => ({
  from: before.state._tag,
  to: after.state._tag,
  at: after.since,
  reason: after.reason,
  cause: openCause(after)
})

const snapshotOf = (machine: internal.Machine, failures: number, waiting: number): Snapshot => {
  const { generation, openedAt, reason, since, state, trips } = machine
  return {
    state: state._tag,
    since,
    reason,
    generation,
    failures,
    successes: state._tag === "HalfOpen" ? state.successes : 0,
    probing: state._tag === "HalfOpen" ? state.probing : 0,
    waiting,
    openedAt,
    nextProbeAt: state._tag === "Open" ? state.until : undefined,
    trips,
    cause: openCause(machine)
  }
}

const refusal = (machine: internal.Machine, retryAfterMs: number | undefined, operation: string | undefined) => {
  const retryAfter = retryAfterMs === undefined ? undefined : Duration.millis(retryAfterMs)
  const cause = openCause(machine)
  const circuit =
    machine.state._tag === "ForcedOpen"
      ? "Circuit forced open"
      : machine.state._tag === "HalfOpen"
        ? "Circuit half-open, all probes under way"
        : `Circuit open${cause.length === 0 ? "" : ` after ${cause.join(", ")}`}`
  return new PgError.CircuitOpenError({
    message: `${circuit}: nothing was sent; ${
      retryAfter === undefined ? "reset it to go on" : `try again in ${Duration.format(retryAfter)}`
    }`,
    phase: "Acquire",
    outcome: "NotApplied",
    transient: true,
    attempts: 0,
    operation,
    retryAfter
  })
}

/** A closed breaker. Fails with the options that are out of range. */
export const make = Effect.fnUntraced(function* (given: Options = {}) {
  const decoded = yield* validate.decode(options.rule, "breaker")(given)
  const config = options.configOf(decoded)
  const changes = yield* PubSub.unbounded<Change>()
  const random = new PCGRandom(yield* Random.nextInt)
  const { admit, awaitTurn, cell, idle, send, settle, waiters } = admission.make({
    config,
    now: unsafeNow(yield* Effect.clock),
    jitter: () => random.number(),
    onChange: (before, after) => {
      if (before.state._tag === after.state._tag) return
      const change = changeOf(before, after)
      changes.unsafeOffer(change)
      decoded.onChange?.(change)
    }
  })
  const unsafeAdmit = (now: Now, operation?: string) => {
    const machine = cell.current
    if (internal.passes(machine)) return machine.generation
    const admitted = admit(told(now))
    return admitted._tag === "Admitted" ? admitted.permit : refusal(cell.current, admitted.retryAfterMs, operation)
  }
  /** Uninterruptible from the permit to its settling, but for the effect itself. */
  const guarded = <A, E, R, E2, A2, R2>(
    self: Effect.Effect<A, E, R>,
    refused: (error: PgError.CircuitOpenError) => Effect.Effect<A2, E2, R2>,
    whenOpen: "fail" | "wait" = "fail"
  ) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.clockWith((clock): Effect.Effect<A | A2, E | E2, R | R2> => {
        const run = (permit: Permit) => {
          const started = unsafeNow(clock)
          return Effect.onExit(restore(self), (exit) =>
            Effect.sync(() => {
              const now = unsafeNow(clock)
              settle(permit, verdict.ofExit(exit, false), now, now - started)
            })
          )
        }
        if (whenOpen === "wait") return Effect.flatMap(awaitTurn(restore), run)
        const admitted = unsafeAdmit(unsafeNow(clock))
        return Predicate.isNumber(admitted) ? run(admitted) : restore(refused(admitted))
      })
    )
  const tell = (event: internal.Event) => Effect.clockWith((clock) => Effect.sync(() => send(event, unsafeNow(clock))))
  return CircuitBreaker.of({
    state: Effect.sync(() => cell.current.state._tag),
    changes: Stream.fromPubSub(changes),
    snapshot: Effect.clockWith((clock) =>
      Effect.sync(() =>
        snapshotOf(cell.current, internal.failureCount(cell.current, unsafeNow(clock), config), waiters.size)
      )
    ),
    protect: (self, options) => guarded(self, Effect.fail, options?.whenOpen),
    withFallback: guarded,
    awaitAdmission: awaitTurn,
    recovered: tell(internal.Event.Recovered()),
    forceOpen: tell(internal.Event.ForceOpen()),
    forceClosed: tell(internal.Event.ForceClosed()),
    reset: tell(internal.Event.Reset()),
    unsafeAdmit,
    unsafeSettle: (permit, verdict, now, durationMs) => {
      if (!idle(permit, verdict)) settle(permit, verdict, told(now), durationMs)
    },
    unsafeReport: (permit, error, now) => {
      const judged = verdict.ofError(error, false)
      if (judged._tag !== "Failure") return
      send(internal.Event.Report({ permit, tag: judged.tag, jitter: random.number() }), told(now))
    }
  })
})

export const layer = (options: Options = {}): Layer.Layer<CircuitBreaker, PgError.InvalidOptionsError> =>
  Layer.effect(CircuitBreaker, make(options))

export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<CircuitBreaker, PgError.InvalidOptionsError | ConfigError.ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))

/** The off switch: admits every call, learns nothing, and cannot be forced. */
export const layerNoop: Layer.Layer<CircuitBreaker> = Layer.succeed(CircuitBreaker, {
  state: Effect.succeed("Closed" as const),
  changes: Stream.empty,
  snapshot: Effect.sync(() => snapshotOf(internal.make(0), 0, 0)),
  protect: (self) => self,
  withFallback: (self) => self,
  awaitAdmission: () => Effect.succeed(0),
  recovered: Effect.void,
  forceOpen: Effect.void,
  forceClosed: Effect.void,
  reset: Effect.void,
  unsafeAdmit: () => 0,
  unsafeSettle: () => {},
  unsafeReport: () => {}
})

/** `protect` of the breaker in the environment, for applications: a service takes the breaker once, in its `make`. */
export const protect = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | PgError.CircuitOpenError, R | CircuitBreaker> =>
  Effect.flatMap(CircuitBreaker, (breaker) => breaker.protect(self))
