import { assert, it } from "@effect/vitest"
import * as Matrix from "./matrix.js"
import { suite } from "./suite.js"

suite(
  "The failure matrix, rows 1 to 9",
  Matrix.rows.filter(({ number }) => number < 10)
)

it("The failure matrix has 22 rows", () => {
  assert.deepStrictEqual(
    Matrix.rows.map(({ number }) => number),
    Array.from({ length: 22 }, (_, index) => index + 1)
  )
})
