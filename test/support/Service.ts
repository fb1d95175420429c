/** The example service as its user runs it: a process of its own. */
import { spawn } from "node:child_process"
import * as Path from "node:path"
import { Cause, Deferred, Effect, Redacted } from "effect"
import { root } from "./root.js"
import { eventually } from "./TestPg.js"

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly output: string
}

export interface Service {
  readonly pid: number
  /** Of the API; once it was printed. */
  readonly url: Effect.Effect<string>
  readonly output: Effect.Effect<string>
  readonly signal: (name: NodeJS.Signals) => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
}

/** Starts it on any free port, unless the environment says otherwise; killed with the scope. */
export const start = (environment: Record<string, string | undefined> = {}) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const ended = yield* Deferred.make<Ended>()
      const url = yield* Deferred.make<string>()
      const { DATABASE_URL: _, OTEL_EXPORTER_OTLP_ENDPOINT: __, ...inherited } = process.env
      // What `npm run service` executes.
      const child = spawn(process.execPath, ["--import", "tsx", Path.join(root, "examples", "service.ts")], {
        cwd: root,
        env: { ...inherited, PORT: "0", NO_COLOR: "1", ...environment },
        stdio: ["ignore", "pipe", "pipe"]
      })
      let output = ""
      const read = (chunk: Buffer) => {
        output += chunk
        const printed = /http:\/\/[^\s,/]+/.exec(output)?.[0]
        if (printed !== undefined) Deferred.unsafeDone(url, Effect.succeed(printed))
      }
      child.stdout.on("data", read)
      child.stderr.on("data", read)
      child.on("close", (code, signal) => {
        Deferred.unsafeDone(ended, Effect.succeed({ code, signal, output }))
        Deferred.unsafeDone(url, Effect.failCause(Cause.die(new Error(`the service ended with ${code}:\n${output}`))))
      })
      return {
        pid: child.pid!,
        url: Deferred.await(url),
        output: Effect.sync(() => output),
        signal: (name: NodeJS.Signals) => Effect.sync(() => void child.kill(name)),
        ended: Deferred.await(ended)
      } satisfies Service
    }),
    ({ ended, signal }) => Effect.zipRight(signal("SIGKILL"), ended)
  )

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: any
}

/** One request; fails where there is no answer. */
export const ask = (url: string, init: RequestInit = {}): Effect.Effect<Answer, Error> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, ...init })
      const text = await response.text()
      const json = response.headers.get("content-type")?.startsWith("application/json") && text !== ""
      return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text }
    },
    catch: (cause) => cause as Error
  })

export const post = (url: string, body: unknown, headers: Record<string, string> = {}) =>
  ask(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body)
  })

/** As `start`, on a database of the test's, and with its doors open. */
export const open = (database: Redacted.Redacted, environment: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const service = yield* start({ DATABASE_URL: Redacted.value(database), ...environment })
    const url = yield* service.url
    yield* eventually(Effect.merge(ask(`${url}/products`)), (answer) => "status" in answer && answer.status === 200, {
      limit: "60 seconds",
      message: "the service does not open"
    })
    return { ...service, url }
  })
