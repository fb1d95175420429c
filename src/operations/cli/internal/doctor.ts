/** The command `doctor`: an examination as text, and what its exit code is. */
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as ResilienceConfig from "../../../config/ResilienceConfig.js"
import * as Doctor from "../../Doctor.js"
import { print, Refused } from "../shared.js"
import * as client from "./client.js"
import * as style from "./style.js"

const colours = { critical: "red", warning: "yellow", info: "cyan", ok: "green" } as const

const indent = "    "

const count = (n: number, thing: string) => `${n} ${thing}${n === 1 ? "" : "s"}`

const lines = (finding: Doctor.Finding, { paint, width }: style.Style): ReadonlyArray<string> => [
  `  ${paint("bold", finding.title)} ${paint("dim", `(${finding.check})`)}`,
  ...style.fold(finding.found, width, indent),
  ...(finding.advice === "" ? [] : style.fold(`→ ${finding.advice}`, width, indent))
]

/** By severity, the worst first; what is in order as a number, unless `all` is asked for. */
export const text = ({ findings, notChecked, server }: Doctor.Report, all: boolean, on: style.Style): string => {
  const { paint } = on
  const ofSeverity = (severity: Doctor.Severity) => findings.filter((finding) => finding.severity === severity)
  const shown = Doctor.severities.toReversed().filter((severity) => severity !== "ok" || all)
  const fine = ofSeverity("ok").length
  return [
    paint(
      "bold",
      `PostgreSQL ${server.version}, database ${server.database}, as ${server.role}${server.standby ? ", a standby" : ""}`
    ),
    ...shown.flatMap((severity) => {
      const found = ofSeverity(severity)
      return found.length === 0
        ? []
        : ["", paint(colours[severity], severity.toUpperCase()), ...found.flatMap((finding) => lines(finding, on))]
    }),
    ...(notChecked.length === 0
      ? []
      : [
          "",
          paint("yellow", "NOT CHECKED"),
          ...notChecked.flatMap(({ check, why }) => style.fold(`${check}: ${why}`, on.width, "  "))
        ]),
    "",
    `${ofSeverity("critical").length} critical, ${count(ofSeverity("warning").length, "warning")}, ${count(ofSeverity("info").length, "note")}, ` +
      `${fine} in order${all ? "" : " (--all shows them)"}, ${notChecked.length} not checked`
  ].join("\n")
}

export interface Options extends Doctor.Options {
  readonly url: Redacted.Redacted
  readonly json: boolean
  readonly all: boolean
  readonly failOn: Doctor.Severity | "never"
}

export const run = ({ all, failOn, json, url, ...options }: Options) =>
  Effect.gen(function* () {
    const report = yield* Doctor.examine({
      ...options,
      // The command's own pool has one connection: the program's is what is judged.
      maxConnections: options.maxConnections ?? ResilienceConfig.defaults.maxConnections
    })
    yield* print(json, report, () => text(report, all, style.ofProcess()))
    if (failOn !== "never" && Doctor.atLeast(report.worst, failOn))
      return yield* new Refused({ message: `The worst finding is ${report.worst} (--fail-on ${failOn}).` })
  }).pipe(Effect.provide(client.layer(url)))
