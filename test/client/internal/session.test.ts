import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Random, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { Request } from "../../../src/client/internal/request.js"
import { open, query, type Reply, type Session } from "../../../src/client/internal/session.js"
import * as TestPg from "../../support/TestPg.js"

const session = Effect.acquireRelease(
  Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, ({ url }) => open({ connectionString: Redacted.value(url) })),
  (session) => Effect.sync(() => session.destroy(new Error("The test is over")))
)

/** Statements that share a session, and what each is told, in the order of telling. */
const pipelining = (session: Session) => {
  const told: Array<{ readonly name: string; readonly reply: Reply }> = []
  const send = (name: string, sql: string) =>
    session.pipeline(new Request(sql), (reply) => void told.push({ name, reply }))
  return {
    told,
    send,
    names: () => told.map(({ name }) => name),
    tell: (count: number) =>
      TestPg.eventually(
        Effect.sync(() => told.length),
        (length) => length >= count
      )
  }
}

const blocked = "SELECT pg_advisory_xact_lock(1)"
const waits = TestPg.eventually(
  TestPg.control("SELECT FROM pg_stat_activity WHERE query = $1 AND wait_event_type = 'Lock'", [blocked]),
  ({ length }) => length > 0
)
/** Somebody else's lock, which `blocked` waits for. */
const lock = Effect.gen(function* () {
  const holder = yield* session
  yield* query(holder, "SELECT pg_advisory_lock(1)")
  return query(holder, "SELECT pg_advisory_unlock(1)")
})

const rowsOf = ({ result }: Reply) => (result as { readonly rows: ReadonlyArray<unknown> }).rows
const wasSent = ({ answered, written }: Reply) => ({ answered, written })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Session", (it) => {
  // Else a pool that gets the session back in this state cleans it for ever, each time refused before it returns.
  it.scoped("is lost as soon as it refuses a statement because its socket can not be written to", () =>
    Effect.gen(function* () {
      const broken = yield* session
      yield* query(broken, "BEGIN")
      const told: Array<unknown> = []
      broken.onLost = (cause) => told.push(cause)
      broken.socket.end()
      assert.isUndefined(broken.lost)
      const { answered, error, written } = yield* Effect.async<Parameters<Parameters<typeof broken.submit>[1]>[0]>(
        (resume) => {
          broken.submit(new Request("ROLLBACK"), (reply) => resume(Effect.succeed(reply)))
        }
      )
      assert.instanceOf(error, Error)
      assert.deepStrictEqual({ answered, written }, { answered: false, written: false })
      assert.strictEqual(broken.lost, error)
      assert.deepStrictEqual(told, [error])
    })
  )

  it.scoped("answers what is pipelined in the order of sending, each exactly once, failures on their own", () =>
    Effect.gen(function* () {
      const { send, tell, told } = pipelining(yield* session)
      const texts = Arr.makeBy(300, (n) => (n % 7 === 3 ? `SELECT ${n} / 0` : `SELECT ${n} AS n`))
      let sent = 0
      // In packets of all sizes, behind what is on the wire by then.
      while (sent < texts.length) {
        const size = yield* Random.nextIntBetween(1, 20)
        for (const text of texts.slice(sent, sent + size)) send(text, text)
        sent += size
        yield* Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
      }
      yield* tell(texts.length)
      assert.deepStrictEqual(
        told.map(({ name }) => name),
        texts
      )
      for (const [n, { reply }] of told.entries()) {
        assert.deepStrictEqual(wasSent(reply), { answered: true, written: true })
        if (n % 7 === 3) assert.strictEqual((reply.error as { code: string }).code, "22012")
        else assert.deepStrictEqual([reply.error, rowsOf(reply)], [undefined, [{ n }]])
      }
    }).pipe(Effect.withRandom(Random.make("packets")))
  )

  it.scoped("tells of those behind the one that the server's last words were about that they had not begun", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      yield* lock
      const doomed = yield* session
      const { names, send, tell, told } = pipelining(doomed)
      send("before", "SELECT 1")
      send("first", blocked)
      send("second", "SELECT 2")
      send("third", "SELECT 3")
      yield* waits
      yield* server.terminate(doomed.processId)
      doomed.onLost = () => send("late", "SELECT 4")
      yield* tell(5)
      assert.deepStrictEqual(names(), ["before", "first", "second", "third", "late"])
      const [before, first, ...behind] = told.map(({ reply }) => reply)
      assert.isUndefined(before!.error)
      assert.strictEqual((first!.error as { code: string }).code, "57P01")
      assert.deepStrictEqual(wasSent(first!), { answered: false, written: true })
      for (const reply of behind) {
        assert.isDefined(reply.error)
        assert.deepStrictEqual(wasSent(reply), { answered: false, written: false })
      }
    })
  )

  it.scoped(
    "does not know of any that was on the wire whether it had begun when the socket is gone without a word",
    () =>
      Effect.gen(function* () {
        yield* lock
        const cut = yield* session
        const { names, send, tell, told } = pipelining(cut)
        send("first", blocked)
        send("second", "SELECT 2")
        yield* waits
        send("unsent", "SELECT 3")
        cut.socket.destroy()
        yield* tell(3)
        assert.deepStrictEqual(names(), ["first", "second", "unsent"])
        assert.deepStrictEqual(
          told.map(({ reply }) => wasSent(reply)),
          [true, true, false].map((written) => ({ answered: false, written }))
        )
      })
  )

  it.scoped("settles what was abandoned once nobody waits for anything, and sends nothing until that is done", () =>
    Effect.gen(function* () {
      const unlock = yield* lock
      const shared = yield* session
      const settling: Array<string> = []
      shared.onAbandoned = (_, { request }) => settling.push(request.text)
      const { names, send, tell } = pipelining(shared)
      const first = send("first", blocked)
      const second = send("second", "SELECT 2")
      const third = send("third", "SELECT 3")
      yield* waits
      assert.isTrue(shared.abandon(first))
      assert.isTrue(shared.abandon(third))
      assert.isEmpty(settling)
      assert.isTrue(shared.abandon(second))
      assert.deepStrictEqual(settling, [blocked])
      send("next", "SELECT 4")
      yield* unlock
      yield* Effect.async<void>((resume) => shared.whenAnswered(shared.oldest, () => resume(Effect.void)))
      yield* TestPg.eventually(
        Effect.sync(() => shared.onWire),
        (onWire) => !onWire
      )
      assert.isTrue(shared.busy)
      assert.isEmpty(names())
      shared.resume()
      yield* tell(1)
      assert.deepStrictEqual(names(), ["next"])
      assert.deepStrictEqual(settling, [blocked])
    })
  )

  it.scoped("settles what was abandoned on the wire also when the last that waited was never sent", () =>
    Effect.gen(function* () {
      yield* lock
      const shared = yield* session
      const settling: Array<string> = []
      shared.onAbandoned = (_, { request }) => settling.push(request.text)
      const { names, send } = pipelining(shared)
      const first = send("first", blocked)
      yield* waits
      const unsent = send("unsent", "SELECT 2")
      assert.isTrue(shared.abandon(first))
      assert.isEmpty(settling)
      assert.isFalse(shared.abandon(unsent))
      assert.deepStrictEqual(settling, [blocked])
      assert.isEmpty(names())
    })
  )

  it.scoped("settles what is left on the wire when the last that somebody waits for is answered", () =>
    Effect.gen(function* () {
      const unlock = yield* lock
      const shared = yield* session
      const settled = yield* Effect.makeLatch(false)
      const settling: Array<string> = []
      shared.onAbandoned = (_, { request }) => {
        settling.push(request.text)
        settled.unsafeOpen()
      }
      const { names, send } = pipelining(shared)
      send("first", blocked)
      const second = send("second", "SELECT pg_sleep(600)")
      yield* waits
      assert.isTrue(shared.abandon(second))
      assert.isEmpty(settling)
      yield* unlock
      yield* settled.await
      assert.deepStrictEqual(settling, ["SELECT pg_sleep(600)"])
      assert.deepStrictEqual(names(), ["first"])
    })
  )
})
