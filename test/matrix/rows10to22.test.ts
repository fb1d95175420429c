import * as Matrix from "./matrix.js"
import { suite } from "./suite.js"

suite(
  "The failure matrix, rows 10 to 22",
  Matrix.rows.filter(({ number }) => number >= 10)
)
