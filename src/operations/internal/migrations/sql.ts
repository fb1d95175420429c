/** A file of SQL as single statements, because a text of several cannot hold what refuses to run in a transaction. Pure. */

import { isWord, Lexer, nothing } from "../../../policy/internal/sqlLexer.js"
import * as ReadOnly from "../../../policy/ReadOnly.js"

export interface Statement {
  readonly sql: string
  /** Of its first word, from 1. */
  readonly line: number
}

export interface Script {
  readonly statements: ReadonlyArray<Statement>
  /** False where a comment before the first statement says `-- transaction: false`. */
  readonly transaction: boolean
  /** Why it cannot be run. */
  readonly problem: string | undefined
}

const directive = /^[ \t]*--[ \t]*transaction[ \t]*:[ \t]*(\S*)[ \t]*$/im

const lineOf = (text: string, at: number) => text.slice(0, at).split("\n").length

/** Statements end at a `;` outside quotes, comments, parentheses (CREATE RULE) and `BEGIN ATOMIC … END`. */
const split = (
  text: string
): { readonly statements: ReadonlyArray<Statement>; readonly unclear: number | undefined } => {
  const lexer = new Lexer(text)
  const statements: Array<Statement> = []
  let start: number | undefined
  let end = 0
  let parentheses = 0
  let atomic = 0
  let before = nothing
  const finish = () => {
    if (start !== undefined) statements.push({ sql: text.slice(start, end), line: lineOf(text, start) })
    start = undefined
    parentheses = 0
    atomic = 0
  }
  for (let token = lexer.next(); token.kind !== "end"; token = lexer.next()) {
    // `U&"…"` is unclear only in its meaning, not in its end.
    if (token.kind === "unclear" && token.end === text.length) return { statements, unclear: token.start }
    if (token.kind === ";" && parentheses <= 0 && atomic === 0) finish()
    else {
      start ??= token.start
      end = token.end
      if (token.kind === "(") parentheses++
      if (token.kind === ")") parentheses--
      if (atomic === 0 ? isWord(token, "atomic") && isWord(before, "begin") : isWord(token, "case")) atomic++
      else if (atomic > 0 && isWord(token, "end")) atomic--
    }
    before = token
  }
  finish()
  return { statements, unclear: undefined }
}

const savepoints = new Set(["savepoint", "release"])
const rollbackTo = /^\s*rollback\s+((work|transaction)\s+)?to\s/i

/** Whether a text begins or ends a transaction. Savepoints do neither. */
export const endsTransaction = (sql: string): boolean => {
  const { command, transactionControl } = ReadOnly.inspect(sql)
  return transactionControl && !savepoints.has(command) && !(command === "rollback" && rollbackTo.test(sql))
}

export const parse = (text: string): Script => {
  const { statements, unclear } = split(text)
  const head = text.slice(0, new Lexer(text).next().start)
  const said = directive.exec(head)?.[1]
  const transaction = said !== "false"
  const problem = () => {
    if (unclear !== undefined) return `line ${lineOf(text, unclear)} begins a quotation or comment that never ends`
    if (said !== undefined && said !== "true" && said !== "false") {
      return `"-- transaction: ${said}" is neither true nor false`
    }
    const control = transaction ? statements.find(({ sql }) => endsTransaction(sql)) : undefined
    if (control === undefined) return undefined
    const words = control.sql.split(/\s+/, 2).join(" ")
    return (
      `line ${control.line} is "${words}", and a migration is a transaction already: leave it out, ` +
      `or begin the file with "-- transaction: false"`
    )
  }
  return { statements, transaction, problem: problem() }
}

/** Whether a statement may take its time for a lock: it blocks nobody while it waits, or may not be left half done. */
export const unhurried = (sql: string): boolean => {
  const lexer = new Lexer(sql)
  let first = true
  for (let token = lexer.next(); token.kind !== "end"; token = lexer.next()) {
    if (isWord(token, "concurrently") || (first && isWord(token, "vacuum"))) return true
    first = false
  }
  return false
}
