/**
 * The two kinds of `SqlConnection` that programs meet: `Pooled`, which takes a connection for each statement and goes the
 * whole way of a query, and `Held`, which is one connection in the hands of a transaction level or a `reserve` scope.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { QueryArrayResult } from "pg"
import { classify } from "../error/classify.js"
import * as PgError from "../error/PgError.js"
import * as operation from "../policy/internal/operation.js"
import * as ReadOnly from "../policy/ReadOnly.js"
import { queryCanceled, send, type Work } from "./internal/attempt.js"
import { type Attempt, conclude, guard, note, type Permit } from "./internal/guard.js"
import { CloseCursor, Cursor, type Reply, Request, serialize } from "./internal/session.js"
import type { Caller, Restore, Stages } from "./internal/stages.js"
import type { Lease } from "./Pool.js"

/** Rows of a stream that are fetched at a time, as in `@effect/sql-pg`. */
const fetchSize = 128

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

type TransformRows = (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

/** `SqlConnection` in terms of one function that executes and one that streams. */
abstract class Base implements Connection {
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
const serialized = (params: ReadonlyArray<unknown>): Effect.Effect<ReadonlyArray<unknown>, PgError.PgError> =>
  Effect.try({
    try: () => serialize(params),
    catch: (cause) => classify(cause, { phase: "Execute", outcome: "NotApplied" })
  })

const workOf = (stages: Stages, sql: string, inside: operation.State | undefined, pooled: boolean) => {
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
const queries = new Set<ReadOnly.Command>(["select", "values", "table", "show"])

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

/** Where the verdicts on a connection go: to the breaker, by the permit it was taken with. */
export type Verdicts = Pick<Permit, "settle" | "neutral" | "report">

/** For what the breaker has no part in. */
export const noVerdicts: Verdicts = { settle: () => {}, neutral: () => {}, report: () => {} }

/** Wait for a connection, use it, give it back. */
export const leased = <A>(
  stages: Stages,
  caller: Caller,
  permit: Permit,
  use: (lease: Lease) => Effect.Effect<A, PgError.PgError>
): Effect.Effect<A, PgError.PgError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(acquired(stages, caller, permit, restore), (lease) =>
      Effect.onExit(restore(use(lease)), () => {
        lease.release()
        return Effect.void
      })
    )
  )

/** `pool.acquire`, whose failure is an attempt's verdict. */
export const acquired = (
  stages: Stages,
  caller: Caller,
  permit: Permit,
  restore: Restore
): Effect.Effect<Lease, PgError.PgError> =>
  Effect.tapError(stages.pool.acquire(restore, caller.clock), (error) => Effect.sync(() => permit.settle(error, 0)))

/** What the breaker and the pool learn of one statement. */
export const hooks = (stages: Stages, permit: Verdicts, release: () => void) => ({
  answered: (error: PgError.PgError | undefined, elapsedMs: number) => {
    permit.settle(error, elapsedMs)
    release()
  },
  abandoned: () => {
    permit.neutral()
    release()
  },
  settled: (silent: boolean) => {
    if (!silent) return
    permit.report(silence)
    stages.pool.suspect()
  }
})

/** A server that did not even answer a cancel. Never shown: its caller has gone. */
const silence = new PgError.ConnectionError({
  message: "The server did not answer a cancelled statement within a second",
  phase: "Execute",
  outcome: "Unknown",
  transient: true,
  attempts: 1
})

/** How long a statement waits for a nested transaction of another fiber, if no deadline ends it before. */
const turnLimit = "30 seconds"

/** One connection, held by a transaction level or a `reserve` scope. */
export class Held extends Base {
  /** No statement is taken any more; whoever still has this object outlived what it was for. */
  ended = false
  /** SAVEPOINT is on its way: there is something to go back to. */
  opened = false
  /** Something was executed in it that was not certainly a read: its COMMIT has something to apply. */
  wrote = false
  /** Why nothing of this level can be kept any more. */
  spoiled: string | undefined = undefined
  /** The nested transaction that is open; statements of this level wait for its end. */
  private child: Held | undefined = undefined
  private turns: Array<() => void> = []

  constructor(
    readonly stages: Stages,
    readonly lease: Lease,
    readonly permit: Verdicts,
    readonly options: {
      readonly readOnly: boolean
      readonly span: Tracer.AnySpan | undefined
      /** The level around this one on the same connection. */
      readonly parent?: Held | undefined
      /** What the context held before: another client's transaction, or the level around this one. */
      readonly outer?: Connection | undefined
      readonly savepoint?: string | undefined
    }
  ) {
    super()
  }

  protected reply(sql: string, params: ReadonlyArray<unknown>, rowMode: "array" | undefined) {
    return Effect.flatMap(Effect.mapError(serialized(params), PgError.toSqlError), (values) =>
      this.run(sql, () => new Request(sql, values, rowMode))
    )
  }

  /** One statement in its turn. */
  run(sql: string, request: () => Request): Effect.Effect<Reply, SqlError> {
    return Effect.withFiberRuntime((fiber) => {
      const caller = callerOf(fiber)
      const work = workOf(this.stages, sql, caller.operation, false)
      const readOnly = work.readOnly || this.options.readOnly
      for (let at: Held | undefined = this; at !== undefined && !readOnly; at = at.options.parent) at.wrote = true
      return this.submit(caller, request, { ...work, readOnly }).pipe(
        Effect.mapError((failure) => {
          // Cancelled because nobody else may wait for what was left behind.
          const cutOff = this.ended && failure.sqlState === queryCanceled && failure.outcome === "NotApplied"
          const error = cutOff ? this.outlived(caller, "its statement was cancelled") : failure
          note(caller, error, 1, undefined)
          const repeatable = work.readOnly || caller.operation?.idempotent === true
          return PgError.toSqlError(conclude(this.stages, caller, error, repeatable, 1))
        })
      )
    })
  }

  /** To the wire as soon as no nested transaction is open. `unsent`: given up before it got there. */
  submit(
    caller: Caller,
    request: () => Request,
    work: Work,
    unsent: () => void = () => {}
  ): Effect.Effect<Reply, PgError.PgError> {
    return Effect.async((resume) => {
      const refusal = this.refusal(caller)
      if (refusal !== undefined) return resume(Effect.fail(refusal))
      if (this.child !== undefined) {
        return resume(
          Effect.zipRight(
            this.turn(caller),
            Effect.suspend(() => this.submit(caller, request, work, unsent))
          )
        )
      }
      const { lease, permit, stages } = this
      // What is tried on a connection that is gone already says nothing new about the server.
      const gone = lease.session.lost !== undefined
      return send(
        stages,
        caller,
        lease.session,
        request(),
        work,
        {
          answered: (error) => {
            if (error !== undefined && !gone) permit.report(error)
          },
          abandoned: (inFlight) => {
            if (!inFlight) unsent()
          },
          settled: hooks(stages, permit, () => {}).settled
        },
        resume
      )
    })
  }

  /** The place of a nested transaction, taken at once when free: at most one is open per level. */
  enter(caller: Caller, child: Held, restore: Restore): Effect.Effect<void, PgError.PgError> {
    return Effect.suspend(() => {
      const refusal = this.refusal(caller)
      if (refusal !== undefined) return Effect.fail(refusal)
      if (this.child !== undefined)
        return Effect.zipRight(restore(this.turn(caller)), this.enter(caller, child, restore))
      this.child = child
      return Effect.void
    })
  }

  /** Nothing of this level is sent any more, nor of those still open inside. Returns the nearest savepoint of those. */
  stop(): string | undefined {
    this.ended = true
    const open = this.child
    // One that has ended already has said its last word, RELEASE or ROLLBACK TO, before ours.
    const unfinished = open?.opened === true && !open.ended ? open.options.savepoint : undefined
    open?.end()
    this.child = undefined
    this.wake()
    return unfinished
  }

  /** `stop`, and the level around it goes on. */
  end(): string | undefined {
    const unfinished = this.stop()
    if (this.options.parent?.child === this) this.options.parent.leave()
    return unfinished
  }

  private leave(): void {
    this.child = undefined
    this.wake()
  }

  private wake(): void {
    const { turns } = this
    this.turns = []
    for (const turn of turns) turn()
  }

  private turn(caller: Caller): Effect.Effect<void, PgError.PgError> {
    return Effect.async<void>((resume) => {
      if (this.child === undefined) return resume(Effect.void)
      const turn = () => resume(Effect.void)
      this.turns.push(turn)
      return Effect.sync(() => {
        this.turns = this.turns.filter((other) => other !== turn)
      })
    }).pipe(
      Effect.interruptible,
      Effect.timeoutFail({
        duration: turnLimit,
        onTimeout: () =>
          new PgError.TransactionAbortedError({
            ...nothingSent(caller),
            message:
              `A nested transaction (${spanName(this.child?.options.span)}) of ${spanName(this.options.span)} stayed open ` +
              `for ${turnLimit}: nested transactions of one connection can not wait for one another. Nothing was sent`
          })
      })
    )
  }

  /** Why nothing may be sent on this level, if so. */
  private refusal(caller: Caller): PgError.PgError | undefined {
    if (this.ended) return this.outlived(caller)
    if (this.spoiled === undefined) return undefined
    return new PgError.TransactionAbortedError({ ...nothingSent(caller), message: this.spoiled })
  }

  outlived(caller?: Caller, what = "nothing was sent"): PgError.PgError {
    return new PgError.TransactionAbortedError({
      ...nothingSent(caller),
      message:
        `The transaction or reserved connection (${spanName(this.options.span)}) has ended, and this fiber outlived it: ` +
        `${what}. Await such work inside, or start it outside`
    })
  }

  executeStream(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows
  ): Stream.Stream<any, SqlError> {
    return Stream.suspend(() => {
      if (this.lease.session.status !== "I") return this.fetched(sql, params, transformRows, true)
      // Outside a transaction a portal lives no longer than one message.
      return queries.has(ReadOnly.inspect(sql).command)
        ? this.stages.streamed(this, sql, params, transformRows)
        : this.executed(sql, params, transformRows)
    })
  }

  /** Rows in portions, in the transaction that is open. `goesOn`: it does so when the stream has ended. */
  fetched(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows,
    goesOn: boolean
  ): Stream.Stream<any, SqlError> {
    return Stream.unwrapScoped(
      Effect.flatMap(Effect.mapError(serialized(params), PgError.toSqlError), (values) => {
        const { lease } = this
        const cursor = new Cursor(sql, values, fetchSize)
        let more = true
        const pull = Effect.suspend((): Effect.Effect<Chunk.Chunk<any>, Option.Option<SqlError>> => {
          if (!more) return Effect.fail(Option.none())
          return Effect.mapBoth(
            this.run(sql, () => cursor),
            {
              onFailure: Option.some,
              onSuccess: ({ result, suspended }) => {
                more = suspended
                const { rows } = result as QueryArrayResult
                return Chunk.unsafeFromArray(transformRows === undefined ? rows : (transformRows(rows) as Array<any>))
              }
            }
          )
        })
        // Not waited for, and yet before anything that follows on this connection.
        const forget = Effect.sync(() => {
          if (!goesOn || lease.released || lease.session.status !== "T") return
          lease.session.submit(new CloseCursor(cursor), () => {})
        })
        return Effect.as(
          Effect.addFinalizer(() => forget),
          Stream.repeatEffectChunkOption(pull)
        )
      })
    )
  }
}

const nothingSent = (caller?: Caller) =>
  ({
    phase: "Execute",
    outcome: "NotApplied",
    transient: false,
    attempts: 0,
    operation: caller?.operation?.name
  }) as const

const spanName = (span: Tracer.AnySpan | undefined): string =>
  span === undefined ? "no span" : span._tag === "Span" ? `span "${span.name}" ${span.spanId}` : `span ${span.spanId}`

/** The innermost level of this client's transactions in a context, if it is in one. */
export const currentLevel = (stages: Stages, context: Context.Context<never>): Held | undefined => {
  let at: Connection | undefined = Option.getOrUndefined(
    Context.getOption(context, SqlClient.TransactionConnection)
  )?.[0]
  while (at instanceof Held) {
    if (at.stages.owner === stages.owner) return at
    at = at.options.outer
  }
  return undefined
}
