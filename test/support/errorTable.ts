import * as SqlState from "../../src/error/SqlState.js"

const code = (text: string) => `\`${text.replaceAll("|", "\\|")}\``

const tagOf = ({ outcomeUnknown, tag }: SqlState.Rule) =>
  outcomeUnknown ? `${code("OutcomeUnknownError")} (reason ${code(tag)})` : code(tag)

const rows = (rules: ReadonlyArray<SqlState.Rule>) =>
  rules.map(
    (rule) =>
      `| ${code(rule.match)} | ${tagOf(rule)} | ${rule.transient && !rule.outcomeUnknown ? "yes" : "no"} | ${rule.note} |`
  )

const section = (title: string, rules: ReadonlyArray<SqlState.Rule>) =>
  [`| ${title} | error | transient | what happened |`, "| --- | --- | --- | --- |", ...rows(rules)].join("\n")

/** The README's classification table, as Markdown, out of the table that `classify` reads by. */
export const errorTable = (): string =>
  [
    section("SQLSTATE or class (+ routine)", SqlState.table),
    section("system code", SqlState.systemCodes),
    section("driver's message begins", SqlState.driverMessages),
    section("pooler's message begins", SqlState.poolerMessages)
  ].join("\n\n")
