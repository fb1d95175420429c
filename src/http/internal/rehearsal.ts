/**
 * What the policies would do if the database failed: the real ones, made of the layer's own options, fed with failures that
 * are made up, on a clock that passes a wait of minutes in no time. Nothing of it is sent, counted or shared: the breaker is
 * one of its own.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { make as makeError } from "../../error/internal/build.js"
import * as PgError from "../../error/PgError.js"
import type { ClassifiedTag } from "../../error/SqlState.js"
import * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import * as RetryPolicy from "../../policy/RetryPolicy.js"
import * as Model from "../Model.js"
import * as virtualClock from "./virtualClock.js"

/** Errors of other kinds are made by this library itself, and say nothing of a server. */
const tags = Object.keys(PgError.retrySafety).filter(
  (tag) =>
    !["CircuitOpenError", "OutcomeUnknownError", "IdempotencyKeyReusedError", "InvalidOptionsError"].includes(tag)
) as [ClassifiedTag, ...Array<ClassifiedTag>]

const Tag = Schema.Literal(...tags).annotations({
  description: "What fails. Default ConnectionError",
  message: () => ({ message: `expected one of ${tags.join(", ")}`, override: true })
})

const whole = (min: number, max: number, description: string) =>
  Schema.Int.pipe(Schema.between(min, max)).annotations({
    description,
    message: () => ({ message: `expected a whole number from ${min} to ${max}`, override: true })
  })

const request = <Fields extends Schema.Struct.Fields>(fields: Fields, identifier: string) =>
  Schema.Struct(fields).annotations({
    identifier,
    message: (issue) => (issue._tag === "Type" ? { message: "expected an object", override: true } : "")
  })

export const BreakerRequest = request(
  {
    tag: Schema.optionalWith(Tag, { exact: true }),
    failures: Schema.optionalWith(
      whole(1, 1000, "Attempts that fail before the server is well. Default: as many as `failureThreshold`"),
      { exact: true }
    )
  },
  "BreakerRehearsalRequest"
)

export const RetryRequest = request(
  {
    tag: Schema.optionalWith(Tag, { exact: true }),
    failures: Schema.optionalWith(whole(0, 100, "Attempts that fail before one succeeds. Default 3"), { exact: true })
  },
  "RetryRehearsalRequest"
)

const After = Schema.Number.annotations({ description: "Milliseconds since the rehearsal began" })

/** Changes of state that are listed. */
const listed = 50

export const BreakerRehearsal = Schema.Struct({
  tag: Model.Tag,
  counted: Schema.Boolean.annotations({ description: "Whether the breaker counts failures of this tag" }),
  states: Schema.Array(Schema.Struct({ state: Model.BreakerState, afterMs: After, reason: Schema.String })).annotations(
    {
      description: `In their order, at most ${listed}`
    }
  ),
  changes: Schema.NonNegativeInt.annotations({ description: "How often the state changed, those not listed included" }),
  failures: Schema.NonNegativeInt.annotations({ description: "Attempts that were admitted, and failed" }),
  opened: Schema.optional(
    Schema.Struct({ afterMs: After, failures: Schema.NonNegativeInt, retryAfterMs: Model.Millis })
  ).annotations({ description: "When it opened for the first time, after how many failures, and for how long" }),
  refused: Schema.NonNegativeInt.annotations({ description: "Attempts that were refused, one each time it was open" }),
  probes: Schema.NonNegativeInt.annotations({ description: "Attempts admitted while half-open" }),
  closedAfterMs: Schema.optional(After).annotations({ description: "When it closed again" }),
  state: Model.BreakerState.annotations({ description: "In the end" })
}).annotations({ identifier: "BreakerRehearsal", description: "What the circuit breaker would have done" })

export const RetryRehearsal = Schema.Struct({
  tag: Model.Tag,
  attempts: Schema.Int,
  delaysMs: Schema.Array(Model.Millis).annotations({ description: "Before the second attempt, the third, and so on" }),
  waitedMs: Model.Millis,
  outcome: Schema.Literal("Succeeded", "GaveUp")
}).annotations({ identifier: "RetryRehearsal", description: "What the retry policy would have done" })

const failureOf = (tag: ClassifiedTag): PgError.PgError =>
  makeError(tag, {
    message: "Made up for a rehearsal",
    phase: "Execute",
    outcome: "NotApplied",
    transient: PgError.retrySafety[tag] !== "never",
    attempts: 1
  })

/** Runs it on a clock of its own, which begins at the time of the caller's. */
const rehearsed = <A>(rehearsal: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.withClock(rehearsal, virtualClock.make(now)))

/** As the layer makes its own: but whoever is told of the changes is told nothing of these. */
const breakerOf = (options: CircuitBreaker.Options | false, onChange: (change: CircuitBreaker.Change) => void) =>
  options === false
    ? Effect.scoped(Effect.map(Layer.build(CircuitBreaker.layerNoop), Context.get(CircuitBreaker.CircuitBreaker)))
    : Effect.orDie(CircuitBreaker.make({ ...options, onChange }))

/** Failures that open a breaker, as far as its options say so at first sight. */
const enough = ({
  failureThreshold = CircuitBreaker.defaults.failureThreshold,
  minimumCalls = CircuitBreaker.defaults.minimumCalls
}: CircuitBreaker.Options): number => {
  const threshold = Number(failureThreshold)
  return Math.min(1000, Number.isFinite(threshold) ? threshold : minimumCalls)
}

/** Attempts of one rehearsal: what closes after more probes than that is left half-open. */
const atMost = 5000

/** `false`: there is no breaker. */
export const breaker = (
  options: CircuitBreaker.Options | false,
  { failures = enough(options || {}), tag = "ConnectionError" }: typeof BreakerRequest.Type
): Effect.Effect<typeof BreakerRehearsal.Type> =>
  rehearsed(
    Effect.gen(function* () {
      const started = yield* Clock.currentTimeMillis
      const states: Array<(typeof BreakerRehearsal.Type)["states"][number]> = []
      let changes = 0
      let closedAfterMs: number | undefined
      const breaker = yield* breakerOf(options, ({ at, reason, to }) => {
        changes++
        if (states.length < listed) states.push({ state: to, afterMs: at - started, reason })
        closedAfterMs = to === "Closed" ? at - started : undefined
      })
      const first = yield* breaker.snapshot
      states.push({ state: first.state, afterMs: 0, reason: first.reason })

      const error = failureOf(tag)
      let failed = 0
      let refused = 0
      let probes = 0
      let opened: (typeof BreakerRehearsal.Type)["opened"]
      for (let attempt = 0; attempt < atMost; attempt++) {
        const before = yield* breaker.state
        if (failed === failures && before === "Closed") break
        const failing = failed < failures
        let admitted = false
        const call = Effect.suspend(() => {
          admitted = true
          return failing ? Effect.fail(error) : Effect.void
        })
        const result = yield* Effect.either(breaker.protect(call))
        if (admitted) {
          if (failing) failed++
          if (before !== "Closed") probes++
        } else if (Either.isLeft(result)) {
          refused++
          const retryAfter = result.left.retryAfter ?? Duration.seconds(1)
          opened ??= {
            afterMs: (yield* Clock.currentTimeMillis) - started,
            failures: failed,
            retryAfterMs: Duration.toMillis(retryAfter)
          }
          yield* Effect.sleep(retryAfter)
        }
      }
      return {
        tag,
        counted: options !== false && CircuitBreaker.verdictOf(error, { answered: false })._tag === "Failure",
        states,
        changes,
        failures: failed,
        ...(opened === undefined ? {} : { opened }),
        refused,
        probes,
        ...(closedAfterMs === undefined ? {} : { closedAfterMs }),
        state: yield* breaker.state
      }
    })
  )

/** `false`: nothing is retried. Without a deadline and without the retry budget, which are not the policy's. */
export const retry = (
  policy: RetryPolicy.RetryPolicy | false,
  { failures = 3, tag = "ConnectionError" }: typeof RetryRequest.Type
): Effect.Effect<typeof RetryRehearsal.Type> =>
  rehearsed(
    Effect.gen(function* () {
      const started = yield* Clock.currentTimeMillis
      const driver = yield* RetryPolicy.driver(policy === false ? RetryPolicy.none : policy)
      const error = failureOf(tag)
      const delaysMs: Array<number> = []
      while (delaysMs.length < failures) {
        const delay = yield* driver.next(error, yield* Clock.currentTimeMillis)
        // To wait for ever is to give up.
        if (Option.isNone(delay) || !Duration.isFinite(delay.value)) break
        delaysMs.push(Duration.toMillis(delay.value))
        yield* Effect.sleep(delay.value)
      }
      return {
        tag,
        attempts: delaysMs.length + 1,
        delaysMs,
        waitedMs: (yield* Clock.currentTimeMillis) - started,
        outcome: delaysMs.length < failures ? "GaveUp" : "Succeeded"
      }
    })
  )
