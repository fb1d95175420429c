/** What holds for every answer: headers that keep it where it belongs, and failures that tell nothing of the inside. */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** For answers that say nothing else themselves. */
const headers = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff"
}

const secured = (response: HttpServerResponse.HttpServerResponse) =>
  HttpServerResponse.setHeaders(response, { ...headers, ...response.headers })

/** The methods of each path. */
export type Paths = ReadonlyMap<string, ReadonlyArray<string>>

const failed = (status: number, error: string, message: string, more?: Record<string, string>) =>
  HttpServerResponse.unsafeJson({ error, message, status }, more === undefined ? { status } : { status, headers: more })

/** Without query, fragment and a slash at the end. */
const pathOf = (url: string) => url.replace(/[?#].*$/s, "").replace(/(?<=.)\/$/, "")

const notFound = (url: string, paths: Paths) => {
  const methods = paths.get(pathOf(url))
  return methods === undefined
    ? failed(404, "NotFound", "There is nothing at this path")
    : failed(405, "MethodNotAllowed", "This path has no such method", { allow: methods.join(", ") })
}

/** Answers everything: what no path is for, what dies, and what cannot be read. Only interruption passes. */
export const wrap =
  (paths: Paths) =>
  <E, R>(app: HttpApp.Default<E, R>): HttpApp.Default<never, R> =>
    Effect.catchAllCause(app, (cause) =>
      Effect.gen(function* () {
        if (Cause.isInterruptedOnly(cause)) return yield* Effect.failCause(cause as Cause.Cause<never>)
        const error = Cause.squash(cause)
        if (error instanceof HttpServerError.RouteNotFound)
          return notFound((yield* HttpServerRequest.HttpServerRequest).url, paths)
        if (error instanceof HttpServerError.RequestError)
          return failed(400, "BadRequest", "The request could not be read")
        yield* Effect.logError("The health API could not answer", cause)
        return failed(500, "InternalServerError", "The answer could not be made; the program's log says why")
      })
    ).pipe(Effect.map(secured)) as HttpApp.Default<never, R>
