/**
 * Says "not now" over HTTP when the database cannot be had: 503 with `Retry-After`, so that browsers, proxies and clients
 * come back later, and no word of what lies behind. Sources: RFC 9110, 15.6.4 and 10.2.3.
 *
 * ```ts
 * HttpRouter.empty.pipe(HttpRouter.get("/users", listUsers), respond503, HttpServer.serve())
 * ```
 */
import { clientAbortFiberId } from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HashSet from "effect/HashSet"
import * as Schema from "effect/Schema"
import { isInstance } from "../error/internal/read.js"
import * as PgError from "../error/PgError.js"

export const defaults = {
  /** What `Retry-After` says where the error does not know: what a server takes to restart, and no crowd at its door. */
  retryAfter: "5 seconds"
} as const

/** One sentence for each tag that is answered so. Nothing of the error itself is ever shown. */
const sentences = {
  CircuitOpenError: "The database has failed several times in a row and is left alone for a while. Try again later.",
  PoolTimeoutError: "All connections to the database are in use. Try again later.",
  TooManyConnectionsError: "The database accepts no further connections at the moment. Try again later.",
  ServerUnavailableError: "The database is starting or stopping. Try again later.",
  ConnectionError: "The database cannot be reached at the moment. Try again later."
} as const satisfies { readonly [Tag in PgError.Tag]?: string }

type Tag = keyof typeof sentences

/** The body of the answer. */
export const Unavailable = Schema.Struct({
  error: Schema.Literal(...(Object.keys(sentences) as [Tag, ...Array<Tag>])),
  message: Schema.String,
  status: Schema.Literal(503),
  retryAfter: Schema.Int.annotations({ description: "Seconds, as in the header `Retry-After`" })
}).annotations({ identifier: "Unavailable", description: "The database cannot be had at the moment" })

/** The `PgError` that a failure or defect is, or that an `SqlError` carries. */
const pgErrorOf = (value: unknown): PgError.PgError | undefined => {
  let error = value
  for (let depth = 0; depth < 8 && isInstance(error, SqlError); depth++) error = error.cause
  return PgError.isPgError(error) ? error : undefined
}

const isTag = (tag: PgError.Tag): tag is Tag => Object.hasOwn(sentences, tag)

/** The error to answer by; none where the cause has to be left as it is. */
const answerable = (cause: Cause.Cause<unknown>): (PgError.PgError & { readonly _tag: Tag }) | undefined => {
  if (HashSet.has(Cause.interruptors(cause), clientAbortFiberId)) return undefined
  const failures = Chunk.toReadonlyArray(Cause.failures(cause))
  const defects = Chunk.toReadonlyArray(Cause.defects(cause))
  if ([...failures, ...defects].some((error) => pgErrorOf(error)?.outcome === "Unknown")) return undefined
  // A typed failure is what the program says; defects speak where it says nothing.
  const errors = (failures.length > 0 ? failures : defects).map(pgErrorOf)
  return errors.find(
    (error): error is PgError.PgError & { readonly _tag: Tag } => error !== undefined && isTag(error._tag)
  )
}

/** Whole seconds, at least one: to come back before the time is no use. */
const secondsOf = (retryAfter: Duration.Duration | undefined): number => {
  const known = retryAfter !== undefined && Duration.isFinite(retryAfter) ? retryAfter : defaults.retryAfter
  return Math.max(1, Math.ceil(Duration.toSeconds(known)))
}

const respond = (error: PgError.PgError & { readonly _tag: Tag }): HttpServerResponse.HttpServerResponse => {
  const retryAfter = secondsOf(error.retryAfter)
  const body: typeof Unavailable.Type = { error: error._tag, message: sentences[error._tag], status: 503, retryAfter }
  return HttpServerResponse.unsafeJson(body, {
    status: 503,
    headers: { "retry-after": String(retryAfter), "cache-control": "no-store" }
  })
}

/** How the platform marks a request whose answer has been handed to the server. */
const handled = Symbol.for("@effect/platform/HttpApp/handled")

/**
 * Answers 503 where the app fails with `CircuitOpenError`, `PoolTimeoutError`, `TooManyConnectionsError`,
 * `ServerUnavailableError` or `ConnectionError`: as a failure, in an `SqlError`, or as a defect (`Effect.orDie`). The body
 * is `Unavailable`, a fixed sentence for each tag; `Retry-After` is the error's own `retryAfter` in whole seconds, at least
 * 1, and 5 where it has none.
 *
 * Everything else stays as it is: other failures, interruptions, answers that have begun. So does every error whose outcome
 * is `Unknown`, `OutcomeUnknownError` first of all, in the end a plain 500: with 503 and `Retry-After` programs and proxies
 * repeat a request by themselves, and here a repetition could store twice what is stored already. Such work is to be
 * looked up, or settled (`exactlyOnce`), and not to be sent again blindly.
 *
 * The promise is the failed statement's. What a request did before it, in another transaction, has happened.
 *
 * It goes around the app: `app.pipe(respond503, HttpServer.serve())`, `HttpRouter.use(respond503)`,
 * `HttpApiBuilder.middleware(respond503)`. As the second argument of `HttpServer.serve` a middleware only sees what has
 * been answered already, and this one does nothing there.
 */
export const respond503 = <E, R>(
  app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | HttpServerRequest.HttpServerRequest> =>
  Effect.catchAllCause(app, (cause) => {
    const error = answerable(cause)
    if (error === undefined) return Effect.failCause(cause)
    return Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
      handled in request ? Effect.failCause(cause) : Effect.succeed(respond(error))
    )
  })
