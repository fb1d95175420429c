/** One line a person can act on: what happened, to what, and what to do. */
import type { Phase } from "../tags.js"
import { chosenBy } from "./origin.js"
import { oneLine, text } from "./read.js"
import type { Observed, Recognised } from "./recognise.js"
import { kindOf } from "./sanitise.js"

/** The longest `message` of an error, in UTF-16 units. */
export const maxMessage = 400
/** So much of it may be what happened: code and advice have to fit behind. */
const maxHead = 260

/** The token at which the grammar gave up is shown when it is a name or a sign, not when it is a literal. */
const literal = / at or near "(?![\p{L}_"(),;.*=<>+\-/:[\]]).*$/su

/** Where the server takes the path of a file from a parameter, and quotes it when the system refuses access (42501). */
const fileAccess = /^((genfile|be-fsstubs|adminpack)\.c |fd\.c ReadDir)/

/** Whether the server's own message holds no data. RAISE may put data under any SQLSTATE. */
const showable = ({ observed, rule: { shown } }: Recognised): boolean => {
  const { error, fields } = observed
  if (shown === undefined || chosenBy(observed) !== undefined) return false
  if (fileAccess.test(`${text(error, "file")} ${fields.routine}`)) return false
  return shown === "always" || (!text(error, "where") && (shown === "plain" || fields.position !== undefined))
}

const quoted = (...names: ReadonlyArray<string | undefined>) => `"${names.filter((name) => name).join(".")}"`

/** The object in question, as far as the server or the system names it. */
const objectOf = ({ fields: { column, constraint, dataType, schema, table }, target }: Observed): string => {
  const ofTable = table === undefined ? "" : ` of table ${quoted(schema, table)}`
  if (constraint !== undefined) return `: constraint ${quoted(constraint)}${ofTable}`
  if (column !== undefined) return `: column ${quoted(column)}${ofTable}`
  if (table !== undefined) return `: table ${quoted(schema, table)}`
  if (dataType !== undefined) return `: type ${quoted(schema, dataType)}`
  return target === undefined ? "" : `: ${target}`
}

const prefix = (phase: Phase): string => (phase === "Execute" || phase === "Acquire" ? "" : `${phase}: `)

/** The message for an error that a row of the table describes. `exposed` shows the server's own words always. */
export const messageOf = (recognised: Recognised, phase: Phase, exposed: boolean): string => {
  const { observed, rule } = recognised
  const { code, message, sqlState } = observed
  const verbatim = message !== "" && (exposed || (sqlState !== undefined && showable(recognised)))
  const said = exposed ? message : message.replace(literal, " at or near a literal")
  const head = verbatim ? said : `${rule.note}${objectOf(observed)}`
  const kind = code ?? (rule.match === "" ? kindOf(observed) : undefined)
  const advice = rule.advice === undefined ? "" : `; ${rule.advice}`
  return oneLine(
    `${prefix(phase)}${oneLine(head, maxHead)}${kind === undefined ? "" : ` (${kind})`}${advice}`,
    maxMessage
  )
}
