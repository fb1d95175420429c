/** A running program's health API, asked; whatever goes wrong on the way is one error with one sentence. */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as HealthApi from "../../../http/HealthApi.js"

export class ServiceError extends Data.TaggedError("ServiceError")<{ readonly message: string }> {}

/** A service that does not answer is given up after this time. */
const patience = "10 seconds"

const statusOf = (error: unknown): number | undefined =>
  Predicate.hasProperty(error, "response") && Predicate.hasProperty(error.response, "status")
    ? Number(error.response.status)
    : undefined

/** The innermost reason that somebody wrote for people. */
const reasonOf = (error: unknown): string => {
  if (Predicate.hasProperty(error, "cause") && Predicate.isNotNullable(error.cause)) return reasonOf(error.cause)
  const code = Predicate.hasProperty(error, "code") && Predicate.isString(error.code) ? error.code : ""
  const message = Predicate.hasProperty(error, "message") && Predicate.isString(error.message) ? error.message : ""
  if (message === "") return code === "" ? String(error) : code
  return code === "" || message.includes(code) ? message : `${message} (${code})`
}

export const explained =
  (url: string) =>
  (error: unknown): ServiceError => {
    const status = statusOf(error)
    if (status !== undefined)
      return new ServiceError({
        message: `${url} answered with ${status} and no health API is to be seen: give the URL under which HealthApi is served, its prefix included`
      })
    if (Predicate.isTagged(error, "ParseError") || Predicate.isTagged(error, "HttpApiDecodeError"))
      return new ServiceError({
        message: `${url} answered what is not of this version's health API: is the program's library older or newer?`
      })
    return new ServiceError({
      message: `${url} cannot be asked: ${reasonOf(error)}. Is the program running, and the URL right?`
    })
  }

type Client = Effect.Effect.Success<ReturnType<typeof HealthApi.client>>

/** One question; the failures that are answers of the API itself are the caller's. */
export const ask = <A, E, Known extends E>(
  url: string,
  question: (client: Client) => Effect.Effect<A, E, never>,
  isAnswer: (error: E) => error is Known
): Effect.Effect<A, Known | ServiceError> =>
  HealthApi.client({ url }).pipe(
    Effect.flatMap(question),
    Effect.timeoutFail({
      duration: patience,
      onTimeout: () => new ServiceError({ message: `${url} did not answer within ${patience}` })
    }),
    Effect.mapError((error) =>
      error instanceof ServiceError ? error : isAnswer(error as E) ? (error as Known) : explained(url)(error)
    ),
    Effect.provide(FetchHttpClient.layer)
  )
