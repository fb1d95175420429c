import { assert, describe, it } from "@effect/vitest"
import { parse } from "./promText.js"

const head = "# HELP a_total text\n# TYPE a_total counter\n"
const histogram = (lines: string) => `# HELP h text\n# TYPE h histogram\n${lines}`

describe("promText", () => {
  it("reads names, labels with their escapes, and numbers", () => {
    const text = `# HELP g a\\nb \\\\\n# TYPE g gauge\ng{x="a\\"b\\\\c\\nd",y=""} -1.5e+22\ng +Inf\ng{x="n"} NaN\n`
    assert.deepStrictEqual(parse(text).get("g"), {
      type: "gauge",
      help: "a\nb \\",
      samples: [
        { name: "g", labels: { x: 'a"b\\c\nd', y: "" }, value: -1.5e22 },
        { name: "g", labels: {}, value: Number.POSITIVE_INFINITY },
        { name: "g", labels: { x: "n" }, value: Number.NaN }
      ]
    })
  })

  it.each([
    ["a last line that does not end", `${head}a_total 1`],
    ["a sample without a family", "a_total 1\n"],
    ["a TYPE without HELP", "# TYPE a_total counter\na_total 1\n"],
    ["a HELP without text", "# HELP a_total \n# TYPE a_total counter\na_total 1\n"],
    ["a family told twice", `${head}a_total 1\n${head}a_total{x="1"} 1\n`],
    ["a series told twice", `${head}a_total{x="1"} 1\na_total{x="1"} 2\n`],
    ["a family without samples", head],
    ["another's sample", `${head}b_total 1\n`],
    ["a counter without _total", "# HELP a text\n# TYPE a counter\na 1\n"],
    ["a counter below zero", `${head}a_total -1\n`],
    ["a type that there is not", "# HELP a text\n# TYPE a meter\na 1\n"],
    ["a bad name", "# HELP a.b text\n# TYPE a.b gauge\na.b 1\n"],
    ["a bad label", `${head}a_total{a.b="1"} 1\n`],
    ["a reserved label", `${head}a_total{__a="1"} 1\n`],
    ["a label twice", `${head}a_total{a="1",a="2"} 1\n`],
    ["a label without quotes", `${head}a_total{a=1} 1\n`],
    ["an unescaped quote", `${head}a_total{a="1"2"} 1\n`],
    ["a bad escape", `${head}a_total{a="\\t"} 1\n`],
    ["empty braces", `${head}a_total{} 1\n`],
    ["a comma too many", `${head}a_total{a="1",} 1\n`],
    ["a bad number", `${head}a_total one\n`],
    ["a number as JavaScript spells it", `${head}a_total Infinity\n`],
    ["an empty line", `${head}\na_total 1\n`],
    ["a histogram without +Inf", histogram('h_bucket{le="1"} 1\nh_sum 1\nh_count 1\n')],
    [
      "a histogram that is not cumulative",
      histogram('h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n')
    ],
    ["a histogram whose count is another", histogram('h_bucket{le="+Inf"} 1\nh_sum 1\nh_count 2\n')],
    ["a histogram without a sum", histogram('h_bucket{le="+Inf"} 1\nh_count 1\n')]
  ])("does not take %s", (_, text) => {
    assert.throws(() => parse(text))
  })
})
