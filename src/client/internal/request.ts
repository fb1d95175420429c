/**
 * Statements: what is sent for each, and what is made of the messages of its answer, which `pg.Client` passes on. One, one
 * whose rows are taken in portions, and the end of such a one.
 */
import * as Pg from "pg"
import pgUtils from "pg/lib/utils.js"
import { isFatal } from "../../error/classify.js"
import type { Session } from "./session.js"
import type { Prepared } from "./statements.js"
import * as wire from "./wire.js"

/** The part of `pg.Connection` that statements speak to. */
interface PgConnection {
  sendCopyFail(message: string): void
}

/** What the server said of the rows to come, made ready for reading them. */
export type Description = Pick<PgResult, "fields" | "_parsers" | "_prebuiltEmptyResultObject">

/** The parts of `pg.Result` that its type declarations leave out. */
interface PgResult extends Pg.QueryArrayResult {
  fields: Array<Pg.FieldDef>
  rows: Array<any>
  _parsers: unknown
  _prebuiltEmptyResultObject: unknown
  /** The client's parsers of types, which it puts in here. */
  _types: unknown
  addFields(fields: ReadonlyArray<Pg.FieldDef>): void
  addCommandComplete(message: unknown): void
  parseRow(fields: ReadonlyArray<string | null>): unknown
}
const PgResult = Pg.Result as unknown as new (rowMode?: "array", types?: unknown) => PgResult

export type Value = string | Buffer | null

/** The protocol counts parameters in 16 bits. */
const maxValues = 65_535

/** The server takes no message of 1 GiB. What is around the values is far less than what is left here for it. */
const maxBytes = 2 ** 30 - 2 ** 22
/** Bytes that one unit of a string takes at most. */
const maxUnit = 3

const serializeValue = (value: unknown): Value => {
  // The declarations leave out that JSON has no word for some objects.
  const serialized = pgUtils.prepareValue(value) ?? null
  if (serialized === null || typeof serialized === "string" || serialized instanceof Buffer) return serialized
  throw new TypeError(`a parameter was serialized to a ${typeof serialized} instead of a string or a Buffer`)
}

/**
 * Parameters as the wire wants them. Throws what a value's own serialisation throws, and where there are too many, or too
 * long ones: what is encoded later is known to be sound.
 */
export const serialize = (values: ReadonlyArray<unknown>): ReadonlyArray<Value> => {
  if (values.length > maxValues) {
    throw new Error(`a statement takes at most ${maxValues} parameters, and this one has ${values.length}: split it`)
  }
  let units = 0
  const serialized = values.map((value) => {
    const written = serializeValue(value)
    if (written !== null) units += written.length
    return written
  })
  if (units * maxUnit > maxBytes && bytesOf(serialized) > maxBytes) {
    throw new Error("the parameters of a statement take less than 1 GiB, and those of this one more: split it")
  }
  return serialized
}

const bytesOf = (values: ReadonlyArray<Value>): number =>
  values.reduce((sum, value) => sum + (value === null ? 0 : Buffer.byteLength(value)), 0)

const noValues: ReadonlyArray<Value> = []
const noNames: ReadonlyArray<string> = []

const nothing = new PgResult()

/** A statement, its values serialised already. */
export class Request {
  error: unknown = undefined
  fromServer = false
  suspended = false
  session: Session | undefined = undefined
  /** Under which name the server knows it, or is to; undefined for none. */
  prepared: Prepared | undefined = undefined
  /** The name was parsed before this statement came. */
  reused = false
  /** The server has bound the values: from here on it executes. */
  bound = false
  /** The name that an attempt before this one, of which nothing was executed, has failed for, or may have. */
  blamed: Prepared | undefined = undefined
  /** The one before has been executed, or there is none. */
  begun: boolean
  /** Names that the server is to forget before. */
  forget: ReadonlyArray<string> = noNames
  /** Looked for by `pg.Client`, which has no use for it in ours. */
  readonly callback = undefined
  readonly binary = false
  protected _result: PgResult
  private results: Array<PgResult> | undefined = undefined
  private unread: unknown = undefined

  constructor(
    readonly text: string,
    private values: ReadonlyArray<Value> = noValues,
    private readonly rowMode?: "array" | undefined,
    /** It may be parsed once and for all. */
    readonly preparable = false,
    /** BEGIN, for the first statement of a transaction: where it fails, the server does not execute the statement. */
    readonly before: string | undefined = undefined
  ) {
    this._result = new PgResult(rowMode)
    this.begun = before === undefined
  }

  /** One result; a list of them where one text held several commands. */
  get result(): Pg.QueryArrayResult | ReadonlyArray<Pg.QueryArrayResult> {
    return this.results ?? this._result
  }

  /** Its answer has been given away: nothing of it is kept here (`suspension.ts`). */
  answered(): void {
    this._result = nothing
    this.results = undefined
    this.values = noValues
  }

  /** To be sent once more, as if for the first time. Nothing of it was executed. */
  reset(): void {
    this.error = undefined
    this.fromServer = false
    this.begun = this.before === undefined
    this.forget = noNames
    this._result = new PgResult(this.rowMode, this._result._types)
  }

  /** What is to be written for it. */
  encode(): Buffer {
    const simple = this.prepared === undefined && this.values.length === 0 && this.before === undefined
    return simple ? wire.encodeQuery(this.text) : this.message("", 0)
  }

  /** `pg.Client`'s way to let it be sent. Nothing to do: the session writes what `encode` gives. */
  submit(): null {
    return null
  }

  protected message(portal: string, rows: number): Buffer {
    const { prepared } = this
    const known = prepared?.description
    this.reused = prepared?.parsed === true
    if (known !== undefined) Object.assign(this._result, known)
    return wire.encode({
      before: this.before,
      close: this.forget,
      text: this.reused ? undefined : this.text,
      name: prepared?.name ?? "",
      values: this.values,
      portal,
      describe: known === undefined,
      rows
    })
  }

  /** Told by the session: `pg.Client` leaves these two to nobody. */
  handleParseComplete(): void {
    if (this.begun && this.prepared !== undefined) this.prepared.parsed = true
  }

  handleBindComplete(): void {
    this.bound = this.begun
  }

  handleRowDescription({ fields }: { readonly fields: ReadonlyArray<Pg.FieldDef> }): void {
    this.nextResult()
    this._result.addFields(fields)
    this.describe()
  }

  handleDataRow({ fields }: { readonly fields: ReadonlyArray<string | null> }): void {
    if (this.unread !== undefined) return
    try {
      this._result.rows.push(this._result.parseRow(fields))
    } catch (cause) {
      // A row that no parser understood. The rest of the answer comes all the same.
      this.unread = cause ?? new Error("a parser of a type failed")
    }
  }

  handleCommandComplete(message: unknown): void {
    if (!this.begun) {
      this.begun = true
      return
    }
    this.nextResult()
    this._result.addCommandComplete(message)
    this.describe()
  }

  handleEmptyQuery(): void {}

  handlePortalSuspended(): void {
    this.suspended = true
  }

  handleCopyInResponse(connection: PgConnection): void {
    connection.sendCopyFail("No source stream defined")
  }

  handleCopyData(): void {}

  handleError(error: unknown): void {
    this.error ??= this.unread ?? error
    if (error instanceof Pg.DatabaseError) {
      this.fromServer = true
      if (isFatal(error)) this.session?.lose(error)
    }
  }

  handleReadyForQuery(): void {
    this.error ??= this.unread
  }

  /** A statement that was prepared answers like this from now on: the server refuses it when that is no longer so. */
  private describe(): void {
    if (this.prepared === undefined || this.prepared.description !== undefined) return
    const { _parsers, _prebuiltEmptyResultObject, fields } = this._result
    this.prepared.description = { _parsers, _prebuiltEmptyResultObject, fields }
  }

  /** After a command of the same text. */
  private nextResult(): void {
    if (!this._result.command) return
    this.results ??= [this._result]
    this._result = new PgResult(this.rowMode, this._result._types)
    this.results.push(this._result)
  }
}

let portals = 0

/**
 * A statement whose rows are taken in portions: each submission fetches the next one, ended by Sync, so that between two
 * fetches the session is free for others. A portal lives as long as its transaction: use only inside one.
 */
export class Cursor extends Request {
  readonly portal = `effect_${++portals}`
  private started = false

  constructor(
    text: string,
    values: ReadonlyArray<Value>,
    private readonly size: number
  ) {
    super(text, values)
  }

  /** It goes on: what its rows look like is said with the first of them only. */
  override answered(): void {}

  override encode(): Buffer {
    this.suspended = false
    this._result.rows = []
    const bytes = this.started ? wire.encodeFetch(this.portal, this.size) : this.message(this.portal, this.size)
    this.started = true
    return bytes
  }
}

/** Forget a cursor's portal: as long as it is there the server takes its tables for in use. */
export class CloseCursor extends Request {
  constructor(private readonly cursor: Cursor) {
    super("")
  }

  override encode(): Buffer {
    return wire.encodeClose(this.cursor.portal)
  }
}
