/**
 * The front door: `ResilientPg.layer(config)` in the place of `PgClient.layer(config)`.
 *
 * The way of a query, each stage a module of its own:
 *
 *   sql`…`           @effect/sql builds the statement
 *   Operation        name, deadline, what is known of it         policy/Operation
 *   RetryPolicy      again, within deadline and budget           policy/RetryPolicy, policy/RetryBudget
 *   CircuitBreaker   admitted, or refused at once                policy/CircuitBreaker
 *   Pool             a connection, now or in turn                client/Pool
 *   Connection       executed, or cancelled out of band          client/Connection
 *   PgError          classified: a tag, and an outcome           error/PgError
 *   record           metrics, span events, log lines             telemetry/Metrics
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { PCGRandom } from "effect/Utils"
import type { QueryResult } from "pg"
import { Pooled, statementSpans } from "./client/Connection.js"
import { Grip } from "./client/internal/beginning.js"
import * as cancel from "./client/internal/cancel.js"
import * as connector from "./client/internal/connect.js"
import { currentLevel, Held } from "./client/internal/held.js"
import { noVerdicts } from "./client/internal/leasing.js"
import { Paces } from "./client/internal/pace.js"
import { makeReserve } from "./client/internal/reserve.js"
import { query } from "./client/internal/session.js"
import type { Stages } from "./client/internal/stages.js"
import * as statements from "./client/internal/statements.js"
import { makeStreamed } from "./client/internal/streamed.js"
import * as Sweep from "./client/internal/sweep.js"
import * as transaction from "./client/internal/transaction.js"
import * as Listen from "./client/Listen.js"
import * as Pool from "./client/Pool.js"
import * as Transaction from "./client/Transaction.js"
import * as ResilienceConfig from "./config/ResilienceConfig.js"
import { classify } from "./error/classify.js"
import * as PgError from "./error/PgError.js"
import * as CircuitBreaker from "./policy/CircuitBreaker.js"
import * as operation from "./policy/internal/operation.js"
import * as Operation from "./policy/Operation.js"
import * as RetryBudget from "./policy/RetryBudget.js"
import * as RetryPolicy from "./policy/RetryPolicy.js"
import * as logLines from "./telemetry/internal/logLines.js"
import * as recording from "./telemetry/internal/recording.js"
import * as Metrics from "./telemetry/Metrics.js"

/** Superset of `PgClientConfig`; see `ResilienceConfig.Options` for every option, its range and its default. */
export type Options = ResilienceConfig.Options

/** What a program may ask the layer beside queries. */
export class ResilientPg extends Context.Tag("effect-pg-resilience/ResilientPg")<
  ResilientPg,
  {
    /** The pool's figures at this moment. */
    readonly pool: Effect.Effect<Pool.Snapshot>
    /** Ends when a query can be answered; fails at once on what no waiting mends, and with the last failure after `within`. */
    readonly ready: (options?: {
      readonly within?: Duration.DurationInput | "infinity" | undefined
    }) => Effect.Effect<void, PgError.PgError>
    /** LISTEN that reconnects, and says where it may have missed something. */
    readonly listen: (channel: string) => Stream.Stream<Listen.Event, SqlError>
  }
>() {}

/** What the layer provides. */
export type Services =
  | PgClient.PgClient
  | SqlClient.SqlClient
  | ResilientPg
  | CircuitBreaker.CircuitBreaker
  | RetryBudget.RetryBudget
  | Transaction.Transactor
  | Operation.Timeouts

/** See `ResilientPg`. */
export const pool: Effect.Effect<Pool.Snapshot, never, ResilientPg> = Effect.flatMap(ResilientPg, (_) => _.pool)

/** See `ResilientPg`. `within`: 0 or more, `"infinity"`; default 30 seconds. */
export const ready = (options?: {
  readonly within?: Duration.DurationInput | "infinity" | undefined
}): Effect.Effect<void, PgError.PgError, ResilientPg> => Effect.flatMap(ResilientPg, (_) => _.ready(options))

/** See `ResilientPg`. */
export const listen = (channel: string): Stream.Stream<Listen.Event, SqlError, ResilientPg> =>
  Stream.unwrap(Effect.map(ResilientPg, (_) => _.listen(channel)))

/** `timeouts: false`: operations end when they say so themselves. */
const forever: Operation.Limits = {
  query: Infinity,
  complex: Infinity,
  batchBase: Infinity,
  batchPerRow: 0,
  transaction: Infinity
}

/** The same custom fragment as `PgClient`'s, which its compiler knows. */
const json = Statement.custom<Statement.Custom<"PgJson", unknown, undefined, undefined>>("PgJson")

/** Passwords that are asked for, of which `client.config` has no room to tell. */
const askedFor = new WeakMap<PgClient.PgClientConfig, NonNullable<Options["password"]>>()

/** What `client.config` tells: the options, with what was resolved from URL and environment. */
const clientConfig = (
  { connectionTTL, connectTimeout, idleTimeout, password, ...options }: Options,
  { poolName, target }: ResilienceConfig.Decoded
): PgClient.PgClientConfig => {
  const config = {
    ...options,
    ...(Redacted.isRedacted(target.password) ? { password: target.password } : {}),
    host: target.host,
    port: target.port,
    database: target.database,
    username: target.username,
    ssl: target.ssl,
    poolName,
    ...Object.fromEntries(
      Object.entries({ connectionTTL, connectTimeout, idleTimeout }).filter(([, limit]) => limit !== undefined)
    )
  }
  if (Effect.isEffect(target.password)) askedFor.set(config, target.password)
  return config
}

/** What a client of this library was made from, its target and its pool's name resolved: to make another one like it. */
export const optionsOf = ({ config }: PgClient.PgClient): Options => {
  const password = askedFor.get(config)
  return password === undefined ? config : { ...config, password }
}

/** Between two tries of `ready`: the pool paces them while the server is away, but not what a full queue refuses at once. */
const readyPause = "50 millis"

/** One query on one connection, past the breaker, again and again until it is answered. */
const makeReady =
  ({ pool }: Stages, live: (effect: Effect.Effect<void>) => Effect.Effect<void>): ResilientPg["Type"]["ready"] =>
  ({ within = "30 seconds" } = {}) => {
    const limit = operation.toMillis(within)
    let last: PgError.PgError | undefined
    const once = Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.flatMap(Effect.clock, (clock) => pool.acquire(restore, clock)),
        (lease) =>
          Effect.ensuring(
            restore(Effect.mapError(query(lease.session, "SELECT 1"), (cause) => classify(cause))),
            Effect.sync(lease.release)
          )
      )
    )
    const spaced = Effect.tapError(once, (error) => {
      last = error
      return error.transient ? live(Effect.sleep(readyPause)) : Effect.void
    })
    const answered = Effect.retry(spaced, { while: ({ transient }) => transient })
    return Effect.timeoutFail(Effect.asVoid(answered), {
      duration: limit,
      onTimeout: () =>
        last ??
        new PgError.PoolTimeoutError({
          message: `No query could be answered within ${Duration.format(Duration.millis(limit))}: no connection came free`,
          phase: "Acquire",
          outcome: "NotApplied",
          transient: true,
          attempts: 1
        })
    })
  }

/**
 * Puts each statement's span where the stages find it for their events, by the transformer that every fiber begins with.
 * Not by a layer: there is room for one transformer, and a program's own, say a filter by tenant, must never give way to
 * ours. Under such a one, failed attempts are told by metrics and logs, and leave no events.
 */
const watchSpans = Effect.sync(() => {
  const begin = Statement.currentTransformer as { initial?: Option.Option<Statement.Statement.Transformer> }
  if (begin.initial?._tag !== "None") return
  begin.initial = Option.some((statement, _sql, _refs, span) =>
    Effect.withFiberRuntime((fiber) => {
      statementSpans.set(fiber, span)
      return Effect.succeed(statement)
    })
  )
})

/** Acknowledged tokens are deleted within this time before the pool closes, or left to the ledger's retention. */
const sweepLimit = "500 millis"

/** Time for one round of deleting acknowledged tokens, the server's absence included. */
const sweepPatience = "10 seconds"

/** A connection beside the pool closes within this time, milliseconds. */
const asideGoodbye = 500
/** Time for a statement beside the pool, its connection included: others wait for their turn. */
const asideLimit = "5 seconds"

/** The client and its services. Closes everything with its scope: no socket and no server session stays. */
export const make = (
  options: Options
): Effect.Effect<Context.Context<Services>, PgError.PgError, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function* () {
    const config = yield* ResilienceConfig.decode(options)
    yield* watchSpans
    const { target } = config
    const clock = yield* Effect.clock
    const reactivity = yield* Reactivity.Reactivity
    const random = new PCGRandom(yield* Random.nextInt)

    // --- the background: on the live clock, in nobody's operation, ended with the scope
    const liveClock = Clock.make()
    const live = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.withClock(operation.none(effect), liveClock)
    // A layer that is built where nothing can be interrupted ends with its scope all the same.
    const runFork = yield* Effect.interruptible(FiberSet.makeRuntime<never>())
    const fork = (effect: Effect.Effect<void>) => void runFork(live(effect))

    // --- told by all, asking none
    const log = logLines.make(fork, () => performance.now())
    const metrics = Metrics.forPool({
      poolName: config.poolName,
      namespace: target.database ?? "postgres",
      address: target.host,
      port: target.port,
      min: config.minConnections,
      max: config.maxConnections
    })
    const record = recording.make({ metrics, log, slowQuerySeconds: config.slowQueryThreshold / 1000 })
    yield* Effect.addFinalizer(() => Effect.sync(metrics.close))

    // --- policy
    const breaker = yield* config.breaker === false
      ? Effect.map(Layer.build(CircuitBreaker.layerNoop), Context.get(CircuitBreaker.CircuitBreaker))
      : CircuitBreaker.make(recording.observed(config.breaker, record.breaker))
    const budget = yield* config.retryBudget === false
      ? Effect.map(Layer.build(RetryBudget.layerNoop), Context.get(RetryBudget.RetryBudget))
      : RetryBudget.make(config.retryBudget)

    // --- connections
    const { onConnect } = config
    const { connect, setLocal } = connector.make(
      config,
      onConnect &&
        ((session) => {
          const lease = { session, released: false, span: undefined, release: () => {} }
          return onConnect(new Held(stages, new Grip(lease, noVerdicts), { readOnly: false, span: undefined }))
        }),
      record.settingsRefused,
      config.preparedStatements === false
        ? undefined
        : statements.policy({ ...config.preparedStatements, pooler: record.poolerFound })
    )
    const cancels = yield* Effect.makeSemaphore(cancel.atOnce)
    const paces = new Paces()
    const oneAside = yield* Effect.makeSemaphore(1)
    const thePool: Pool.Pool = Pool.make(
      {
        min: config.minConnections,
        max: config.maxConnections,
        maxWaiting: config.maxWaiting,
        acquireTimeout: config.acquireTimeout,
        idleTimeout: config.idleTimeout,
        lifetime: config.connectionTTL,
        maxUses: config.maxUses,
        checkAfterIdle: config.checkAfterIdle,
        closeGrace: config.closeGrace,
        leakAfter: config.leakThreshold
      },
      {
        connect,
        fork,
        alarm: (clock, millis, due) => {
          const fiber = runFork(
            Effect.withClock(operation.none(Effect.zipRight(Effect.sleep(millis), Effect.sync(due))), clock)
          )
          return () => fiber.unsafeInterruptAsFork(FiberId.none)
        },
        random: () => random.number(),
        clock,
        paces,
        settle: (session, slot) =>
          Effect.map(cancel.settle(session, slot, config.stream, cancels), (result) => {
            record.settled(result)
            slot.onSettled?.(result === "Silent")
          }),
        cancel: (session) => cancel.last(session, config.stream),
        listener: {
          ...record.pool(() => thePool.snapshot()),
          server: (lost, seconds) => {
            record.server(lost, seconds)
            if (lost === undefined) fork(breaker.recovered)
          }
        }
      }
    )
    yield* Effect.addFinalizer(() => live(thePool.close))
    const tend = Effect.sync(() => {
      thePool.tend()
      record.budget(Effect.runSync(budget.snapshot))
    })
    yield* Effect.forkScoped(Effect.interruptible(live(Effect.repeat(tend, Schedule.spaced("1 second")))))
    const listener = yield* Listen.make({ connect, live, random: () => random.number(), onLost: record.listenLost })

    // --- the way of a query
    const attributes: ReadonlyArray<readonly [string, unknown]> = [
      ...Object.entries(config.spanAttributes),
      ["db.system.name", "postgresql"],
      ["db.namespace", target.database ?? "postgres"],
      ["server.address", target.host],
      ["server.port", target.port]
    ]
    const stages: Stages = {
      streamed: makeStreamed(() => stages),
      transacted: transaction.makeTransacted(() => stages, attributes),
      owner: {},
      pool: thePool,
      paces,
      lanes: config.lanes,
      breaker,
      budget,
      retry: config.retry === false ? undefined : (config.retry ?? RetryPolicy.standard),
      recorder: record.stages,
      autoRetryReads: config.autoRetryReads,
      exposeServerDetail: config.exposeServerDetail,
      acquireTimeout: config.acquireTimeout,
      serverTimeouts: config.serverTimeouts,
      setLocal,
      live,
      ledger: config.ledger,
      acknowledged: (token) => sweep.acknowledged(token),
      aside: (sql, params) =>
        Effect.acquireUseRelease(
          Effect.interruptible(connect),
          (session) => query(session, sql, params),
          (session) => Effect.sync(() => session.end(asideGoodbye))
        ).pipe(Effect.timeout(asideLimit), oneAside.withPermits(1))
    }
    const pooled = new Pooled(stages)
    const sweep = Sweep.make(
      stages.ledger,
      (sql, params) =>
        operation.bounded(
          Effect.map(pooled.executeRaw(sql, params), (result) => (result as QueryResult).rowCount ?? 0),
          "sweep-ledger",
          { idempotent: true, timeout: sweepPatience },
          (limits) => limits.query
        ),
      fork
    )
    yield* Effect.addFinalizer(() => live(Effect.timeoutOption(Effect.interruptible(sweep.flush), sweepLimit)))
    const acquirer = Effect.withFiberRuntime<Pooled | Held>((fiber) =>
      Effect.succeed(currentLevel(stages, fiber.currentContext) ?? pooled)
    )

    // --- the client that programs know
    const compiler = PgClient.makeCompiler(config.transformQueryNames, config.transformJson)
    const transformRows =
      config.transformResultNames &&
      Statement.defaultTransforms(config.transformResultNames, config.transformJson).array
    const client: PgClient.PgClient = Object.assign(Statement.make(acquirer, compiler, attributes, transformRows), {
      [PgClient.TypeId as PgClient.TypeId]: PgClient.TypeId as PgClient.TypeId,
      [SqlClient.TypeId as SqlClient.TypeId]: SqlClient.TypeId as SqlClient.TypeId,
      safe: undefined as any,
      config: clientConfig(options, config),
      withTransaction: transaction.makeWithTransaction(stages, attributes),
      reserve: makeReserve(stages),
      withoutTransforms(): any {
        if (transformRows === undefined) return client
        const plain = Statement.make(acquirer, compiler.withoutTransform, attributes, undefined)
        const copy: any = Object.assign(plain, { ...client, ...plain })
        copy.safe = copy
        copy.withoutTransforms = () => copy
        return copy
      },
      reactive: reactivity.stream,
      reactiveMailbox: reactivity.query,
      json: (value: unknown) => json(value, undefined, undefined),
      listen: (channel: string) =>
        Stream.filterMap(listener.listen(channel), (event) =>
          event._tag === "Notification" ? Option.some(event.payload) : Option.none()
        ),
      notify: (channel: string, payload: string) =>
        Effect.asVoid(Effect.suspend(() => client`SELECT pg_notify(${channel}, ${payload})`))
    }) as any
    ;(client as any).safe = client

    const ready = makeReady(stages, live)
    if (config.requireOnStart) yield* ready()
    return Context.make(PgClient.PgClient, client).pipe(
      Context.add(SqlClient.SqlClient, client),
      Context.add(ResilientPg, { pool: Effect.sync(thePool.snapshot), ready, listen: listener.listen }),
      Context.add(CircuitBreaker.CircuitBreaker, breaker),
      Context.add(RetryBudget.RetryBudget, budget),
      Context.add(Transaction.Transactor, transaction.makeTransactor(stages, attributes)),
      Context.add(Operation.Timeouts, {
        ...(config.timeouts === false ? forever : (config.timeouts ?? Operation.defaultLimits)),
        onExpired: record.expired
      })
    )
  })

/**
 * In the place of `PgClient.layer`. Builds at once, also while the database is away (but see `requireOnStart`).
 *
 * Fails with an `SqlError` whose cause is `InvalidOptionsError` when options are out of range, all of them named.
 */
export const layer = (options: Options): Layer.Layer<Services, SqlError> =>
  Layer.scopedContext(Effect.mapError(make(options), PgError.toSqlError)).pipe(Layer.provide(Reactivity.layer))

/** `layer`, its options out of `Config`. */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<Services, ConfigError.ConfigError | SqlError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))

/** `layer`, from the environment: `DATABASE_URL`, `DB_POOL_MAX` and the others that `ResilienceConfig.variables` lists. */
export const layerEnv: Layer.Layer<Services, ConfigError.ConfigError | SqlError> = Layer.unwrapEffect(
  Effect.map(ResilienceConfig.fromEnv, layer)
)
