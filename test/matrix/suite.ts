import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { afterAll } from "vitest"
import * as Matrix from "./matrix.js"
import type { Row } from "./row.js"

/** One test for each row: it does not hold on the bare client, and it holds on ours. Prints what was seen. */
export const suite = (name: string, rows: ReadonlyArray<Row>) =>
  layer(Matrix.server, { excludeTestServices: true, timeout: "60 seconds" })(name, (it) => {
    const results: Array<Matrix.Result> = []
    for (const row of rows) {
      it.effect(
        `${row.number}: ${row.what}`,
        () =>
          Effect.gen(function* () {
            const result = yield* Matrix.compare(row)
            results.push(result)
            assert.isFalse(result.bare.held, `no longer red on the bare client: ${result.bare.seen}`)
            assert.isTrue(result.ours.held, `on ours: ${result.ours.seen}`)
          }),
        // Longer than a row's patience with both clients, so that a hang is told by what was seen.
        90_000
      )
    }
    afterAll(() => console.log(`${Matrix.table(results)}\n${Matrix.figures(results)}`))
  })
