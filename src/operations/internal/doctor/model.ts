/** What an examination says, as schemas: for its JSON, and for whoever reads that. */
import * as Schema from "effect/Schema"

/** From best to worst. */
export const severities = ["ok", "info", "warning", "critical"] as const

export const Severity = Schema.Literal(...severities)
export type Severity = typeof Severity.Type

export const Finding = Schema.Struct({
  check: Schema.String.annotations({ description: "Which check found it: one of `Doctor.checks`" }),
  severity: Severity,
  title: Schema.String.annotations({ description: "What it is about, in a few words" }),
  found: Schema.String.annotations({ description: "What was found, in a sentence" }),
  advice: Schema.String.annotations({
    description: "What to do, with the command where there is one; empty where all is well"
  })
}).annotations({ identifier: "Finding" })
export type Finding = typeof Finding.Type

export const NotChecked = Schema.Struct({
  check: Schema.String,
  why: Schema.String.annotations({ description: "What kept the check from looking, and what would help" })
}).annotations({ identifier: "NotChecked" })
export type NotChecked = typeof NotChecked.Type

export const Report = Schema.Struct({
  at: Schema.Number.annotations({ description: "Milliseconds since the epoch" }),
  server: Schema.Struct({
    version: Schema.String,
    database: Schema.String,
    role: Schema.String,
    standby: Schema.Boolean
  }),
  worst: Severity.annotations({ description: "The worst of all findings" }),
  findings: Schema.Array(Finding).annotations({ description: "The worst first" }),
  notChecked: Schema.Array(NotChecked)
}).annotations({ identifier: "DoctorReport" })
export type Report = typeof Report.Type

export const rank = (severity: Severity): number => severities.indexOf(severity)

/** Whether one severity is at least as bad as another. */
export const atLeast = (severity: Severity, limit: Severity): boolean => rank(severity) >= rank(limit)
