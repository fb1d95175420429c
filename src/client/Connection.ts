/**
 * What programs meet as `SqlConnection`: `Pooled`, which takes a connection for each statement and goes the whole way of a
 * query. The other kind, one connection in the hands of a transaction or a `reserve` scope, is `Held` in `internal/held.ts`.
 */
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { QueryArrayResult } from "pg"
import { classify } from "../error/classify.js"
import * as PgError from "../error/PgError.js"
import * as operation from "../policy/internal/operation.js"
import * as ReadOnly from "../policy/ReadOnly.js"
import { send, type Work } from "./internal/attempt.js"
import { type Attempt, guard } from "./internal/guard.js"
import { hooks, leased } from "./internal/leasing.js"
import { Request, serialize } from "./internal/request.js"
import type { Reply } from "./internal/session.js"
import type { Caller, Stages } from "./internal/stages.js"
import type { Lease } from "./Pool.js"

/** The span of the statement that a fiber executes: `@effect/sql` keeps it to itself and its transformers. */
export const statementSpan = globalValue("effect-pg-resilience/Connection/statementSpan", () =>
  FiberRef.unsafeMake<Tracer.Span | undefined>(undefined)
)

/** What the stages need to know of the fiber. */
export const callerOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>, span?: Tracer.Span): Caller => ({
  clock: Context.get(fiber.currentDefaultServices, Clock.Clock),
  operation: operation.current(fiber),
  span: span ?? fiber.getFiberRef(statementSpan)
})

export type TransformRows = (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

/** `SqlConnection` in terms of one function that executes and one that streams. */
export abstract class Base implements Connection {
  protected abstract reply(
    sql: string,
    params: ReadonlyArray<unknown>,
    rowMode: "array" | undefined
  ): Effect.Effect<Reply, SqlError>
  abstract executeStream(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows
  ): Stream.Stream<any, SqlError>

  private rows(sql: string, params: ReadonlyArray<unknown>, rowMode: "array" | undefined) {
    return Effect.map(
      this.reply(sql, params, rowMode),
      ({ result }): ReadonlyArray<any> =>
        // Several commands in one text have several results.
        Array.isArray(result) ? result.map(({ rows }: QueryArrayResult) => rows) : (result as QueryArrayResult).rows
    )
  }

  execute(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    const rows = this.rows(sql, params, undefined)
    return transformRows === undefined ? rows : Effect.map(rows, transformRows as (rows: any) => any)
  }
  executeRaw(sql: string, params: ReadonlyArray<unknown>): Effect.Effect<unknown, SqlError> {
    return Effect.map(this.reply(sql, params, undefined), ({ result }) => result)
  }
  executeValues(sql: string, params: ReadonlyArray<unknown>) {
    return this.rows(sql, params, "array")
  }
  executeUnprepared(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return this.execute(sql, params, transformRows)
  }

  /** A stream of what is executed like any statement. */
  protected executed(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Stream.unwrap(Effect.map(this.execute(sql, params, transformRows), Stream.fromIterable))
  }
}

/** Parameters as the wire wants them, once for all attempts. A value that can not be sent is the caller's typed error. */
export const serialized = (params: ReadonlyArray<unknown>): Effect.Effect<ReadonlyArray<unknown>, PgError.PgError> =>
  Effect.try({
    try: () => serialize(params),
    catch: (cause) => classify(cause, { phase: "Execute", outcome: "NotApplied" })
  })

export const workOf = (stages: Stages, sql: string, inside: operation.State | undefined, pooled: boolean) => {
  const inspection = ReadOnly.inspect(sql)
  const work: Work = {
    pooled,
    phase: "Execute",
    command: inspection.command,
    // Where the lexer is not to be relied on, what it takes for a read may have been a write.
    readOnly: inside?.readOnly ?? (stages.autoRetryReads && inspection.readOnly),
    opaque: inspection.opaque,
    transactionControl: inspection.transactionControl,
    isCommit: inspection.command === "commit"
  }
  return work
}

/** Commands whose rows come as they are asked for. */
export const queries = new Set<ReadOnly.Command>(["select", "values", "table", "show"])

/** For each statement a connection of its own. */
export class Pooled extends Base {
  constructor(private readonly stages: Stages) {
    super()
  }

  protected reply(sql: string, params: ReadonlyArray<unknown>, rowMode: "array" | undefined) {
    const { stages } = this
    return Effect.withFiberRuntime<Reply, SqlError>((fiber) => {
      const caller = callerOf(fiber)
      const work = workOf(stages, sql, caller.operation, true)
      const repeatable = work.readOnly || caller.operation?.idempotent === true
      const exactlyOnce = caller.operation?.exactlyOnce ?? false
      if (exactlyOnce !== false && !repeatable && !work.opaque && !work.transactionControl) {
        return stages.transacted((held) => held.execution(sql, params, rowMode), { exactlyOnce })
      }
      return Effect.flatMap(serialized(params), (values) =>
        guard(
          stages,
          caller,
          statement(stages, caller, () => new Request(sql, values, rowMode), work),
          repeatable
        )
      ).pipe(Effect.mapError(PgError.toSqlError))
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

/** One attempt: a connection now or in turn, the statement on it, and the connection back. */
const statement =
  (stages: Stages, caller: Caller, request: () => Request, work: Work): Attempt<Reply> =>
  (permit) => {
    const on = (lease: Lease, resume: (effect: Effect.Effect<Reply, PgError.PgError>) => void) =>
      send(stages, caller, lease.session, request(), work, hooks(stages, permit, lease.release), resume)
    return Effect.async<Reply, PgError.PgError>((resume) => {
      const lease = stages.pool.unsafeTake()
      if (lease !== undefined) return on(lease, resume)
      resume(leased(stages, caller, permit, (lease) => Effect.async((resume) => on(lease, resume))))
      return Effect.void
    })
  }
