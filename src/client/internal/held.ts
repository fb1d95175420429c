/**
 * One connection in the hands of a transaction level or a `reserve` scope, and the stack of levels on it.
 *
 * 1. A level has at most one child open; a statement or savepoint of it waits until that child has ended, so that nobody's
 *    work is inside another's savepoint.
 * 2. A level that has ended sends nothing any more, whoever still has it: the connection may be another's by then.
 * 3. Levels end from the inside out: the end of one is the end of all that are still open in it.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { QueryArrayResult } from "pg"
import * as PgError from "../../error/PgError.js"
import * as ReadOnly from "../../policy/ReadOnly.js"
import { Base, callerOf, isPreparable, queries, serialized, type TransformRows, workOf } from "../Connection.js"
import type { Lease } from "../Pool.js"
import { dispatch, resuming, type Work } from "./attempt.js"
import { beginWork, type Grip } from "./beginning.js"
import type { Verdicts } from "./leasing.js"
import { CloseCursor, Cursor, Request } from "./request.js"
import { Execution, Opening, Sending, type Sequel } from "./sending.js"
import type { Reply } from "./session.js"
import type { Caller, Restore, Stages } from "./stages.js"
import { suspend, suspended } from "./suspension.js"

/** Rows of a stream that are fetched at a time, as in `@effect/sql-pg`. */
const fetchSize = 128

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
  private unkeepable: string | undefined = undefined
  /** The nested transaction that is open; statements of this level wait for its end. */
  private child: Held | undefined = undefined
  private turns: Array<() => void> = []

  constructor(
    readonly stages: Stages,
    readonly grip: Grip,
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

  get lease(): Lease {
    return this.grip.lease
  }
  get permit(): Verdicts {
    return this.grip.permit
  }

  /** Why nothing of this level can be kept any more. */
  get spoiled(): string | undefined {
    return this.unkeepable ?? this.grip.failed
  }
  set spoiled(why: string) {
    this.unkeepable = why
  }

  execution<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    rowMode: "array" | undefined,
    view: (reply: Reply) => A,
    preparable: boolean
  ): Effect.Effect<A, SqlError> {
    return this.reply(sql, params, rowMode, view, preparable)
  }

  protected reply<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    rowMode: "array" | undefined,
    view: (reply: Reply) => A,
    preparable: boolean
  ) {
    const values = serialized(params)
    if (Either.isLeft(values)) return Effect.fail(PgError.toSqlError(values.left))
    const { command, readOnly } = ReadOnly.inspect(sql)
    const plain = isPreparable(command)
    const request = (before?: string) => new Request(sql, values.right, rowMode, preparable && plain, before)
    // What a function does outside of the database is not to be done twice where BEGIN's answer got lost.
    return this.run(sql, request, view, plain && (command !== "select" || readOnly))
  }

  /** One statement in its turn. `travels`: BEGIN may come with it. */
  run<A>(
    sql: string,
    request: (before?: string) => Request,
    view: (reply: Reply) => A,
    travels = false
  ): Effect.Effect<A, SqlError> {
    return Effect.withFiberRuntime((fiber) => {
      const caller = callerOf(fiber)
      const work = workOf(this.stages, sql, caller.operation, false, this.options.readOnly)
      for (let at: Held | undefined = this; at !== undefined && !work.readOnly; at = at.options.parent) at.wrote = true
      return suspend(fiber, (resume) =>
        this.begin(caller, request, work, new Execution(this, caller, work, view, resume), travels)
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
    return suspended((resume) =>
      this.begin(caller, request, work, { done: resuming(resume).done, instead: resume, unsent }, false)
    )
  }

  private begin(
    caller: Caller,
    request: (before?: string) => Request,
    work: Work,
    sequel: Sequel,
    travels: boolean
  ): (() => void) | void {
    const refusal = this.refusal(caller)
    if (refusal !== undefined) return sequel.instead(Effect.fail(refusal))
    if (this.child !== undefined) return sequel.instead(this.after(this.turn(caller), caller, request, work, sequel))
    const { grip, stages } = this
    const { beginning, lease } = grip
    if (beginning === undefined) {
      return dispatch(stages, caller, lease, request(), work, new Sending(this, sequel))
    }
    if (!travels || !beginning.travels) {
      return sequel.instead(this.after(beginning.awaited(caller), caller, request, work, sequel))
    }
    beginning.sent()
    const first = request(beginning.text)
    const otherwise = (error: PgError.PgError) =>
      this.after(beginning.again(caller, error), caller, request, work, sequel)
    const opening = new Opening(this, sequel, beginning, first, otherwise)
    return dispatch(stages, caller, lease, first, { ...work, begins: { request: first, work: beginWork } }, opening)
  }

  private after(
    turn: Effect.Effect<unknown, PgError.PgError>,
    caller: Caller,
    request: () => Request,
    work: Work,
    { unsent }: Sequel
  ): Effect.Effect<Reply, PgError.PgError> {
    return Effect.zipRight(
      turn,
      Effect.suspend(() => this.submit(caller, request, work, unsent))
    )
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
    if (this.options.parent === undefined) this.grip.over = true
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
      if (this.grip.beginning !== undefined || this.lease.session.status !== "I")
        return this.fetched(sql, params, transformRows, true)
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
            this.run(
              sql,
              () => cursor,
              (reply) => reply
            ),
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
