/**
 * A program that looks at its database before it begins: what is wrong is logged with what to do, and only what loses data
 * keeps it from starting.
 *
 *   npx tsx examples/doctor.ts
 */

import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Doctor } from "effect-pg-resilience"
import { database } from "./database.js"

const program = Effect.gen(function* () {
  const { findings, notChecked, server } = yield* Doctor.examine({
    instances: 4,
    // A quarter of the connections is to stay free for others.
    thresholds: { poolShare: { warning: 0.75, critical: 1 } }
  })
  yield* Console.log(`PostgreSQL ${server.version}: ${findings.length} findings, ${notChecked.length} not checked`)
  for (const { advice, check, found, severity } of findings)
    if (Doctor.atLeast(severity, "warning")) yield* Console.log(`${severity}, ${check}: ${found}\n  ${advice}`)

  const dangerous = findings.filter(({ check }) => ["fsync", "full-page-writes", "checksums"].includes(check))
  if (dangerous.some(({ severity }) => severity === "critical"))
    return yield* Effect.fail(new Error("This server loses data: not starting"))
  yield* Console.log("starting")
})

program.pipe(Effect.provide(database({ maxConnections: 10 })), NodeRuntime.runMain)
