/** `npm run service`, as a process of its own. */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted, type Scope } from "effect"
import { type EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as Pg from "pg"
import * as Processes from "../../src/testing/internal/processes.js"
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

const through: Effect.Effect<
  {
    readonly proxy: FaultProxy.FaultProxy["Type"]
    readonly direct: Redacted.Redacted
    readonly url: Redacted.Redacted
  },
  EmbeddedPostgres.EmbeddedPostgresError | FaultProxy.FaultProxyError,
  EmbeddedPostgres.EmbeddedPostgres | Scope.Scope
> = Effect.gen(function* () {
  const { config, url: direct } = yield* TestPg.database
  const proxy = yield* FaultProxy.make({ upstream: config })
  return { proxy, direct, url: proxy.url(direct) }
})

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("The example service", (it) => {
  it.scoped("keeps users and orders, takes stock for an order or nothing, and says what it does not accept", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const { url } = yield* Service.open(database)

      const created = yield* Service.post(`${url}/users`, ada)
      assert.strictEqual(created.status, 201)
      assert.deepInclude(created.body, { id: 1, ...ada })
      assert.strictEqual((yield* Service.post(`${url}/users`, ada)).status, 409)
      assert.deepStrictEqual((yield* Service.ask(`${url}/users/1`)).body, created.body)
      assert.deepStrictEqual((yield* Service.ask(`${url}/users`)).body, [created.body])
      assert.deepStrictEqual((yield* Service.ask(`${url}/users?after=1`)).body, [])

      const lines = [
        { sku: "globe", quantity: 3 },
        { sku: "pen", quantity: 2 }
      ]
      const placed = yield* Service.post(`${url}/orders`, { userId: 1, lines }, key("first-order"))
      assert.strictEqual(placed.status, 201)
      assert.deepInclude(placed.body, { id: 1, userId: 1, totalCents: 36_500 })
      assert.deepStrictEqual((yield* Service.ask(`${url}/orders/1`)).body, placed.body)
      assert.deepStrictEqual((yield* Service.ask(`${url}/orders?userId=1`)).body, [placed.body])
      assert.deepStrictEqual((yield* Service.ask(`${url}/orders?userId=2`)).body, [])

      const other = yield* Service.post(`${url}/orders`, twoPens, key("first-order"))
      assert.deepStrictEqual([other.status, other.body._tag], [422, "KeyReused"])
      const tooMuch = [
        { sku: "book", quantity: 1 },
        { sku: "globe", quantity: 18 }
      ]
      const soldOut = yield* Service.post(`${url}/orders`, { userId: 1, lines: tooMuch }, key("second-order"))
      assert.deepStrictEqual([soldOut.status, soldOut.body], [409, { _tag: "OutOfStock", sku: "globe", stock: 17 }])
      const stocks = (yield* Service.ask(`${url}/products`)).body.map(({ sku, stock }: any) => [sku, stock])
      assert.deepStrictEqual(stocks, [
        ["book", 1000],
        ["globe", 17],
        ["pen", 99_998]
      ])

      for (const [path, body, headers] of [
        ["users", { ...ada, email: "nobody" }, {}],
        ["orders", twoPens, {}],
        ["orders", { userId: 1, lines: [] }, key("third-order")],
        ["orders", { userId: 1, lines: [...twoPens.lines, ...twoPens.lines] }, key("third-order")],
        ["orders", { userId: 1, lines: [{ sku: "pen", quantity: -2 }] }, key("third-order")]
      ] as const)
        assert.strictEqual((yield* Service.post(`${url}/${path}`, body, headers)).status, 400, JSON.stringify(body))
      for (const path of ["users/2", "orders/2", "nowhere"])
        assert.strictEqual((yield* Service.ask(`${url}/${path}`)).status, 404, path)
      assert.strictEqual((yield* Service.ask(`${url}/users/x`)).status, 400)
      const stranger = yield* Service.post(`${url}/orders`, { ...twoPens, userId: 9 }, key("third-order"))
      assert.deepStrictEqual([stranger.status, stranger.body], [404, { _tag: "NotFound", what: "user", id: "9" }])
    })
  )

  it.scoped("stores an order once that is sent twice, also when the answer to its COMMIT gets lost", () =>
    Effect.gen(function* () {
      const { direct, proxy, url: database } = yield* through
      const { url } = yield* Service.open(database)
      yield* Service.post(`${url}/users`, ada)

      const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/), times: 1, ending: "reset" })
      const first = yield* Service.post(`${url}/orders`, twoPens, key("of-request-4711"))
      assert.strictEqual(yield* lost.count, 1)
      const again = yield* Effect.all(
        Array.from({ length: 5 }, () => Service.post(`${url}/orders`, twoPens, key("of-request-4711"))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(first.status, 201)
      for (const { body, status } of again) assert.deepStrictEqual([status, body], [201, first.body])
      const [stored] = yield* TestPg.control(
        `SELECT (SELECT count(*)::int FROM effect_pg_shop.orders) AS orders,
                (SELECT stock FROM effect_pg_shop.products WHERE sku = 'pen') AS stock`,
        [],
        direct
      )
      assert.deepStrictEqual(stored, { orders: 1, stock: 99_998 })
    })
  )

  it.scoped("answers what is in flight at SIGTERM, takes nothing new, and leaves with 0 and without a session", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const { ended, signal, url } = yield* Service.open(database)
      yield* Service.post(`${url}/users`, ada)
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
      const { code, output } = yield* ended
      assert.strictEqual(code, 0, output)
      yield* TestPg.eventually(sessions(database), (left) => left.every((_) => _.application_name === "test/holding"))
    })
  )

  it.scoped("says that it is not ready before it refuses anything, and goes on serving meanwhile", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const { ended, signal, url } = yield* Service.open(database, { SHUTDOWN_DELAY: "2 seconds" })
      yield* signal("SIGTERM")
      const ready = yield* TestPg.eventually(Service.ask(`${url}/health/ready`), ({ status }) => status === 503)
      assert.deepStrictEqual(ready.body, { status: "stopping" })
      assert.strictEqual((yield* Service.ask(`${url}/products`)).status, 200)
      assert.strictEqual((yield* ended).code, 0)
    })
  )

  it.scoped("gives up a request that does not end within SHUTDOWN_GRACE", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const { ended, signal, url } = yield* Service.open(database, { SHUTDOWN_GRACE: "100 millis" })
      yield* Service.post(`${url}/users`, ada)
      yield* holding(database, "SELECT FROM products WHERE sku = 'pen' FOR UPDATE")
      const stuck = yield* Effect.fork(Effect.flip(Service.post(`${url}/orders`, twoPens, key("stuck-order"))))
      yield* TestPg.eventually(waitingForLocks(database), (waiting) => waiting.length === 1)
      yield* signal("SIGTERM")
      yield* Fiber.join(stuck)
      assert.strictEqual((yield* ended).code, 0)
      yield* TestPg.eventually(sessions(database), (left) => left.every((_) => _.application_name === "test/holding"))
    })
  )

  it.scoped("starts twice at once on an empty database", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const [one, two] = yield* Effect.all([Service.open(database), Service.open(database)], { concurrency: 2 })
      assert.strictEqual((yield* Service.post(`${one.url}/users`, ada)).status, 201)
      assert.strictEqual((yield* Service.post(`${two.url}/users`, ada)).status, 409)
      const once = yield* Effect.forEach(
        [one, two],
        ({ url }) => Service.post(`${url}/orders`, twoPens, key("for-either")),
        { concurrency: 2 }
      )
      assert.deepStrictEqual(once[0]!.body, once[1]!.body)
    })
  )

  it.scoped("says in one line what to do when its port is taken, or a variable is malformed", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const misspelt = yield* Service.start({ DATABASE_URL: Redacted.value(database), SHUTDOWN_DELAY: "soon" })
      const server = yield* Effect.acquireRelease(
        Effect.async<Net.Server>((resume) => {
          const server = Net.createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = server.address() as Net.AddressInfo
      const { ended } = yield* Service.start({ DATABASE_URL: Redacted.value(database), PORT: String(port) })
      const { code, output } = yield* ended
      assert.strictEqual(code, 1)
      assert.strictEqual(
        output,
        `Port ${port} is taken. Stop what listens there, or choose another: PORT=3001 npm run service\n`
      )
      const { code: malformed, output: why } = yield* misspelt.ended
      assert.strictEqual(malformed, 1)
      assert.match(why, /^.*SHUTDOWN_DELAY.*\n$/)
    })
  )

  it.scoped("brings a database of its own, and takes it away at Ctrl-C, and at a second one at once", () =>
    Effect.gen(function* () {
      for (const hurry of [false, true]) {
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
      }
    })
  )
})
