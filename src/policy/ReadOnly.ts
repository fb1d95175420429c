/**
 * What can be told from the text of a statement alone: whether repeating it can change anything, which command it is, and
 * whether an error in answer to it proves that nothing was applied.
 *
 * A small lexer decides, not a parser and not the server, so it errs on one side: `readOnly` is true only for what is
 * certain from the text. What no text can show, it cannot see:
 * - functions behind views, rules, operators, casts, type input and attribute notation (`table.function`);
 * - a function of one's own that overloads a name of `pg_catalog`, or hides it by `search_path`;
 * - functions of extensions and of one's own: unknown, and so never read-only, although most of them are.
 *
 * Where it is wrong or too careful, `Operation.named(…, { readOnly })` overrules it.
 */
import * as internal from "./internal/sqlInspection.js"
import * as textCache from "./internal/textCache.js"

/**
 * The only command of a text, by its first word; for WITH, the command that the CTEs are for. START counts as `begin`, END
 * as `commit`, ABORT as `rollback`, RESET as `set`. `multiple`: several commands. `empty`: none. A closed set, fit for a
 * metric's label.
 */
export type Command =
  | "select"
  | "values"
  | "table"
  | "show"
  | "insert"
  | "update"
  | "delete"
  | "merge"
  | "begin"
  | "commit"
  | "rollback"
  | "savepoint"
  | "release"
  | "set"
  | "call"
  | "do"
  | "copy"
  | "explain"
  | "create"
  | "alter"
  | "drop"
  | "truncate"
  | "other"
  | "multiple"
  | "empty"

export interface Inspection {
  readonly command: Command
  /**
   * One SELECT, VALUES, TABLE or SHOW, without data-modifying CTE, INTO or locking clause, that calls nothing but functions
   * which `pg_catalog` marks immutable or stable. EXPLAIN is not among them: with ANALYZE it runs what it explains.
   */
  readonly readOnly: boolean
  /**
   * An error in answer does not prove that nothing was applied: several commands with transaction control among them, or a
   * command that is not atomic (CALL, DO, VACUUM, CREATE INDEX CONCURRENTLY, …). What leaves the database anyway, such as
   * a number taken from a sequence or a call through dblink, is not meant. Inside a transaction block the server refuses the
   * latter, or keeps it from committing, so that only transaction control counts there. Source: PostgreSQL manual, part VI.
   */
  readonly opaque: boolean
  /** Begins, ends or divides a transaction: BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE, PREPARE TRANSACTION and the like. */
  readonly transactionControl: boolean
}

/** How much `inspect` remembers: 1,000 texts, and of those no more than 4 million characters; none over 100,000. */
export const limits: textCache.Limits = { texts: 1_000, characters: 4_000_000, longest: 100_000 }

/**
 * Inspects one text. Never throws, takes time in proportion to the text's length, and is a single look-up for a text seen
 * lately.
 *
 * ```ts
 * inspect("SELECT name FROM users WHERE id = $1").readOnly // true
 * inspect("SELECT nextval('ids')").readOnly // false
 * inspect("BEGIN; INSERT INTO t VALUES (1); COMMIT").opaque // true
 * ```
 */
export const inspect: (sql: string) => Inspection = textCache.make(internal.inspect, limits)
