/** The command `health`: one check of a database, or the latest one of a running program. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type * as Redacted from "effect/Redacted"
import type * as PgError from "../../../error/PgError.js"
import * as HealthMonitor from "../../../health/HealthMonitor.js"
import { print, Refused } from "../shared.js"
import * as client from "./client.js"
import * as remote from "./remote.js"
import * as style from "./style.js"

/** What is printed: the same of a database and of a service. `at`: milliseconds since the epoch. */
export interface Health {
  readonly status: HealthMonitor.Status
  /** 0 to 100. */
  readonly score: number
  readonly at: number
  /** What cost points, the dearest first. */
  readonly reasons: ReadonlyArray<string>
  /** Milliseconds; of a database that answered. */
  readonly pingMs?: number | undefined
  /** Why a database did not answer. */
  readonly error?: string | undefined
}

const colours = { healthy: "green", degraded: "yellow", unhealthy: "red" } as const

export const text = ({ error, pingMs, reasons, score, status }: Health, { paint, width }: style.Style): string =>
  [
    `${paint(colours[status], status)}, score ${score} of 100${pingMs === undefined ? "" : `, answers in ${pingMs.toFixed(1)} ms`}`,
    ...(error === undefined ? [] : style.fold(error, width, "  ")),
    ...reasons.flatMap((reason) => style.fold(`- ${reason}`, width, "  "))
  ].join("\n")

const ofReport = ({ at, deductions, probe, score, status }: HealthMonitor.Report): Health => ({
  status,
  score,
  at,
  reasons: deductions.map(({ points, why }) => `${points} points: ${why}`),
  ...(probe.ok ? { pingMs: probe.pingMs } : { error: probe.error })
})

/** One check, on a connection of its own. */
export const check = (url: Redacted.Redacted): Effect.Effect<Health, PgError.PgError | SqlError> =>
  Effect.flatMap(HealthMonitor.HealthMonitor, (_) => Effect.map(_.check, ofReport)).pipe(
    Effect.provide(Layer.provideMerge(HealthMonitor.layer({ interval: "infinity" }), client.layer(url)))
  )

const isUnhealthy = Predicate.isTagged("Unhealthy") as <E>(
  error: E
) => error is Extract<E, { readonly _tag: "Unhealthy" }>

const ofService = (url: string) =>
  remote
    .ask(url, ({ health }) => health.health({}), isUnhealthy)
    .pipe(
      Effect.catchTag("Unhealthy", (unhealthy) => Effect.succeed(unhealthy)),
      Effect.map(({ at, reasons, score, status }): Health => ({ status, score, at, reasons }))
    )

export type Subject =
  | { readonly _tag: "Database"; readonly url: Redacted.Redacted }
  | { readonly _tag: "Service"; readonly url: string }

export const run = (subject: Subject, json: boolean) =>
  Effect.gen(function* () {
    const health = yield* subject._tag === "Service" ? ofService(subject.url) : check(subject.url)
    yield* print(json, health, () => text(health, style.ofProcess()))
    if (health.status !== "healthy") return yield* new Refused({ message: `The database is ${health.status}.` })
  })
