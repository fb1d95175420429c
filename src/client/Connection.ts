/**
 * What programs meet as `SqlConnection`: `Pooled`, which takes a connection for each statement and goes the whole way of a
 * query. The other kind, one connection in the hands of a transaction or a `reserve` scope, is `Held` in `internal/held.ts`.
 */
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Fiber from "effect/Fiber"
import { globalValue } from "effect/GlobalValue"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { QueryArrayResult } from "pg"
import { classify } from "../error/classify.js"
import * as PgError from "../error/PgError.js"
import * as operation from "../policy/internal/operation.js"
import * as ReadOnly from "../policy/ReadOnly.js"
import type { Work } from "./internal/attempt.js"
import { direct } from "./internal/direct.js"
import { Request, serialize, type Value } from "./internal/request.js"
import type { Reply } from "./internal/session.js"
import type { Caller, Stages } from "./internal/stages.js"

/**
 * The span of the statement that a fiber executes: `@effect/sql` keeps it to itself and its transformers. No `FiberRef`, as each
 * time that one is set all that the fiber has are copied.
 */
export const statementSpans = globalValue(
  "effect-pg-resilience/Connection/statementSpans",
  () => new WeakMap<Fiber.RuntimeFiber<unknown, unknown>, Tracer.Span>()
)

/** What the stages need to know of the fiber. */
export const callerOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>, span?: Tracer.Span): Caller => ({
  clock: Context.get(fiber.currentDefaultServices, Clock.Clock),
  operation: operation.current(fiber),
  span: span ?? statementSpans.get(fiber)
})

/** Several commands in one text have several results. */
const rowsOf = ({ result }: Reply): ReadonlyArray<any> =>
  Array.isArray(result) ? result.map(({ rows }: QueryArrayResult) => rows) : (result as QueryArrayResult).rows

export type TransformRows = (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

const rowsBy = (transformRows: TransformRows) =>
  transformRows === undefined ? rowsOf : (reply: Reply) => transformRows(rowsOf(reply))

/** `SqlConnection` in terms of one function that executes and one that streams. */
export abstract class Base implements Connection {
  /** `view`: what of the reply is asked for. `preparable`: unless its command is not, it may be parsed once for all. */
  protected abstract reply<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    rowMode: "array" | undefined,
    view: (reply: Reply) => A,
    preparable: boolean
  ): Effect.Effect<A, SqlError>
  abstract executeStream(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows
  ): Stream.Stream<any, SqlError>

  execute(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return this.reply(sql, params, undefined, rowsBy(transformRows), true)
  }
  executeRaw(sql: string, params: ReadonlyArray<unknown>): Effect.Effect<unknown, SqlError> {
    return this.reply(sql, params, undefined, ({ result }) => result, true)
  }
  executeValues(sql: string, params: ReadonlyArray<unknown>) {
    return this.reply(sql, params, "array", rowsOf, true)
  }
  executeUnprepared(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return this.reply(sql, params, undefined, rowsBy(transformRows), false)
  }

  /** A stream of what is executed like any statement. */
  protected executed(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Stream.unwrap(Effect.map(this.execute(sql, params, transformRows), Stream.fromIterable))
  }
}

/** Parameters as the wire wants them, once for all attempts. A value that can not be sent is the caller's typed error. */
export const serialized = (params: ReadonlyArray<unknown>): Either.Either<ReadonlyArray<Value>, PgError.PgError> =>
  Either.try({
    try: () => serialize(params),
    catch: (cause) => classify(cause, { phase: "Execute", outcome: "NotApplied" })
  })

/** `reads`: it can do nothing but read, whatever it is. */
export const workOf = (
  stages: Stages,
  sql: string,
  inside: operation.State | undefined,
  pooled: boolean,
  reads = false
) => {
  const inspection = ReadOnly.inspect(sql)
  const work: Work = {
    pooled,
    phase: "Execute",
    command: inspection.command,
    // Where the lexer is not to be relied on, what it takes for a read may have been a write.
    readOnly: reads || (inside?.readOnly ?? (stages.autoRetryReads && inspection.readOnly)),
    opaque: inspection.opaque,
    transactionControl: inspection.transactionControl,
    isCommit: inspection.command === "commit"
  }
  return work
}

/** Commands that are planned, and so gain by being parsed once. */
const preparables = new Set<string>([
  "select",
  "values",
  "insert",
  "update",
  "delete",
  "merge"
] satisfies Array<ReadOnly.Command>)
export const isPreparable = (command: string): boolean => preparables.has(command)

/** Commands whose rows come as they are asked for. */
export const queries = new Set<ReadOnly.Command>(["select", "values", "table", "show"])

/** For each statement a connection: one of its own, or a place on one that short statements share. */
export class Pooled extends Base {
  constructor(private readonly stages: Stages) {
    super()
  }

  protected reply<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    rowMode: "array" | undefined,
    view: (reply: Reply) => A,
    preparable: boolean
  ) {
    const { stages } = this
    return Effect.withFiberRuntime<A, SqlError>((fiber) => {
      const caller = callerOf(fiber)
      const work = workOf(stages, sql, caller.operation, true)
      const repeatable = work.readOnly || caller.operation?.idempotent === true
      const exactlyOnce = caller.operation?.exactlyOnce ?? false
      if (exactlyOnce !== false && !repeatable && !work.opaque && !work.transactionControl) {
        return stages.transacted((held) => held.execution(sql, params, rowMode, view, preparable), { exactlyOnce })
      }
      const prepares = preparable && isPreparable(work.command)
      const reads = ReadOnly.inspect(sql).readOnly
      const shares = stages.lanes && prepares && (work.command !== "select" || reads)
      const pace = shares ? stages.paces.of(sql) : undefined
      const values = serialized(params)
      if (Either.isLeft(values)) return Effect.fail(PgError.toSqlError(values.left))
      const request = () => new Request(sql, values.right, rowMode, prepares)
      return direct(fiber, { stages, caller, request, work, repeatable, view, pace, reads })
    })
  }

  /**
   * Queries are fetched in portions, in a transaction of their own. Writes with RETURNING are executed like any statement,
   * since the server applies them whole before it gives the first row: their outcome is known before a row is seen.
   */
  executeStream(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows
  ): Stream.Stream<any, SqlError> {
    return queries.has(ReadOnly.inspect(sql).command)
      ? this.stages.streamed(undefined, sql, params, transformRows)
      : this.executed(sql, params, transformRows)
  }
}
