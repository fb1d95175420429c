/** One statement on a connection of its own, so that neither a full pool nor a broken one hides what the server says. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pg from "pg"

/** `application_name` of these connections: what counts a program's backends leaves them out. */
export const applicationName = "effect-pg-resilience/control"

/** Milliseconds given to the server to say goodbye before the socket is destroyed. */
const closeGrace = 500

const open = (config: Pg.ClientConfig) =>
  Effect.async<Pg.Client, Error>((resume) => {
    const client = new Pg.Client({ application_name: applicationName, connectionTimeoutMillis: 5_000, ...config })
    client.on("error", () => {}) // without a listener a lost connection ends the process
    client.connect((error: Error | null) => resume(error ? Effect.fail(error) : Effect.succeed(client)))
    return Effect.sync(() => client.connection.stream.destroy())
  })

const close = (client: Pg.Client) =>
  Effect.async<void>((resume) => {
    const { stream } = client.connection
    const done = () => {
      clearTimeout(timer)
      resume(Effect.void)
    }
    const timer = setTimeout(() => stream.destroy(), closeGrace)
    if (stream.destroyed) return done()
    stream.once("close", done)
    client.end().catch(() => {})
  })

/** Connects, runs one statement, disconnects. Fails with what `pg` reports. Interruption abandons the connection. */
export const query = <Row extends Pg.QueryResultRow>(
  config: Pg.ClientConfig,
  sql: string,
  parameters: ReadonlyArray<unknown> = []
): Effect.Effect<ReadonlyArray<Row>, Error> =>
  // As interruptible as the caller: within a finalizer it runs to its end, although the fiber is being interrupted.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(restore(open(config)), (client) =>
      restore(
        Effect.tryPromise({
          try: () => client.query<Row>(sql, parameters.slice()),
          catch: (cause) => cause as Error
        })
      ).pipe(
        Effect.onExit((exit) =>
          Exit.isInterrupted(exit) ? Effect.sync(() => client.connection.stream.destroy()) : close(client)
        )
      )
    )
  ).pipe(Effect.map(({ rows }) => rows))
