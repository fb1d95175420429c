/** What may be changed over HTTP, alone on a server of its own. */
import * as Net from "node:net"
import { HttpApi, HttpApiBuilder } from "@effect/platform"
import { Context, Effect, Layer, Redacted } from "effect"
import * as admin from "../../src/http/internal/admin.js"
import * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import { ask, origin, server } from "./api.js"

export const token = "correct-horse-battery-staple"

export const paths = [
  "/resilience/breaker/open",
  "/resilience/breaker/close",
  "/resilience/breaker/reset",
  "/resilience/test/circuit-breaker",
  "/resilience/test/retry"
] as const

/** A place where a database could be, which counts who comes to it. */
const emptyPlace = Effect.acquireRelease(
  Effect.async<{ readonly port: number; readonly visits: () => number; readonly server: Net.Server }>((resume) => {
    let visits = 0
    const server = Net.createServer((socket) => {
      visits++
      socket.destroy()
    })
    server.listen(0, "127.0.0.1", () =>
      resume(Effect.succeed({ port: (server.address() as Net.AddressInfo).port, visits: () => visits, server }))
    )
  }),
  ({ server }) => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
)

/** The admin group alone, on a real HTTP server, over a client whose database nobody ever needs. */
export const serve = (
  options: Partial<admin.Options> = {},
  client: Pick<ResilientPg.Options, "breaker" | "retry"> = {}
) =>
  Effect.gen(function* () {
    const place = yield* emptyPlace
    const api = HttpApi.make("small").add(admin.group)
    const database = ResilientPg.layer({
      host: "127.0.0.1",
      port: place.port,
      username: "app",
      database: "shop",
      ...client
    })
    const context = yield* Layer.build(
      HttpApiBuilder.serve().pipe(
        Layer.provide(HttpApiBuilder.api(api)),
        Layer.provide(admin.layer(api, { token: Redacted.make(token), ...options })),
        Layer.provideMerge(database),
        Layer.provideMerge(server)
      )
    )
    const url = yield* Effect.provide(origin, context)
    const request = (path: string, init: RequestInit = {}) =>
      Effect.map(ask(url + path, { method: "POST", ...init }), (answer) => ({
        ...answer,
        json: (): any => JSON.parse(answer.text)
      }))
    /** With the token, and a body as JSON. */
    const post = (path: string, body?: unknown) =>
      request(path, {
        headers: {
          authorization: `Bearer ${token}`,
          ...(body === undefined ? {} : { "content-type": "application/json" })
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) })
      })
    const breaker = Context.get(context, CircuitBreaker.CircuitBreaker)
    return { api, url, port: Number(new URL(url).port), request, post, breaker, visits: place.visits }
  })
