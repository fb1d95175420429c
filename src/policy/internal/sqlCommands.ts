/**
 * Which commands a text consists of, and what an error in answer to it proves.
 *
 * Statements end at a `;` outside parentheses (the actions of CREATE RULE stand inside) and outside `BEGIN ATOMIC … END`,
 * the body of a function in SQL's own form.
 */
import type { Command } from "../ReadOnly.js"
import { isOperand, mainCommands } from "./sqlCalls.js"
import { isOneOf, isWord, nothing, type Token, words } from "./sqlLexer.js"

/** First word to command; what is not listed is `other`. */
const commands = new Map<string, Command>([
  ...(["select", "values", "table", "show", "insert", "update", "delete", "merge"] as const).map(same),
  ...(["begin", "commit", "rollback", "savepoint", "release", "set", "call", "do", "copy", "explain"] as const).map(
    same
  ),
  ...(["create", "alter", "drop", "truncate"] as const).map(same),
  ["start", "begin"],
  ["end", "commit"],
  ["abort", "rollback"],
  ["reset", "set"]
])

function same(command: Command): readonly [string, Command] {
  return [command, command]
}

/** Words of a WITH clause before a name, which may be spelled like a command. */
const beforeNames = words("with recursive by cycle set using")

/** Source: PostgreSQL manual, part VI, the pages of these commands; PREPARE needs a second word. */
const transactionControl = words("begin start commit end rollback abort savepoint release")

/**
 * Commands that commit on their way, or change what no rollback restores: the manual's pages (part VI) let CALL and DO
 * contain COMMIT, and say of the others that they cannot run inside a transaction block, in all or in some of their forms.
 * ANALYZE commits table by table. COMMIT PREPARED and ROLLBACK PREPARED are absent: they happen, or fail, as a whole. So
 * does REFRESH MATERIALIZED VIEW CONCURRENTLY.
 */
const notAtomic = words("call do vacuum analyze analyse cluster reindex")
const notAtomicPairs = new Set([
  "alter database", // SET TABLESPACE
  "alter subscription",
  "alter system",
  "create database",
  "create subscription",
  "create tablespace",
  "drop database",
  "drop subscription",
  "drop tablespace"
])

/** CREATE and DROP INDEX CONCURRENTLY, ALTER TABLE … DETACH PARTITION … CONCURRENTLY. */
const concurrent = words("create drop alter")

const isRoutine = (head: ReadonlyArray<string>): boolean =>
  /^create (or replace )?(function|procedure)\b/.test(head.join(" "))

/** Is shown one token after the other, and `finish` at the end. */
export class CommandReader {
  transactionControl = false
  private statements = 0
  private latest: Command = "empty"
  private notAtomic = false

  private depth = 0
  private last: Token = nothing
  /** The first words of the statement, four at most. */
  private head: Array<string> = []
  private started = false
  private concurrently = false
  private command: Command = "other"
  /** Depth of a WITH whose main command has not come yet. */
  private withDepth = -1
  /** BEGIN ATOMIC and CASE, not yet ENDed. */
  private blocks = 0

  /** The only command; `multiple` if there are several and `empty` if there is none. */
  get only(): Command {
    return this.statements > 1 ? "multiple" : this.latest
  }

  /** Whether an error leaves open what of the text was applied. */
  get opaque(): boolean {
    return this.notAtomic || (this.statements > 1 && this.transactionControl)
  }

  see(token: Token): void {
    if (token.kind === ";" && this.depth === 0 && this.blocks === 0) this.finish()
    else this.part(token)
  }

  private part(token: Token): void {
    this.started = true
    switch (token.kind) {
      case "(":
        this.depth++
        // WITH … AS (…) ((SELECT …)): the command is inside
        if (this.withDepth === this.depth - 1 && (this.last.kind === ")" || this.last.kind === "(")) {
          this.withDepth = this.depth
        }
        break
      case ")":
        this.depth = Math.max(0, this.depth - 1)
        break
      case "word":
        this.word(token)
        break
    }
    this.last = token
  }

  /** Ends the current statement. */
  finish(): void {
    if (this.started) {
      const [one = "", two = ""] = this.head
      this.statements++
      this.latest = this.command
      if (transactionControl.has(one) || (one === "prepare" && two === "transaction")) this.transactionControl = true
      if (notAtomic.has(one) || notAtomicPairs.has(`${one} ${two}`) || (this.concurrently && concurrent.has(one))) {
        this.notAtomic = true
      }
    }
    this.depth = 0
    this.last = nothing
    this.head = []
    this.started = false
    this.concurrently = false
    this.command = "other"
    this.withDepth = -1
    this.blocks = 0
  }

  private word(token: Token): void {
    if (this.head.length === 0) {
      if (token.text === "with") this.withDepth = this.depth
      else this.command = commands.get(token.text) ?? "other"
    } else if (this.withDepth === this.depth && mainCommands.has(token.text) && !this.isNamed()) {
      this.command = commands.get(token.text) ?? "other"
      this.withDepth = -1
    }
    if (this.head.length < 4) this.head.push(token.text)
    if (token.text === "concurrently") this.concurrently = true
    if (this.blocks > 0 || token.text === "atomic") this.block(token.text)
  }

  /** Whether the last token makes the word after it a name. */
  private isNamed(): boolean {
    return this.last.kind === "," || this.last.kind === "." || isOneOf(this.last, beforeNames)
  }

  /** Labels may be spelled `end` and `case`: whatever is unsure ends the body early, never late. */
  private block(text: string): void {
    if (this.last.kind === "." || isWord(this.last, "as")) return
    if (text === "end") this.blocks--
    else if (text === "case" && !isOperand(this.last)) this.blocks++
    else if (text === "atomic" && this.blocks === 0 && isWord(this.last, "begin") && isRoutine(this.head))
      this.blocks = 1
  }
}
