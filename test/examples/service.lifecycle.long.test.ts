/** How `npm run service` goes, as a process of its own. */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Option, Redacted } from "effect"
import * as Pg from "pg"
import * as Processes from "../../src/testing/internal/processes.js"
import * as OtlpReceiver from "../support/OtlpReceiver.js"
import { nothingRemains, temporary } from "../support/Remains.js"
import * as Service from "../support/Service.js"
import * as TestPg from "../support/TestPg.js"

const ada = { email: "ada@example.com", name: "Ada" }
const twoPens = { userId: 1, lines: [{ sku: "pen", quantity: 2 }] }
const key = (key: string) => ({ "idempotency-key": key })

/** A connection of the test's that holds what it has locked, until it is let go of. */
const holding = (url: Redacted.Redacted, statement: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: Redacted.value(url), application_name: "test/holding" })
      await client.connect()
      await client.query(`BEGIN; SET search_path = effect_pg_shop; ${statement}`)
      return client
    }),
    (client) => Effect.promise(() => client.end())
  ).pipe(Effect.map((client) => Effect.promise(() => client.query("ROLLBACK"))))

const waitingForLocks = (url: Redacted.Redacted) =>
  TestPg.control<{ pid: number }>(
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    [],
    url
  )

const sessions = (url: Redacted.Redacted) =>
  TestPg.control<{ application_name: string }>(
    `SELECT application_name FROM pg_stat_activity
     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`,
    [],
    url
  )

const refused = (url: string) =>
  Effect.async<boolean>((resume) => {
    const { hostname, port } = new URL(url)
    const socket = Net.connect(Number(port), hostname)
    socket.on("connect", () => {
      socket.destroy()
      resume(Effect.succeed(false))
    })
    socket.on("error", () => resume(Effect.succeed(true)))
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("The example service's end", (it) => {
  it.scoped("answers what is in flight at SIGTERM, takes nothing new, and leaves with 0 and without a session", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const receiver = yield* OtlpReceiver.make()
      const { ended, signal, url } = yield* Service.open(database, { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url })
      yield* Service.post(`${url}/users`, ada)
      const events = yield* Effect.fork(Service.ask(`${url}/resilience/events`))
      const letGo = yield* holding(database, "SELECT FROM products WHERE sku = 'pen' FOR UPDATE")

      let answered = false
      const slow = yield* Effect.fork(
        Effect.tap(Service.post(`${url}/orders`, twoPens, key("slow-order")), () => {
          answered = true
        })
      )
      yield* TestPg.eventually(waitingForLocks(database), (waiting) => waiting.length === 1)
      yield* signal("SIGTERM")
      yield* TestPg.eventually(refused(url), (refused) => refused)
      assert.isFalse(answered)
      yield* letGo

      const { headers, status } = yield* Fiber.join(slow)
      assert.strictEqual(status, 201)
      assert.strictEqual(headers.get("connection"), "close")
      // Ended by the server, and not cut off.
      assert.match((yield* Fiber.join(events)).body, /^event: Hello$/m)
      const { code, output } = yield* ended
      assert.strictEqual(code, 0, output)
      const all = yield* receiver.received
      assert.include(
        all
          .filter(({ signal }) => signal === "metrics")
          .flatMap(OtlpReceiver.metricsOf)
          .map(({ name }) => name),
        "db.client.operation.duration"
      )
      const spans = all.filter(({ signal }) => signal === "traces").flatMap(OtlpReceiver.spansOf)
      const request = spans.find(
        ({ name, spanId }) =>
          name.startsWith("http.server") &&
          spans.some((span) => span.parentSpanId === spanId && span.name === "sql.transaction")
      )
      assert.isDefined(request, "the request that was in flight has its span, and its transaction below it")
      yield* TestPg.eventually(sessions(database), (left) => left.every((_) => _.application_name === "test/holding"))
    })
  )

  it.scoped(
    "says that it is not ready before it refuses anything, and gives up what takes longer than SHUTDOWN_GRACE",
    () =>
      Effect.gen(function* () {
        const { url: database } = yield* TestPg.database
        const { ended, signal, url } = yield* Service.open(database, {
          SHUTDOWN_DELAY: "2 seconds",
          SHUTDOWN_GRACE: "100 millis"
        })
        yield* Service.post(`${url}/users`, ada)
        yield* holding(database, "SELECT FROM products WHERE sku = 'pen' FOR UPDATE")
        const stuck = yield* Effect.fork(Effect.flip(Service.post(`${url}/orders`, twoPens, key("stuck-order"))))
        yield* TestPg.eventually(waitingForLocks(database), (waiting) => waiting.length === 1)
        yield* signal("SIGTERM")
        const ready = yield* TestPg.eventually(Service.ask(`${url}/health/ready`), ({ status }) => status === 503)
        assert.deepStrictEqual(ready.body, { status: "stopping" })
        assert.strictEqual((yield* Service.ask(`${url}/products`)).status, 200)
        assert.isTrue(Option.isNone(yield* Fiber.poll(stuck)))
        yield* Fiber.join(stuck)
        assert.strictEqual((yield* ended).code, 0)
        yield* TestPg.eventually(sessions(database), (left) => left.every((_) => _.application_name === "test/holding"))
      })
  )

  it.scoped("brings a database of its own, and takes it away at Ctrl-C, and at a second one at once", () =>
    Effect.gen(function* () {
      const stopped = Effect.fnUntraced(function* (hurry: boolean) {
        const directory = yield* temporary
        const service = yield* Service.start({
          TMPDIR: directory,
          TSX_DISABLE_CACHE: "1",
          SHUTDOWN_DELAY: hurry ? "1 hour" : "0 seconds"
        })
        const url = yield* service.url
        yield* TestPg.eventually(Service.ask(`${url}/products`), ({ status }) => status === 200)
        const family = Processes.family(service.pid).map(({ pid }) => pid)
        yield* service.signal("SIGINT")
        if (hurry) {
          yield* TestPg.eventually(Service.ask(`${url}/health/ready`), ({ status }) => status === 503)
          // One that comes with the first, as npm's does, is the same Ctrl-C.
          yield* service.signal("SIGINT")
          assert.strictEqual((yield* Service.ask(`${url}/products`)).status, 200)
          yield* Effect.sleep("600 millis")
          yield* service.signal("SIGINT")
        }
        const { code, output, signal } = yield* service.ended
        assert.deepStrictEqual([code, signal], [hurry ? 130 : 0, null], output)
        yield* nothingRemains(directory, family)
      })
      yield* Effect.forEach([false, true], stopped, { concurrency: 2, discard: true })
    })
  )
})
