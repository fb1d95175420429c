/** A way to the server that takes a millisecond longer, there and back: the fault proxy, in a process of its own. */
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Effect, Redacted } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"

const roundTrip = "1 millis"

/** The server's URL by that way. */
export const delayed = (url: Redacted.Redacted) =>
  Effect.gen(function* () {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        fork(fileURLToPath(import.meta.url), [], { env: { ...process.env, BENCH_UPSTREAM: Redacted.value(url) } })
      ),
      (child) => Effect.sync(() => child.kill())
    )
    return yield* Effect.async<Redacted.Redacted, Error>((resume) => {
      child.once("message", (said) => resume(Effect.succeed(Redacted.make(String(said)))))
      child.once("exit", (code) => resume(Effect.fail(new Error(`The delaying proxy ended with ${code}`))))
    })
  })

const serve = (upstream: string) =>
  Effect.gen(function* () {
    const { hostname, port } = new URL(upstream)
    const proxy = yield* FaultProxy.make({ upstream: { host: hostname, port: Number(port) } })
    yield* proxy.latency({ delay: roundTrip, direction: "toClient" })
    yield* Effect.sync(() => process.send?.(Redacted.value(proxy.url(Redacted.make(upstream)))))
    return yield* Effect.never
  })

const upstream = process.env["BENCH_UPSTREAM"]
if (upstream !== undefined && process.send !== undefined) Effect.runFork(Effect.scoped(serve(upstream)))
