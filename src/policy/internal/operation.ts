/** What a fiber knows about the operation it works for, and the deadline that ends it. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import * as PgError from "../../error/PgError.js"
import type { Options } from "../Operation.js"
import { within } from "./deadline.js"

/** The limits that the layer gives to operations, in milliseconds; `Infinity` for none. */
export interface Limits {
  readonly query: number
  readonly complex: number
  readonly batchBase: number
  readonly batchPerRow: number
  readonly transaction: number
  /** Told of every operation that runs out of its time, once, with its name: the layer counts them. */
  readonly onExpired?: ((name: string | undefined) => void) | undefined
}

/** 5 s for a query, 30 s for a complex one, 5 s and 10 ms per row for a batch, 30 s for a transaction. */
export const defaultLimits: Limits = {
  query: 5_000,
  complex: 30_000,
  batchBase: 5_000,
  batchPerRow: 10,
  transaction: 30_000
}

/** Provided by the layer; its `timeouts` option. */
export class Timeouts extends Context.Reference<Timeouts>()("effect-pg-resilience/Operation/Timeouts", {
  defaultValue: () => defaultLimits
}) {}

/** What a fiber knows about the operation it works for. */
export interface State {
  readonly name: string | undefined
  /** Milliseconds of the fiber's `Clock`, `Infinity` for none: the earliest of this and all operations around. */
  readonly deadline: number
  readonly idempotent: boolean
  readonly readOnly: boolean | undefined
  readonly exactlyOnce: Options["exactlyOnce"]
  readonly whenOpen: "fail" | "wait"
  readonly parent: State | undefined
  /** It bounds and names nothing any more: a fiber that outlives it must not inherit an expired deadline. */
  ended: boolean
  /** Writes and COMMITs of it that were sent and not certainly refused: what it did so far, or may have done. */
  writes: number
  /** Of these, those that may be made only once. */
  onceOnly: number
  /** What may tell how to find out what became of one of these; undefined while nothing of it counts as a write. */
  readonly settlements: Set<() => PgError.Settlement | undefined>
}

const stateRef = globalValue("effect-pg-resilience/Operation/state", () =>
  FiberRef.unsafeMake<State | undefined>(undefined)
)

/** The operation that a fiber works for now: the innermost that has not ended. */
export const current = (fiber: { readonly getFiberRef: <A>(ref: FiberRef.FiberRef<A>) => A }): State | undefined => {
  let state = fiber.getFiberRef(stateRef)
  while (state?.ended) state = state.parent
  return state
}

/** For our own fibers, which belong to nobody's operation. */
export const none = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.locally(self, stateRef, undefined)

/**
 * A write was sent (1), or turned out not to have been applied (-1): for it and all operations around it. What an
 * idempotent operation writes may be made again, but not the COMMIT of a transaction in it.
 */
export const countWrite = (state: State | undefined, by: 1 | -1, isCommit = false): void => {
  const onceOnly = isCommit || state?.idempotent !== true ? by : 0
  for (let at = state; at !== undefined; at = at.parent) {
    at.writes += by
    at.onceOnly += onceOnly
  }
}

/** The limits that hold where a fiber is. */
const limitsOf = (fiber: { readonly currentContext: Context.Context<never> }) =>
  Context.get(fiber.currentContext, Timeouts)

/** The error of a deadline that passed. */
const expired = (state: State, limit: number): PgError.PgError => {
  const what = state.name === undefined ? "the transaction" : `operation "${state.name}"`
  const timeout = new PgError.QueryTimeoutError({
    message: `${what} did not end within ${Duration.format(Duration.millis(limit))}`,
    phase: "Execute",
    outcome: state.writes > 0 ? "Unknown" : "NotApplied",
    transient: true,
    attempts: 1,
    operation: state.name
  })
  if (state.onceOnly === 0) return timeout
  // Of several writes, what became of one says nothing about the operation.
  const known = state.onceOnly === 1 ? Array.from(state.settlements, (settlement) => settlement()) : []
  return PgError.outcomeUnknown(
    timeout,
    known.find((settlement) => settlement !== undefined)
  )
}

/**
 * As long as the effect is under way, a deadline that ends it tells how to find out what became of it. `settlement` is asked
 * once, for an error that others will ask by; undefined unless a write of the effect is counted now.
 */
export const unsettled =
  (state: State | undefined, settlement: () => PgError.Settlement | undefined) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      for (let at = state; at !== undefined; at = at.parent) at.settlements.add(settlement)
      return Effect.onExit(self, (exit) =>
        Effect.sync(() => {
          // Interrupted, it may be by that deadline, which has not looked yet.
          if (Exit.isInterrupted(exit)) return
          for (let at = state; at !== undefined; at = at.parent) at.settlements.delete(settlement)
        })
      )
    })

/** A limit in milliseconds, `Infinity` for `"infinity"`. */
export const toMillis = (limit: Duration.DurationInput | "infinity"): number =>
  limit === "infinity" ? Number.POSITIVE_INFINITY : Duration.toMillis(limit)

/** `named`, with a default limit of one's own. */
export const bounded = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  name: string | undefined,
  options: Options,
  limitFrom: (limits: Limits) => number
): Effect.Effect<A, E | PgError.PgError, R> =>
  Effect.withFiberRuntime<A, E | PgError.PgError, R>((fiber) => {
    const now = Context.get(fiber.currentDefaultServices, Clock.Clock).unsafeCurrentTimeMillis()
    const parent = current(fiber)
    const limit = options.timeout === undefined ? limitFrom(limitsOf(fiber)) : toMillis(options.timeout)
    const outer = parent?.deadline ?? Number.POSITIVE_INFINITY
    const state: State = {
      name: name ?? parent?.name,
      deadline: Math.min(now + limit, outer),
      idempotent: options.idempotent ?? false,
      readOnly: options.readOnly,
      exactlyOnce: options.exactlyOnce,
      whenOpen: options.whenOpen ?? "fail",
      parent,
      ended: false,
      writes: 0,
      onceOnly: 0,
      settlements: new Set()
    }
    const onEnd = () => {
      state.ended = true
    }
    if (!(now + limit < outer)) return Effect.ensuring(Effect.locally(self, stateRef, state), Effect.sync(onEnd))
    // A deadline holds also where nothing else interrupts, as in a finalizer.
    return within(fiber, self, {
      millis: limit,
      onTimeout: () => {
        limitsOf(fiber).onExpired?.(state.name)
        return expired(state, limit)
      },
      onEnd,
      ref: stateRef,
      value: state
    })
  })
