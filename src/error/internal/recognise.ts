/** From any value whatever to what it says of PostgreSQL: which row of the table, and what the driver observed. */
import { SqlError } from "@effect/sql/SqlError"
import * as SqlState from "../SqlState.js"
import { type PgError, TypeId } from "../tags.js"
import { isInstance, list, oneLine, property, text } from "./read.js"

/** Fields of a server's answer that name things, as `pg` calls them. Whether they hold data, `origin.ts` tells. */
const fieldNames = ["severity", "schema", "table", "column", "constraint", "dataType", "routine", "position"] as const

/** What one error says of itself. Texts are as they came, except `fields` and `target`, which are on one line. */
export interface Observed {
  readonly error: unknown
  readonly message: string
  /** Only of what a server, or a pooler in its place, has sent. */
  readonly sqlState: string | undefined
  /** `sqlState`, or a code that the system or Node gave. */
  readonly code: string | undefined
  readonly fields: { readonly [Name in (typeof fieldNames)[number]]?: string }
  /** The other end of a socket, or the host that was looked up. */
  readonly target: string | undefined
}

/** An error that is understood. */
export interface Recognised {
  readonly rule: SqlState.Rule
  readonly observed: Observed
}

/** The longest identifier of PostgreSQL has 63 bytes; RAISE can put a text of any length where one is expected. */
const maxName = 128
/** How far causes of causes and parts of an AggregateError are followed. */
const maxVisits = 32

/** Whether a value is one of this library's errors. Never throws. */
export const isPgError = (value: unknown): value is PgError =>
  isInstance(value, Error) && property(value, TypeId) === TypeId && text(value, "_tag") !== undefined

const targetOf = (error: unknown): string | undefined => {
  const host = text(error, "address") ?? text(error, "hostname")
  const port = property(error, "port")
  return host && oneLine(typeof port === "number" ? `${host}:${port}` : host, maxName)
}

/** `ERROR` in any language; an arbitrary text under `severity` may be data. */
const severityOf = (error: unknown): string | undefined => text(error, "severity")?.match(/^[\p{L} ]{1,32}$/u)?.[0]

/** Codes of Node's form; an arbitrary text under `code` may be data. */
const nodeCode = /^E[A-Z_0-9]{2,40}$/

/** What an error says of itself. A SQLSTATE without a severity counts when its class is a known one. */
export const observe = (error: unknown): Observed => {
  const code = text(error, "code") ?? ""
  const isSystemCode = SqlState.bySystemCode(code) !== undefined
  const isState =
    SqlState.isSqlState(code) &&
    (severityOf(error) !== undefined || (!isSystemCode && SqlState.bySqlState(code) !== SqlState.unlisted))
  const fields = fieldNames.flatMap((name) => {
    const value = name === "severity" ? severityOf(error) : text(error, name)
    return !isState || value === undefined ? [] : [[name, oneLine(value, maxName)]]
  })
  return {
    error,
    message: typeof error === "string" ? error : (text(error, "message") ?? ""),
    sqlState: isState ? code : undefined,
    code: isState || isSystemCode || nodeCode.test(code) ? code : undefined,
    fields: Object.fromEntries(fields),
    target: isSystemCode && !isState ? targetOf(error) : undefined
  }
}

const ruleOf = ({ code, fields, message, sqlState }: Observed): SqlState.Rule | undefined => {
  if (sqlState === undefined) return SqlState.bySystemCode(code ?? "") ?? SqlState.byDriverMessage(message)
  const pooler = fields.routine === undefined ? SqlState.byPoolerMessage(message) : undefined
  return pooler ?? SqlState.bySqlState(sqlState, fields.routine)
}

/**
 * The `PgError` in a value, or the first error in it that the table knows. Parts of an AggregateError (Node makes one of
 * all addresses of a host, with an empty message) come before the whole, and of those one that may pass.
 */
export const recognise = (value: unknown): PgError | Recognised | undefined => {
  const seen = new Set<unknown>()
  const visit = (error: unknown): PgError | Recognised | undefined => {
    if (error === undefined || error === null || seen.has(error) || seen.size >= maxVisits) return undefined
    seen.add(error)
    if (isPgError(error)) return error
    const observed = observe(error)
    const rule = isInstance(error, SqlError) ? undefined : ruleOf(observed)
    if (rule && observed.sqlState !== undefined) return { rule, observed }
    const parts = list(error, "errors", maxVisits).flatMap((part) => visit(part) ?? [])
    const part =
      parts.find((found) => property(isPgError(found) ? found : found.rule, "transient") === true) ?? parts[0]
    return part ?? (rule ? { rule, observed } : visit(property(error, "cause")))
  }
  return visit(value)
}
