/** All checks, and what they come to together. Pure. */
import * as Either from "effect/Either"
import * as activity from "./activity.js"
import type { Around, Check } from "./check.js"
import * as connection from "./connection.js"
import * as Model from "./model.js"
import * as objects from "./objects.js"
import * as replication from "./replication.js"
import * as settings from "./settings.js"

export const checks: ReadonlyArray<Check> = [
  ...connection.all,
  ...settings.all,
  ...replication.all,
  ...activity.all,
  ...objects.all
]

/** The worst first; among equals, in the order of the checks. */
export const judge = (around: Around): Model.Report => {
  const outcomes = checks.map(({ run }) => run(around))
  const findings = outcomes
    .flatMap((outcome) => (Either.isRight(outcome) ? outcome.right : []))
    .map((finding, n) => ({ finding, n }))
    .sort((a, b) => Model.rank(b.finding.severity) - Model.rank(a.finding.severity) || a.n - b.n)
    .map(({ finding }) => finding)
  const { database, role, standby, version } = around.facts.server
  return {
    at: around.facts.at,
    server: { version, database, role, standby },
    worst: findings[0]?.severity ?? "ok",
    findings,
    notChecked: outcomes.flatMap((outcome) => (Either.isLeft(outcome) ? [outcome.left] : []))
  }
}
