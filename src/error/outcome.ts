/**
 * Whether failed work may have been applied: decided by how far the call had come, never by a message's words.
 *
 * Source: PostgreSQL manual, chapter 54.2 (message flow): a simple query and a Sync end the implicit transaction, and an
 * ERROR before that undoes it.
 */
import type { Outcome } from "./tags.js"

/** How far a call had come when it failed. */
export interface CallFacts {
  /** At least a part of the call was handed to the socket. */
  readonly written: boolean
  /**
   * The server's refusal came: an ErrorResponse for which `isFinalAnswer` holds. ReadyForQuery without one is no refusal:
   * then the server is done, and the failure is the client's own, such as a type parser that throws.
   */
  readonly answered: boolean
  /** The connection was in a transaction (status `T` or `E`) before the call: nothing is durable before COMMIT. */
  readonly inTransaction: boolean
  readonly isCommit: boolean
  /** The statement changes nothing, as the lexer or the program says, or the transaction is READ ONLY. */
  readonly readOnly: boolean
  /**
   * An ERROR does not prove that nothing was applied: several commands in one text with transaction control among them
   * and, outside a transaction, CALL, DO, `CONCURRENTLY` and VACUUM (inside one these cannot commit).
   */
  readonly opaque: boolean
}

/**
 * The outcome of a call that failed. `Unknown` for a COMMIT or an autocommit write without a refusal, and for an opaque
 * text that was sent, whatever came back; else `NotApplied`. A lost read is `NotApplied`: there was nothing to apply.
 */
export const outcomeOf = (facts: CallFacts): Outcome => {
  if (!facts.written || facts.readOnly) return "NotApplied"
  if (facts.opaque) return "Unknown"
  if (facts.answered) return "NotApplied"
  return facts.inTransaction && !facts.isCommit ? "NotApplied" : "Unknown"
}
