import { type Variable, variables } from "../../src/config/ResilienceConfig.js"

const code = (text: string) => `\`${text}\``

/** A cell may hold neither a bar nor a line break. */
const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("\n", " ")

const row = (cells: ReadonlyArray<string>) => `| ${cells.map(cell).join(" | ")} |`

/** A table of environment variables, as Markdown, out of the table that a `fromEnv` reads by; default: the layer's own. */
export const configTable = (all: ReadonlyArray<Variable> = variables): string =>
  [
    row(["variable", "sets", "unit", "default", "meaning"]),
    row(["---", "---", "---", "---", "---"]),
    ...all.map((_) => row([code(_.name), code(_.option), _.unit, _.default ?? "", _.doc]))
  ].join("\n")
