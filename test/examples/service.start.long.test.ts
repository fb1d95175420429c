/** How `npm run service` comes, as a process of its own. */
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as Service from "../support/Service.js"
import * as TestPg from "../support/TestPg.js"

const ada = { email: "ada@example.com", name: "Ada" }
const twoPens = { userId: 1, lines: [{ sku: "pen", quantity: 2 }] }
const forEither = { "idempotency-key": "for-either" }

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("The example service's start", (it) => {
  it.scoped("starts without its database, says so, and opens by itself when that is there", () =>
    Effect.gen(function* () {
      const { config, url: database } = yield* TestPg.database
      const proxy = yield* FaultProxy.make({ upstream: config })
      yield* proxy.refuse
      const service = yield* Service.start({
        DATABASE_URL: Redacted.value(proxy.url(database)),
        DB_HEALTH_CHECK_INTERVAL: "1 second"
      })
      const url = yield* service.url
      yield* TestPg.eventually(service.output, (output) => output.includes("The tables are not there yet"))
      for (const path of ["health/ready", "products"]) {
        const { body, headers, status } = yield* Service.ask(`${url}/${path}`)
        assert.deepStrictEqual([status, body, headers.get("retry-after")], [503, { status: "starting" }, "1"], path)
      }
      assert.strictEqual((yield* Service.ask(`${url}/health/live`)).status, 200)
      yield* proxy.accept
      yield* TestPg.eventually(Service.ask(`${url}/products`), ({ status }) => status === 200)
      yield* TestPg.eventually(Service.ask(`${url}/health/ready`), ({ status }) => status === 200)
    })
  )

  it.scoped("starts twice at once on an empty database", () =>
    Effect.gen(function* () {
      const { url: database } = yield* TestPg.database
      const [one, two] = yield* Effect.all([Service.open(database), Service.open(database)], { concurrency: 2 })
      assert.strictEqual((yield* Service.post(`${one.url}/users`, ada)).status, 201)
      assert.strictEqual((yield* Service.post(`${two.url}/users`, ada)).status, 409)
      const once = yield* Effect.forEach([one, two], ({ url }) => Service.post(`${url}/orders`, twoPens, forEither), {
        concurrency: 2
      })
      assert.deepStrictEqual(once[0]!.body, once[1]!.body)
    })
  )

  it.scoped(
    "says in one line what is wrong when its port is taken, its address not there, or a variable malformed",
    () =>
      Effect.gen(function* () {
        const { url: database } = yield* TestPg.database
        const misspelt = yield* Service.start({ DATABASE_URL: Redacted.value(database), SHUTDOWN_DELAY: "soon" })
        // An address that no machine has.
        const elsewhere = yield* Service.start({ DATABASE_URL: Redacted.value(database), HOST: "192.0.2.1" })
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
        for (const [service, why] of [
          [misspelt, /^.*SHUTDOWN_DELAY.*\n$/],
          [elsewhere, /^.*EADDRNOTAVAIL.*192\.0\.2\.1.*\n$/]
        ] as const) {
          const { code, output } = yield* service.ended
          assert.strictEqual(code, 1)
          assert.match(output, why)
        }
      })
  )
})
