/**
 * Whether a text, if it is one SELECT, VALUES, TABLE or SHOW, can write: by a data-modifying CTE, INTO, a locking clause,
 * or a function that is not known to be harmless.
 *
 * Every `name (` is taken for a call unless the grammar leaves no room for one (PostgreSQL's `gram.y`, 14 to 18), so that
 * what this file does not know is a call of something unknown.
 */
import { reservedWords } from "./reservedWords.js"
import { isOneOf, isWord, nothing, type Token, words } from "./sqlLexer.js"
import { stableFunctions } from "./stableFunctions.js"

/** Commands that write wherever they stand, and what SELECT writes with. A column of that name costs only the verdict. */
const writing = words("insert update delete merge into")

/** `FOR …` of a locking clause. */
const locks = words("update no share key")

/** The commands that a list of CTEs can be for. */
export const mainCommands = words("select values table insert update delete merge")

/**
 * Not calls in form, but in effect: `TREAT(x AS f)` calls `pg_catalog.f`, and after `OPERATOR(…)` an operand begins where
 * after any other `)` none can.
 */
const disguises = words("treat operator")

/** Words that are no operand themselves: an expression, and so a call, can begin after them. */
const introducers = words(
  "authorization between binary by collation concurrently content cross document escape first freeze full groups " +
    "ilike inner is join key left like natural next outer overlaps passing path range ref right rows similar tablesample " +
    "value verbose version zone"
)

/** Keywords that are operands, or end one. */
const operands = words(
  "asc current_catalog current_date current_role current_time current_timestamp current_user desc end false localtime " +
    "localtimestamp null session_user true user"
)

const joins = words("cross full inner left natural outer right")
const ordered = words("group order partition")
const varying = words("bit char character nchar")

/** One open parenthesis, or the text outside all of them. */
interface Frame {
  /** Whether a token was seen in it. */
  empty: boolean
  /** Between WITH and the command that the CTEs are for. */
  ctes: boolean
  /** The parenthesis of DISTINCT ON (…), the only one whose end can be followed by a call. */
  readonly distinctOn: boolean
}

const isName = (token: Token): boolean => token.kind === "word" || token.kind === "quoted"

/** Whether the token ends an operand, so that no expression can begin right after it. */
export const isOperand = (token: Token): boolean => {
  switch (token.kind) {
    case "literal":
    case "quoted":
    case ")":
    case "]":
      return true
    case "word":
      return operands.has(token.text) || !(reservedWords.has(token.text) || introducers.has(token.text))
    default:
      return false
  }
}

/** Is shown one token after the other, of a text with one command. */
export class WriteDetector {
  private found = false
  private frames: Array<Frame> = []
  private frame: Frame = { empty: true, ctes: false, distinctOn: false }
  private last: Token = nothing
  private secondLast: Token = nothing
  /** The name being read, `a.b.c` as one: how many parts, the last but one of them, and the two tokens before it. */
  private parts = 0
  private qualifier: Token = nothing
  private before: Token = nothing
  private secondBefore: Token = nothing

  /** Whether something was seen that can write, or that nobody can be sure about. */
  get writes(): boolean {
    return this.found || this.frames.length > 0
  }

  see(token: Token): void {
    if (this.found) return // nothing takes that back
    if (token.kind === "unclear" || (token.kind === ";" && this.frames.length > 0)) this.found = true
    if (isName(token)) this.name(token)
    let seen = token
    if (token.kind === "(") this.open()
    else {
      this.frame.empty = false
      if (token.kind === ")" && this.close()) seen = { ...token, kind: "," }
    }
    this.secondLast = this.last
    this.last = seen
  }

  private name(token: Token): void {
    if (this.last.kind !== ".") {
      this.parts = 1
      this.before = this.last
      this.secondBefore = this.secondLast
    } else if (isName(this.secondLast)) {
      this.parts++
      this.qualifier = this.secondLast
    } else this.found = true // `(x).f` and `$1.f` call f if x has no such field
    if (token.kind === "quoted") return
    if (writing.has(token.text) || (isWord(this.last, "for") && locks.has(token.text))) this.found = true
    if (this.frame.empty && token.text === "with") this.frame.ctes = true
    else if (mainCommands.has(token.text)) this.frame.ctes = false
  }

  private open(): void {
    if (isName(this.last) && !this.isHarmless()) this.found = true
    if (this.last.kind === ")") this.frame.ctes = false // WITH … AS (…) (SELECT …)
    this.frame.empty = false
    this.frames.push(this.frame)
    this.frame = { empty: true, ctes: false, distinctOn: isWord(this.last, "on") && isWord(this.before, "distinct") }
  }

  /** Whether an expression can begin after this parenthesis. */
  private close(): boolean {
    const { distinctOn } = this.frame
    const outer = this.frames.pop()
    if (outer === undefined) this.found = true
    else this.frame = outer
    return distinctOn
  }

  /** About the name in front of a parenthesis: no call, or a call of a listed function. */
  private isHarmless(): boolean {
    const plain = this.parts === 1
    if (plain && isOneOf(this.last, disguises)) return false
    if (plain && isOneOf(this.last, reservedWords)) return true
    if (this.isNoExpression() || (plain && this.isPhrase())) return true
    const known = plain || (this.parts === 2 && this.qualifier.text === "pg_catalog")
    return known && stableFunctions.has(this.last.text)
  }

  /** The name is that of a type, an alias or a CTE, or a keyword between operands: `AS t (a)`, `::numeric (9)`, `) OVER (`. */
  private isNoExpression(): boolean {
    const { before, frame, secondBefore } = this
    switch (before.kind) {
      case ")":
      case "::":
        return true
      case ",":
        return frame.ctes && secondBefore.kind === ")"
      case "word":
        return (
          before.text === "as" ||
          before.text === "with" ||
          ((before.text === "recursive" || before.text === "ordinality") && isWord(secondBefore, "with"))
        )
      default:
        return false
    }
  }

  /** Keywords that may name functions too, where they cannot. */
  private isPhrase(): boolean {
    const { before, secondBefore } = this
    if (this.last.kind === "quoted") return false
    switch (this.last.text) {
      case "by":
        return isOneOf(before, ordered)
      case "sets":
        return isWord(before, "grouping")
      case "rollup":
      case "cube":
        return isWord(before, "by") && isWord(secondBefore, "group")
      case "first":
      case "next":
        return isWord(before, "fetch")
      case "zone":
        return isWord(before, "time")
      case "varying":
        return isOneOf(before, varying)
      case "materialized":
        return isWord(before, "not") && isWord(secondBefore, "as")
      case "join":
        return isOneOf(before, joins) || isOperand(before)
      case "escape":
        return isOperand(before)
      case "ilike":
        return isOperand(before) || (isWord(before, "not") && isOperand(secondBefore))
      default:
        return false
    }
  }
}
