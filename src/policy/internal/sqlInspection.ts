/** One text read to its verdict, without a cache. */
import type { Inspection } from "../ReadOnly.js"
import { WriteDetector } from "./sqlCalls.js"
import { CommandReader } from "./sqlCommands.js"
import { Lexer, type Text, words } from "./sqlLexer.js"

const readers = words("select values table show")

const read = (sql: Text, backslashes: boolean): { readonly inspection: Inspection; readonly ambiguous: boolean } => {
  const lexer = new Lexer(sql, backslashes)
  const writes = new WriteDetector()
  const commands = new CommandReader()
  for (let token = lexer.next(); token.kind !== "end"; token = lexer.next()) {
    writes.see(token)
    commands.see(token)
  }
  commands.finish()
  const { only, opaque, transactionControl } = commands
  return {
    ambiguous: lexer.ambiguous,
    inspection: { command: only, readOnly: !writes.writes && readers.has(only), opaque, transactionControl }
  }
}

/**
 * Where the two settings of `standard_conforming_strings` end a string in different places, both readings count: read-only
 * if both are, opaque if one is.
 */
export const inspect = (sql: Text): Inspection => {
  const { ambiguous, inspection } = read(sql, false)
  if (!ambiguous) return inspection
  const other = read(sql, true).inspection
  return {
    command: inspection.command === other.command ? inspection.command : "other",
    readOnly: inspection.readOnly && other.readOnly,
    opaque: inspection.opaque || other.opaque,
    transactionControl: inspection.transactionControl || other.transactionControl
  }
}
