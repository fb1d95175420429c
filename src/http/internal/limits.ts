/** How much may be asked, and how much may be sent. */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as refusals from "./refusals.js"

export const defaults = {
  /** Bytes of a body. */
  maxBody: 4096,
  /** Milliseconds of real time that a body may take to arrive. */
  bodyTimeout: 5000,
  /** Milliseconds of real time that a rehearsal may take: what it waits for takes none, but a program's own schedule may. */
  rehearsalTimeout: 5000
} as const

const live = Clock.make()

/** Ends a rehearsal that has no end, and does not wait for what cannot be interrupted. */
export const rehearsed = <A>(rehearsal: Effect.Effect<A>): Effect.Effect<A, refusals.RehearsalTimeout> =>
  Effect.disconnect(rehearsal).pipe(
    Effect.timeoutOption(defaults.rehearsalTimeout),
    Effect.withClock(live),
    Effect.flatMap(
      Option.match({
        onNone: () =>
          refusals.refuse(
            new refusals.RehearsalTimeout({
              message: `The policy gave no answer within ${defaults.rehearsalTimeout} ms: is there a schedule without an end?`
            })
          ),
        onSome: Effect.succeed
      })
    )
  )

/** At most so many within any stretch of time. */
export interface Window {
  /** Milliseconds until there is room for one more; 0 when there is now. `now`: milliseconds, of any fixed origin. */
  readonly wait: (now: number) => number
  /** Counts one, room or not: of those that count, the latest `max` are remembered. */
  readonly take: (now: number) => void
}

/** `max`: 1 or more; `lengthMs`: milliseconds. */
export const makeWindow = (max: number, lengthMs: number): Window => {
  const taken: Array<number> = []
  return {
    wait: (now) => (taken.length < max ? 0 : Math.max(0, taken[0]! + lengthMs - now)),
    take: (now) => {
      taken.push(now)
      if (taken.length > max) taken.shift()
    }
  }
}

/**
 * A window for each key. At most `maxKeys` are remembered: whoever was first counted longest ago is forgotten first, so that
 * no number of callers takes more memory than that.
 */
export const makeWindows = (max: number, lengthMs: number, maxKeys = 1000) => {
  const windows = new Map<string, Window>()
  return {
    wait: (key: string, now: number): number => windows.get(key)?.wait(now) ?? 0,
    take: (key: string, now: number): void => {
      const window = windows.get(key) ?? makeWindow(max, lengthMs)
      window.take(now)
      windows.set(key, window)
      if (windows.size > maxKeys) windows.delete(windows.keys().next().value!)
    },
    size: () => windows.size
  }
}

const tooLarge = refusals.refuse(
  new refusals.PayloadTooLarge({ message: `The body may have at most ${defaults.maxBody} bytes` })
)

const tooSlow = refusals.refuse(
  new refusals.RequestTimeout({ message: `The body did not arrive within ${defaults.bodyTimeout} ms` }),
  { connection: "close" }
)

const bad = (message: string) => refusals.refuse(new refusals.BadRequest({ message }))

/** How long, in milliseconds, and how much, in bytes, is still heard of a body that is refused already. */
const linger = { timeout: 2000, bytes: 16 * 1024 * 1024 }

/**
 * The bytes of the body, at most so many. What is longer is refused without being read further. The connection is kept for
 * another moment after that answer, and what still arrives is thrown away: closed at once, it would be reset, and most
 * clients never see the answer. Source: RFC 9112, 9.6.
 */
const readBytes = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<Uint8Array, refusals.BadRequest | refusals.PayloadTooLarge | refusals.RequestTimeout, Scope.Scope> =>
  Effect.gen(function* () {
    if (Number(request.headers["content-length"] ?? 0) > defaults.maxBody) return yield* tooLarge
    const pull = yield* Stream.toPull(request.stream)
    const parts: Array<Uint8Array> = []
    let length = 0
    const next = Effect.map(pull, (chunk) => {
      for (const part of Chunk.toReadonlyArray(chunk)) {
        length += part.byteLength
        if (length <= defaults.maxBody) parts.push(part)
      }
      return length
    })
    const read = Effect.iterate(0, { while: (length) => length <= defaults.maxBody, body: () => next })
    const ended = yield* Effect.either(read).pipe(Effect.timeoutOption(defaults.bodyTimeout), Effect.withClock(live))
    if (Option.isNone(ended)) return yield* tooSlow
    if (Either.isRight(ended.value)) {
      const rest = Effect.iterate(0, { while: (length) => length <= linger.bytes, body: () => next })
      yield* Effect.addFinalizer(() =>
        Effect.interruptible(rest).pipe(Effect.timeout(linger.timeout), Effect.withClock(live), Effect.ignore)
      )
      return yield* tooLarge
    }
    if (Option.isSome(ended.value.left)) return yield* bad("The body ended before it was complete")
    const bytes = new Uint8Array(length)
    let at = 0
    for (const part of parts) {
      bytes.set(part, at)
      at += part.byteLength
    }
    return bytes
  })

const parse = (bytes: Uint8Array): Either.Either<unknown, string> =>
  Either.flatMap(
    Either.try({
      try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      catch: () => "The body is not UTF-8"
    }),
    (text) => Either.try({ try: (): unknown => JSON.parse(text), catch: () => "The body is not JSON" })
  )

const isJson = /^application\/json *(;|$)/i

/** Names of fields come from whoever sent them. */
const shown = (path: ReadonlyArray<PropertyKey>) => path.map((name) => String(name).slice(0, 40)).join(".")

const describe = (error: ParseResult.ParseError) =>
  ParseResult.ArrayFormatter.formatErrorSync(error)
    .slice(0, 5)
    .map(({ _tag, message, path }) =>
      path.length === 0 ? message : `${shown(path)}: ${_tag === "Unexpected" ? "no such field" : message}`
    )
    .join("; ")

/**
 * The body as the schema has it; an empty one is `{}`. What is wrong with it is said by the names of its fields and by the
 * messages that the schema is annotated with: those must not show the value. The request's scope keeps the connection.
 */
export const readJson = <A, I>(
  schema: Schema.Schema<A, I>
): Effect.Effect<
  A,
  refusals.BadRequest | refusals.PayloadTooLarge | refusals.RequestTimeout | refusals.UnsupportedMediaType,
  HttpServerRequest.HttpServerRequest | Scope.Scope
> => {
  const decode = Schema.decodeUnknownEither(schema, { errors: "all", onExcessProperty: "error" })
  return Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    const bytes = yield* readBytes(request)
    const { "content-encoding": encoding = "identity", "content-type": type = "" } = request.headers
    if (bytes.length > 0 && !(isJson.test(type) && encoding === "identity")) {
      return yield* refusals.refuse(
        new refusals.UnsupportedMediaType({ message: "The body has to be application/json, and not compressed" })
      )
    }
    const value = bytes.length === 0 ? Either.right({}) : parse(bytes)
    const decoded = Either.flatMap(value, (value) => Either.mapLeft(decode(value), describe))
    return yield* Either.match(decoded, { onLeft: bad, onRight: Effect.succeed })
  })
}
