import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { root } from "../support/root.js"
import { chapter, picture, replaced } from "./chapter.js"
import { alone, bare, everything } from "./names.js"
import type { Measured } from "./report.js"

const reads: Measured = {
  id: "read/20",
  title: "Point reads, 20 fibers",
  figures: ["perSecond"],
  rounds: new Map([
    [bare, [{ perSecond: 100 }, { perSecond: 100 }, { perSecond: 100 }]],
    ["pg & <co>", [{ perSecond: 100 }, { perSecond: 120 }, { perSecond: 130 }]],
    [alone, [{ perSecond: 150 }, { perSecond: 160 }, { perSecond: 140 }]],
    [everything, [{ perSecond: 200 }, { perSecond: 300 }, { perSecond: 400 }]]
  ])
}

const machine = {
  cpu: "Some CPU",
  cores: 2,
  node: "20.0.0",
  postgres: "18.4",
  date: "2026-01-02",
  command: "npm run bench -- --readme",
  rounds: 3
}

describe("chapter of the benchmark", () => {
  it("stands between two marks that README.md has, and leaves the rest alone", () => {
    const readme = Fs.readFileSync(Path.join(root, "README.md"), "utf8")
    const once = replaced(readme, "new")
    assert.include(once, "<!-- bench -->\n\nnew\n\n<!-- /bench -->")
    const [before, after] = [readme.split("<!-- bench -->")[0]!, readme.split("<!-- /bench -->")[1]!]
    assert.isTrue(once.startsWith(before) && once.endsWith(after))
    assert.strictEqual(replaced(once, "new"), once)
    assert.throws(() => replaced("no marks", "new"), /README.md has no <!-- bench -->/)
  })

  it("has the machine, one table and one picture", () => {
    const [facts, table, image] = chapter([reads], machine, "examples/performance.svg").split("\n\n")
    assert.strictEqual(
      facts,
      "2026-01-02, 2 × Some CPU, Node 20.0.0, PostgreSQL 18.4 on the same machine, `npm run bench -- --readme`: medians of 3 rounds."
    )
    assert.include(table, "| 300 | 100 | 3.00 (2.00 to 4.00) | at least 1.5 | yes |")
    assert.match(image!, /^!\[.+\]\(examples\/performance\.svg\)$/)
  })

  it("draws a bar for each contender, in words too, with text as text", () => {
    const svg = picture([reads])
    assert.include(svg, 'role="img" aria-labelledby="title desc"')
    assert.include(svg, '<title id="title">Throughput, in times that of @effect/sql-pg</title>')
    assert.include(svg, "ours, everything on 3.00.")
    assert.include(svg, "Point reads, 100 fibers, 1 ms of added round trip: not measured.")
    assert.include(svg, ">pg &amp; &lt;co&gt;</text>")
    assert.strictEqual(svg.match(/<rect [^>]*class="bar"/g)?.length, 2)
    const widths = Array.from(svg.matchAll(/<rect [^>]*width="([\d.]+)"[^>]*class="bar(?: ours)?"/g), ([, w]) =>
      Number(w)
    )
    assert.closeTo(widths[3]! / widths[0]!, 3, 0.01)
    assert.notMatch(svg, /NaN|Infinity|undefined/)
  })
})
