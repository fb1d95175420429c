/**
 * `npm start`: fifty fibers at work on a real PostgreSQL while one fault after another hits it, and an audit at the end.
 * `npm start -- --bare` does the same on `PgClient.layer`.
 */

import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Cause, Effect, Exit, Fiber, Layer, Logger, LogLevel } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import { audit } from "./audit.js"
import * as Display from "./display.js"
import { endure, faultsOf, type Healed } from "./faults.js"
import { createTables, emptyBook, run } from "./workload.js"

const bare = process.argv.includes("--bare")
const fibers = 50
const faults = faultsOf(3)
/** Between two faults the program works undisturbed. */
const calm = "3 seconds"

const client = Layer.unwrapEffect(
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.EmbeddedPostgres
    const proxy = yield* FaultProxy.FaultProxy
    const url = proxy.url(server.url)
    return bare ? PgClient.layer({ url }) : ResilientPg.layer({ url })
  })
)

const demo = Effect.gen(function* () {
  const started = performance.now()
  const book = emptyBook()
  const scene: Display.Scene = { book, steps: faults.length, step: 0, fault: "warming up" }
  console.log(
    `${fibers} fibers on ${bare ? "PgClient.layer" : "ResilientPg.layer"}, ${faults.length} faults to come, in about a minute\n`
  )
  const healed: Array<Healed> = []
  yield* Effect.gen(function* () {
    yield* createTables
    const display = yield* Effect.fork(Display.live(scene))
    const workers = yield* Effect.fork(run(book, fibers))
    yield* Effect.sleep(calm)
    for (const fault of faults) {
      scene.fault = fault.name
      healed.push(yield* endure(fault, book))
      scene.step++
      scene.fault = "calm"
      yield* Effect.sleep(calm)
    }
    scene.fault = "stopping"
    yield* Fiber.interrupt(workers)
    yield* Fiber.interrupt(display)
  }).pipe(Effect.provide(client))
  const result = yield* audit(book)
  const seconds = (performance.now() - started) / 1000
  console.log(Display.summary(bare ? "PgClient.layer" : "ResilientPg.layer", book, healed, result, seconds))
  if (!result.sound) process.exitCode = 1
})

const world = Layer.provideMerge(FaultProxy.layerEmbedded, EmbeddedPostgres.layer())

demo.pipe(
  Effect.provide(world),
  Logger.withMinimumLogLevel(LogLevel.None),
  NodeRuntime.runMain({
    // Stopped before the audit it has shown nothing, and is no success.
    teardown: (exit, onExit) => onExit(Exit.isSuccess(exit) ? 0 : Cause.isInterruptedOnly(exit.cause) ? 130 : 1)
  })
)
