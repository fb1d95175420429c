/** The house's plan, kept: imports follow the way of a query, telemetry is told and asks nobody, and there are no circles. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { root } from "../support/root.js"

const src = Path.join(root, "src")

const files = Fs.readdirSync(src, { recursive: true, encoding: "utf8" }).filter((file) => /(?<!\.d)\.ts$/.test(file))

/** What each file imports of the others; `types`: with what the compiler takes out again. */
const imports = (types: boolean) =>
  new Map(
    files.map((file) => {
      const text = Fs.readFileSync(Path.join(src, file), "utf8")
      const found = [...text.matchAll(/^(?:import|export) (type )?[^;"]*?from "(\.[^"]+)\.js"$/gm)]
      return [
        file,
        found
          .filter(([, type]) => types || type === undefined)
          .map(([, , path]) => `${Path.join(Path.dirname(file), path!)}.ts`)
      ]
    })
  )

/** The part of the house that a file is in; of those beside the folders, its own name. */
const part = (file: string) => file.split(Path.sep)[0]!

/** What each part may know of the others. */
const mayKnow: Readonly<Record<string, ReadonlyArray<string>>> = {
  error: [],
  // Options are decoded by one set of rules, and the layer's options hold those of the policies.
  policy: ["error", "config"],
  config: ["error", "policy"],
  client: ["error", "policy", "config"],
  // The names of attributes are its own, and those who tell use them.
  telemetry: ["error", "config"],
  testing: [],
  // On the public API alone, on what reads the metrics, and on the one set of rules that decodes options.
  health: ["error", "policy", "config", "telemetry", "ResilientPg.ts"],
  // What the others know, told over HTTP.
  http: ["error", "policy", "config", "telemetry", "health", "ResilientPg.ts"],
  // For operators: on all of it, and on the servers that are started to be harmed.
  operations: ["error", "policy", "config", "client", "telemetry", "health", "http", "testing", "ResilientPg.ts"],
  "ResilientPg.ts": ["error", "policy", "config", "client", "telemetry"]
}

describe("the modules", () => {
  it("are found with their imports", () => {
    assert.isAbove(files.length, 50)
    const all = imports(true)
    for (const [file, imported] of all) {
      for (const other of imported) assert.isTrue(all.has(other), `${file} imports ${other}`)
    }
    assert.include(all.get("ResilientPg.ts") ?? [], Path.join("client", "Pool.ts"))
  })

  it("import what comes before them on a query's way, and nothing that comes after", () => {
    const wrong = [...imports(false)].flatMap(([file, imported]) =>
      imported
        .filter((other) => part(file) !== "index.ts" && part(other) !== part(file))
        .filter((other) => !mayKnow[part(file)]?.includes(part(other)))
        .filter((other) => other !== Path.join("telemetry", "names.ts"))
        .map((other) => `${file} -> ${other}`)
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("know nothing of telemetry, not even its types, but for the names of attributes", () => {
    const asked = [...imports(true)].flatMap(([file, imported]) =>
      ["error", "policy", "config", "client"].includes(part(file))
        ? imported.filter((other) => part(other) === "telemetry" && !other.endsWith("names.ts"))
        : []
    )
    assert.deepStrictEqual(asked, [])
  })

  it("have no circles", () => {
    const graph = imports(false)
    const done = new Set<string>()
    const circle = (file: string, path: ReadonlyArray<string>): ReadonlyArray<string> | undefined => {
      if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
      if (done.has(file)) return undefined
      for (const other of graph.get(file) ?? []) {
        const found = circle(other, [...path, file])
        if (found !== undefined) return found
      }
      done.add(file)
      return undefined
    }
    for (const file of graph.keys()) assert.isUndefined(circle(file, [])?.join(" -> "))
  })
})
