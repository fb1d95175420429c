/**
 * PostgreSQL for the tests of this project: one real server per test file, and databases on it.
 *
 * ```ts
 * layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("…", (it) => {
 *   it.scoped("…", () => Effect.gen(function* () {
 *     const { url } = yield* TestPg.database // fresh, dropped with the scope
 *     const [row] = yield* TestPg.control("SELECT 1 AS one", [], url)
 *   }))
 * })
 * ```
 */
import { Cause, Clock, type Duration, Effect, Inspectable, type Layer, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as Control from "../../src/testing/internal/control.js"

/**
 * A server for the test file. Without fsync, which only a crash of the machine needs: what a killed server has written the
 * system keeps. Tests that need settings use `EmbeddedPostgres.layer({ settings })` themselves.
 */
export const layer: Layer.Layer<EmbeddedPostgres.EmbeddedPostgres, EmbeddedPostgres.EmbeddedPostgresError> =
  EmbeddedPostgres.layer({ settings: { fsync: false } })

let count = 0

/** A fresh, empty database on the file's server, dropped when the scope closes. */
export const database = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.EmbeddedPostgres
  const name = `test_${++count}`
  const url = yield* server.createDatabase(name)
  return { name, url, config: { ...server.config, database: name } }
})

/**
 * Rows of one statement on a connection of its own, outside any pool and past any proxy; on the file's own database unless
 * a URL is given. A failure is a defect, because a test that asks the server needs its answer.
 */
export const control = <Row extends object = any>(
  sql: string,
  parameters: ReadonlyArray<unknown> = [],
  url?: Redacted.Redacted
): Effect.Effect<ReadonlyArray<Row>, never, EmbeddedPostgres.EmbeddedPostgres> =>
  Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, (server) =>
    Effect.orDie(Control.query<Row>({ connectionString: Redacted.value(url ?? server.url) }, sql, parameters))
  )

/**
 * Runs the effect again and again, in real time, until its value satisfies the predicate, and returns that value. After 30
 * seconds it dies with the last value seen: the bound is a hang's, not a performance claim.
 */
export const eventually = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  predicate: (value: A) => boolean,
  {
    limit = "30 seconds",
    message = "the condition was not met"
  }: {
    readonly limit?: Duration.DurationInput
    readonly message?: string
  } = {}
): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) => {
    let last: unknown = "no value yet"
    const poll: Effect.Effect<A, E, R> = Effect.flatMap(Effect.withClock(self, clock), (value) => {
      last = value
      return predicate(value) ? Effect.succeed(value) : Effect.delay(poll, "20 millis")
    })
    return Effect.interruptible(poll).pipe(
      Effect.timeoutFailCause({
        duration: limit,
        onTimeout: () => Cause.die(new Error(`${message}; last seen: ${Inspectable.toStringUnknown(last)}`))
      }),
      Effect.withClock(Clock.make())
    )
  })
