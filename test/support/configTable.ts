import { variables } from "../../src/config/ResilienceConfig.js"

const code = (text: string) => `\`${text}\``

/** A cell may hold neither a bar nor a line break. */
const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("\n", " ")

const row = (cells: ReadonlyArray<string>) => `| ${cells.map(cell).join(" | ")} |`

/** The README's table of environment variables, as Markdown, out of the table that `fromEnv` reads by. */
export const configTable = (): string =>
  [
    row(["variable", "sets", "unit", "default", "meaning"]),
    row(["---", "---", "---", "---", "---"]),
    ...variables.map((_) => row([code(_.name), code(_.option), _.unit, _.default ?? "", _.doc]))
  ].join("\n")
