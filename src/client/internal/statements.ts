/**
 * Statements that a connection has parsed and keeps under a name, so that the server need not do so again.
 *
 * 1. Only what the lexer knows to be one plain command is named, and only when it comes for the second time on the same
 *    connection. A connection keeps so many names; the one not used for longest is closed on the server, too.
 * 2. A name is used for one text only, and counts as known once the server has answered its Parse.
 * 3. What the server says of a name that it does not know, has for another text, or whose result has changed its type, is
 *    about the name and not about the statement, of which nothing was executed: outside a transaction it is sent again
 *    without one, unseen by anybody.
 * 4. A server that forgot a name, or had one, without our having said so, is several servers behind a pooler that does not
 *    know of names: nothing is named any more.
 */
import { createHash } from "node:crypto"
import { DatabaseError } from "pg"
import type { Description, Request } from "./request.js"

/** A name, and what is known of it. */
export interface Prepared {
  readonly name: string
  /** The server has answered its Parse. */
  parsed: boolean
  description: Description | undefined
}

export interface Options {
  /** Names that a connection keeps. */
  readonly size: number
  /** How often a text comes before it is named. */
  readonly after: number
  /** A pooler was found out: the connections of this client name nothing from now on. */
  readonly pooler: () => void
}

/** Shared by the connections of one client. */
export interface Policy extends Options {
  enabled: boolean
}

export const policy = (options: Options): Policy => ({ ...options, enabled: options.size > 0 })

/** Texts that came, but not often enough, are remembered up to so many times the number of names. */
const seenPerName = 4

const noNames: ReadonlyArray<string> = []

/** Commands that make a server forget names. */
const forgetting = /\b(?:deallocate|discard)\b/i

/** What the server says of a name rather than of the statement. */
export const isStale = (error: unknown): error is DatabaseError =>
  error instanceof DatabaseError &&
  (error.code === "26000" ||
    error.code === "42P05" ||
    (error.code === "0A000" && error.routine === "RevalidateCachedQuery"))

/**
 * Of the text, so that behind a pooler, where names of several clients meet on one server, a name that is known there has
 * the same text.
 */
const nameOf = (text: string) => `effect_${createHash("sha256").update(text).digest("hex").slice(0, 32)}`

export class Statements {
  /** By text, the one used last at the end. */
  private names = new Map<string, Prepared>()
  private seen = new Map<string, number>()
  private closing: Array<string> = []

  constructor(private readonly policy: Policy) {}

  /** To be called as a statement is sent: it is to go under a name, or not. */
  use(request: Request): void {
    request.prepared = this.policy.enabled && request.preparable ? this.named(request.text) : undefined
    if (request.prepared === undefined) {
      if (!request.preparable && forgetting.test(request.text)) this.clear()
      return
    }
    request.forget = this.closing.length === 0 ? noNames : this.closing.splice(0)
  }

  /** The Parse of a statement was answered. */
  parsed(request: Request): void {
    if (request.prepared !== undefined) request.prepared.parsed = true
  }

  /** A statement has failed. Whether its name was the reason: it may be sent again then. */
  failed(request: Request): boolean {
    const { prepared, text } = request
    if (prepared === undefined) return false
    const { error } = request
    const stale = isStale(error)
    if (!stale && prepared.parsed) return false
    if (this.names.get(text) === prepared) this.names.delete(text)
    this.closing.push(prepared.name)
    if (stale && error.code !== "0A000" && this.policy.enabled) {
      this.policy.enabled = false
      this.policy.pooler()
    }
    return stale
  }

  private named(text: string): Prepared | undefined {
    const known = this.names.get(text)
    if (known !== undefined) {
      this.names.delete(text)
      this.names.set(text, known)
      return known
    }
    const times = (this.seen.get(text) ?? 0) + 1
    this.seen.delete(text)
    if (times < this.policy.after) {
      this.seen.set(text, times)
      if (this.seen.size > this.policy.size * seenPerName) this.seen.delete(this.seen.keys().next().value!)
      return undefined
    }
    const prepared: Prepared = { name: nameOf(text), parsed: false, description: undefined }
    this.names.set(text, prepared)
    if (this.names.size > this.policy.size) {
      const [oldest, { name }] = this.names.entries().next().value!
      this.names.delete(oldest)
      this.closing.push(name)
    }
    return prepared
  }

  /** The server has forgotten all names by our own command. */
  private clear(): void {
    this.names.clear()
    this.closing = []
  }
}
