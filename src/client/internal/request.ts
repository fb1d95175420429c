/** Statements as `pg` submits them: one, one whose rows are taken in portions, and the end of such a one. */
import * as Pg from "pg"
import pgUtils from "pg/lib/utils.js"
import { isFatal } from "../../error/classify.js"
import type { Session } from "./session.js"

/** The parts of `pg.Query` that its type declarations leave out. */
interface PgQuery {
  _result: Pg.QueryArrayResult
  _results: Pg.QueryArrayResult | Array<Pg.QueryArrayResult>
  submit(connection: PgConnection): Error | null
  prepare(connection: PgConnection): void
  handleCommandComplete(message: unknown, connection: PgConnection): void
}
interface PgConnection extends Omit<Pg.Connection, "close" | "execute"> {
  execute(config: { readonly portal: string; readonly rows: number }): void
  close(config: { readonly type: "P"; readonly name: string }): void
}
const PgQuery = Pg.Query as unknown as new (config: {
  readonly text: string
  readonly values?: ReadonlyArray<unknown> | undefined
  readonly rowMode?: "array" | undefined
  readonly portal?: string
}) => PgQuery

/** Parameters as the wire wants them. Throws what a value's own serialisation throws. */
export const serialize = (values: ReadonlyArray<unknown>): ReadonlyArray<unknown> =>
  values.map((value) => pgUtils.prepareValue(value))

/** A statement as `pg` submits it, its values serialised already. */
export class Request extends PgQuery {
  error: unknown = undefined
  fromServer = false
  suspended = false
  session: Session | undefined = undefined

  constructor(text: string, values?: ReadonlyArray<unknown>, rowMode?: "array") {
    super({ text, values, rowMode })
  }

  handleError(error: unknown): void {
    this.error ??= error
    if (error instanceof Pg.DatabaseError) {
      this.fromServer = true
      if (isFatal(error)) this.session?.lose(error)
    }
  }

  handleReadyForQuery(): void {
    // A row that no parser understood: pg keeps the failure until here.
    const failed = (this as unknown as { readonly _canceledDueToError: unknown })._canceledDueToError
    if (failed) this.error ??= failed
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
    values: ReadonlyArray<unknown>,
    private readonly size: number
  ) {
    super(text, values)
  }

  override submit(connection: PgConnection): null {
    this.suspended = false
    this._result.rows = []
    if (this.started) this._getRows(connection)
    else {
      this.started = true
      connection.stream.cork()
      this.prepare(connection)
      connection.stream.uncork()
    }
    return null
  }

  /** Called by `prepare` too: execute up to `size` rows and end the message with Sync. */
  _getRows(connection: PgConnection): void {
    connection.execute({ portal: this.portal, rows: this.size })
    connection.sync()
  }

  handlePortalSuspended(): void {
    this.suspended = true
  }
}

/** Forget a cursor's portal: as long as it is there the server takes its tables for in use. */
export class CloseCursor extends Request {
  constructor(private readonly cursor: Cursor) {
    super("")
  }

  override submit(connection: PgConnection): null {
    connection.close({ type: "P", name: this.cursor.portal })
    connection.sync()
    return null
  }
}
