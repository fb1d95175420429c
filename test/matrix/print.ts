/**
 * Runs the failure matrix and writes it as a Markdown table, for the README:
 *
 * ```sh
 * npx tsx test/matrix/print.ts
 * ```
 *
 * The figures of the run go to the standard error. Ends with 1 when a row did not come out as it should.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import * as Matrix from "./matrix.js"

Effect.gen(function* () {
  const results = yield* Effect.forEach(Matrix.rows, Matrix.compare)
  yield* Console.log(Matrix.table(results))
  yield* Console.error(Matrix.figures(results))
  const wrong = results.filter(({ bare, ours }) => bare.held || !ours.held)
  if (wrong.length === 0) return
  yield* Console.error(`not as it should be: rows ${wrong.map(({ row }) => row.number).join(", ")}`)
  process.exitCode = 1
}).pipe(Effect.provide(Matrix.server), NodeRuntime.runMain)
