/** The command `report`: all that is known of a running program's access to its database, or of the database itself. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Redacted from "effect/Redacted"
import * as ResilienceConfig from "../../../config/ResilienceConfig.js"
import type * as PgError from "../../../error/PgError.js"
import * as summaries from "../../../http/internal/report.js"
import * as Doctor from "../../Doctor.js"
import { print } from "../shared.js"
import * as client from "./client.js"
import * as health from "./health.js"
import * as remote from "./remote.js"
import * as style from "./style.js"

const never = (_: unknown): _ is never => false

const ofService = (url: string, json: boolean) =>
  Effect.flatMap(
    remote.ask(url, ({ resilience }) => resilience.report({}), never),
    (summary) => print(json, summary, () => summaries.text(summary).trimEnd())
  )

/** Checks whose findings are figures that a report has, whatever they are. */
const figures: ReadonlySet<string> = new Set([
  "connectivity",
  "connections",
  "standby",
  "replicas",
  "archiver",
  "usage"
])

const text = (checked: health.Health, doctor: Doctor.Report | undefined, on: style.Style): string => {
  const { paint, width } = on
  const section = (title: string, lines: ReadonlyArray<string>, none: string) => [
    "",
    paint("bold", title),
    ...(lines.length === 0 ? [none] : lines).flatMap((line) => style.fold(line, width, "  "))
  ]
  if (doctor === undefined) return health.text(checked, on)
  const { findings, notChecked, server } = doctor
  const bad = findings.filter(({ severity }) => Doctor.atLeast(severity, "warning"))
  return [
    paint(
      "bold",
      `PostgreSQL ${server.version}, database ${server.database}, as ${server.role}, ${new Date(checked.at).toISOString()}`
    ),
    health.text(checked, on),
    ...section(
      "Figures",
      findings.filter(({ check }) => figures.has(check)).map(({ found }) => found),
      "none"
    ),
    ...section(
      "Findings that are worse than a note",
      bad.map(({ check, found, severity }) => `${severity}: ${found} (${check})`),
      "none"
    ),
    "",
    `${findings.filter(({ severity }) => severity === "info").length} notes and ${notChecked.length} checks that could not be made: see effect-pg-resilience doctor`
  ].join("\n")
}

/** Health is told also of a database that does not answer; then it fails with the reason. */
const ofDatabase = (url: Redacted.Redacted, json: boolean) =>
  Effect.gen(function* () {
    const checked = yield* health.check(url)
    const examined = yield* Doctor.examine({ maxConnections: ResilienceConfig.defaults.maxConnections }).pipe(
      Effect.provide(client.layer(url)),
      Effect.either
    )
    const doctor = Either.getOrUndefined(examined)
    yield* print(json, { health: checked, doctor }, () => text(checked, doctor, style.ofProcess()))
    if (Either.isLeft(examined)) return yield* Effect.fail(examined.left)
  })

export const run = (
  subject: health.Subject,
  json: boolean
): Effect.Effect<void, remote.ServiceError | PgError.PgError | SqlError> =>
  subject._tag === "Service" ? ofService(subject.url, json) : ofDatabase(subject.url, json)
