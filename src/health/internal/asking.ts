/** Questions to the database, bounded in time. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as validate from "../../config/internal/validate.js"
import * as PgError from "../../error/PgError.js"
import type { Ask, HealthProbe } from "../HealthProbe.js"
import type { ProbeResult } from "./report.js"

const late = (timeout: number) => `no answer within ${Duration.format(Duration.millis(timeout))}`

/** Runs the probe to its end or its limit; never fails. */
export const ask = ({ ping, prepare, query }: HealthProbe, timeout: number): Effect.Effect<ProbeResult> => {
  const asked = Effect.gen(function* () {
    if (prepare !== undefined) yield* prepare
    const [pinged] = yield* Effect.timed(ping)
    const queried = query === undefined ? undefined : (yield* Effect.timed(query))[0]
    return [pinged, queried] as const
  })
  // Disconnected: a probe that takes its time to be interrupted holds up nobody.
  const bounded = Effect.timed(Effect.exit(Effect.timeoutOption(Effect.disconnect(asked), timeout)))
  return Effect.map(Effect.withTracerEnabled(bounded, false), ([took, exit]): ProbeResult => {
    const failed = (error: string, tag?: PgError.Tag) =>
      ({ ok: false, error, tag, afterMs: Duration.toMillis(took) }) as const
    if (Exit.isFailure(exit)) {
      const error = Option.getOrUndefined(Cause.failureOption(exit.cause))
      return error === undefined ? failed("the health check died") : failed(error.message, error._tag)
    }
    if (Option.isNone(exit.value)) return failed(late(timeout))
    const [pinged, queried] = exit.value.value
    return { ok: true, pingMs: Duration.toMillis(pinged), queryMs: queried && Duration.toMillis(queried) }
  })
}

/** `ask` of the probe, within a limit. */
export const bounded = ({ ask }: HealthProbe, timeout: number): Ask => {
  if (ask === undefined)
    return () => Effect.fail(validate.invalidOptions([validate.fault("health.probe", {}, "a probe with ask")]))
  return (sql) =>
    Effect.timeoutFail(Effect.disconnect(ask(sql)), {
      duration: timeout,
      onTimeout: () =>
        new PgError.QueryTimeoutError({
          message: late(timeout),
          phase: "Execute",
          outcome: "NotApplied",
          transient: true,
          attempts: 1
        })
    })
}
