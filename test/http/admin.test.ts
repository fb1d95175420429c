import * as Net from "node:net"
import { FetchHttpClient, HttpApi, HttpApiClient, HttpClient, HttpClientRequest, OpenApi } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Deferred, Effect, Fiber, Layer, Option, Redacted, Schedule } from "effect"
import * as admin from "../../src/http/internal/admin.js"
import * as RetryPolicy from "../../src/policy/RetryPolicy.js"
import * as TestPg from "../support/TestPg.js"
import { paths, serve, token } from "./adminServer.js"

const wide = { perMinute: 1000 }

describe("admin", () => {
  it.scopedLive("forces the circuit open and closed, resets it, and answers how it stands", () =>
    Effect.gen(function* () {
      const { breaker, post } = yield* serve()
      for (const [what, state] of [
        ["open", "ForcedOpen"],
        ["close", "ForcedClosed"],
        ["reset", "Closed"]
      ] as const) {
        const answer = yield* post(`/resilience/breaker/${what}`)
        assert.strictEqual(answer.status, 200)
        assert.strictEqual(yield* breaker.state, state)
        assert.deepStrictEqual(answer.json(), JSON.parse(JSON.stringify(yield* breaker.snapshot)))
      }
    })
  )

  it.scopedLive("does not claim to have forced a circuit that is switched off", () =>
    Effect.gen(function* () {
      const { post } = yield* serve({}, { breaker: false })
      for (const path of paths.slice(0, 3)) {
        const refused = yield* post(path)
        assert.strictEqual(refused.status, 409)
        assert.strictEqual(refused.json()._tag, "NoBreaker")
      }
      assert.strictEqual((yield* post(paths[3])).json().state, "Closed")
    })
  )

  it.scopedLive("is used by a typed client, which gets typed refusals", () =>
    Effect.gen(function* () {
      const { api, url } = yield* serve({ perMinute: 4 })
      const clientOf = (bearer: string) =>
        HttpApiClient.make(api, {
          baseUrl: url,
          transformClient: HttpClient.mapRequest(HttpClientRequest.bearerToken(bearer))
        }).pipe(Effect.provide(FetchHttpClient.layer))
      const client = yield* clientOf(token)
      assert.strictEqual((yield* client.admin.open()).state, "ForcedOpen")
      assert.strictEqual((yield* client.admin.reset()).state, "Closed")
      assert.strictEqual((yield* client.admin.testRetry({ payload: { failures: 2 } })).attempts, 3)
      assert.strictEqual((yield* client.admin.testCircuitBreaker({ payload: {} })).state, "Closed")
      const limited = yield* Effect.flip(client.admin.reset())
      assert.isTrue(limited._tag === "TooManyRequests" && limited.retryAfter >= 1 && limited.retryAfter <= 60)
      const stranger = yield* clientOf("something-else-entirely")
      assert.strictEqual((yield* Effect.flip(stranger.admin.reset()))._tag, "Unauthorized")
    })
  )

  it.scopedLive("asks everybody for the token, says so, and changes nothing without it", () =>
    Effect.gen(function* () {
      const { breaker, request } = yield* serve(wide)
      const before = yield* breaker.snapshot
      for (const [authorization, error] of [
        [undefined, undefined],
        ["", undefined],
        [token, "invalid_token"],
        [`Basic ${token}`, "invalid_token"],
        ["Bearer", "invalid_token"],
        [`Bearer ${token}x`, "invalid_token"],
        [`Bearer ${token.slice(0, -1)}`, "invalid_token"],
        [`Bearer ${token.toUpperCase()}`, "invalid_token"],
        [`Bearer Bearer ${token}`, "invalid_token"]
      ] as const) {
        const answer = yield* request(paths[0], authorization === undefined ? {} : { headers: { authorization } })
        assert.strictEqual(answer.status, 401, authorization)
        assert.strictEqual(
          answer.headers.get("www-authenticate"),
          `Bearer realm="effect-pg-resilience"${error === undefined ? "" : `, error="${error}"`}`
        )
        assert.strictEqual(answer.headers.get("cache-control"), "no-store")
        assert.deepStrictEqual(Object.keys(answer.json()).sort(), ["_tag", "message"])
      }
      assert.deepStrictEqual(yield* breaker.snapshot, before)
      const right = yield* request(paths[0], { headers: { authorization: `bEaReR  ${token}` } })
      assert.strictEqual(right.status, 200)
    })
  )

  it.scopedLive("hears ten wrong tokens a minute from one address, and then not even the right one", () =>
    Effect.gen(function* () {
      const { breaker, post, request } = yield* serve(wide)
      const before = yield* breaker.snapshot
      const guess = (n: number) => request(paths[0], { headers: { authorization: `Bearer a-guess-of-mine-${n}` } })
      // Who has no token guesses nothing, and takes nobody's turn.
      for (let n = 0; n < 20; n++) assert.strictEqual((yield* request(paths[0])).status, 401)
      for (let n = 0; n < 10; n++) assert.strictEqual((yield* guess(n)).status, 401)
      for (const refused of [yield* guess(10), yield* post(paths[0])]) {
        assert.strictEqual(refused.status, 429)
        const seconds = Number(refused.headers.get("retry-after"))
        assert.isTrue(seconds > 30 && seconds <= 60)
        assert.strictEqual(refused.json().retryAfter, seconds)
      }
      assert.deepStrictEqual(yield* breaker.snapshot, before)
    })
  )

  it.scopedLive("accepts ten requests a minute by default", () =>
    Effect.gen(function* () {
      const { post } = yield* serve()
      const answers = yield* Effect.forEach(Array.from({ length: 15 }), () => post("/resilience/breaker/reset"), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(answers.map(({ status }) => status).sort(), [
        ...Array.from({ length: 10 }, () => 200),
        ...Array.from({ length: 5 }, () => 429)
      ])
      for (const { headers, status } of answers) assert.strictEqual(headers.has("retry-after"), status === 429)
    })
  )

  it.scopedLive("says what is wrong with a body, without repeating it, and then does nothing", () =>
    Effect.gen(function* () {
      const { breaker, request } = yield* serve(wide)
      const before = yield* breaker.snapshot
      const long = "x".repeat(3000)
      for (const [path, body, message] of [
        [paths[3], "{", "The body is not JSON"],
        [paths[3], new Uint8Array([0x22, 0xff, 0x22]), "The body is not UTF-8"],
        [paths[3], "[]", "expected an object"],
        [paths[3], "null", "expected an object"],
        [paths[3], "[".repeat(4096), "The body is not JSON"],
        [paths[3], "[".repeat(2000) + "]".repeat(2000), "expected an object"],
        [paths[3], '{"failures":0}', "failures: expected a whole number from 1 to 1000"],
        [paths[3], '{"failures":1e999}', "failures: expected a whole number from 1 to 1000"],
        [paths[4], '{"failures":100.5}', "failures: expected a whole number from 0 to 100"],
        [paths[4], '{"failures":null}', "failures: expected a whole number from 0 to 100"],
        [paths[4], `{"failures":"${long}"}`, "failures: expected a whole number from 0 to 100"],
        [paths[4], `{"${long}":1}`, `${"x".repeat(40)}: no such field`],
        [paths[4], '{"__proto__":{"failures":1}}', "__proto__: no such field"],
        [paths[4], '{"constructor":{"prototype":{"x":1}}}', "constructor: no such field"],
        [paths[0], '{"force":true}', "expected no body, or {}"],
        [paths[1], '{"__proto__":1}', "expected no body, or {}"],
        [paths[2], "true", "expected no body, or {}"]
      ] as const) {
        const answer = yield* request(path, {
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
          body
        })
        assert.deepStrictEqual([answer.status, answer.json()], [400, { _tag: "BadRequest", message }])
      }
      const tag = yield* request(paths[4], {
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body: JSON.stringify({ tag: long, failures: -1, more: 1 })
      })
      assert.strictEqual(tag.status, 400)
      const { message } = tag.json()
      for (const part of [
        "tag: expected one of ConnectionError, ",
        "failures: expected a whole",
        "more: no such field"
      ]) {
        assert.include(message, part)
      }
      assert.notInclude(tag.text, "xx")
      assert.deepStrictEqual(yield* breaker.snapshot, before)
    })
  )

  it.scopedLive("takes JSON alone", () =>
    Effect.gen(function* () {
      const { post, request } = yield* serve(wide)
      const send = (headers: Record<string, string>, body = "{}") =>
        Effect.map(
          request(paths[4], {
            headers: { authorization: `Bearer ${token}`, ...headers },
            body: new TextEncoder().encode(body)
          }),
          ({ status }) => status
        )
      assert.strictEqual(yield* send({}), 415)
      assert.strictEqual(yield* send({ "content-type": "text/plain" }), 415)
      assert.strictEqual(yield* send({ "content-type": "application/jsonp" }), 415)
      assert.strictEqual(yield* send({ "content-type": "application/x-www-form-urlencoded" }, "failures=1"), 415)
      assert.strictEqual(yield* send({ "content-type": "application/json", "content-encoding": "gzip" }), 415)
      assert.strictEqual(yield* send({ "content-type": "application/json; charset=utf-8" }), 200)
      assert.strictEqual(yield* send({ "content-type": "Application/JSON" }), 200)
      assert.strictEqual((yield* post(paths[4])).status, 200)
    })
  )

  it.scopedLive("takes at most 4 KiB, whether it is told the length or not", () =>
    Effect.gen(function* () {
      const { breaker, request } = yield* serve(wide)
      const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
      const chunked = (bytes: number) =>
        ({
          headers,
          duplex: "half",
          body: new ReadableStream({
            start: (controller) => {
              for (let at = 0; at < bytes; at += 65_536) {
                controller.enqueue(new TextEncoder().encode(" ".repeat(Math.min(65_536, bytes - at))))
              }
              controller.close()
            }
          })
        }) as RequestInit
      const exact = `{}${" ".repeat(4094)}`
      assert.strictEqual((yield* request(paths[0], { headers, body: exact })).status, 200)
      const before = yield* breaker.snapshot
      for (const init of [
        { headers, body: `${exact} ` },
        { headers, body: " ".repeat(10 * 1024 * 1024) },
        chunked(4097),
        chunked(1024 * 1024)
      ]) {
        const answer = yield* request(paths[2], init)
        assert.deepStrictEqual(
          [answer.status, answer.json()],
          [413, { _tag: "PayloadTooLarge", message: "The body may have at most 4096 bytes" }]
        )
      }
      assert.deepStrictEqual(yield* breaker.snapshot, before)
    })
  )

  it.scopedLive("lets a client have its answer that sends all before it listens", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(wide)
      const size = 8 * 1024 * 1024
      const said = yield* Effect.async<string>((resume) => {
        const socket = Net.connect({ host: "127.0.0.1", port })
        socket.pause()
        let received = ""
        socket.on("data", (data) => {
          received += data.toString()
          if (received.endsWith("}")) socket.destroy()
        })
        socket.on("error", () => {})
        socket.on("close", () => resume(Effect.succeed(received)))
        const head = `POST ${paths[0]} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nTransfer-Encoding: chunked`
        socket.write(`${head}\r\n\r\n${size.toString(16)}\r\n`)
        socket.write(" ".repeat(size), () => void socket.resume())
      })
      assert.match(said, /^HTTP\/1.1 413 /)
    })
  )

  it.scopedLive("rehearses one at a time, and another when that one's caller has gone", () =>
    Effect.gen(function* () {
      const under = yield* Deferred.make<void>()
      let rehearsals = 0
      const stuck = Schedule.mapEffect(Schedule.recurs(5), () =>
        Effect.zipRight(Deferred.succeed(under, undefined), rehearsals++ === 0 ? Effect.never : Effect.void)
      )
      const { post } = yield* serve(wide, { retry: RetryPolicy.make({ ConnectionError: stuck }) })
      const first = yield* Effect.fork(post(paths[4]))
      yield* Deferred.await(under)
      const second = yield* post(paths[3])
      assert.deepStrictEqual([second.status, second.json()._tag], [409, "RehearsalUnderWay"])
      assert.strictEqual((yield* post(paths[0])).status, 200)
      yield* Fiber.interrupt(first)
      const third = yield* TestPg.eventually(post(paths[3]), ({ status }) => status !== 409)
      assert.strictEqual(third.status, 200)
    })
  )

  it.scopedLive("leaves the live breaker, the pool and the database alone when it rehearses", () =>
    Effect.gen(function* () {
      let told = 0
      const { breaker, post, visits } = yield* serve(wide, {
        breaker: {
          failureThreshold: 3,
          resetTimeout: "10 seconds",
          successesToClose: 1,
          onChange: () => {
            told++
          }
        },
        retry: RetryPolicy.make({
          ConnectionError: RetryPolicy.backoff({ retries: 2, first: "20 seconds", factor: 1, cap: "20 seconds" })
        })
      })
      const before = yield* breaker.snapshot
      const broken = (yield* post(paths[3])).json()
      assert.deepInclude(broken, { tag: "ConnectionError", counted: true, failures: 3, probes: 1, state: "Closed" })
      assert.deepInclude(broken.opened, { failures: 3 })
      const retried = (yield* post(paths[4], { failures: 100 })).json()
      assert.deepInclude(retried, { attempts: 3, outcome: "GaveUp" })
      assert.deepStrictEqual(yield* breaker.snapshot, before)
      assert.strictEqual(told, 0)
      assert.strictEqual(visits(), 0)
    })
  )

  it("describes itself, with the token and every refusal", () => {
    const { components, paths: described } = OpenApi.fromApi(HttpApi.make("small").add(admin.group))
    assert.deepStrictEqual(Object.keys(described).sort(), [...paths].sort())
    for (const path of paths) {
      const { responses, security } = described[path]!.post!
      assert.deepStrictEqual(security, [{ bearer: [] }])
      assert.includeMembers(Object.keys(responses), ["200", "400", "401", "408", "413", "415", "429"])
    }
    assert.deepInclude(components.securitySchemes["bearer"], { type: "http", scheme: "bearer" })
  })

  it.effect("refuses a token that is short or no token at all, and never shows it", () =>
    Effect.gen(function* () {
      for (const given of ["", "fifteen-letters", "sixteen letters!", "ß".repeat(16), "hunter2"]) {
        const error = yield* Effect.flip(
          Effect.scoped(
            Layer.build(admin.layer(HttpApi.make("small").add(admin.group), { token: Redacted.make(given) }))
          ) as unknown as Effect.Effect<unknown, Error>
        )
        assert.match(error.message, /admin\.token.*16 visible ASCII characters/)
        if (given !== "") assert.notInclude(JSON.stringify(error) + error.message, given)
        const config = yield* Effect.flip(
          Effect.withConfigProvider(admin.tokenConfig, ConfigProvider.fromMap(new Map([["DB_ADMIN_TOKEN", given]])))
        )
        assert.match(String(config), /16 visible ASCII/)
        if (given !== "") assert.notInclude(JSON.stringify(config) + String(config), given)
      }
      const from = (entries: ReadonlyArray<readonly [string, string]>) =>
        Effect.withConfigProvider(admin.tokenConfig, ConfigProvider.fromMap(new Map(entries)))
      assert.isTrue(Option.isNone(yield* from([])))
      assert.deepStrictEqual(Option.map(yield* from([["DB_ADMIN_TOKEN", token]]), Redacted.value), Option.some(token))
      assert.isTrue(Config.isConfig(admin.tokenConfig))
    })
  )

  it.scopedLive(
    "ends a rehearsal of a schedule that never answers, interruptible or not, and is free for the next",
    () =>
      Effect.gen(function* () {
        const stuck = (answer: Effect.Effect<boolean>) =>
          RetryPolicy.make({ ConnectionError: Schedule.checkEffect(Schedule.recurs(3), () => answer) })
        const released = yield* Deferred.make<void>()
        yield* Effect.addFinalizer(() => Deferred.succeed(released, undefined))
        const held = Effect.uninterruptible(Effect.as(Deferred.await(released), true))
        yield* Effect.forEach(
          [Effect.never, held],
          (answer) =>
            Effect.gen(function* () {
              const { post } = yield* serve({}, { retry: stuck(answer) })
              const refused = yield* post("/resilience/test/retry")
              assert.strictEqual(refused.status, 504)
              assert.strictEqual(refused.json()._tag, "RehearsalTimeout")
              assert.strictEqual((yield* post("/resilience/test/circuit-breaker")).status, 200)
            }),
          { concurrency: 2 }
        )
      })
  )
})
