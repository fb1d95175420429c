/** The chapters "Command line" and "Troubleshooting" of README.md name what there is. */
import { readFileSync } from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as PgError from "../../src/error/PgError.js"
import { exitCodes } from "../../src/operations/cli/shared.js"
import * as Doctor from "../../src/operations/Doctor.js"
import * as Scenarios from "../../src/operations/internal/chaos/scenarios.js"
import { root } from "../support/root.js"
import { invoke } from "./cli.js"

const readme = readFileSync(Path.join(root, "README.md"), "utf8")
const chapter = (title: string) => readme.slice(readme.indexOf(`\n## ${title}\n`) + 1).split("\n## ")[0]!
const commandLine = chapter("Command line")
const troubleshooting = chapter("Troubleshooting")
const cells = (text: string) => [...text.matchAll(/^\| (.*) \|$/gm)].map(([, row]) => row!.split(" | "))
const quoted = (text: string) => [...text.matchAll(/`([^`]+)`/g)].map(([, code]) => code!)

describe("README.md", () => {
  it.effect("names every option that it shows of a command", () =>
    Effect.gen(function* () {
      const section = (title: string) => commandLine.slice(commandLine.indexOf(`### ${title}\n`)).split("\n### ")[0]!
      for (const [command, text] of [
        ["doctor", section("Doctor")],
        ["chaos", section("Chaos")]
      ] as const) {
        const { stdout } = yield* invoke([command, "--help"])
        const options = new Set(text.match(/--[a-z][a-z-]+/g))
        assert.isAtLeast(options.size, 4)
        for (const option of options) assert.include(stdout, `${option} `, command)
      }
    })
  )

  it("has every exit code", () => {
    const told = cells(commandLine).flatMap(([code]) => (/^\d+$/.test(code!) ? [Number(code)] : []))
    assert.sameMembers(told, Object.values(exitCodes))
  })

  it("has every check of the doctor, once", () => {
    const doctor = commandLine.slice(commandLine.indexOf("### Doctor"), commandLine.indexOf("From where on"))
    assert.sameMembers(
      cells(doctor).flatMap(([, checks]) => quoted(checks ?? "")),
      [...Doctor.checks]
    )
  })

  it("has every scenario of chaos", () => {
    const chaos = commandLine.slice(commandLine.indexOf("### Chaos"))
    for (const name of Scenarios.names) assert.include(quoted(chaos), name)
  })

  it("sends who is in trouble to tags, checks and metrics that there are", () => {
    const rows = cells(troubleshooting).slice(2)
    assert.isAtLeast(rows.length, 10)
    const metrics = readme.slice(readme.indexOf("<!-- begin: metrics -->"), readme.indexOf("<!-- end: classic -->"))
    for (const [what, look] of rows) {
      for (const tag of quoted(what!).filter((code) => /^[A-Z]\w+Error$/.test(code)))
        assert.property(PgError.retrySafety, tag)
      for (const metric of quoted(look!).filter((code) => /^(db|pgresilience)_/.test(code)))
        assert.include(metrics, `\`${metric}`, what)
      for (const [, checks] of look!.matchAll(/(?:doctor`[^:.;]*|primary|standby): ((?:`[a-z-]+`[^`.;]*)+)/g))
        for (const check of quoted(checks!).filter((code) => /^[a-z-]+$/.test(code)))
          assert.include([...Doctor.checks], check, what)
    }
  })
})
