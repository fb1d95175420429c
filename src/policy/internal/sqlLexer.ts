/**
 * PostgreSQL's tokens, as far as one must know them to tell code from quoted text.
 *
 * Follows `src/backend/parser/scan.l` of PostgreSQL 14 to 18 in every rule that decides where a token ends. Where majors
 * differ (`1into` is two tokens in 14 and an error since 15) the reading that shows more is taken. Reads each character a
 * bounded number of times and never throws: what a server would refuse to read ends in an `unclear` token.
 */

/** A string, or in tests one that counts how often it is looked at. */
export type Text = Pick<string, "length" | "charCodeAt" | "indexOf" | "slice">

/**
 * - `word`: an unquoted name or keyword. `quoted`: a name in double quotes. `literal`: a string, number or parameter.
 * - `operator`: any other single character; runs of them are not joined.
 * - `unclear`: something whose meaning needs more than tokens (`U&"d\0061ta"`), a NUL, or a quote that never ends.
 */
export type Kind = "word" | "quoted" | "literal" | "operator" | "unclear" | "end" | Mark

/** Punctuation, named by itself. */
export type Mark = "(" | ")" | "[" | "]" | "," | ";" | "." | "::"

export interface Token {
  readonly kind: Kind
  /** A word in lower case, unless it holds letters outside ASCII; a quoted name between its quotes; otherwise empty. */
  readonly text: string
  /** The token's place in the text: from `start` up to and without `end`. */
  readonly start: number
  readonly end: number
}

/** What stands before the first token. */
export const nothing: Token = { kind: "end", text: "", start: 0, end: 0 }

export const words = (list: string): ReadonlySet<string> => new Set(list.split(" "))
export const isWord = (token: Token, text: string): boolean => token.kind === "word" && token.text === text
export const isOneOf = (token: Token, set: ReadonlySet<string>): boolean => token.kind === "word" && set.has(token.text)

const START = 1
const PART = 2
const DIGIT = 4
const SPACE = 8

/** What an ASCII character can be part of; everything above ASCII is a letter to PostgreSQL. */
const classes = Uint8Array.from({ length: 128 }, (_, code) => {
  const char = String.fromCharCode(code)
  if (/[a-z_]/i.test(char)) return START | PART
  if (/[0-9]/.test(char)) return PART | DIGIT
  return /[ \t\n\r\f\v]/.test(char) ? SPACE : 0
})

/** False past the end of the text, where `code` is NaN. */
const is = (code: number, mask: number): boolean =>
  code < 128 ? (classes[code]! & mask) !== 0 : code >= 128 && ((START | PART) & mask) !== 0

const marks = new Map<number, Mark>(
  (["(", ")", "[", "]", ",", ";", "."] as const).map((mark) => [mark.charCodeAt(0), mark])
)

const NEWLINE = 10
const RETURN = 13
const DOUBLE_QUOTE = 34
const DOLLAR = 36
const AMPERSAND = 38
const QUOTE = 39
const STAR = 42
const PLUS = 43
const MINUS = 45
const POINT = 46
const SLASH = 47
const COLON = 58
const BACKSLASH = 92
const lower = (code: number): number => code | 32
const B = 98
const E = 101
const N = 110
const U = 117
const X = 120

/** One pass over one text. `backslashes` reads `'…'` as `standard_conforming_strings = off` does, with escapes. */
export class Lexer {
  /** Whether a `'…'` was met that ends elsewhere when its backslashes are escapes. */
  ambiguous = false
  private position = 0

  constructor(
    private readonly sql: Text,
    private readonly backslashes = false
  ) {}

  /** The next token; `end` for ever once the text is used up. */
  next(): Token {
    const start = this.skipBlanks(this.position)
    if (start >= this.sql.length) return this.token("end", start, start)
    const code = this.at(start)
    if (is(code, START)) return this.wordOrPrefixed(start, code)
    if (is(code, DIGIT)) return this.token("literal", start, this.numberEnd(start))
    const mark = marks.get(code)
    if (mark === "." && is(this.at(start + 1), DIGIT)) return this.token("literal", start, this.numberEnd(start))
    if (mark !== undefined) return this.token(mark, start, start + 1)
    switch (code) {
      case QUOTE:
        return this.string(start, start + 1, this.backslashes)
      case DOUBLE_QUOTE:
        return this.quotedName(start, start + 1, "quoted")
      case DOLLAR:
        return this.dollar(start)
      case COLON:
        return this.at(start + 1) === COLON
          ? this.token("::", start, start + 2)
          : this.token("operator", start, start + 1)
      case SLASH:
        return this.at(start + 1) === STAR ? this.unterminated(start) : this.token("operator", start, start + 1)
      default:
        return this.token(code === 0 ? "unclear" : "operator", start, start + 1)
    }
  }

  private at(index: number): number {
    return this.sql.charCodeAt(index)
  }

  private token(kind: Kind, start: number, end: number, text = ""): Token {
    this.position = end
    return { kind, text, start, end }
  }

  private unterminated(start: number): Token {
    return this.token("unclear", start, this.sql.length)
  }

  /** Past white space and comments, up to a comment that never ends. */
  private skipBlanks(from: number): number {
    let index = from
    for (;;) {
      const code = this.at(index)
      if (is(code, SPACE)) index++
      else if (code === MINUS && this.at(index + 1) === MINUS) index = this.lineEnd(index + 2)
      else if (code === SLASH && this.at(index + 1) === STAR) {
        const end = this.blockEnd(index + 2)
        if (end < 0) return index
        index = end
      } else return index
    }
  }

  private lineEnd(from: number): number {
    let index = from
    while (index < this.sql.length && this.at(index) !== NEWLINE && this.at(index) !== RETURN) index++
    return index
  }

  /** Block comments nest. -1 when the outermost never ends. */
  private blockEnd(from: number): number {
    let index = from
    for (let depth = 1; index < this.sql.length; ) {
      const code = this.at(index)
      if (code === STAR && this.at(index + 1) === SLASH) {
        index += 2
        if (--depth === 0) return index
      } else if (code === SLASH && this.at(index + 1) === STAR) {
        index += 2
        depth++
      } else index++
    }
    return -1
  }

  private wordOrPrefixed(start: number, first: number): Token {
    const second = this.at(start + 1)
    const prefix = lower(first)
    if (second === QUOTE) {
      if (prefix === E) return this.string(start, start + 2, true)
      if (prefix === N) return this.string(start, start + 2, this.backslashes)
      if (prefix === B || prefix === X) return this.string(start, start + 2, false)
    } else if (second === AMPERSAND && prefix === U) {
      if (this.at(start + 2) === QUOTE) return this.string(start, start + 3, false)
      if (this.at(start + 2) === DOUBLE_QUOTE) return this.quotedName(start, start + 3, "unclear")
    }
    let index = start
    let seen = 0
    for (let code = first; is(code, PART) || code === DOLLAR; code = this.at(++index)) seen |= code
    const text = this.sql.slice(start, index)
    // Only ASCII is folded: the Kelvin sign's lower case is a plain "k", but the server does not take it for one.
    return this.token("word", start, index, seen < 128 ? text.toLowerCase() : text)
  }

  private numberEnd(from: number): number {
    let index = this.digitsEnd(from)
    if (this.at(index) === POINT) index = this.digitsEnd(index + 1)
    if (lower(this.at(index)) === E) {
      const sign = this.at(index + 1)
      const digits = sign === PLUS || sign === MINUS ? index + 2 : index + 1
      if (is(this.at(digits), DIGIT)) index = this.digitsEnd(digits)
    }
    return index
  }

  private digitsEnd(from: number): number {
    let index = from
    while (is(this.at(index), DIGIT)) index++
    return index
  }

  /** `from` is the first character inside the quotes. */
  private string(start: number, from: number, escapes: boolean): Token {
    let oddBackslashes = false
    for (let index = from; index < this.sql.length; ) {
      const code = this.at(index++)
      if (code === BACKSLASH) {
        if (escapes) index++
        else oddBackslashes = !oddBackslashes
        continue
      }
      if (code === QUOTE) {
        if (oddBackslashes) this.ambiguous = true
        if (this.at(index) === QUOTE) index++
        else {
          const continued = this.continuation(index)
          if (continued === index) return this.token("literal", start, index)
          index = continued
        }
      }
      oddBackslashes = false
    }
    return this.unterminated(start)
  }

  /** A string goes on, with the same escapes, after blanks that hold a line break and another quote. */
  private continuation(from: number): number {
    let index = from
    for (let broken = false; ; ) {
      const code = this.at(index)
      if (is(code, SPACE)) {
        broken ||= code === NEWLINE || code === RETURN
        index++
      } else if (code === MINUS && this.at(index + 1) === MINUS) index = this.lineEnd(index + 2)
      else return code === QUOTE && broken ? index + 1 : from
    }
  }

  private quotedName(start: number, from: number, kind: "quoted" | "unclear"): Token {
    for (let index = from; ; ) {
      const quote = this.sql.indexOf('"', index)
      if (quote < 0) return this.unterminated(start)
      if (this.at(quote + 1) !== DOUBLE_QUOTE) return this.token(kind, start, quote + 1, this.sql.slice(from, quote))
      index = quote + 2
    }
  }

  /** `$1`, `$tag$…$tag$`, or a lone dollar sign. */
  private dollar(start: number): Token {
    let index = start + 1
    if (is(this.at(index), DIGIT)) return this.token("literal", start, this.digitsEnd(index))
    while (is(this.at(index), PART)) index++
    if (this.at(index) !== DOLLAR) return this.token("operator", start, start + 1)
    const delimiter = this.sql.slice(start, index + 1)
    const close = this.sql.indexOf(delimiter, index + 1)
    return close < 0 ? this.unterminated(start) : this.token("literal", start, close + delimiter.length)
  }
}
