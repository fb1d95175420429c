/** Everything that is known of a server before anybody judges, and how it is read. */
import type { Socket } from "node:net"
import { TLSSocket } from "node:tls"
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as connecting from "../../../client/internal/connect.js"
import * as wire from "../../../client/internal/session.js"
import { isPooler } from "../../../client/internal/statements.js"
import * as ResilienceConfig from "../../../config/ResilienceConfig.js"
import { classify } from "../../../error/classify.js"
import * as PgError from "../../../error/PgError.js"
import * as Operation from "../../../policy/Operation.js"
import * as ResilientPg from "../../../ResilientPg.js"
import * as queries from "./queries.js"

/** What a connection of its own showed: times in milliseconds. */
export interface Introduction {
  /** Where the connection leads, as the socket says; null for a Unix socket. */
  readonly address: string | null
  /** Such as `TLSv1.3`; null where nothing is encrypted. */
  readonly tls: string | null
  readonly connectMs: number
  readonly roundTripMs: number
  /** The process that the server named when the connection was made is not the one that answers. */
  readonly pooler: boolean
}

type RowOf<Q> = Q extends queries.Query<infer A> ? A : never
type Rows<Q> = ReadonlyArray<RowOf<Q>>

/** What a check may ask for. Left: why it is not known. */
export interface Subjects {
  readonly settings: ReadonlyMap<string, RowOf<typeof queries.settings>>
  readonly connections: RowOf<typeof queries.connections>
  readonly sessions: Rows<typeof queries.sessions>
  readonly prepared: Rows<typeof queries.prepared>
  readonly replicas: Rows<typeof queries.replicas>
  readonly standby: RowOf<typeof queries.standby>
  readonly slots: Rows<typeof queries.slots>
  readonly archiver: RowOf<typeof queries.archiver>
  readonly statistics: RowOf<typeof queries.statistics>
  readonly ages: Rows<typeof queries.ages>
  readonly indexes: Rows<typeof queries.indexes>
  readonly constraints: Rows<typeof queries.constraints>
  readonly tables: Rows<typeof queries.tables>
  readonly sequences: Rows<typeof queries.sequences>
  readonly unlogged: Rows<typeof queries.unlogged>
  readonly ledger: Rows<ReturnType<typeof queries.ledger>>
  readonly extensions: Rows<typeof queries.extensions>
}

export type Known<A> = Either.Either<A, string>

export interface Facts {
  readonly at: number
  readonly introduction: Introduction
  readonly server: RowOf<typeof queries.server>
  readonly subjects: { readonly [Name in keyof Subjects]: Known<Subjects[Name]> }
}

export interface Limits {
  readonly ledger: { readonly schema: string; readonly table: string }
  /** For one statement. */
  readonly timeout: Duration.DurationInput
}

/** What the server refuses to tell, or does not know: the check says so. Everything else ends the examination. */
const answers: ReadonlySet<PgError.Tag> = new Set([
  "AuthorizationError",
  "SqlSyntaxError",
  "StatementTimeoutError",
  "LockTimeoutError",
  "QueryTimeoutError",
  "ReadOnlyError",
  "ResourceError",
  "UnknownError"
])

const decoded = <A>(query: queries.Query<A>) => Schema.decodeUnknownEither(Schema.parseJson(Schema.Array(query.row)))

/** The rows of one subject. */
const ask =
  (client: PgClient.PgClient, timeout: Duration.DurationInput) =>
  <A>(name: string, query: queries.Query<A>): Effect.Effect<Known<ReadonlyArray<A>>, PgError.PgError> =>
    client
      .withoutTransforms()
      .unsafe<{ readonly rows: string }>(query.sql)
      .pipe(
        Operation.named(`doctor.${name}`, { readOnly: true, timeout }),
        Effect.map(([row]) =>
          Either.mapLeft(
            decoded(query)(row?.rows),
            () => `the server's answer about ${name} is not of the form expected`
          )
        ),
        Effect.catchIf(
          ({ _tag }) => answers.has(_tag),
          ({ _tag, message }) => Effect.succeed(Either.left(`${message} (${_tag})`))
        )
      )

/** Milliseconds for the server to say goodbye; then the socket is destroyed. */
const goodbye = 500

const protocolOf = (socket: Socket): string | null => (socket instanceof TLSSocket ? socket.getProtocol() : null)

const asked = (session: wire.Session, text: string) =>
  Effect.mapError(wire.query(session, text), (cause) => classify(cause, { phase: "Execute", outcome: "NotApplied" }))

/** Opens a connection beside the pool, looks at it, and closes it. */
const introduce = (client: PgClient.PgClient): Effect.Effect<Introduction, PgError.PgError> =>
  Effect.gen(function* () {
    const config = yield* ResilienceConfig.decode(ResilientPg.optionsOf(client))
    let refused = false
    const { connect } = connecting.make(config, undefined, () => (refused = true), undefined)
    const before = performance.now()
    return yield* Effect.acquireUseRelease(
      Effect.interruptible(connect),
      (session) =>
        Effect.gen(function* () {
          const connectMs = performance.now() - before
          const { result } = yield* asked(session, "SELECT pg_catalog.pg_backend_pid()")
          const began = performance.now()
          yield* asked(session, "SELECT 1")
          const roundTripMs = performance.now() - began
          const [row] = "rows" in result ? (result.rows as ReadonlyArray<object>) : []
          const pid = Number(Object.values(row ?? {})[0])
          return {
            address: session.socket.remoteAddress ?? null,
            tls: protocolOf(session.socket),
            connectMs,
            roundTripMs,
            pooler: refused || isPooler(session.processId) || pid !== session.processId
          }
        }),
      // Until it has closed: where one connection is all that there is, the pool gets it next.
      (session) =>
        Effect.async<void>((resume) => {
          if (session.closed) return resume(Effect.void)
          session.onClosed = () => resume(Effect.void)
          session.end(goodbye)
        })
    )
  })

/** A server that cannot say what it is, is none that anything is known of. */
const noServer = (why: string) =>
  new PgError.UnknownError({
    message: `The server did not say what it is: ${why}. Is it PostgreSQL 14 or later?`,
    phase: "Execute",
    outcome: "NotApplied",
    transient: false,
    attempts: 1
  })

/** The one row of a subject that has one. */
const first = <A>(known: Known<ReadonlyArray<A>>, name: string): Known<A> =>
  Either.flatMap(known, ([row]) =>
    row === undefined ? Either.left(`the server has no row about ${name}`) : Either.right(row)
  )

/** Reads everything: on a connection of its own first, and then one statement after the other on one of the pool's. */
export const gather = (client: PgClient.PgClient, limits: Limits): Effect.Effect<Facts, PgError.PgError> =>
  Effect.gen(function* () {
    const introduction = yield* introduce(client)
    const question = ask(client, limits.timeout)
    const server = yield* Effect.flatMap(question("server", queries.server), (known) =>
      Either.match(
        Either.flatMap(known, ([row]) => (row === undefined ? Either.left("it answered nothing") : Either.right(row))),
        {
          onLeft: (why) => Effect.fail(noServer(why)),
          onRight: Effect.succeed
        }
      )
    )
    const unprivileged = Either.left(
      `the role ${server.role} sees only its own sessions: GRANT pg_monitor TO "${server.role.replaceAll('"', '""')}"`
    )
    const many = <A>(name: string, query: queries.Query<A>): Effect.Effect<Known<ReadonlyArray<A>>, PgError.PgError> =>
      query.needsAllStats && !server.reads_all_stats ? Effect.succeed(unprivileged) : question(name, query)
    const one = <A>(name: string, query: queries.Query<A>) =>
      Effect.map(many(name, query), (known) => first(known, name))
    const subjects = yield* Effect.all({
      settings: Effect.map(
        many("settings", queries.settings),
        Either.map((rows) => new Map(rows.map((row) => [row.name, row])))
      ),
      connections: one("connections", queries.connections),
      sessions: many("sessions", queries.sessions),
      prepared: many("prepared", queries.prepared),
      replicas: many("replicas", queries.replicas),
      standby: one("standby", queries.standby),
      slots: many("slots", queries.slots),
      archiver: one("archiver", queries.archiver),
      statistics: one("statistics", queries.statistics),
      ages: many("ages", queries.ages),
      indexes: many("indexes", queries.indexes),
      constraints: many("constraints", queries.constraints),
      tables: many("tables", queries.tables),
      sequences: many("sequences", queries.sequences),
      unlogged: many("unlogged", queries.unlogged),
      ledger: many("ledger", queries.ledger(limits.ledger.schema, limits.ledger.table)),
      extensions: many("extensions", queries.extensions)
    })
    return { at: yield* Clock.currentTimeMillis, introduction, server, subjects }
  })
