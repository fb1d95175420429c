/** Who may change something over HTTP: whoever knows the token, and not too often. */
import { createHash, timingSafeEqual } from "node:crypto"
import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as env from "../../config/internal/env.js"
import * as validate from "../../config/internal/validate.js"
import type { InvalidOptionsError } from "../../error/PgError.js"
import { unsafeNow } from "../../policy/CircuitBreaker.js"
import * as limits from "./limits.js"
import * as refusals from "./refusals.js"

export interface Options {
  /** What has to come after `Authorization: Bearer`: 16 visible ASCII characters or more, better 32 random ones. */
  readonly token: Redacted.Redacted
  /** Requests with the right token that are accepted in any minute, by this process: 1 or more. Default 10. */
  readonly perMinute?: number | undefined
}

export const defaults = { perMinute: 10 } as const satisfies Partial<Options>

const minute = 60_000

const tokenForm = /^[\x21-\x7e]{16,1024}$/

const tokenExpected = "a token of 16 visible ASCII characters or more"

const rule = validate.struct({
  token: validate.secret(
    validate.rule(tokenExpected, (value) =>
      Redacted.isRedacted(value)
        ? Option.filter(Option.some(String(Redacted.value(value))), (token) => tokenForm.test(token))
        : Option.none()
    )
  ),
  perMinute: validate.defaulted(validate.integer({ min: 1, max: 10_000 }), defaults.perMinute)
})

/** `DB_ADMIN_TOKEN`: none where it is not set; too short a one is an error that does not show it. */
export const tokenConfig: Config.Config<Option.Option<Redacted.Redacted>> = Config.option(
  Config.mapOrFail(Config.redacted("DB_ADMIN_TOKEN"), (token) =>
    tokenForm.test(Redacted.value(token))
      ? Either.right(token)
      : Either.left(env.invalid("DB_ADMIN_TOKEN", `DB_ADMIN_TOKEN: expected ${tokenExpected}`))
  )
)

/** Guards all endpoints of the group that it is put on. */
export class Bearer extends HttpApiMiddleware.Tag<Bearer>()("effect-pg-resilience/HealthApi/Bearer", {
  security: {
    bearer: HttpApiSecurity.annotate(HttpApiSecurity.bearer, OpenApi.Description, "The token of `DB_ADMIN_TOKEN`.")
  },
  failure: Schema.Union(refusals.Unauthorized, refusals.TooManyRequests)
}) {}

/** Of one length, whatever was sent: comparing them tells nothing by its time. */
const digest = (text: string) => createHash("sha256").update(text).digest()

const scheme = /^bearer +/i

/**
 * Whoever has sent ten wrong tokens within a minute, by address, has to wait, the right one then included: others are not
 * kept out by that. With the right token `perMinute` holds for all together.
 */
export const make = (options: Options): Either.Either<Bearer["Type"], InvalidOptionsError> =>
  Either.map(validate.decode(rule, "admin")(options), ({ perMinute, token }) => {
    const expected = digest(token)
    const accepted = limits.makeWindow(perMinute, minute)
    const wrong = limits.makeWindows(10, minute)
    const refused = (error: string, message: string) =>
      refusals.refuse(new refusals.Unauthorized({ message }), {
        "www-authenticate": `Bearer realm="effect-pg-resilience"${error}`
      })
    const missing = refused("", "A bearer token is required")
    const invalid = refused(', error="invalid_token"', "The bearer token is wrong")
    return {
      bearer: () =>
        Effect.clockWith((clock) =>
          Effect.gen(function* () {
            const request = yield* HttpServerRequest.HttpServerRequest
            const now = unsafeNow(clock)
            const address = Option.getOrElse(request.remoteAddress, () => "")
            const locked = wrong.wait(address, now)
            if (locked > 0) return yield* refusals.tooMany("Too many wrong tokens: try again later", locked)
            const { authorization = "" } = request.headers
            // Who has none guesses nothing, and keeps out nobody of the same address.
            if (authorization === "") return yield* missing
            const given = authorization.replace(scheme, "")
            const right = timingSafeEqual(digest(given), expected) && given !== authorization
            if (!right) {
              wrong.take(address, now)
              return yield* invalid
            }
            const full = accepted.wait(now)
            if (full > 0)
              return yield* refusals.tooMany(`At most ${perMinute} requests a minute: try again later`, full)
            accepted.take(now)
          })
        )
    }
  })
