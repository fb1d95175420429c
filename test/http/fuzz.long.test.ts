import { Buffer } from "node:buffer"
import * as Net from "node:net"
import { assert, layer } from "@effect/vitest"
import { Effect, FastCheck as fc, Redacted } from "effect"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import { pool } from "../../src/ResilientPg.js"
import { unhandled } from "../chaos/unhandled.js"
import * as TestPg from "../support/TestPg.js"
import { paths, token } from "./adminServer.js"
import * as api from "./api.js"

const seed = Number(process.env["FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 31))

/** How long a socket may say nothing before we hang up, milliseconds: requests that are never complete have no answer. */
const quiet = 300
/** And where there has to be one. */
const patience = 20_000

/** What a server says to these bytes, until it closes or is quiet; before its first word, for `within`. */
const say = (port: number, pieces: ReadonlyArray<Buffer>, { hangUp = false, within = quiet } = {}): Promise<string> =>
  new Promise((resolve) => {
    const received: Array<Buffer> = []
    const socket = Net.connect({ host: "127.0.0.1", port })
    let timer: NodeJS.Timeout | undefined
    const wait = () => {
      clearTimeout(timer)
      timer = setTimeout(() => socket.destroy(), received.length === 0 ? within : quiet)
    }
    socket.on("connect", () => {
      const next = (n: number): void => {
        const piece = pieces[n]
        if (piece !== undefined) socket.write(piece, () => setImmediate(next, n + 1))
        else if (hangUp) socket.destroy()
        else wait()
      }
      next(0)
    })
    socket.on("data", (data) => {
      received.push(data)
      wait()
    })
    socket.on("error", () => {})
    socket.on("close", () => {
      clearTimeout(timer)
      resolve(Buffer.concat(received).toString("latin1"))
    })
  })

const statuses = (said: string) => [...said.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)].map(([, status]) => Number(status))

/** Nothing that nobody is to see, and no failure of ours. */
const judge = (said: string, secrets: ReadonlyArray<string>) => {
  for (const secret of [...secrets, token, "node_modules", "/src/", "<anonymous>"]) assert.notInclude(said, secret)
  assert.notMatch(said, /\n\s+at .*:\d+/)
  for (const status of statuses(said)) assert.isBelow(status, 500, said.slice(0, 2000))
}

const readable = [
  ...["/health", "/health/live", "/health/ready", "/health/metrics"],
  ...["metrics", "health", "report", "pool-config", "events", "dashboard", "openapi.json"].map(
    (_) => `/resilience/${_}`
  )
]

const noise = fc.string({ maxLength: 30, unit: "binary-ascii" }).map((text) => text.replace(/[\r\n]/g, ""))

const path = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(...paths) },
  { weight: 3, arbitrary: fc.constantFrom(...readable) },
  fc.constantFrom(
    "*",
    "/",
    "//",
    "/%",
    "/%ff%fe",
    "/..%2f..%2fetc/passwd",
    "http://other/health",
    "/resilience/breaker/"
  ),
  fc.webPath().map((_) => `/${_}`),
  fc.tuple(fc.constantFrom(...paths, ...readable), noise).map(([path, more]) => `${path}${more.replace(/ /g, "+")}`),
  fc.constantFrom(...paths).map((path) => `${path}?__proto__[a]=1&constructor.prototype=2&token=${"x".repeat(2000)}`),
  fc.constantFrom(...paths).map((path) => `${path}/${"a".repeat(20_000)}`)
)

const method = fc.oneof(
  { weight: 6, arbitrary: fc.constant("POST") },
  fc.constantFrom(
    "GET",
    "HEAD",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "post",
    "",
    "BREAK"
  )
)

const wrongTokens = [
  "Authorization: Bearer",
  "Authorization: Bearer undefined",
  `Authorization: Bearer ${token}x`,
  `Authorization: Basic ${Buffer.from(`a:${token}`).toString("base64")}`,
  `Authorization: ${token}`,
  `X-Authorization: Bearer ${token}`,
  `Authorization: Bearer ${"x".repeat(7000)}`,
  `Authorization: Bearer wrong\r\nAuthorization: Bearer ${token}`,
  `Authorization:\r\n Bearer ${token.slice(1)}`,
  "Authorization: Bearer \xff\xfe\x00"
]

const headerOfKnownName = fc.constantFrom(
  ...["Content-Type: application/json", "Content-Type: text/xml", "Content-Type: multipart/form-data; boundary=x"],
  ...["Content-Type: application/x-www-form-urlencoded", "Content-Encoding: gzip", "Expect: 100-continue"],
  ...["Accept: application/json;q=nonsense", "Accept: */*;q=9", "Accept: ,;,q", "Upgrade: websocket", "Cookie: =;=;a"],
  ...["Connection: Upgrade", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 3"],
  ...["Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Range: bytes=0-", "If-None-Match: *"],
  ...["traceparent: 00-zz", "b3: 0", "X-Forwarded-For: 1.2.3.4", "X-HTTP-Method-Override: POST", "__proto__: x"]
)

const header = fc.oneof(
  { weight: 6, arbitrary: headerOfKnownName },
  fc.tuple(noise, noise).map(([name, value]) => `${name}: ${value}`)
)

const json = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom("{}", '{"tag":"DeadlockError"}', '{"failures":1}') },
  fc.json(),
  fc.constantFrom(
    ...[
      "{}",
      "null",
      "",
      "[]",
      '{"failures":1}',
      '{"failures":-1}',
      '{"failures":1e308}',
      '{"failures":"1"}',
      "{",
      "\ufeff{}"
    ],
    ...['{"__proto__":{"failures":7}}', '{"constructor":{"prototype":{"x":1}}}', '{"toString":1,"tag":{"toString":1}}'],
    ...['{"tag":"ConnectionError\\u0000"}', '{"failures":1,"failures":2}', "{}{}", "NaN", '{"a":'.repeat(800)],
    ...["[".repeat(4096), "[".repeat(50_000), `{"tag":"${"x".repeat(4000)}"}`]
  )
)

const body = fc.oneof(
  { weight: 3, arbitrary: json.map((text) => Buffer.from(text)) },
  fc.uint8Array({ maxLength: 6000 }).map((bytes) => Buffer.from(bytes)),
  fc.constant(Buffer.from([0x22, 0xc3, 0x28, 0x22]))
)

/** The body's own framing, or one that is not true. */
const framing = fc.oneof(
  fc.constantFrom("length", "chunked"),
  fc.constantFrom("longer", "shorter", "cut", "no last chunk", "bad size", "none")
)

const framed = (how: string, body: Buffer): readonly [string, Buffer] => {
  const chunk = Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from("\r\n")])
  const chunked = "Transfer-Encoding: chunked\r\n"
  switch (how) {
    case "length":
      return [`Content-Length: ${body.length}\r\n`, body]
    case "longer":
      return [`Content-Length: ${body.length + 10}\r\n`, body]
    case "shorter":
      return [`Content-Length: ${Math.floor(body.length / 2)}\r\n`, body]
    case "chunked":
      return [chunked, body.length === 0 ? Buffer.from("0\r\n\r\n") : Buffer.concat([chunk, Buffer.from("0\r\n\r\n")])]
    case "cut":
      return [chunked, chunk.subarray(0, Math.ceil(chunk.length / 2))]
    case "no last chunk":
      return [chunked, chunk]
    case "bad size":
      return [chunked, Buffer.concat([Buffer.from("zz\r\n"), body])]
    default:
      return ["", body]
  }
}

const request = (authorization: fc.Arbitrary<string>, where: fc.Arbitrary<string>, how: fc.Arbitrary<string>) =>
  fc
    .record({
      method: how,
      path: where,
      authorization,
      headers: fc.array(header, { maxLength: 3 }),
      framing,
      body,
      cut: fc.double({ min: 0, max: 1, noNaN: true }),
      hangUp: fc.nat(9).map((n) => n === 0)
    })
    .map(({ authorization, body, cut, framing, hangUp, headers, method, path }) => {
      const [frame, framedBody] = framed(framing, body)
      const lines = [`${method} ${path} HTTP/1.1`, "Host: a", "Connection: close", authorization, ...headers]
      const head = `${lines.filter((line) => line !== "").join("\r\n")}\r\n${frame}\r\n`
      const bytes = Buffer.concat([Buffer.from(head, "latin1"), framedBody])
      const at = Math.floor(bytes.length * cut)
      return {
        pieces: [bytes.subarray(0, at), bytes.subarray(at)].filter(({ length }) => length > 0),
        hangUp
      }
    })

/** Several connections at once, as an attacker would. */
const check = <A>(arbitrary: fc.Arbitrary<A>, batches: number, ask: (request: A) => Promise<void>) =>
  Effect.promise(() =>
    fc.assert(
      fc.asyncProperty(fc.array(arbitrary, { minLength: 8, maxLength: 12 }), async (requests) => {
        await Promise.all(requests.map(ask))
      }),
      { seed, numRuns: batches, endOnFailure: true }
    )
  )

const admin = { admin: { token: Redacted.make(token), perMinute: 10_000 } }

/** The whole API, after a first health check, with what has to be so in the end. */
const fuzzed = <A, E, R>(
  use: (target: {
    readonly origin: string
    readonly port: number
    readonly secrets: ReadonlyArray<string>
  }) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function* () {
    const { password, serving } = yield* api.world
    const trouble = yield* unhandled
    yield* Effect.gen(function* () {
      const origin = yield* api.origin
      assert.strictEqual((yield* api.ask(`${origin}/health/ready`)).status, 200)
      yield* use({ origin, port: Number(new URL(origin).port), secrets: [password] })
      assert.strictEqual((yield* api.ask(`${origin}/health/live`)).status, 200)
      assert.deepInclude(yield* pool, { used: 0, waiting: 0 })
    }).pipe(Effect.provide(serving({}, {}, admin)))
    assert.deepStrictEqual(trouble, [])
    assert.notProperty({}, "failures")
    assert.notProperty({}, "x")
  })

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })(
  `the health API under fire (FUZZ_SEED=${seed})`,
  (it) => {
    it.scoped("has a clear answer to any bytes of a stranger, and changes nothing", () =>
      fuzzed(({ origin, port, secrets }) =>
        Effect.gen(function* () {
          const breaker = yield* CircuitBreaker.CircuitBreaker
          const before = yield* breaker.snapshot
          const seen = new Map<number, number>()
          const strange = fc.oneof(
            fc.constant(""),
            fc.constantFrom(...wrongTokens),
            noise.map((_) => `Authorization: ${_}`)
          )
          yield* check(request(strange, path, method), 30, async ({ hangUp, pieces }) => {
            const said = await say(port, pieces, { hangUp })
            judge(said, secrets)
            for (const status of statuses(said)) seen.set(status, (seen.get(status) ?? 0) + 1)
          })
          assert.deepStrictEqual(yield* breaker.snapshot, before)
          // It was heard: what is not HTTP, what needs the token, and who guesses it too often.
          for (const status of [400, 401, 404, 405, 429])
            assert.isTrue(seen.has(status), `no ${status} in ${[...seen]}`)
          assert.strictEqual((yield* api.ask(`${origin}/health/ready`)).status, 200)
        })
      )
    )

    it.scoped("does with the token what it was asked for, or nothing", () =>
      fuzzed(({ port, secrets }) =>
        Effect.gen(function* () {
          const breaker = yield* CircuitBreaker.CircuitBreaker
          const before = yield* breaker.snapshot
          const seen = new Map<number, number>()
          const owner = fc
            .constantFrom("", "\r\nContent-Type: application/json")
            .map((_) => `Authorization: Bearer ${token}${_}`)
          const rehearse = fc.constantFrom(paths[3], paths[4])
          yield* check(request(owner, rehearse, fc.constant("POST")), 20, async ({ hangUp, pieces }) => {
            const said = await say(port, pieces, { hangUp })
            judge(said, secrets)
            for (const status of statuses(said)) seen.set(status, (seen.get(status) ?? 0) + 1)
          })
          // Bodies that are wrong in some way, at what would force the circuit.
          const wrong = body.filter((bytes) => !["", "{}", "\ufeff{}"].includes(bytes.toString().trim()))
          yield* check(fc.tuple(fc.constantFrom(paths[0], paths[1], paths[2]), wrong), 10, async ([path, bytes]) => {
            const head = `POST ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer ${token}\r\n`
            const length = `Content-Type: application/json\r\nContent-Length: ${bytes.length}\r\n\r\n`
            const said = await say(port, [Buffer.from(head + length), bytes], { within: patience })
            judge(said, secrets)
            assert.include([400, 413], statuses(said)[0], said)
          })
          assert.deepStrictEqual(yield* breaker.snapshot, before)
          for (const status of [200, 400]) assert.isTrue(seen.has(status), `no ${status} in ${[...seen]}`)
        })
      )
    )

    it.scoped("answers fetch whatever it sends, ten megabytes included", () =>
      fuzzed(({ origin, secrets }) =>
        Effect.gen(function* () {
          const breaker = yield* CircuitBreaker.CircuitBreaker
          const before = yield* breaker.snapshot
          const huge = new Uint8Array(10 * 1024 * 1024).fill(0x20)
          const streamed = () =>
            new ReadableStream({
              pull: (controller) => controller.enqueue(huge.subarray(0, 256 * 1024))
            })
          const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
          for (const path of paths) {
            const sized = yield* api.ask(origin + path, { method: "POST", headers, body: huge })
            assert.strictEqual(sized.status, 413, path)
            const endless = { method: "POST", headers, body: streamed(), duplex: "half" } as RequestInit
            assert.strictEqual((yield* api.ask(origin + path, endless)).status, 413, path)
            const stranger = yield* api.ask(origin + path, { method: "POST", body: huge })
            assert.strictEqual(stranger.status, 401, path)
          }
          const methods = fc.constantFrom("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
          const where = fc.constantFrom(...paths, ...readable.filter((path) => !path.endsWith("events")), "/nowhere")
          const init = fc.record({ method: methods, path: where, body: json })
          yield* check(init, 15, async ({ body, method, path }) => {
            const carries = !["GET", "HEAD"].includes(method)
            const response = await fetch(origin + path, { method, ...(carries ? { body } : {}) })
            const text = await response.text()
            judge(text, secrets)
            assert.isBelow(response.status, 500, `${method} ${path}`)
            if (paths.some((posted) => posted === path)) assert.isAtLeast(response.status, 400)
          })
          assert.deepStrictEqual(yield* breaker.snapshot, before)
        })
      )
    )

    it.scoped("gives up a body that does not come, while others are answered", () =>
      fuzzed(({ origin, port, secrets }) =>
        Effect.gen(function* () {
          const breaker = yield* CircuitBreaker.CircuitBreaker
          const before = yield* breaker.snapshot
          const head = `POST ${paths[0]} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\n`
          const said = yield* Effect.fork(
            Effect.promise(
              () =>
                new Promise<string>((resolve) => {
                  const socket = Net.connect({ host: "127.0.0.1", port })
                  socket.write(`${head}Transfer-Encoding: chunked\r\n\r\n`)
                  const drip = setInterval(() => socket.write("1\r\n \r\n"), 50)
                  let received = ""
                  socket.on("data", (data) => {
                    received += data.toString()
                  })
                  socket.on("error", () => {})
                  socket.on("close", () => {
                    clearInterval(drip)
                    resolve(received)
                  })
                })
            )
          )
          assert.strictEqual((yield* api.ask(`${origin}/health/live`)).status, 200)
          const other = { method: "POST", headers: { authorization: `Bearer ${token}` } }
          assert.strictEqual((yield* api.ask(origin + paths[4], other)).status, 200)
          assert.isNull(said.unsafePoll())
          const answer = yield* said
          assert.deepStrictEqual(statuses(answer), [408])
          judge(answer, secrets)
          assert.deepStrictEqual(yield* breaker.snapshot, before)
        })
      )
    )
  }
)
