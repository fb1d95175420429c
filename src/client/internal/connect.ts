/**
 * Opening a session and making it ready for use: password, server settings, the program's own set-up.
 *
 * A pooler may refuse settings in the startup message (PgBouncer: 08P01 "unsupported startup parameter"). Then we connect
 * without them from there on, and they go into BEGIN instead, where a pooler can not lose them.
 */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import type * as Pg from "pg"
import type { Decoded } from "../../config/ResilienceConfig.js"
import { classify, isFatal, isUnsupportedStartupParameter } from "../../error/classify.js"
import { copy } from "../../error/internal/build.js"
import * as PgError from "../../error/PgError.js"
import { open, query, type Session, terminated } from "./session.js"
import type { Policy } from "./statements.js"

const abandoned = terminated("its set-up failed, or was given up")

export interface Connector {
  /** To be run on the live clock, which `connectTimeout` goes by. */
  readonly connect: Effect.Effect<Session, PgError.PgError>
  /** What goes behind BEGIN when the startup message could not carry it: empty, or `; SET LOCAL …`. */
  readonly setLocal: () => string
}

export const make = (
  config: Decoded,
  onConnect: ((session: Session) => Effect.Effect<void, SqlError>) | undefined,
  /** The server, or what is in front of it, takes no settings in the startup message: said once. */
  onRefusedSettings: () => void,
  statements: Policy | undefined
): Connector => {
  const { connectTimeout, exposeServerDetail, keepAlive, parameters, serverTimeouts, target } = config
  const limits = Object.entries({
    statement_timeout: serverTimeouts.statement,
    lock_timeout: serverTimeouts.lock,
    idle_in_transaction_session_timeout: serverTimeouts.idleInTransaction
  }).filter((limit): limit is [string, number] => limit[1] !== undefined)
  const inBegin = limits.map(([name, value]) => `; SET LOCAL ${name} = ${value}`).join("")
  const settings = Object.entries(parameters)
  let refused = false

  const driver = (password: Redacted.Redacted | undefined): Pg.ClientConfig => {
    return {
      ...target.driver,
      ...(password === undefined ? {} : { password: Redacted.value(password) }),
      // As text: `pg` leaves out a number that is 0, although "no limit" is what was asked for.
      ...(refused ? {} : Object.fromEntries(limits.map(([name, value]) => [name, String(value)]))),
      ...(config.stream === undefined ? {} : { stream: config.stream }),
      types: config.types,
      keepAlive
    }
  }

  const typed = (cause: unknown) => classify(cause, { phase: "Acquire", outcome: "NotApplied", exposeServerDetail })

  const password: Effect.Effect<Redacted.Redacted | undefined, PgError.PgError> = Effect.isEffect(target.password)
    ? target.password.pipe(
        Effect.catchAllCause((cause) =>
          Effect.fail(
            new PgError.AuthenticationError({
              message: "The effect that gives the password failed: nothing was sent. Look at what it does",
              phase: "Acquire",
              outcome: "NotApplied",
              transient: true,
              attempts: 1,
              ...(exposeServerDetail ? { cause } : {})
            })
          )
        )
      )
    : Effect.succeed(target.password)

  /** The server does not say which, as it can not know that the value of a parameter is a name here. */
  const refusedSettings = (cause: unknown): PgError.PgError => {
    const error = typed(cause)
    const names = settings.map(([name]) => name).join(", ")
    return error.sqlState === undefined || isFatal(cause)
      ? error
      : copy(error, { message: `One of the option \`parameters\` (${names}) was refused: ${error.message}` })
  }

  /** Settings by a statement: what a pooler refuses in the startup message it passes on like any other. */
  const set = (session: Session): Effect.Effect<unknown, unknown> => {
    if (settings.length === 0) return Effect.void
    const calls = settings.map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, false)`)
    return Effect.mapError(query(session, `SELECT ${calls.join(", ")}`, settings.flat()), refusedSettings)
  }

  /** The program's set-up, and the end of what it gave up on the way: the next statement is to find the wire free. */
  const setUp = (session: Session): Effect.Effect<void, unknown> =>
    onConnect === undefined
      ? Effect.void
      : Effect.zipRight(
          Effect.disconnect(onConnect(session)),
          Effect.async<void>((resume) => session.whenIdle(() => resume(Effect.void)))
        )

  const late = (what: string) =>
    new PgError.ConnectionError({
      message: `Connecting took longer than connectTimeout (${connectTimeout} ms): it waited for ${what}`,
      phase: "Acquire",
      outcome: "NotApplied",
      transient: true,
      attempts: 1
    })

  /**
   * All of it within `connectTimeout`, as whoever comes next waits for this one: the pool opens no other connection beside
   * a prober's. What is the program's own is left behind if it can not be interrupted; the session is destroyed.
   */
  const once = Effect.suspend(() => {
    let session: Session | undefined
    let step = "the effect that gives the password"
    const steps = Effect.gen(function* () {
      const secret = yield* Effect.disconnect(password)
      step = "the server's answer"
      const opened = yield* Effect.uninterruptibleMask((restore) =>
        Effect.map(
          Effect.suspend(() => restore(open(driver(secret), statements))),
          (opened) => {
            session = opened
            return opened
          }
        )
      )
      step = "the option `parameters`"
      yield* set(opened)
      step = "`onConnect`"
      yield* setUp(opened)
      return opened
    })
    return steps.pipe(
      Effect.interruptible,
      Effect.timeoutFail({ duration: connectTimeout, onTimeout: () => late(step) }),
      Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => session?.destroy(abandoned))))
    )
  })

  const withSettings = Effect.catchIf(
    once,
    (error) => !refused && limits.length > 0 && isUnsupportedStartupParameter(error),
    () => {
      refused = true
      onRefusedSettings()
      return once
    }
  )

  /** A password that has been rotated meanwhile is asked for once more. */
  const rotated = Effect.isEffect(target.password)
    ? Effect.catchIf(
        withSettings,
        (error) => typed(error).sqlState === "28P01",
        () => withSettings
      )
    : withSettings

  return {
    // A defect of the program's own set-up is a failure to connect like any other: somebody waits for this connection.
    connect: Effect.mapError(Effect.catchAllDefect(rotated, Effect.fail), typed),
    setLocal: () => (refused ? inBegin : "")
  }
}
