/** Why somebody who asked for a connection got none, in words. */
import * as PgError from "../../error/PgError.js"

/** The pool's figures, and what connecting failed with last while the server is away. */
export interface Facts {
  readonly max: number
  readonly used: number
  readonly waiting: number
  readonly cause: PgError.PgError | undefined
}

const refusal = (message: string, transient: boolean, cause: PgError.PgError | undefined) => ({
  message,
  transient,
  phase: "Acquire" as const,
  outcome: "NotApplied" as const,
  attempts: 1,
  cause
})

const noRoom = (what: string, { cause, max, used, waiting }: Facts) => {
  const lost = cause === undefined ? "" : ` The last attempt to connect failed: ${cause.message}`
  const message = `${what}: ${used} of ${max} connections in use, ${waiting} waiting. Shorten what holds connections, raise maxConnections, or ask for less at once.${lost}`
  return new PgError.PoolTimeoutError(refusal(message, true, cause))
}

export const queueFull = (facts: Facts) => noRoom("The queue for a connection is full", facts)

/** `limit`: milliseconds. */
export const late = (limit: number, facts: Facts) => noRoom(`No connection came free within ${limit} ms`, facts)

export const shut = (cause: PgError.PgError | undefined) =>
  new PgError.PoolClosedError(refusal("The pool is closed, or closing: nothing was sent", false, cause))
