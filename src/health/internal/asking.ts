/** One question to the database, bounded in time. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as PgError from "../../error/PgError.js"
import type { HealthProbe } from "../HealthProbe.js"
import type { ProbeResult } from "./report.js"

/** Runs the probe to its end or its limit; never fails. */
export const ask = ({ ping, query }: HealthProbe, timeout: number): Effect.Effect<ProbeResult> => {
  const asked = Effect.gen(function* () {
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
    if (Option.isNone(exit.value)) return failed(`no answer within ${Duration.format(Duration.millis(timeout))}`)
    const [pinged, queried] = exit.value.value
    return { ok: true, pingMs: Duration.toMillis(pinged), queryMs: queried && Duration.toMillis(queried) }
  })
}
