import { Buffer } from "node:buffer"
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { clientOf, failure } from "../client/support.js"
import * as TestPg from "../support/TestPg.js"
import { message } from "../support/wire.js"

/** An ErrorResponse without a routine: what poolers send. */
const errorResponse = (severity: string, code: string, text: string) =>
  message("E", Buffer.from(`S${severity}\0C${code}\0M${text}\0\0`))

/**
 * The URL of a relay before the file's server. The server's answer to the first message that holds `text`, which means that
 * the statement is committed, is withheld: `said` goes to the client instead, and both connections are closed.
 */
const losing = (text: string, said: Buffer) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    let spent = false
    const sockets = new Set<Net.Socket>()
    const relay = yield* Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const relay = Net.createServer((client) => {
          const upstream = Net.connect(server.config.port, server.config.host)
          let lost = false
          for (const socket of [client, upstream]) sockets.add(socket.on("error", () => {}))
          client.on("data", (bytes: Buffer) => {
            if (!spent && bytes.includes(text)) spent = lost = true
            upstream.write(bytes)
          })
          upstream.on("data", (bytes: Buffer) => {
            if (!lost) client.write(bytes)
            else if (client.writable) client.end(said)
          })
          client.on("close", () => upstream.destroy())
          upstream.on("close", () => client.destroy())
        }).listen(0, "127.0.0.1", () => resume(Effect.succeed(relay)))
      }),
      (relay) =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          relay.close()
        })
    )
    const url = new URL(Redacted.value(server.url))
    url.hostname = "127.0.0.1"
    url.port = String((relay.address() as Net.AddressInfo).port)
    return Redacted.make(url.href)
  })

/** What poolers say of a server that they lost with a statement under way. */
const losses: ReadonlyArray<readonly [pooler: string, said: Buffer]> = [
  ["PgBouncer before 1.16", errorResponse("ERROR", "08P01", "server conn crashed?")],
  ["PgBouncer before 1.16, in words that are in no table", errorResponse("ERROR", "08P01", "bad pkt header")],
  ["Odyssey", errorResponse("ERROR", "08006", "odyssey: c1: remote server read/write error s1: Connection reset")],
  ["PgBouncer", errorResponse("FATAL", "08P01", "server conn crashed?")],
  ["PgCat", errorResponse("FATAL", "58000", "error receiving data from server: SocketError")],
  ["a pooler that uses 58000", errorResponse("ERROR", "58000", "connection reset by peer")]
]

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("misleading answers", (it) => {
  let tables = 0

  it.scoped.each(losses)("do not double a write whose server %s has lost", ([, said]) =>
    Effect.gen(function* () {
      const table = `doubled_${++tables}`
      yield* TestPg.control(`CREATE TABLE ${table} (n int)`)
      const { sql } = yield* clientOf({ url: yield* losing(`INSERT INTO ${table}`, said) })
      const error = yield* failure(sql.unsafe(`INSERT INTO ${table} VALUES (1)`))
      assert.include(error, { _tag: "OutcomeUnknownError", outcome: "Unknown", attempts: 1 })
      assert.deepStrictEqual(yield* TestPg.control(`SELECT n FROM ${table}`), [{ n: 1 }])
    })
  )

  it.scoped("do not keep a read from being repeated", () =>
    Effect.gen(function* () {
      const said = errorResponse("ERROR", "08P01", "server conn crashed?")
      const { sql } = yield* clientOf({ url: yield* losing("SELECT 7 AS n", said) })
      assert.deepStrictEqual(yield* sql`SELECT 7 AS n`, [{ n: 7 }])
    })
  )

  it.scoped.each(["28000", "53300", "57P01", "57P03", "25P03", "25006", "08006"])(
    "do not end the transaction around a RAISE with %s that the program handles",
    (code) =>
      Effect.gen(function* () {
        const table = `raised_${++tables}`
        yield* TestPg.control(`CREATE TABLE ${table} (n int)`)
        const { sql } = yield* clientOf({ maxConnections: 1 })
        const pid = Effect.map(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) => row!.pid)
        const raise = sql.unsafe(`DO $$ BEGIN RAISE EXCEPTION 'denied' USING ERRCODE = '${code}'; END $$`)
        yield* sql.withTransaction(
          Effect.gen(function* () {
            const before = yield* pid
            yield* sql.unsafe(`INSERT INTO ${table} VALUES (1)`)
            const error = yield* failure(sql.withTransaction(raise))
            assert.strictEqual(error.sqlState, code)
            assert.strictEqual(yield* pid, before)
            yield* sql.unsafe(`INSERT INTO ${table} VALUES (2)`)
          })
        )
        assert.deepStrictEqual(yield* TestPg.control(`SELECT n FROM ${table} ORDER BY n`), [{ n: 1 }, { n: 2 }])
      })
  )
})
