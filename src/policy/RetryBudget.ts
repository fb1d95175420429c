/**
 * How many retries a program may have under way at once, so that a server in trouble is not finished off by its clients.
 *
 * A retry takes a permit when it is decided, holds it through its delay, and returns it when its attempt settles. It is
 * refused, and the operation fails at once with the error at hand, while as many permits are out as 20 % of the
 * operations in flight, but never while fewer than 3 are. Sources: failsafe-go's retry budget; "Site Reliability
 * Engineering" (Google, 2016), chapter 21, on retry budgets per client.
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as validate from "../config/internal/validate.js"
import type * as PgError from "../error/PgError.js"
import * as options from "./internal/budgetOptions.js"

export interface Options {
  /** Permits as a share of the operations in flight, from 0 to 1. Default 0.2. */
  readonly ratio?: number | undefined
  /** Permits there are however little is in flight: 0 or more; `"infinity"` refuses nothing. Default 3. */
  readonly min?: number | "infinity" | undefined
}

export const defaults = options.defaults

/** The budget at one moment. */
export interface Snapshot {
  /** Operations under way, those that wait for their next attempt included. */
  readonly inFlight: number
  /** Permits out: retries decided whose attempt has not settled. */
  readonly retrying: number
  /** Permits that may be out at most, with this many operations in flight. May be `Infinity`. */
  readonly allowed: number
}

export class RetryBudget extends Context.Tag("effect-pg-resilience/RetryBudget")<
  RetryBudget,
  {
    /** Counts an operation as in flight while it runs. */
    readonly track: <A, E, R>(operation: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    /** Runs one retry, its delay included, under a permit; runs `onRefused` instead when there is none. */
    readonly withPermit: <A, E, R, A2, E2, R2>(
      retry: Effect.Effect<A, E, R>,
      onRefused: Effect.Effect<A2, E2, R2>
    ) => Effect.Effect<A | A2, E | E2, R | R2>
    readonly snapshot: Effect.Effect<Snapshot>
    /** `track` by hand. Every `unsafeEnter` needs one `unsafeLeave`, interrupted or not. */
    readonly unsafeEnter: () => void
    readonly unsafeLeave: () => void
    /** `withPermit` by hand. Every `unsafeTake` that gave `true` needs one `unsafeReturn`, interrupted or not. */
    readonly unsafeTake: () => boolean
    readonly unsafeReturn: () => void
  }
>() {}

const budget = ({ min, ratio }: validate.Decoded<typeof options.rule>): RetryBudget["Type"] => {
  let inFlight = 0
  let retrying = 0
  const allowed = () => Math.max(min, Math.ceil(ratio * inFlight))
  const unsafeEnter = () => {
    inFlight++
  }
  const unsafeLeave = () => {
    inFlight--
  }
  const unsafeTake = () => {
    if (retrying >= allowed()) return false
    retrying++
    return true
  }
  const unsafeReturn = () => {
    retrying--
  }
  return {
    track: (operation) =>
      Effect.acquireUseRelease(
        Effect.sync(unsafeEnter),
        () => operation,
        () => Effect.sync(unsafeLeave)
      ),
    withPermit: <A, E, R, A2, E2, R2>(retry: Effect.Effect<A, E, R>, onRefused: Effect.Effect<A2, E2, R2>) =>
      Effect.acquireUseRelease(
        Effect.sync(unsafeTake),
        (taken): Effect.Effect<A | A2, E | E2, R | R2> => (taken ? retry : onRefused),
        (taken) => (taken ? Effect.sync(unsafeReturn) : Effect.void)
      ),
    snapshot: Effect.sync(() => ({ inFlight, retrying, allowed: allowed() })),
    unsafeEnter,
    unsafeLeave,
    unsafeTake,
    unsafeReturn
  }
}

/** A budget with nothing in flight. Fails with the options that are out of range. */
export const make = (given: Options = {}): Effect.Effect<RetryBudget["Type"], PgError.InvalidOptionsError> =>
  Effect.map(validate.decode(options.rule, "retryBudget")(given), budget)

export const layer = (options: Options = {}): Layer.Layer<RetryBudget, PgError.InvalidOptionsError> =>
  Layer.effect(RetryBudget, make(options))

export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<RetryBudget, PgError.InvalidOptionsError | ConfigError.ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))

/** Refuses nothing, and counts all the same. */
export const layerNoop: Layer.Layer<RetryBudget> = Layer.sync(RetryBudget, () =>
  budget({ min: Number.POSITIVE_INFINITY, ratio: defaults.ratio })
)
