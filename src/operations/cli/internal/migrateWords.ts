/** What `migrate` prints, as text and as JSON. Parameter values are in neither. */
import type { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type * as Migrations from "../../Migrations.js"

const title = ({ id, name }: Migrations.Named) => `${id}_${name}`

const done = ({ direction, duration, id, name }: Migrations.Done) => ({
  id,
  name,
  direction,
  milliseconds: Duration.toMillis(duration)
})

export const report = (report: Migrations.Report) => ({ done: report.done.map(done), adopted: report.adopted })

export const reportText = (report: Migrations.Report): string =>
  [
    ...report.adopted.map((migration) => `${title(migration)} was applied before: its file is noted as it is now`),
    ...report.done.map(
      (step) => `${title(step)} ${step.direction === "up" ? "applied" : "undone"} (${Duration.format(step.duration)})`
    ),
    ...(report.done.length === 0 ? ["Nothing to do"] : [])
  ].join("\n")

/** The document in the place of the result. */
export const failure = (error: Migrations.Stopped | SqlError) => {
  const facts =
    error._tag === "MigrationFailed"
      ? {
          id: error.id,
          name: error.name,
          direction: error.direction,
          state: error.state,
          done: error.done.map(({ direction, id, name }) => ({ id, name, direction })),
          left: error.left.map(({ direction, id, name }) => ({ id, name, direction })),
          invalidIndexes: error.invalidIndexes
        }
      : error._tag === "MigrationUnfinished"
        ? { id: error.id, name: error.name, direction: error.direction, invalidIndexes: error.invalidIndexes }
        : {}
  return { error: { tag: error._tag, message: error.message, ...facts } }
}

const checks: { readonly [C in Migrations.Check]: string } = {
  matches: "as it was applied",
  adopted: "as it was adopted, which was after it was applied",
  edited: "EDITED since it was applied",
  renamed: "RENAMED",
  unchecked: "not checked"
}

export const status = (entries: ReadonlyArray<Migrations.Entry>) => ({
  migrations: entries.map(({ appliedAt, check, id, mark, name, recordedName, state }) => ({
    id,
    name,
    state,
    check: state === "applied" || state === "unfinished" ? check : null,
    appliedAt: appliedAt?.toISOString() ?? null,
    ...(check === "renamed" && { recordedName }),
    ...(mark && { unfinished: { direction: mark.direction, since: mark.since.toISOString() } })
  }))
})

export const statusText = (entries: ReadonlyArray<Migrations.Entry>): string => {
  if (entries.length === 0) return "There are no migrations, neither in the folder nor in the database"
  const width = Math.max(...entries.map((entry) => title(entry).length))
  return entries
    .map(({ appliedAt, check, mark, recordedName, state, ...named }) => {
      const renamed = check === "renamed" ? `, was ${recordedName}` : ""
      const about = {
        applied: `${appliedAt?.toISOString()}  ${checks[check]}${renamed}`,
        missing: `${appliedAt?.toISOString()}  no such file`,
        pending: "",
        skipped: "never applied, although later ones are",
        unfinished: `${mark?.direction} since ${mark?.since.toISOString()}: resolve it`
      }[state]
      return `${title(named).padEnd(width)}  ${state.padEnd(10)}  ${about}`.trimEnd()
    })
    .join("\n")
}

/** Why nothing could be run, in a word for each. */
export const wrong = (entries: ReadonlyArray<Migrations.Entry>): string | undefined => {
  const found = entries.flatMap(({ check, state, ...named }) =>
    state === "unfinished" || state === "skipped"
      ? [`${title(named)} is ${state}`]
      : check === "edited" || check === "renamed"
        ? [`${title(named)} was ${check}`]
        : []
  )
  return found.length === 0 ? undefined : found.join("; ")
}

export const plan = (planned: ReadonlyArray<Migrations.Planned>) => ({
  steps: planned.map(({ direction, id, incomplete, name, statements, transaction }) => ({
    id,
    name,
    direction,
    transaction,
    statements: statements.map(({ params, sql }) => ({ sql, parameters: params.length })),
    incomplete: incomplete ?? null
  }))
})

const statementText = ({ params, sql }: Migrations.PlannedStatement) => {
  const text = Predicate.isString(sql) ? sql.trim() : ""
  return `${text}${text.endsWith(";") ? "" : ";"}${params.length === 0 ? "" : ` -- ${params.length} parameters`}`
}

export const planText = (planned: ReadonlyArray<Migrations.Planned>): string =>
  planned.length === 0
    ? "-- Nothing to do"
    : planned
        .map((step) =>
          [
            `-- ${title(step)} ${step.direction}, ${step.transaction ? "in a transaction" : "outside a transaction"}`,
            ...step.statements.map(statementText),
            ...(step.incomplete === undefined
              ? []
              : [`-- What comes after is not known, as nothing of this is there yet: ${step.incomplete}`])
          ].join("\n")
        )
        .join("\n\n")
