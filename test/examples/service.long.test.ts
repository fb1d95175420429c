/** What `npm run service` answers, as a process of its own. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as promText from "../support/promText.js"
import * as Service from "../support/Service.js"
import * as TestPg from "../support/TestPg.js"

/** One service for all tests of this file, and what lies between it and its database. */
class Shop extends Context.Tag("test/Shop")<
  Shop,
  {
    readonly url: string
    readonly printed: Effect.Effect<string>
    readonly database: Redacted.Redacted
    readonly proxy: FaultProxy.FaultProxy["Type"]
  }
>() {}

const shop = Layer.scoped(
  Shop,
  Effect.gen(function* () {
    const { config, url: database } = yield* TestPg.database
    const proxy = yield* FaultProxy.make({ upstream: config })
    const { output, url } = yield* Service.open(proxy.url(database), { DB_HEALTH_CHECK_INTERVAL: "1 second" })
    return { url, printed: output, database, proxy }
  })
)

/** A new user's id. */
const register = (url: string, email: string) =>
  Effect.map(Service.post(`${url}/users`, { email, name: "Somebody" }), ({ body }): number => body.id)
const key = (key: string) => ({ "idempotency-key": key })
const stocks = (url: string) =>
  Effect.map(
    Service.ask(`${url}/products`),
    ({ body }): Record<string, number> => Object.fromEntries(body.map(({ sku, stock }: any) => [sku, stock]))
  )

layer(Layer.provideMerge(shop, TestPg.layer), { excludeTestServices: true, timeout: "120 seconds" })(
  "The example service",
  (it) => {
    it.scoped("prints where everything is, and all of it is there", () =>
      Effect.gen(function* () {
        const { database, printed, url } = yield* Shop
        const text = yield* printed
        const urls = text.match(/http:\/\/[^\s,]+/g) ?? []
        assert.isAtLeast(urls.length, 7, text)
        assert.notInclude(text, new URL(Redacted.value(database)).password)
        for (const url of urls) {
          const { status } = yield* Service.ask(url)
          assert.strictEqual(status, new URL(url).pathname === "/" ? 404 : 200, url)
        }
        promText.parse((yield* Service.ask(`${url}/health/metrics`)).body)
        assert.strictEqual((yield* Service.ask(`${url}/openapi.json`)).body.info.title, "The shop")
      })
    )

    it.scoped("keeps users and orders, takes stock for an order or nothing, and says what it does not accept", () =>
      Effect.gen(function* () {
        const { url } = yield* Shop
        const ada = { email: "ada@example.com", name: "Ada" }
        const created = yield* Service.post(`${url}/users`, ada)
        assert.strictEqual(created.status, 201)
        assert.deepInclude(created.body, ada)
        const { id: userId } = created.body
        assert.strictEqual((yield* Service.post(`${url}/users`, ada)).status, 409)
        assert.deepStrictEqual((yield* Service.ask(`${url}/users/${userId}`)).body, created.body)
        assert.deepStrictEqual((yield* Service.ask(`${url}/users?after=${userId - 1}&limit=1`)).body, [created.body])

        const before = yield* stocks(url)
        const lines = [
          { sku: "globe", quantity: 3 },
          { sku: "pen", quantity: 2 }
        ]
        const placed = yield* Service.post(`${url}/orders`, { userId, lines }, key("first-order"))
        assert.strictEqual(placed.status, 201)
        assert.deepInclude(placed.body, { userId, totalCents: 36_500 })
        assert.deepStrictEqual((yield* Service.ask(`${url}/orders/${placed.body.id}`)).body, placed.body)
        assert.deepStrictEqual((yield* Service.ask(`${url}/orders?userId=${userId}`)).body, [placed.body])
        assert.deepStrictEqual((yield* Service.ask(`${url}/orders?userId=${userId + 1}`)).body, [])

        const onePen = { userId, lines: [{ sku: "pen", quantity: 1 }] }
        const other = yield* Service.post(`${url}/orders`, onePen, key("first-order"))
        assert.deepStrictEqual([other.status, other.body._tag], [422, "KeyReused"])
        const tooMuch = [
          { sku: "book", quantity: 1 },
          { sku: "globe", quantity: 18 }
        ]
        const soldOut = yield* Service.post(`${url}/orders`, { userId, lines: tooMuch }, key("second-order"))
        assert.deepStrictEqual([soldOut.status, soldOut.body], [409, { _tag: "OutOfStock", sku: "globe", stock: 17 }])
        assert.deepStrictEqual(yield* stocks(url), { ...before, globe: before["globe"]! - 3, pen: before["pen"]! - 2 })

        for (const [path, body, headers] of [
          ["users", { ...ada, email: "nobody" }, {}],
          ["orders", onePen, {}],
          ["orders", { userId, lines: [] }, key("third-order")],
          ["orders", { userId, lines: [...onePen.lines, ...onePen.lines] }, key("third-order")],
          ["orders", { userId, lines: [{ sku: "pen", quantity: -2 }] }, key("third-order")]
        ] as const)
          assert.strictEqual((yield* Service.post(`${url}/${path}`, body, headers)).status, 400, JSON.stringify(body))
        for (const path of ["users/99999", "orders/99999", "nowhere"])
          assert.strictEqual((yield* Service.ask(`${url}/${path}`)).status, 404, path)
        assert.strictEqual((yield* Service.ask(`${url}/users/x`)).status, 400)
        const padded = `${JSON.stringify({ ...ada, email: "large@example.com" })}${" ".repeat(100_000)}`
        const large = { method: "POST", headers: { "content-type": "application/json" }, body: padded }
        assert.strictEqual((yield* Service.ask(`${url}/users`, large)).status, 413)
        const stranger = yield* Service.post(`${url}/orders`, { ...onePen, userId: 99999 }, key("third-order"))
        assert.deepStrictEqual([stranger.status, stranger.body], [404, { _tag: "NotFound", what: "user", id: "99999" }])
      })
    )

    it.scoped("takes no more orders than it has in stock, however many come at once", () =>
      Effect.gen(function* () {
        const { url } = yield* Shop
        const userId = yield* register(url, "crowd@example.com")
        const { globe: left = 0 } = yield* stocks(url)
        const orders = yield* Effect.forEach(
          Array.from({ length: left + 10 }, (_, i) => i),
          (i) =>
            // Whom a slow machine sends away comes back with the same key, as he is told to.
            TestPg.eventually(
              Service.post(
                `${url}/orders`,
                { userId, lines: [{ sku: "globe", quantity: 1 }] },
                key(`of-the-crowd-${i}`)
              ),
              ({ status }) => status !== 503 && status !== 504
            ),
          { concurrency: "unbounded" }
        )
        const count = (status: number) => orders.filter((order) => order.status === status).length
        assert.deepStrictEqual([count(201), count(409)], [left, 10])
        assert.strictEqual((yield* stocks(url))["globe"], 0)
      })
    )

    it.scoped("stores an order once that is sent twice, also when the answer to its COMMIT gets lost", () =>
      Effect.gen(function* () {
        const { database, proxy, url } = yield* Shop
        const order = { userId: yield* register(url, "twice@example.com"), lines: [{ sku: "pen", quantity: 2 }] }
        const before = yield* stocks(url)
        const send = Service.post(`${url}/orders`, order, key("of-request-4711"))

        const lost = yield* proxy.swallowReply({ on: FaultProxy.query(/^COMMIT/), times: 1, ending: "reset" })
        const first = yield* send
        assert.strictEqual(yield* lost.count, 1)
        assert.strictEqual(first.status, 201)
        for (const { body, status } of yield* Effect.all(
          Array.from({ length: 5 }, () => send),
          { concurrency: "unbounded" }
        ))
          assert.deepStrictEqual([status, body], [201, first.body])
        const stored = yield* TestPg.control(
          "SELECT id FROM effect_pg_shop.orders WHERE user_id = $1",
          [order.userId],
          database
        )
        assert.deepStrictEqual(stored, [{ id: first.body.id }])
        assert.deepStrictEqual(yield* stocks(url), { ...before, pen: before["pen"]! - 2 })
      })
    )

    it.scoped(
      "answers 503 and when to come back while its database has crashed or stands still, and recovers by itself",
      () =>
        Effect.gen(function* () {
          const server = yield* EmbeddedPostgres.EmbeddedPostgres
          const { url } = yield* Shop
          const many = Effect.all(
            Array.from({ length: 8 }, () => Service.ask(`${url}/users`)),
            { concurrency: "unbounded" }
          )
          for (const [begin, end] of [
            [server.crash, server.start],
            [server.pause, server.resume]
          ] as const) {
            yield* Effect.acquireRelease(begin, () => Effect.orDie(end))
            const answers = yield* TestPg.eventually(many, (answers) => answers.every(({ status }) => status === 503), {
              limit: "60 seconds"
            })
            for (const { body, headers } of answers) {
              assert.match(headers.get("retry-after") ?? "", /^[1-9]\d*$/)
              assert.deepStrictEqual(Object.keys(body).sort(), ["error", "message", "retryAfter", "status"])
              assert.notInclude(JSON.stringify(body), "127.0.0.1")
            }
            yield* TestPg.eventually(Service.ask(`${url}/health/ready`), ({ status }) => status === 503)
            assert.strictEqual((yield* Service.ask(`${url}/health/live`)).status, 200)
            yield* end
            yield* TestPg.eventually(many, (answers) => answers.every(({ status }) => status === 200))
            yield* TestPg.eventually(Service.ask(`${url}/health/ready`), ({ status }) => status === 200)
          }
        })
    )
  }
)
