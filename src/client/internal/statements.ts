/**
 * Statements that a connection has parsed and keeps under a name, so that the server need not do so again.
 *
 * 1. Only what the lexer knows to be one plain command is named, and only after it has succeeded on the same connection. A
 *    connection keeps so many names; the one not used for longest is closed on the server, too.
 * 2. A name stands for one Parse: no other connection, no other text and no later Parse ever gets it. So whatever a pooler
 *    or a change of tables does, a name either means what its owner thinks, or the server says that it does not.
 * 3. What the server says before it has bound the values to a name may be about the name instead of the statement, of which
 *    nothing was executed then: outside a transaction it is sent again without one, once, unseen by anybody. What a function
 *    or trigger inside it raises comes after that, whatever its code, and is the caller's. (Only what claims to be IMMUTABLE,
 *    or reads a type, may be called as early as that.)
 * 4. A result or a parameter that has changed its type is a change of tables: every connection then names all its statements
 *    anew. A server that forgot a name without our having said so is several servers behind a pooler that does not know of
 *    names: nothing is named any more. Where a pooler is to be suspected nothing is so in transactions from the beginning,
 *    where to miss a name could not be repaired.
 *
 * What the server can not tell is that a parameter, whose type is fixed when it is parsed, would have another one by now
 * (ALTER COLUMN … TYPE float8 where it was float4), or that a table hides the one that was meant (CREATE TEMP TABLE). So an
 * ALTER that goes over this client has all its connections name anew, a CREATE or DROP its own connection, as does SET TIME
 * ZONE and the like, which say what a literal in a text means. Those of other programs are noticed if they make a difference
 * that the server sees, or at the end of the connection's time.
 */
import { randomBytes } from "node:crypto"
import { DatabaseError } from "pg"
import { isStaleStatement } from "../../error/classify.js"
import type { Description, Request } from "./request.js"

/** A name, and what is known of it. */
export interface Prepared {
  readonly name: string
  readonly text: string
  /** The policy's, when it was named. */
  readonly epoch: number
  /** Its Parse is on the way to the server. */
  sent: boolean
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
  /** Rises as tables change: names of an earlier one are not to be relied on. */
  epoch: number
  /** There is somebody between the server and us. */
  pooled: boolean
}

export const policy = (options: Options): Policy => ({ ...options, enabled: true, epoch: 0, pooled: false })

/**
 * The largest number of a process, on Linux; other systems have smaller ones. Poolers make theirs up, of 32 random bits, so
 * that it is larger, or negative, a thousand times to one. Source: proc(5), pid_max.
 */
const maxProcessId = 2 ** 22
export const isPooler = (processId: number): boolean => processId < 1 || processId > maxProcessId

/** Texts that came, but not often enough, are remembered up to so many times the number of names. */
const seenPerName = 4

/** Longer texts, in characters, are long lists of values mostly, each as long as no other, whose plans fill the server. */
export const longest = 8_192

/** Commands that make a server forget names, or that may change what is meant by a text, its literals of time included. */
const changing =
  /\b(?:alter|create|deallocate|discard|drop|reset\s+all|time\s*zone|datestyle|intervalstyle|standard_conforming_strings)\b/i
/** Those of them that change it for other connections, too, and are rare. */
const changingAll = /\balter\b/i

/** A literal that the server reads once, at Parse, for the time that it is then. Source: PostgreSQL manual, section 8.5.1.4. */
const momentary = /'\s*(?:now|today|tomorrow|yesterday)\b|\b(?:now|today|tomorrow|yesterday)\s*'/i

/** The code of the stale statement that is no pooler's fault. */
const resultChanged = "0A000"

/** What a parameter is told whose type is not the right one any more, and many a wrong statement too. */
const isDoubtful = (code = "") => code.startsWith("22") || code.startsWith("42")

export class Statements {
  /** By text, the one used last at the end. */
  private names = new Map<string, Prepared>()
  private seen = new Map<string, number>()
  private closing: Array<string> = []
  private epoch: number
  private count = 0
  /** Never the same twice, so that behind a pooler nobody has another's names. */
  private readonly prefix = `effect_${randomBytes(6).toString("hex")}_`
  /** What is meant by a text is changing, on this connection or on all, in a transaction that is not over. */
  private unsettled: "own" | "all" | undefined = undefined

  constructor(private readonly policy: Policy) {
    this.epoch = policy.epoch
  }

  /** To be called as a statement is sent to a server process: it is to go under a name, or not. */
  use(request: Request, processId: number, inTransaction: boolean): void {
    const { policy } = this
    request.prepared = undefined
    if (!policy.enabled) return
    if (isPooler(processId)) policy.pooled = true
    if (!request.preparable) {
      if (changing.test(request.text) && this.unsettled !== "all") {
        this.unsettled = changingAll.test(request.text) ? "all" : "own"
      }
      return
    }
    if (request.blamed !== undefined || this.unsettled !== undefined || request.text.length > longest) return
    if (inTransaction && policy.pooled) return
    if (this.epoch !== policy.epoch) this.anew()
    const prepared = this.named(request.text)
    // Pipelined behind its Parse it goes without: whether there will be such a name is not known before that is answered.
    if (prepared === undefined || (prepared.sent && !prepared.parsed)) return
    prepared.sent = true
    request.prepared = prepared
    if (this.closing.length > 0) request.forget = this.closing.splice(0)
  }

  /**
   * The server has given its last word on a statement. `unseen`: it may be sent once more without anybody's knowledge.
   * Returns whether it should be.
   */
  answered(request: Request, unseen: boolean): boolean {
    const { blamed, error, prepared, preparable, text } = request
    if (error !== undefined) return prepared !== undefined && this.failed(request, prepared, unseen)
    if (blamed !== undefined) this.changed(blamed)
    else if (prepared === undefined && preparable && this.policy.enabled) this.succeeded(text)
    return false
  }

  /** No transaction is open, or the connection is lost. */
  settled(): void {
    if (this.unsettled === undefined) return
    if (this.unsettled === "all") this.policy.epoch++
    else this.anew()
    this.unsettled = undefined
  }

  private failed(request: Request, prepared: Prepared, unseen: boolean): boolean {
    const { bound, error, fromServer, reused } = request
    if (!prepared.parsed) this.forget(prepared)
    // Bound to its values it may have been executed in part, and what it says may come from inside it.
    if (bound || !fromServer || !(error instanceof DatabaseError)) return false
    const stale = isStaleStatement(error)
    if (!stale && !(reused && isDoubtful(error.code))) return false
    if (stale && error.code === resultChanged) this.changed(prepared)
    else if (stale && this.policy.enabled) {
      this.policy.enabled = false
      this.policy.pooler()
    }
    // Nobody will find out what it was: whoever comes again is not to meet the same.
    if (!unseen) this.forget(prepared)
    request.blamed = prepared
    return unseen
  }

  /** Tables are not what they were when this was named. */
  private changed({ epoch }: Prepared): void {
    if (epoch === this.policy.epoch) this.policy.epoch++
  }

  private named(text: string): Prepared | undefined {
    const known = this.names.get(text)
    if (known !== undefined) {
      this.names.delete(text)
      this.names.set(text, known)
      return known
    }
    if ((this.seen.get(text) ?? 0) + 1 < this.policy.after) return undefined
    if (momentary.test(text)) {
      this.seen.set(text, Number.NEGATIVE_INFINITY)
      return undefined
    }
    this.seen.delete(text)
    const name = `${this.prefix}${++this.count}`
    const prepared: Prepared = { name, text, epoch: this.epoch, sent: false, parsed: false, description: undefined }
    this.names.set(text, prepared)
    if (this.names.size > this.policy.size) this.forget(this.names.values().next().value!)
    return prepared
  }

  /** Without a name. */
  private succeeded(text: string): void {
    if (text.length > longest) return
    const times = (this.seen.get(text) ?? 0) + 1
    this.seen.delete(text)
    this.seen.set(text, times)
    if (this.seen.size > this.policy.size * seenPerName) this.seen.delete(this.seen.keys().next().value!)
  }

  private forget(prepared: Prepared): void {
    if (this.names.get(prepared.text) !== prepared) return
    this.names.delete(prepared.text)
    this.closing.push(prepared.name)
  }

  /** All names are given up, but what has come often enough is named again as it comes. To close one in vain is no error. */
  private anew(): void {
    this.epoch = this.policy.epoch
    for (const { name, text } of this.names.values()) {
      this.closing.push(name)
      this.seen.set(text, this.policy.after)
    }
    this.names.clear()
  }
}
