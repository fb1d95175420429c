/** How a request to change something is turned down. */
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

const why = { message: Schema.String }
const wait = { ...why, retryAfter: Schema.Int.annotations({ description: "Seconds, as in the header `Retry-After`" }) }

export class Unauthorized extends Schema.TaggedError<Unauthorized>()(
  "Unauthorized",
  why,
  HttpApiSchema.annotations({ status: 401, description: "The bearer token is missing or wrong" })
) {}

export class TooManyRequests extends Schema.TaggedError<TooManyRequests>()(
  "TooManyRequests",
  wait,
  HttpApiSchema.annotations({
    status: 429,
    description: "More requests, or more wrong tokens, than are accepted in a minute"
  })
) {}

export class BadRequest extends Schema.TaggedError<BadRequest>()(
  "BadRequest",
  why,
  HttpApiSchema.annotations({ status: 400, description: "The body is no JSON, or a value in it is out of range" })
) {}

export class RequestTimeout extends Schema.TaggedError<RequestTimeout>()(
  "RequestTimeout",
  why,
  HttpApiSchema.annotations({ status: 408, description: "The body did not come in time" })
) {}

export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()(
  "PayloadTooLarge",
  why,
  HttpApiSchema.annotations({ status: 413, description: "The body is larger than is accepted" })
) {}

export class UnsupportedMediaType extends Schema.TaggedError<UnsupportedMediaType>()(
  "UnsupportedMediaType",
  why,
  HttpApiSchema.annotations({ status: 415, description: "The body is not plain application/json" })
) {}

export class RehearsalUnderWay extends Schema.TaggedError<RehearsalUnderWay>()(
  "RehearsalUnderWay",
  why,
  HttpApiSchema.annotations({ status: 409, description: "One rehearsal at a time" })
) {}

export class RehearsalTimeout extends Schema.TaggedError<RehearsalTimeout>()(
  "RehearsalTimeout",
  why,
  HttpApiSchema.annotations({ status: 504, description: "The policy itself, such as a schedule, gave no answer" })
) {}

export class NoBreaker extends Schema.TaggedError<NoBreaker>()(
  "NoBreaker",
  why,
  HttpApiSchema.annotations({ status: 409, description: "There is no circuit breaker: it is switched off" })
) {}

export type Refusal =
  | Unauthorized
  | TooManyRequests
  | BadRequest
  | RequestTimeout
  | PayloadTooLarge
  | UnsupportedMediaType
  | RehearsalUnderWay
  | RehearsalTimeout
  | NoBreaker

/** Fails with it, and sees to the headers that belong to its status. */
export const refuse = <E extends Refusal>(
  refusal: E,
  headers: Readonly<Record<string, string>> = {}
): Effect.Effect<never, E> =>
  Effect.zipRight(
    HttpApp.appendPreResponseHandler((_request, response) =>
      Effect.succeed(HttpServerResponse.setHeaders(response, { "cache-control": "no-store", ...headers }))
    ),
    Effect.fail(refusal)
  )

/** For so many milliseconds, more than none. */
export const tooMany = (message: string, waitMs: number): Effect.Effect<never, TooManyRequests> => {
  const retryAfter = Math.max(1, Math.ceil(waitMs / 1000))
  return refuse(new TooManyRequests({ message, retryAfter }), { "retry-after": String(retryAfter) })
}
