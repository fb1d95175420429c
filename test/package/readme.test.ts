/** README.md is true as far as a machine can tell: its code compiles, its tables are what the code says. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { PgError, ResilienceConfig } from "effect-pg-resilience"
import ts from "typescript"
import * as sections from "../support/readme.js"
import { root } from "../support/root.js"

const readme = Fs.readFileSync(Path.join(root, "README.md"), "utf8")

/** Options of ours without a default. */
const own = ["poolName", "password", "onConnect", "parameters", "serverTimeouts"]

describe("README.md", () => {
  it("holds code that compiles, each block by itself", () => {
    const blocks = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code], n) => ({
      file: Path.join(root, "test", `readme-block-${n + 1}.ts`),
      code: code!
    }))
    assert.isAtLeast(blocks.length, 6)
    const config = ts.parseJsonConfigFileContent(
      ts.readConfigFile(Path.join(root, "tsconfig.json"), ts.sys.readFile).config,
      ts.sys,
      root
    )
    const host = ts.createCompilerHost(config.options)
    const codeOf = new Map(blocks.map(({ code, file }) => [file, code]))
    const { fileExists, getSourceFile } = host
    host.fileExists = (file) => codeOf.has(file) || fileExists(file)
    host.getSourceFile = (file, version, ...rest) => {
      const code = codeOf.get(file)
      return code === undefined
        ? getSourceFile.call(host, file, version, ...rest)
        : ts.createSourceFile(file, code, version)
    }
    // A block shows a program; that it uses everything it declares is not its business.
    const options = { ...config.options, noUnusedLocals: false }
    const program = ts.createProgram([...codeOf.keys()], options, host)
    const complaints = ts
      .getPreEmitDiagnostics(program)
      .filter(({ file }) => file !== undefined && codeOf.has(file.fileName))
      .map(
        ({ file, messageText }) =>
          `${Path.basename(file!.fileName)}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`
      )
    assert.deepEqual(complaints, [])
  }, 60_000)

  it.each(Object.keys(sections.generated) as Array<keyof typeof sections.generated>)(
    "holds the table of %s that the code says",
    (name) => {
      assert.strictEqual(sections.read(readme, name), sections.generated[name]())
    }
  )

  it("names every option, with the default that the code has", () => {
    const table = readme.slice(readme.indexOf("### Options"), readme.indexOf("### Environment variables"))
    const rows = [...table.matchAll(/^\| (`.*?) \|(.*?)\|/gm)].flatMap(([, names, cell]) => {
      const given = cell!.trim()
      const options = [...names!.matchAll(/`(\w+)`/g)].map(([, name]) => name!)
      const each = given.split(", ")
      return options.map((name, n) => [name, each.length === options.length ? each[n]! : given] as const)
    })
    const told = new Map(rows)
    assert.sameMembers([...told.keys()], [...own, ...Object.keys(ResilienceConfig.defaults)])
    for (const [name, value] of Object.entries(ResilienceConfig.defaults)) {
      if (typeof value === "object") continue
      const words = String(value).replace("millis", "ms")
      assert.include([words, `\`${words}\``, `\`"${words}"\``], told.get(name)?.replaceAll(",", ""), name)
    }
  })

  it("names every tag", () => {
    const tags = sections.read(readme, "tags")
    for (const tag of Object.keys(PgError.retrySafety)) assert.include(tags, `\`${tag}\``)
  })
})
