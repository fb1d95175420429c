/**
 * What may be changed over HTTP, with a token: the circuit breaker by hand, and rehearsals, which change nothing.
 *
 * `group` belongs into an `HttpApi`, `layer` of that one has its handlers.
 */
import type * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as OpenApi from "@effect/platform/OpenApi"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { InvalidOptionsError } from "../../error/PgError.js"
import * as CircuitBreaker from "../../policy/CircuitBreaker.js"
import * as RetryPolicy from "../../policy/RetryPolicy.js"
import * as ResilientPg from "../../ResilientPg.js"
import * as Model from "../Model.js"
import { Bearer, make as makeBearer, type Options } from "./bearer.js"
import * as limits from "./limits.js"
import * as refusals from "./refusals.js"
import * as rehearsal from "./rehearsal.js"

export { defaults, type Options, tokenConfig } from "./bearer.js"

const told = (summary: string, description: string) => OpenApi.annotations({ summary, description })

/** A body of 4 KiB at most, which is read by these handlers themselves: too long or malformed, it has a clear answer. */
export const group = HttpApiGroup.make("admin")
  .add(
    HttpApiEndpoint.post("open", "/resilience/breaker/open")
      .addSuccess(Model.BreakerSnapshot)
      .addError(refusals.NoBreaker)
      .annotateContext(told("Force the circuit open", "Every call is refused, until it is reset."))
  )
  .add(
    HttpApiEndpoint.post("close", "/resilience/breaker/close")
      .addSuccess(Model.BreakerSnapshot)
      .addError(refusals.NoBreaker)
      .annotateContext(told("Force the circuit closed", "Every call is admitted, whatever happens, until it is reset."))
  )
  .add(
    HttpApiEndpoint.post("reset", "/resilience/breaker/reset")
      .addSuccess(Model.BreakerSnapshot)
      .addError(refusals.NoBreaker)
      .annotateContext(told("Reset the circuit", "Closes it, and forgets everything, also what was forced."))
  )
  .add(
    HttpApiEndpoint.post("testCircuitBreaker", "/resilience/test/circuit-breaker")
      .setPayload(rehearsal.BreakerRequest)
      .addSuccess(rehearsal.BreakerRehearsal)
      .addError(refusals.RehearsalUnderWay)
      .addError(refusals.RehearsalTimeout)
      .annotateContext(
        told("Rehearse the circuit breaker", "One of its own, with the options of the live one, which it leaves alone.")
      )
  )
  .add(
    HttpApiEndpoint.post("testRetry", "/resilience/test/retry")
      .setPayload(rehearsal.RetryRequest)
      .addSuccess(rehearsal.RetryRehearsal)
      .addError(refusals.RehearsalUnderWay)
      .addError(refusals.RehearsalTimeout)
      .annotateContext(told("Rehearse the retries", "The live policy, on failures that are made up. Asks no database."))
  )
  .addError(refusals.BadRequest)
  .addError(refusals.RequestTimeout)
  .addError(refusals.PayloadTooLarge)
  .addError(refusals.UnsupportedMediaType)
  .middleware(Bearer)
  .annotateContext(
    OpenApi.annotations({
      title: "Admin",
      description: "Only where a token is configured. At most ten requests a minute."
    })
  )

const nothing = Schema.Unknown.pipe(
  Schema.filter((value) => Predicate.isRecord(value) && Object.keys(value).length === 0, {
    message: () => ({ message: "expected no body, or {}", override: true })
  })
)

const handlersOf = Effect.gen(function* () {
  const live = yield* CircuitBreaker.CircuitBreaker
  const { breaker, retry } = ResilientPg.optionsOf(yield* PgClient.PgClient)
  const oneRehearsal = yield* Effect.makeSemaphore(1)
  const forced = (change: Effect.Effect<void>) =>
    Effect.zipRight(
      limits.readJson(nothing),
      breaker === false
        ? refusals.refuse(
            new refusals.NoBreaker({ message: "There is no circuit breaker to force: it is switched off" })
          )
        : Effect.zipRight(change, live.snapshot)
    )
  const rehearsed = <A, I, B>(schema: Schema.Schema<A, I>, rehearse: (asked: A) => Effect.Effect<B>) =>
    Effect.flatMap(limits.readJson(schema), (asked) =>
      Effect.flatMap(
        oneRehearsal.withPermitsIfAvailable(1)(limits.rehearsed(rehearse(asked))),
        Option.match({
          onNone: () =>
            refusals.refuse(
              new refusals.RehearsalUnderWay({ message: "Another rehearsal is under way: try again when it has ended" })
            ),
          onSome: Effect.succeed
        })
      )
    )
  return {
    open: forced(live.forceOpen),
    close: forced(live.forceClosed),
    reset: forced(live.reset),
    testCircuitBreaker: rehearsed(rehearsal.BreakerRequest, (asked) => rehearsal.breaker(breaker ?? {}, asked)),
    testRetry: rehearsed(rehearsal.RetryRequest, (asked) => rehearsal.retry(retry ?? RetryPolicy.standard, asked))
  }
})

/** The handlers of `group` in that API. Fails with the options that are out of range: the token is never shown. */
export const layer = <Id extends string, Groups extends HttpApiGroup.HttpApiGroup.Any, E, R>(
  api: HttpApi.HttpApi<Id, Groups | typeof group, E, R>,
  options: Options
): Layer.Layer<
  HttpApiGroup.ApiGroup<Id, "admin">,
  InvalidOptionsError,
  CircuitBreaker.CircuitBreaker | PgClient.PgClient
> =>
  // The compiler cannot find one group among groups that it does not know.
  HttpApiBuilder.group(api as unknown as HttpApi.HttpApi<Id, typeof group, E, R>, "admin", (handlers) =>
    Effect.map(handlersOf, ({ close, open, reset, testCircuitBreaker, testRetry }) =>
      handlers
        .handleRaw("open", () => open)
        .handleRaw("close", () => close)
        .handleRaw("reset", () => reset)
        .handleRaw("testCircuitBreaker", () => testCircuitBreaker)
        .handleRaw("testRetry", () => testRetry)
    )
  ).pipe(Layer.provide(Layer.effect(Bearer, makeBearer(options)))) as any
