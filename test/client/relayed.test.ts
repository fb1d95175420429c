/** What a server says in words of its own, and what it says last, behind something that passes on less than it hears. */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import { clientOf, failure } from "./support.js"

/** In front of the file's server: what that sends goes through `rewrite`, and that it has closed is told nobody. */
const relay = (rewrite: (chunk: Buffer) => Buffer) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const sockets = new Set<Net.Socket>()
    const listener = yield* Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const listener = Net.createServer({ allowHalfOpen: true }, (client) => {
          const upstream = Net.connect({ host: "127.0.0.1", port: server.config.port, allowHalfOpen: true })
          for (const socket of [client, upstream]) {
            sockets.add(socket)
            socket.on("error", () => {})
          }
          client.pipe(upstream)
          upstream.on("data", (chunk) => client.write(rewrite(chunk)))
        }).listen(0, "127.0.0.1", () => resume(Effect.succeed(listener)))
      }),
      (listener) =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          listener.close()
        })
    )
    const url = new URL(Redacted.value(server.url))
    url.port = String((listener.address() as Net.AddressInfo).port)
    return Redacted.make(url.href)
  })

/** Both of one length, as a message of the protocol begins with its length. */
const english = "canceling statement due to statement timeout"
const german = "Anfrage wird wegen Zeitablauf abgebrochen   "

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Relayed", (it) => {
  it.scoped("in any language the server's limit is told from a cancel, by the time that the layer knows", () =>
    Effect.gen(function* () {
      const url = yield* relay((chunk) => Buffer.from(chunk.toString("latin1").replace(english, german), "latin1"))
      const { sql } = yield* clientOf({
        url,
        retry: false,
        serverTimeouts: { statement: "300 millis" },
        exposeServerDetail: true
      })
      const error = yield* failure(sql`SELECT pg_sleep(600)`)
      assert.include(error.message, german.trim())
      assert.deepInclude({ ...error }, { _tag: "StatementTimeoutError", sqlState: "57014" })
    })
  )

  it.scoped("a session that the server has ended is of no more use, though its socket stays open", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const url = yield* relay((chunk) => chunk)
      const { pid, pool, sql } = yield* clientOf({ url, retry: false, maxConnections: 1 })
      const before = yield* pid
      const fiber = yield* Effect.fork(failure(sql`SELECT pg_sleep(600)`))
      const active = TestPg.control("SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active'", [before])
      yield* TestPg.eventually(active, ({ length }) => length === 1)
      yield* server.terminate(before)
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag === "OutcomeUnknownError" && error.reason.sqlState, "57P01")
      assert.deepInclude(yield* pool, { used: 0 })
      assert.notStrictEqual(yield* pid, before)
    })
  )
})
